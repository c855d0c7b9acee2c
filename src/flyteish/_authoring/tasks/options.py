"""The vocabulary of declarations: what parameters of a task may be, and which functions can be tasks.

Shared by environments and tasks. Must not know how a task is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.settings import Cache, Opinions, Secret
from flyteish.errors import TaskDefinitionError

if TYPE_CHECKING:
    from flyteish._authoring.tasks.image import Image

CacheRequest: TypeAlias = Cache | Literal["auto", "override", "disable"]
Interruptible: TypeAlias = bool | SpotPolicy
PodTemplate: TypeAlias = Mapping[str, Any] | str | None
Priority: TypeAlias = int | Literal["min", "medium", "max"]
Retries: TypeAlias = int | RetryStrategy
SecretRequest: TypeAlias = str | Secret | Sequence[str | Secret] | None
TimeoutType: TypeAlias = float | timedelta | Timeout | None


class Environment(Protocol):
    """What a task needs to know of the ``TaskEnvironment`` that it was declared in."""

    @property
    def name(self) -> str:
        """The first part of its tasks' names."""

    @property
    def image(self) -> Image | str | None:
        """What its tasks run in, where that is a container."""

    @property
    def opinions(self) -> Opinions:
        """What it says for all its tasks."""


def check_function(function: Any, environment: str) -> Literal["async", "sync"]:
    """Which kind of task the function can be.

    Raises:
        TaskDefinitionError: says why it cannot be one, and what to do.
    """
    if reason := _unfit(function):
        shown = getattr(function, "__qualname__", None) or repr(function)
        raise TaskDefinitionError(f"{shown} cannot become a task of environment {environment!r}: {reason}")
    return "async" if inspect.iscoroutinefunction(function) else "sync"


def _unfit(function: Any) -> str:
    if getattr(function, "__flyteish_task__", False):
        return f"it is the task {function.name!r} already; declare the plain function, {function.name}.function"
    if isinstance(function, type):
        return "it is a class; declare a function that makes the object"
    if isinstance(function, staticmethod | classmethod) or inspect.ismethod(function):
        return "it is a method; declare a function at the top of a module"
    if not inspect.isfunction(function):
        return f"it is a {type(function).__name__}, not a function; wrap it in a def or an async def"
    if function.__name__ == "<lambda>":
        return "a lambda has no name to be known by; write a def"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "it is a generator, and a task has one result; return a list instead of yielding"
    return ""
