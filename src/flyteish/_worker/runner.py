"""Runs one attempt's user code and says how it ended: from an order to evidence.

Shared by the worker process and the inline engine. Catches everything that user code can raise; judges
nothing beyond telling its own stop from an error, and a store that fails from a task that fails. Must not
know which thread or process it is on, nor who asked.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.attempt.signals import AttemptLeft
from flyteish._authoring.values.codec import current_pickle_policy, let_pickle
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish._authoring.values.errors import document, shortened
from flyteish._authoring.values.payloads import SURELY_LIGHT, check_size, is_light, may_stay, packed
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.values import Payload
from flyteish.errors import BlobError, SerializationError

if TYPE_CHECKING:
    from flyteish._worker.loader import Loadable


class AttemptStopped(BaseException):
    """Raised in a ``def`` task whose attempt was stopped. No ``Exception``: handlers let it pass."""


class Stopping:
    """Whether an attempt's engine wants it to end, and whether it may be unwound at this instant.

    The engine sets ``requested`` before it cancels or interrupts; ``inside`` is true while user code runs.
    """

    __slots__ = ("inside", "requested")

    def __init__(self) -> None:
        self.requested = False
        self.inside = False

    def __repr__(self) -> str:
        return f"Stopping(requested={self.requested}, inside={self.inside})"


Ending = tuple[WorkerEvidence, BaseException | None]


def perform_sync(attempt: AttemptContext, task: Loadable, stop: Stopping) -> Ending:
    """Run a ``def`` task on this thread, in a copy of the current context variables.

    Args:
        attempt: the attempt that is to be run; closed when this returns.
        task: the loaded task.
        stop: how the engine says that it ends the attempt.

    Returns:
        The evidence, and the exception object that user code raised, if any. Never raises, except
        ``AttemptStopped`` in the instant before it returns.
    """
    return copy_context().run(_perform_sync, attempt, task, stop)


def _perform_sync(attempt: AttemptContext, task: Loadable, stop: Stopping) -> Ending:
    blobs = attempt.blobs.blocking
    CURRENT.set(attempt)
    current_blobs.set(blobs)
    let_pickle(attempt.order.scope.allow_pickle)
    user_code = False
    try:
        inputs = attempt.order.inputs
        data = inputs.data if inputs.data is not None else blobs.get(_address(inputs))
        args, kwargs = task.signature.decode_inputs(data)
        user_code = stop.inside = True
        if stop.requested:
            raise AttemptStopped("stopped before it began")
        value = task.function(*args, **kwargs)
        user_code = stop.inside = False
        result = task.signature.encode_result(value)
        return WorkerEvidence(result=packed(result, task.name, "result", attempt.limits, blobs)), None
    except BaseException as exc:
        stop.inside = False
        return _failed(exc, user_code, stop, AttemptStopped)
    finally:
        attempt.close()


async def perform_async(attempt: AttemptContext, task: Loadable, stop: Stopping) -> Ending:
    """Run an ``async def`` task on the running loop; as ``perform_sync`` otherwise.

    Sets context variables, so it wants a task of its own. To stop it, set ``stop.requested``, then cancel it.
    Large values are read and written beside the loop.
    """
    from asyncio import CancelledError, get_running_loop

    from flyteish._async.bridge import Bridged
    from flyteish._async.feeds import done_on

    order, blobs = attempt.order, attempt.blobs
    outer = (CURRENT.set(attempt), current_blobs.set(blobs.blocking))
    pickling = let_pickle(order.scope.allow_pickle)
    user_code = False
    try:
        inputs = order.inputs
        data = inputs.data if inputs.data is not None else await blobs.get(_address(inputs))
        if len(data) < SURELY_LIGHT or is_light(data):
            args, kwargs = task.signature.decode_inputs(data)
        else:
            args, kwargs = await done_on(
                attempt.feeds.values, lambda: task.signature.decode_inputs(data), attempt.feeds
            )
        user_code = True
        value = await Bridged(task.function(*args, **kwargs), attempt.feeds.of(get_running_loop()).steppers)
        user_code = False
        # Taken down here: others may change the value before it is packed.
        draft, limits = task.signature.draft_result(value), attempt.limits
        del value
        if may_stay(draft, limits.inline):  # most: not even an await
            check_size(task.name, "result", draft, limits)
            return WorkerEvidence(result=Payload(draft, None, len(draft))), None
        size = len(draft) if isinstance(draft, bytes) else draft.size
        pack = partial(packed, draft, task.name, "result", limits, blobs.blocking)
        return WorkerEvidence(result=await done_on(attempt.feeds.values, pack, attempt.feeds, size)), None
    except BaseException as exc:
        return _failed(exc, user_code, stop, CancelledError)
    finally:
        CURRENT.reset(outer[0])
        current_blobs.reset(outer[1])
        if pickling is not None:
            current_pickle_policy.reset(pickling)
        attempt.close()


def _address(inputs: Payload) -> str:
    if inputs.blob is None:
        raise SerializationError("the order has no inputs: neither data nor an address")
    return inputs.blob


def _failed(exc: BaseException, user_code: bool, stop: Stopping, ours: type[BaseException]) -> Ending:
    if isinstance(exc, AttemptLeft):  # it may only be raised after a notice
        return WorkerEvidence(left=shortened(str(exc))), exc
    if stop.requested:
        if isinstance(exc, ours):
            return WorkerEvidence(stopped=True), exc
        return WorkerEvidence(error=document(exc), stopped=True), exc
    if isinstance(exc, BlobError) and not user_code:
        # The store failed, not the task: the system's budget pays (spec: attempts).
        return WorkerEvidence(store_failed=shortened(f"{type(exc).__name__}: {exc}")), exc
    return WorkerEvidence(error=document(exc)), exc
