"""Facts about queues and pools: a pool's capacity or price changed, an operator or a new configuration changed
the rules.

Applies them to the state; nothing that runs is killed by any of it. Must not know where they come from.
"""

from __future__ import annotations

from flyteish._core.model.effects import Effect, Refuse
from flyteish._core.model.events import (
    Configured,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
)
from flyteish._core.model.ids import ActionKey
from flyteish._core.model.queues import SPOT
from flyteish._core.state import State
from flyteish._core.transitions.parents_and_children import note_drained
from flyteish._core.transitions.relocations import spot_came
from flyteish._core.transitions.waiting import change_lines, ran_out, release_roots

Effects = list[Effect]


def pool_capacity_changed(state: State, event: PoolCapacityChanged, now: float, effects: Effects) -> None:
    """A market gives more or less; less takes nothing away from what runs."""
    pool = state.capacity.pools.get(event.pool)
    if pool is None:
        return  # it was configured away
    if pool.config.medium == SPOT and pool.available != event.available:
        if event.available == 0:
            pool.memory.refused(now)
        else:
            pool.memory.came(now)
    pool.available = event.available
    if event.available == 0:
        ran_out(state, event.pool, now)
    else:
        pool.no_capacity_since = None
        if state.watchers:
            spot_came(state, event.pool, now, effects)
    state.capacity.touch_pool(event.pool)


def pool_price_changed(state: State, event: PoolPriceChanged, now: float, effects: Effects) -> None:
    """A pool costs more or less. What runs goes on, also over a ``spend_limit``; nothing is started over one."""
    pool = state.capacity.pools.get(event.pool)
    if pool is None:
        return  # it was configured away
    pool.prices.changed(event.price_per_hour, now)
    state.capacity.reprice()


def queue_state_set(state: State, event: QueueStateSet, now: float, effects: Effects) -> None:
    """An operator holds, drains or activates a queue."""
    queue = state.capacity.queues.get(event.queue)
    if queue is None:
        effects.append(Refuse(ActionKey("", event.queue), "UnknownQueueError", f"unknown queue {event.queue!r}"))
        return
    # Drained is what a draining queue becomes, not what it can be told to be.
    queue.state = "draining" if event.state == "drained" else event.state
    note_drained(state, queue, effects)
    state.capacity.touch(event.queue)


def configured(state: State, event: Configured, now: float, effects: Effects) -> None:
    """Queues and pools as they are from now on."""
    capacity = state.capacity
    capacity.configure(event.queues, event.pools, now)
    for queue in list(capacity.queues.values()):
        for task in list(queue.blocked):
            while task in queue.blocked:
                capacity.unblock_root(queue, task)
        release_roots(state, queue, now)
        change_lines(state, queue, now)
        capacity.roomy[queue.config.name] = None
        note_drained(state, queue, effects)
