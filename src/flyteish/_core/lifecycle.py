"""The core's one door: ``apply(state, event, now) -> (state, effects)``. Facts in, orders out.

Says which room takes in which fact, and then lets admission start whoever may start. Each room's facts are in its
own module; phases change in ``moves`` alone. Must not know clocks, engines or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flyteish._core.model.effects import Effect
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptAdmitted,
    AttemptEnded,
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    AttemptRunning,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    Configured,
    ControllerRestarted,
    Event,
    LimitReached,
    NoticeWithdrawn,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    RelocationOrdered,
    RunEvent,
    RunLoaded,
    RunRecovered,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
    ValueTraced,
)
from flyteish._core.state import ReplayState, State
from flyteish._core.transitions import (
    attempts,
    engine_facts,
    operations,
    recovery,
    relocations,
    submissions,
    time_limits,
    waiting,
)
from flyteish._core.transitions.phases import MOVES
from flyteish._core.transitions.submissions import child_identity

__all__ = ["MOVES", "apply", "child_identity", "replay"]


def apply(state: State, event: Event, now: float) -> tuple[State, list[Effect]]:
    """Take in one fact and say what follows. ``now`` is seconds since the epoch and never goes back.

    The state given in is consumed: go on with the one returned. Limits that are due by ``now`` are taken in
    first, so a result that comes with or after a deadline is late.
    """
    effects: list[Effect] = []
    timers = state.timers
    if timers and timers[0].at <= now:
        time_limits.take_due(state, now, effects)
    _ROOMS[type(event)](state, event, now, effects)
    if timers and timers[0].at <= now:  # a run that is taken over may have limits that passed in between
        time_limits.take_due(state, now, effects)
    capacity = state.capacity
    if capacity.dirty or capacity.freed or capacity.roomy:
        while capacity.roomy:
            waiting.let_in(state, now)
        for start in state.admission.starts(now):
            attempts.start(state, start, now, effects)
    return state, effects


def replay(state: ReplayState, event: RunEvent, at: float) -> ReplayState:
    """Take in a fact from the journal: no orders follow, everything was decided when it was new."""
    _ROOMS[type(event)](state, event, at, [])
    return state


def _time_passed(state: State, event: TimePassed, now: float, effects: list[Effect]) -> None:
    """What was due has been taken in already."""


_ROOMS: Final[dict[type, Callable[[State, Any, float, list[Effect]], None]]] = {
    RunSubmitted: submissions.run_submitted,
    TaskDeclared: submissions.task_declared,
    ActionSubmitted: submissions.action_submitted,
    CancelRequested: submissions.cancel_requested,
    AttemptAdmitted: attempts.admitted,
    AttemptRunning: attempts.running,
    AttemptOrdered: engine_facts.ordered,
    AttemptPending: engine_facts.pending,
    AttemptPlaced: engine_facts.placed,
    AttemptNoticed: engine_facts.noticed,
    NoticeWithdrawn: engine_facts.notice_withdrawn,
    AttemptEnded: attempts.ended,
    CheckpointCommitted: attempts.checkpoint_committed,
    CheckpointSkipped: attempts.checkpoint_skipped,
    ValueTraced: attempts.value_traced,
    LimitReached: time_limits.limit_reached,
    RelocationOrdered: relocations.relocation_ordered,
    RunLoaded: recovery.run_loaded,
    RunRecovered: recovery.run_recovered,
    ControllerRestarted: recovery.controller_restarted,
    PoolCapacityChanged: operations.pool_capacity_changed,
    PoolPriceChanged: operations.pool_price_changed,
    QueueStateSet: operations.queue_state_set,
    Configured: operations.configured,
    TimePassed: _time_passed,
}
