"""What happens when a task is called: bind, check, submit, wait, and give back the value or raise.

Outside a running attempt a call is a call of the plain function. Inside one it becomes a ``Call`` on the
attempt's link, and its ``Outcome`` becomes a value or an exception. Must not know who is at the other end of the
link, nor what becomes of the call there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import UNSET, UnsetType

from flyteish import errors
from flyteish._async.bridge import can_wait_here, wait_here
from flyteish._async.feeds import LoopFeed, result_of, through_thread
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.tasks.groups import label_in
from flyteish._authoring.tasks.trace import refuse_inside_trace
from flyteish._authoring.values.drafts import Draft
from flyteish._authoring.values.errors import rebuild
from flyteish._authoring.values.payloads import (
    ON_LOOP,
    SURELY_LIGHT,
    check_size,
    decoded,
    decoded_beside,
    is_light,
    may_stay,
    pack,
)
from flyteish._core.model.ids import inputs_digest
from flyteish._core.model.settings import Scope
from flyteish._core.model.values import Payload, Profile
from flyteish.errors import (
    ActionAbortedError,
    ActionTimedOutError,
    AttemptError,
    StaleAttemptError,
)
from flyteish.interfaces import BlockingContent, Call, OnOutcome, Outcome

if TYPE_CHECKING:
    from flyteish._authoring.tasks.signature import TaskSignature

CLEANUP_SECONDS: Final = 30.0
"""How long a cancelled await waits for its action to end, so that clean-up is structured and yet bounded."""

_NOTHING: Final = Payload()
_CANCELLED: Final = "the awaiting call was cancelled"
_BROKEN_OFF: Final = "the call that waited for it was broken off"


class Callee(Protocol):
    """What a call needs to know of the task that is called."""

    @property
    def name(self) -> str:
        """Its full name."""

    @property
    def function(self) -> Callable[..., Any]:
        """The plain function."""

    @property
    def is_async(self) -> bool:
        """Whether calling the function gives a coroutine."""

    @property
    def signature(self) -> TaskSignature:
        """How calls are bound, and how inputs and results travel."""

    @property
    def profile_key(self) -> object:
        """Equal for two that have the same profile wherever they are called."""

    def pickled(self, scope: Scope) -> bytes | None:
        """The function pickled, where it has to be carried by value."""

    def profile(self, scope: Scope, blobs: BlockingContent, pickled: bytes | UnsetType | None = UNSET) -> Profile:
        """The task with its settings resolved."""


# -- calls ------------------------------------------------------------------------------------------------------


def call_async(task: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """A coroutine for the call. Binds and checks here and now; submits when it is first awaited."""
    context = CURRENT.get(None)
    if context is None:
        task.signature.bind(args, kwargs)
        if task.is_async:
            return task.function(*args, **kwargs)  # type: ignore[no-any-return]
        return asyncio.to_thread(task.function, *args, **kwargs)
    coroutine: Any = _submitted(task, context, prepare(task, args, kwargs, context))
    # "coroutine 'train' was never awaited" should name what the author wrote.
    coroutine.__name__ = coroutine.__qualname__ = task.name
    return coroutine  # type: ignore[no-any-return]


def call_blocking(task: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The value of the call. In an ``async def`` task the loop goes on meanwhile; elsewhere it blocks the thread.

    Raises:
        RuntimeError: it is made where it would block an event loop (see ``bridge``); names the awaitable form.
    """
    context = CURRENT.get(None)
    if context is None:
        task.signature.bind(args, kwargs)
        return task.function(*args, **kwargs)
    if can_wait_here():
        prepared = prepare(task, args, kwargs, context)
        outcome, live, value = wait_here(_submitted(task, context, prepared, conclusive=False))
        try:
            # Here and not in the coroutine, out of which a StopIteration could not come as itself.
            return conclude(task, outcome, live, value)
        finally:
            del live  # or the exception and this frame would keep each other alive
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{task.name}() was called without await in a coroutine that runs as an asyncio task of its own (gather, "
            "create_task): waiting there would block the event loop, and with it what is waited for; "
            f"write `await {task.function.__name__}.aio(...)`"
        )
    call = prepare_here(task, args, kwargs, context)
    link = context.link

    def start(done: OnOutcome) -> int:
        return link.call(call, done, task)

    outcome, live = through_thread(start, lambda number: link.cancel(number, _BROKEN_OFF))
    try:
        value = None
        if outcome.phase == "succeeded":
            value = decoded(task.signature, outcome.result or _NOTHING, context.blobs.blocking)
        return conclude(task, outcome, live, value)
    finally:
        del live  # or the exception and this frame would keep each other alive


