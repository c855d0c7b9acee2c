"""``trace``: a helper inside a task whose value is remembered: a later attempt does not do its work again.

Decides under which key a value is remembered, and that nobody sees it before it is on record. One sequence of steps
serves ``def`` and ``async def`` helpers; they differ only in how a step is waited for. Must not know where values are
kept, nor why there is another attempt.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from flyteish._async.bridge import can_wait_here, wait_here
from flyteish._async.feeds import done_on, result_of, through_loop, through_thread
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.tasks.signature import TaskSignature
from flyteish._authoring.values.drafts import Draft
from flyteish._authoring.values.payloads import ON_LOOP, decoded, decoded_beside, may_stay, packed
from flyteish._core.model.ids import inputs_digest
from flyteish.errors import StaleAttemptError, TaskDefinitionError

F = TypeVar("F", bound=Callable[..., Any])


class _Scope(NamedTuple):
    """Which attempt is in which traced helper: tasks run with copies of their caller's context variables."""

    context: AttemptContext
    key: str


_scope: ContextVar[_Scope | None] = ContextVar("flyteish_trace", default=None)


def trace(function: F) -> F:
    """Remember what a helper returned, per inputs, within the action that calls it.

    In a later attempt (after a preemption or an error) an equal call returns the recorded value without
    running the helper: for requests that cost money, or draws of chance that must stay as they were. A value is on
    record before the task sees it, so not even a crash of the whole program lets a later attempt see another. Works
    on ``def`` and ``async def``. An exception is not remembered. Outside an attempt it is the plain function.

    Tasks cannot be called inside it (``.forward()`` can). Where the attempt was given up and replaced, the call raises
    ``StaleAttemptError``.

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


class _Step(NamedTuple):
    """What a traced call has to wait for, in the manner of ``def`` helpers and in that of ``async def`` ones."""

    here: Callable[[], Any]
    beside: Callable[[], Awaitable[Any]]


_Steps = Generator[_Step, Any, Any]


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    helper = _Helper(function)

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get(None)
        if context is None:
            return function(*args, **kwargs)
        answer = None
        with closing(helper.steps(context, args, kwargs)) as steps:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value
                answer = step.here()

    return traced


def _traced_async(function: Callable[..., Any]) -> Callable[..., Any]:
    helper = _Helper(function)

    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get(None)
        if context is None:
            return await function(*args, **kwargs)
        answer = None
        with closing(helper.steps(context, args, kwargs)) as steps:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value
                answer = await step.beside()

    return traced


def _wait(blocking: Callable[[], Any], awaiting: Callable[[], Awaitable[Any]]) -> _Step:
    """In a ``def`` helper that an ``async def`` task calls, the loop goes on meanwhile where that is possible."""
    return _Step(lambda: wait_here(awaiting()) if can_wait_here() else blocking(), awaiting)


class _Helper:
    """A traced function with its name in keys and, from the first use on, its signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # The file, not the module: a script's module has one name here and another in a worker.
        self._name = f"{PurePath(function.__code__.co_filename).stem}.{function.__qualname__}"

    @functools.cached_property
    def signature(self) -> TaskSignature:
        return TaskSignature.of(self._function, self._name)

    def steps(self, context: AttemptContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Steps:
        """One traced call: its value is given out once it is on record, so that no later attempt sees another."""
        if not context.active:
            raise StaleAttemptError(
                f"{self._function.__name__}() was called by attempt {context.order.key}, which is over"
            )
        blobs, feeds = context.blobs, context.feeds
        inputs = self.signature.draft_inputs(args, kwargs)
        find_key = partial(self._key, context, f"{_outer_key(context)}{self._name}", inputs)
        if isinstance(inputs, bytes) and len(inputs) <= ON_LOOP:
            key = find_key()
        else:
            found = context.packing().put(find_key, inputs.size if isinstance(inputs, Draft) else len(inputs))
            key = yield _wait(found.result, partial(result_of, found, feeds))
        known = context.order.traced.get(key)
        if known is not None:
            decode = partial(decoded, self.signature, known, blobs.blocking)
            return (yield _wait(decode, partial(decoded_beside, self.signature, known, blobs, feeds)))
        body = partial(self._function, *args, **kwargs)
        token = _scope.set(_Scope(context, key))
        try:
            value = yield _Step(body, body)
        finally:
            _scope.reset(token)
        draft = self.signature.draft_result(value)
        pack = partial(packed, draft, self._function.__name__, "value", context.limits, blobs.blocking)
        if may_stay(draft, context.limits.inline):
            payload = pack()
        else:
            payload = yield _wait(pack, partial(done_on, feeds.values, pack, feeds))
        record = partial(context.link.traced, key, payload)
        (refused,) = yield _wait(partial(through_thread, record), partial(through_loop, feeds, record))
        if refused is not None:
            raise StaleAttemptError(
                f"what {self._function.__name__}() returned was refused: {refused}; this attempt "
                f"({context.order.key}) was given up and may not put anything on record"
            )
        return value

    def _key(self, context: AttemptContext, name: str, inputs: bytes | Draft) -> str:
        """Equal calls in equal order get equal keys, in every attempt."""
        digest = inputs_digest(inputs.finish() if isinstance(inputs, Draft) else inputs)
        return f"{name}:{digest.hex()}:{context.occurrence(f'trace {name}', digest)}/"


def _outer_key(context: AttemptContext) -> str:
    scope = _scope.get()
    return scope.key if scope is not None and scope.context is context else ""
