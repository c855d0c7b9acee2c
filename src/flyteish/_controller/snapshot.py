"""A snapshot of a running controller, for other processes: its queues and pools, and why what waits does not start.

Reads the state, at a moment. Must not know who looks at it, nor how it gets there.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flyteish._core.scheduling.pool_health import Record
from flyteish._core.state import State

REASONS_SHOWN: Final = 200


class QueueSnapshot(msgspec.Struct, frozen=True):
    """A queue at a moment."""

    name: str
    state: str
    running: int
    waiting: int
    entering: int
    active_runs: int
    pools: tuple[str, ...]


class PoolSnapshot(msgspec.Struct, frozen=True):
    """A pool at a moment."""

    name: str
    medium: str
    engine: str
    running: int
    capacity: int
    available: int | None
    cooling: bool
    price_per_hour: float
    preemptions: int = 0
    """Remembered ones, as all that follows (``Record``)."""
    stock_outs: int = 0
    score: float = 0.0
    churn_per_hour: float = 0.0
    mean_up: float = 0.0
    mean_down: float = 0.0


class Snapshot(msgspec.Struct, frozen=True):
    """What another process can know of a live controller."""

    at: float
    queues: tuple[QueueSnapshot, ...]
    pools: tuple[PoolSnapshot, ...]
    reasons: dict[str, tuple[str, int]] = {}
    """``run/action`` of the heads of the lines -> typed reason for not starting, place in line."""


def snapshot(state: State, now: float) -> Snapshot:
    """Queues and pools as another process may see them."""
    capacity = state.capacity
    queues = tuple(
        QueueSnapshot(
            name=name,
            state=queue.state,
            running=queue.running - queue.ahead,
            waiting=queue.waiting + queue.held + queue.ahead,
            entering=queue.entering,
            active_runs=queue.active_runs,
            pools=tuple(pool.config.name for pool in queue.pools),
        )
        for name, queue in capacity.queues.items()
    )
    pools = tuple(
        PoolSnapshot(
            name=name,
            medium=pool.config.medium,
            engine=pool.config.engine,
            running=pool.running - pool.ahead,
            capacity=pool.config.capacity,
            available=pool.available,
            cooling=now < pool.cooling_until,
            price_per_hour=pool.prices.latest,
            **_rounded(pool.memory.record(now)),
        )
        for name, pool in capacity.pools.items()
    )
    return Snapshot(now, queues, pools, _reasons(state, now))


def _rounded(record: Record) -> dict[str, Any]:
    """As exact as anybody reads it, so that a picture in which nothing happens does not change all the time."""
    return {name: float(f"{value:.2g}") if type(value) is float else value for name, value in record._asdict().items()}


def _reasons(state: State, now: float) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for queue in state.capacity.queues.values():
        for line in queue.lines.values():
            head = line.first()
            if head is None or len(found) >= REASONS_SHOWN:
                continue
            reason = state.admission.reason(head, now)
            if reason is not None:
                found[f"{head.run}/{head.id}"] = (reason[0].value, reason[1])
    return found
