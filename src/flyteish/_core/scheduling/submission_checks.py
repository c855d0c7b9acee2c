"""What a queue refuses at the door, and in which words: before anything is recorded.

Reads the state, changes nothing. Must not know what happens to work that is let in (spec: queues).
"""

from __future__ import annotations

from typing import NamedTuple

from flyteish._core.model.events import RunSubmitted
from flyteish._core.model.records import Action
from flyteish._core.model.resources import NO_AMOUNTS
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.queue_state import PoolState, QueueState


class Refusal(NamedTuple):
    """A submission that is not accepted."""

    error: str
    """Name of the class in ``flyteish.errors``."""
    message: str


def check_run(capacity: Capacity, event: RunSubmitted) -> Refusal | None:
    """Whether a run may begin: its queue exists, takes work, and allows another run of the task."""
    queue = capacity.queues.get(event.queue)
    if queue is None or queue.removed:
        return _unknown(capacity, event.queue, event.task)
    if queue.state in ("draining", "drained"):
        return _draining(queue, event.task)
    if queue.config.overlap == "skip" and (active := queue.runs_of.get(event.task)):
        message = f"run of {event.task} skipped: run {next(iter(active))} is still active in queue {event.queue!r}"
        return Refusal("RunSkippedError", f"{message} (overlap='skip')")
    return None


def check_submission(capacity: Capacity, action: Action) -> Refusal | None:
    """Whether an action may enter its queue."""
    settings = action.profile.settings
    queue = capacity.queues.get(settings.queue)
    # Work in flight finishes while a queue drains, and the children that it calls are part of it.
    if queue is None or (queue.removed and action.parent is None):
        return _unknown(capacity, settings.queue, action.profile.task)
    if queue.state == "drained" or (queue.state == "draining" and action.parent is None):
        return _draining(queue, action.profile.task)
    if queue.config.on_full == "refuse" and queue.is_full():
        message = f"queue {queue.config.name!r} is full: {queue.counted} waiting or running, depth={queue.config.depth}"
        return Refusal("ResourceExhaustedError", f"{action.profile.task} refused: {message}")
    policy = settings.interruptible
    if settings.amounts is NO_AMOUNTS and queue.takes_anything and (policy is None or policy.fallback != "never"):
        return None
    return _never_fits(queue, action)


def _never_fits(queue: QueueState, action: Action) -> Refusal | None:
    """Work that no state of the queue could start would wait for ever: say so now."""
    settings, task, name = action.profile.settings, action.profile.task, queue.config.name
    policy = settings.interruptible
    # Work that must not happen twice goes on-demand whatever its fallback says, unless it is forced.
    only_spot = policy is not None and policy.fallback == "never" and (settings.idempotent or policy.force)
    if only_spot and not (queue.spot and queue.has_spot_share()):
        why = f"lets nothing on spot (spot_share={queue.config.spot_share:g})" if queue.spot else "feeds no spot pool"
        return Refusal("ConfigurationError", f"{task}: queue {name!r} {why}, but SpotPolicy(fallback='never')")
    if not only_spot and not queue.on_demand:
        why = "which its final attempt needs" if policy is not None else "and the task is not interruptible"
        cure = "give the queue an on-demand pool, or the task interruptible=SpotPolicy(fallback='never')"
        return Refusal("ConfigurationError", f"{task}: queue {name!r} feeds no on-demand pool, {why}; {cure}")
    pools = queue.spot if only_spot else queue.on_demand
    fitting = [pool for pool in pools if settings.amounts.within(pool.limit)]
    if not fitting or not settings.amounts.within(queue.limit):
        message = f"{task}: {settings.resources!r} is more than queue {name!r} or any of its {_kind(pools)} pools has"
        return Refusal("ConfigurationError", message)
    limit = queue.config.spend_limit
    if limit and all(queue.never_pays(pool) for pool in fitting):
        message = f"every {_kind(pools)} pool of queue {name!r} costs more than its spend_limit of ${limit:g} per hour"
        return Refusal("ConfigurationError", f"{task}: {message}")
    return None


def _kind(pools: list[PoolState]) -> str:
    return pools[0].config.medium


def _unknown(capacity: Capacity, queue: str, task: str) -> Refusal:
    known = ", ".join(capacity.known()) or "none"
    return Refusal("UnknownQueueError", f"{task}: unknown queue {queue!r}; known queues: {known}")


def _draining(queue: QueueState, task: str) -> Refusal:
    return Refusal("ResourceExhaustedError", f"{task} refused: queue {queue.config.name!r} is {queue.state}")