class _Wait:
    """One await of an outcome: called with it, on whichever thread, it wakes the awaiting loop."""

    __slots__ = ("answered", "feed", "future", "live", "outcome")

    def __init__(self, feed: LoopFeed, future: asyncio.Future[None]) -> None:
        self.feed = feed
        self.future = future
        """Replaced when the await is cancelled and waits for the end instead."""
        self.answered = False
        self.outcome: Outcome | None = None
        self.live: BaseException | None = None

    def __call__(self, outcome: Outcome, live: BaseException | None) -> None:
        self.outcome, self.live = outcome, live
        self.feed.put(self._settle)

    def _settle(self) -> None:
        self.answered = True
        if not self.future.done():
            self.future.set_result(None)


async def _submitted(task: Callee, context: AttemptContext, call: Call | Future[Call], conclusive: bool = True) -> Any:
    # One coroutine and few objects: a wide fan-out has as many of these alive at once as it has calls.
    if not isinstance(call, Call):
        call = await result_of(call, context.feeds)
    loop = asyncio.get_running_loop()
    wait = _Wait(context.feeds.of(loop), loop.create_future())
    number = context.link.call(call, wait, task)
    try:
        await wait.future
    except asyncio.CancelledError:
        # The outcome may have come first, even between the cancellation and this line.
        if not wait.answered:
            wait.future = loop.create_future()
            context.link.cancel(number, _CANCELLED)
            await asyncio.wait((wait.future,), timeout=CLEANUP_SECONDS)
        raise
    except GeneratorExit:  # the loop is gone: nobody will ever wait again
        context.link.cancel(number, _CANCELLED)
        raise
    outcome, live = wait.outcome, wait.live
    assert outcome is not None
    if outcome.phase == "refused" and not context.active:
        # An asyncio task that its attempt left behind: it ends like any other work of something that is over.
        raise asyncio.CancelledError(f"attempt {context.order.key} is over")
    value = None
    try:
        if outcome.phase == "succeeded":
            payload = outcome.result or _NOTHING
            data = payload.data
            if data is not None and (len(data) < SURELY_LIGHT or is_light(data)):
                value = task.signature.decode_result(data)  # most are: no coroutine for them
            else:
                value = await decoded_beside(task.signature, payload, context.blobs, context.feeds)
        return conclude(task, outcome, live, value) if conclusive else (outcome, live, value)
    finally:
        del live, wait  # as above


# -- from call to Call --------------------------------------------------------------------------------------------


def prepare(
    task: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any], context: AttemptContext
) -> Call | Future[Call]:
    """The call as data, taken down now; where there is something large in it, it is packed beside the event loop.

    Raises:
        InputTypeError: arguments do not fit the signature (a ``TypeError``).
        SerializationError: an argument cannot be encoded, or they are too large.
        StaleAttemptError: the attempt that makes the call is over.
    """
    _check(task, context)
    data = task.signature.draft_inputs(args, kwargs)
    profile = context.profiles.get(task.profile_key)
    function = None
    if profile is None:
        function = task.pickled(context.order.scope)
        if function is None or len(function) <= ON_LOOP:
            profile = _profile(task, context, function)
    if profile is None or isinstance(data, Draft) or not may_stay(data, context.limits.inline):
        if isinstance(data, bytes):
            check_size(task.name, "arguments", data, context.limits)
        size = data.size if isinstance(data, Draft) else len(data)
        work = partial(_packed, task, context, data, function, label_in(context))
        return context.packing().put(work, size + len(function or b""))
    return _call(task, context, profile, data, Payload(data, None, len(data)), label_in(context))


