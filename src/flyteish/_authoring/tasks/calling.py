"""What happens when a task is called: bind, check, submit, wait, and give back the value or raise.

Outside a running attempt a call is a call of the plain function. Inside one it becomes a ``Call`` on the
attempt's link, and its ``Outcome`` becomes a value or an exception. Must not know who is at the other end of the
link, nor what becomes of the call there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from flyteish import errors
from flyteish._async.bridge import can_wait_here, wait_here
from flyteish._async.feeds import LoopFeed, through_thread
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.tasks.groups import label_in
from flyteish._authoring.tasks.trace import refuse_inside_trace
from flyteish._authoring.values.errors import rebuild
from flyteish._authoring.values.payloads import INLINE_BYTES, pack, pack_beside, unpack, unpack_beside
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

    def profile(self, scope: Scope, blobs: BlockingContent) -> Profile:
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
    call, large = prepare(task, args, kwargs, context)
    coroutine: Any = _submitted(task, context, call, large)
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
        call, large = prepare(task, args, kwargs, context)
        outcome, live, data = wait_here(_submitted(task, context, call, large, conclusive=False))
        try:
            # Here and not in the coroutine, out of which a StopIteration could not come as itself.
            return conclude(task, outcome, live, data)
        finally:
            del live  # or the exception and this frame would keep each other alive
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{task.name}() was called without await in a coroutine that runs as an asyncio task of its own (gather, "
            "create_task): waiting there would block the event loop, and with it what is waited for; "
            f"write `await {task.function.__name__}.aio(...)`"
        )
    call, large = prepare(task, args, kwargs, context)
    if large is not None:
        call = msgspec.structs.replace(call, inputs=pack(large, context.blobs.blocking))
    link = context.link

    def start(done: OnOutcome) -> int:
        return link.call(call, done, task)

    outcome, live = through_thread(start, lambda number: link.cancel(number, _BROKEN_OFF))
    try:
        return conclude(task, outcome, live, unpack(outcome.result or _NOTHING, context.blobs.blocking))
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


async def _submitted(
    task: Callee, context: AttemptContext, call: Call, large: bytes | None, conclusive: bool = True
) -> Any:
    # One coroutine and few objects: a wide fan-out has as many of these alive at once as it has calls.
    if large is not None:
        call = msgspec.structs.replace(call, inputs=await pack_beside(large, context.blobs))
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
    payload = outcome.result
    try:
        if payload is not None and payload.data is not None:
            data: bytes | memoryview = payload.data
        else:
            data = await unpack_beside(payload or _NOTHING, context.blobs)
        return conclude(task, outcome, live, data) if conclusive else (outcome, live, data)
    finally:
        del live, wait  # as above


# -- from call to Call --------------------------------------------------------------------------------------------


def prepare(
    task: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any], context: AttemptContext
) -> tuple[Call, bytes | None]:
    """The call as data, and its encoded inputs apart where they are too large to travel with it.

    Raises:
        InputTypeError: arguments do not fit the signature (a ``TypeError``).
        SerializationError: an argument cannot be encoded.
        StaleAttemptError: the attempt that makes the call is over.
    """
    if not context.active:
        raise StaleAttemptError(f"{task.name}() was called by attempt {context.order.key}, which is over")
    refuse_inside_trace(task.name, context)
    data = task.signature.encode_inputs(args, kwargs)
    digest = inputs_digest(data)
    profile = context.profiles.get(task.profile_key)
    if profile is None:
        profile = task.profile(context.order.scope, context.blobs.blocking)
        context.profiles[task.profile_key] = profile
    large = data if len(data) > INLINE_BYTES else None
    inputs = Payload(data if large is None else None, None, len(data))
    occurrence = context.occurrence(task.name, digest)
    cache_digest = cache_digest_of(task, profile, data) if profile.cache_version is not None else None
    return Call(profile, inputs, digest, occurrence, label_in(context), cache_digest), large


def cache_digest_of(task: Callee, profile: Profile, data: bytes) -> bytes | None:
    """Of the encoded inputs without those that the task's cache ignores; None where it ignores none."""
    ignored = profile.settings.cache.ignored_inputs
    return inputs_digest(task.signature.without(data, ignored)) if profile.cache_version and ignored else None


# -- from Outcome to value or exception -----------------------------------------------------------------------------


def conclude(task: Callee, outcome: Outcome, live: BaseException | None, data: bytes | memoryview) -> Any:
    """The result, decoded from ``data``, or the error raised: the object itself if it was raised in this process.

    Raises:
        ActionAbortedError, ActionTimedOutError: it was aborted, or its deadline passed.
        Exception: what the task raised, with the story of the attempts as a note.
    """
    if outcome.phase == "succeeded":
        return task.signature.decode_result(data)
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
        if note not in getattr(error, "__notes__", ()):  # awaited twice, or carried along by a parent
            error.add_note(note)
    return error
