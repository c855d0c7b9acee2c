"""Runs one attempt's user code and says how it ended: from an order to evidence.

``def`` tasks here, ``async def`` ones in ``runner_async``. Shared by the worker process and the inline engine. Catches
everything that user code can raise; judges nothing beyond telling its own stop from an error, and a store that fails
from a task that fails. Must not know which thread or process it is on, nor who asked.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.attempt.signals import AttemptLeft
from flyteish._authoring.values.codec import let_pickle
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish._authoring.values.errors import document, shortened
from flyteish._authoring.values.payloads import packed
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
        data = inputs.data if inputs.data is not None else blobs.get(address_of(inputs))
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
        return failed(exc, user_code, stop, AttemptStopped)
    finally:
        attempt.close()


def address_of(inputs: Payload) -> str:
    """Of an order's inputs that do not travel with it."""
    if inputs.blob is None:
        raise SerializationError("the order has no inputs: neither data nor an address")
    return inputs.blob


def failed(exc: BaseException, user_code: bool, stop: Stopping, ours: type[BaseException]) -> Ending:
    """What an exception says of the attempt's end. ``ours`` is the one that a stop raises in it."""
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