def prepare_here(task: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any], context: AttemptContext) -> Call:
    """``prepare`` for a thread that may block: nothing is copied, all is packed here."""
    _check(task, context)
    data = task.signature.encode_inputs(args, kwargs)
    if context.is_packing():  # equal calls from elsewhere in this attempt come first
        return (
            context.packing().put(partial(_packed, task, context, data, UNSET, label_in(context)), len(data)).result()
        )
    return _packed(task, context, data, UNSET, label_in(context))


def _check(task: Callee, context: AttemptContext) -> None:
    if not context.active:
        raise StaleAttemptError(f"{task.name}() was called by attempt {context.order.key}, which is over")
    refuse_inside_trace(task.name, context)


def _packed(
    task: Callee, context: AttemptContext, data: bytes | Draft, function: bytes | UnsetType | None, label: str | None
) -> Call:
    if isinstance(data, Draft):
        data = data.finish()
    check_size(task.name, "arguments", data, context.limits)
    profile = context.profiles.get(task.profile_key) or _profile(task, context, function)
    return _call(task, context, profile, data, pack(data, context.limits.inline, context.blobs.blocking), label)


def _profile(task: Callee, context: AttemptContext, function: bytes | UnsetType | None) -> Profile:
    profile = task.profile(context.order.scope, context.blobs.blocking, function)
    return context.profiles.setdefault(task.profile_key, profile)  # type: ignore[no-any-return]


def _call(
    task: Callee, context: AttemptContext, profile: Profile, data: bytes, inputs: Payload, label: str | None
) -> Call:
    digest = inputs_digest(data)
    occurrence = context.occurrence(task.name, digest)
    cache_digest = cache_digest_of(task, profile, data) if profile.cache_version is not None else None
    return Call(profile, inputs, digest, occurrence, label, cache_digest)


def cache_digest_of(task: Callee, profile: Profile, data: bytes) -> bytes | None:
    """Of the encoded inputs without those that the task's cache ignores; None where it ignores none."""
    ignored = profile.settings.cache.ignored_inputs
    return inputs_digest(task.signature.without(data, ignored)) if profile.cache_version and ignored else None


# -- from Outcome to value or exception -----------------------------------------------------------------------------


def conclude(task: Callee, outcome: Outcome, live: BaseException | None, value: Any) -> Any:
    """The value, if it succeeded, or the error raised: the object itself if it was raised in this process.

    Raises:
        ActionAbortedError, ActionTimedOutError: it was aborted, or its deadline passed.
        Exception: what the task raised, with the story of the attempts as a note.
    """
    if outcome.phase == "succeeded":
        return value
    try:
        raise _with_story(_error(task.name, outcome, live), outcome, task.name)
    finally:
        del live  # as above


def _error(name: str, outcome: Outcome, live: BaseException | None) -> BaseException:
    document = outcome.error
    where = f"{name} ({outcome.run}/{outcome.action})"
    said = document.message if document is not None else ""
    match outcome.phase:
        case "aborted":
            return ActionAbortedError(said or f"{where} was aborted")
        case "timed_out":
            return ActionTimedOutError(said or f"{where} passed its deadline")
        case "refused":
            kind = _our_class("" if document is None else document.type)
            return kind(said or f"{where} was refused")
    # What must not end its caller (SystemExit, a CancelledError of the child's own) goes by its document.
    if isinstance(live, Exception):
        return live
    if document is not None:
        return rebuild(document)
    return AttemptError(f"{where} {outcome.phase} without saying why")


def _our_class(name: str) -> Callable[[str], BaseException]:
    kind = getattr(errors, name.rpartition(".")[2], None)
    return kind if isinstance(kind, type) and issubclass(kind, errors.FlyteishError) else errors.FlyteishError


def _with_story(error: BaseException, outcome: Outcome, name: str) -> BaseException:
    if outcome.story:
        note = "\n  ".join((f"attempts of {name} ({outcome.run}/{outcome.action}):", *outcome.story))
        # Past the class's own code; it may be there already: awaited twice, or carried along by a parent.
        if note not in BaseException.__getattribute__(error, "__dict__").get("__notes__", ()):
            BaseException.add_note(error, note)
    return error
