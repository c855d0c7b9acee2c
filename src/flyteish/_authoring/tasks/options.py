"""The vocabulary of declarations: which settings each level takes and what they may be, and what can be a task.

Each setting stands here once, with its type for people and type checkers; what a value means, and which are accepted,
is the core's (``setting_rules``). Shared by environments, tasks and runs. Must not know how a task is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from msgspec import UNSET

from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.resources import Resources
from flyteish._core.model.setting_rules import FIELDS
from flyteish._core.model.settings import Cache, Opinions, Secret
from flyteish._core.wording import did_you_mean
from flyteish.errors import TaskDefinitionError

CacheRequest: TypeAlias = Cache | Literal["auto", "override", "disable"]
Interruptible: TypeAlias = bool | SpotPolicy
PodTemplate: TypeAlias = Mapping[str, Any] | str | None
Priority: TypeAlias = int | Literal["min", "medium", "max"]
Retries: TypeAlias = int | RetryStrategy
SecretRequest: TypeAlias = str | Secret | Sequence[str | Secret] | None
TimeoutType: TypeAlias = float | timedelta | Timeout | None

F = TypeVar("F", bound=Callable[..., Any])


class RunOptions(TypedDict, total=False):
    """What one run may say for everything in it."""

    env_vars: Mapping[str, str]
    cache: CacheRequest
    interruptible: Interruptible
    queue: str
    priority: Priority


class SharedOptions(RunOptions, total=False):
    """What may be said at every level of declarations: for all tasks of an environment, for one, for some calls."""

    resources: Resources | None
    secrets: SecretRequest
    pod_template: PodTemplate
    service_account: str | None
    retries: Retries
    timeout: TimeoutType


class OverrideOptions(SharedOptions, total=False):
    """What calls through ``task.override`` may say."""

    idempotent: bool
    short_name: str | None
    links: Sequence[str]


class TaskOptions(OverrideOptions, total=False):
    """What ``@env.task`` may say."""

    report: bool
    docs: str | None
    triggers: Any


_ORDER: Final = {field.name: number for number, field in enumerate(FIELDS)}


def takes(options: Any) -> Callable[[F], F]:
    """Show the settings of a ``**settings: Unpack[options]`` one by one, as ``help`` and notebooks present them."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[:-1]
        names = sorted(options.__annotations__, key=lambda name: _ORDER.get(name, -1))
        settings = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=UNSET, annotation=_text(options, name))
            for name in names
        ]
        function.__signature__ = signature.replace(parameters=[*own, *settings])  # type: ignore[attr-defined]
        return function

    return shown


def _text(options: Any, name: str) -> str:
    annotation = options.__annotations__[name]
    return getattr(annotation, "__forward_arg__", None) or str(annotation)


def refuse_strangers(call: str, function: Any, given: Mapping[str, object]) -> None:
    """What Python does where every parameter is named: a misspelt one is an error where it is written.

    ``function`` is one that ``takes`` settings.

    Raises:
        TypeError: names the call and the parameter, and one that may have been meant.
    """
    parameters = function.__signature__.parameters
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")


class Environment(Protocol):
    """What a task needs to know of the ``TaskEnvironment`` that it was declared in."""

    @property
    def name(self) -> str:
        """The first part of its tasks' names."""

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
