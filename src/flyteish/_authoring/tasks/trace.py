"""``trace``: a helper inside a task whose value is remembered: a later attempt does not do its work again.

Decides under which key a value is remembered. Must not know where it is kept, nor why there is another
attempt.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.tasks.signature import TaskSignature
from flyteish._authoring.values.payloads import pack, pack_beside, unpack, unpack_beside
from flyteish._core.model.ids import inputs_digest
from flyteish.errors import TaskDefinitionError

F = TypeVar("F", bound=Callable[..., Any])


class _Scope(NamedTuple):
    """Which attempt is in which traced helper: tasks run with copies of their caller's context variables."""

    context: AttemptContext
    key: str


_scope: ContextVar[_Scope | None] = ContextVar("flyteish_trace", default=None)


def trace(function: F) -> F:
    """Remember what a helper returned, per inputs, within the action that calls it.

    In a later attempt (after a preemption or an error) an equal call returns the recorded value without
    running the helper: for requests that cost money, or draws of chance that must stay as they were. Works on
    ``def`` and ``async def``. An exception is not remembered. Outside an attempt it is the plain function.

    Tasks cannot be called inside it (``.forward()`` can).

    Raises:
        TaskDefinitionError: it cannot be traced; says why.
    """
    yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not inspect.isfunction(function) or yields:
        shown = getattr(function, "__qualname__", None) or repr(function)
        raise TaskDefinitionError(f"{shown} cannot be traced: expected a def or async def that returns a value")
    traced: Any = _traced_async(function) if inspect.iscoroutinefunction(function) else _traced(function)
    return traced  # type: ignore[no-any-return]


def refuse_inside_trace(name: str, context: AttemptContext) -> None:
    """A later attempt skips the helper: calls made inside would be missing there, and others take their place.

    Raises:
        RuntimeError: says how to call the plain function instead.
    """
    if _scope.get() is not None and _outer_key(context):
        raise RuntimeError(
            f"task {name!r} was called inside a traced helper, whose body a later attempt does not run again: "
            f"call the plain function, {name.rpartition('.')[2]}.forward(...), or call it outside of the helper"
        )


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    helper = _Helper(function)

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get(None)
        if context is None:
            return function(*args, **kwargs)
        key = helper.key(context, args, kwargs)
        known = context.order.traced.get(key)
        if known is not None:
            return helper.signature.decode_result(unpack(known, context.blobs.blocking))
        token = _scope.set(_Scope(context, key))
        try:
            value = function(*args, **kwargs)
        finally:
            _scope.reset(token)
        context.link.traced(key, pack(helper.signature.encode_result(value), context.blobs.blocking))
        return value

    return traced


def _traced_async(function: Callable[..., Any]) -> Callable[..., Any]:
    helper = _Helper(function)

    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get(None)
        if context is None:
            return await function(*args, **kwargs)
        key = helper.key(context, args, kwargs)
        known = context.order.traced.get(key)
        if known is not None:
            return helper.signature.decode_result(await unpack_beside(known, context.blobs))
        token = _scope.set(_Scope(context, key))
        try:
            value = await function(*args, **kwargs)
        finally:
            _scope.reset(token)
        data = helper.signature.encode_result(value)
        context.link.traced(key, await pack_beside(data, context.blobs))
        return value

    return traced


class _Helper:
    """A traced function with its name in keys and, from the first use on, its signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # The file, not the module: a script's module has one name here and another in a worker.
        self._name = f"{PurePath(function.__code__.co_filename).stem}.{function.__qualname__}"

    @functools.cached_property
    def signature(self) -> TaskSignature:
        return TaskSignature.of(self._function, self._name)

    def key(self, context: AttemptContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Equal calls in equal order get equal keys, in every attempt."""
        digest = inputs_digest(self.signature.encode_inputs(args, kwargs))
        name = f"{_outer_key(context)}{self._name}"
        return f"{name}:{digest.hex()}:{context.occurrence(f'trace {name}', digest)}/"


def _outer_key(context: AttemptContext) -> str:
    scope = _scope.get()
    return scope.key if scope is not None and scope.context is context else ""
