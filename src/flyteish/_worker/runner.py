"""Runs one attempt's user code and says how it ended: from an order to evidence.

Shared by the worker process and the inline engine. Catches everything that user code can raise; judges
nothing beyond telling its own stop from an error, and a store that fails from a task that fails. Must not
know which thread or process it is on, nor who asked.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.attempt.signals import AttemptLeft
from flyteish._authoring.values.codec import current_pickle_policy, let_pickle
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish._authoring.values.errors import document
from flyteish._authoring.values.payloads import INLINE_BYTES
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.values import Payload
from flyteish._core.wording import size
from flyteish.errors import BlobError, SerializationError
from flyteish.interfaces import BlobStore, InlineLink, Order

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._worker.loader import Loadable

#: Bytes. A larger result goes to the blob store, a smaller one travels in the message.
INLINE_LIMIT: Final = INLINE_BYTES
#: Bytes. A larger result is refused.
MAX_RESULT: Final = 5 * 1024**3


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


def perform_sync(
    order: Order,
    task: Loadable,
    link: InlineLink,
    blobs: BlobStore,
    feeds: Feeds,
    context: AttemptContext | None = None,
    *,
    stop: Stopping | None = None,
    inline_limit: int = INLINE_LIMIT,
    max_result: int = MAX_RESULT,
) -> Ending:
    """Run a ``def`` task on this thread, in a copy of the current context variables.

    Args:
        order: what to run.
        task: the loaded task.
        link: the attempt's connection to the controller.
        blobs: where large inputs and results are.
        feeds: the ways into event loops of this process.
        context: the attempt's context, where the engine made it already; closed when this returns.
        stop: how the engine says that it ends the attempt.
        inline_limit: bytes of a result beyond which it goes to the blob store.
        max_result: bytes of a result beyond which it is refused with ``SerializationError``.

    Returns:
        The evidence, and the exception object that user code raised, if any. Never raises, except
        ``AttemptStopped`` in the instant before it returns.
    """
    attempt = AttemptContext(order, link, blobs, feeds) if context is None else context
    limits = (inline_limit, max_result)
    return copy_context().run(_perform_sync, attempt, task, stop or Stopping(), limits)


def _perform_sync(attempt: AttemptContext, task: Loadable, stop: Stopping, limits: tuple[int, int]) -> Ending:
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
        result = _encoded(task, value, limits[1])
        address = blobs.put(result) if len(result) > limits[0] else None
        return WorkerEvidence(result=Payload(result if address is None else None, address, len(result))), None
    except BaseException as exc:
        stop.inside = False
        return _failed(exc, user_code, stop, AttemptStopped)
    finally:
        attempt.close()


async def perform_async(
    order: Order,
    task: Loadable,
    link: InlineLink,
    blobs: BlobStore,
    feeds: Feeds,
    context: AttemptContext | None = None,
    *,
    stop: Stopping | None = None,
    inline_limit: int = INLINE_LIMIT,
    max_result: int = MAX_RESULT,
) -> Ending:
    """Run an ``async def`` task on the running loop; as ``perform_sync`` otherwise.

    Sets context variables, so it wants a task of its own. To stop it, set ``stop.requested``, then cancel it.
    Large values are read and written beside the loop.
    """
    from asyncio import CancelledError, get_running_loop

    from flyteish._async.bridge import Bridged

    attempt = AttemptContext(order, link, blobs, feeds) if context is None else context
    outer = (CURRENT.set(attempt), current_blobs.set(blobs.blocking))
    pickling = let_pickle(order.scope.allow_pickle)
    user_code = False
    try:
        inputs = order.inputs
        data = inputs.data if inputs.data is not None else await blobs.get(_address(inputs))
        args, kwargs = task.signature.decode_inputs(data)
        user_code = True
        value = await Bridged(task.function(*args, **kwargs), feeds.of(get_running_loop()).steppers)
        user_code = False
        result = _encoded(task, value, max_result)
        if len(result) <= inline_limit:
            return WorkerEvidence(result=Payload(result, None, len(result))), None
        return WorkerEvidence(result=Payload(None, await blobs.put(result), len(result))), None
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


def _encoded(task: Loadable, value: Any, max_result: int) -> bytes:
    data = task.signature.encode_result(value)
    if len(data) > max_result:
        raise SerializationError(
            f"{task.name}(): result of {size(len(data))} is larger than the {size(max_result)} "
            "accepted; return a flyteish.io.File or Dir, which travel by reference"
        )
    return data


def _failed(exc: BaseException, user_code: bool, stop: Stopping | None, ours: type[BaseException]) -> Ending:
    if isinstance(exc, AttemptLeft):  # it may only be raised after a notice
        return WorkerEvidence(left=str(exc)), exc
    if stop is not None and stop.requested:
        if isinstance(exc, ours):
            return WorkerEvidence(stopped=True), exc
        return WorkerEvidence(error=document(exc), stopped=True), exc
    if isinstance(exc, BlobError) and not user_code:
        # The store failed, not the task: the system's budget pays (spec: attempts).
        return WorkerEvidence(store_failed=f"{type(exc).__name__}: {exc}"), exc
    return WorkerEvidence(error=document(exc)), exc
