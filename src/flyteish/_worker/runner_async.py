"""Runs one attempt of an ``async def`` task on the running event loop: from an order to evidence.

A module of its own, since a worker that runs ``def`` tasks only needs no asyncio. Judges nothing; ``runner`` says what
an exception means. Must not know which loop it is on, nor who asked.
"""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop
from functools import partial
from typing import TYPE_CHECKING

from flyteish._async.bridge import Bridged
from flyteish._async.feeds import done_on
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.values.codec import current_pickle_policy, let_pickle
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish._authoring.values.payloads import SURELY_LIGHT, is_light, may_stay, packed
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.values import Payload
from flyteish._worker.runner import Ending, Stopping, address_of, failed

if TYPE_CHECKING:
    from flyteish._worker.loader import Loadable


async def perform_async(attempt: AttemptContext, task: Loadable, stop: Stopping) -> Ending:
    """Run an ``async def`` task on the running loop; as ``perform_sync`` otherwise.

    Sets context variables, so it wants a task of its own. To stop it, set ``stop.requested``, then cancel it.
    Large values are read and written beside the loop.
    """
    order, blobs = attempt.order, attempt.blobs
    outer = (CURRENT.set(attempt), current_blobs.set(blobs.blocking))
    pickling = let_pickle(order.scope.allow_pickle)
    user_code = False
    try:
        inputs = order.inputs
        data = inputs.data if inputs.data is not None else await blobs.get(address_of(inputs))
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
            return WorkerEvidence(result=Payload(draft, None, len(draft))), None
        size = len(draft) if isinstance(draft, bytes) else draft.size
        pack = partial(packed, draft, task.name, "result", limits, blobs.blocking)
        return WorkerEvidence(result=await done_on(attempt.feeds.values, pack, attempt.feeds, size)), None
    except BaseException as exc:
        return failed(exc, user_code, stop, CancelledError)
    finally:
        CURRENT.reset(outer[0])
        current_blobs.reset(outer[1])
        if pickling is not None:
            current_pickle_policy.reset(pickling)
        attempt.close()
