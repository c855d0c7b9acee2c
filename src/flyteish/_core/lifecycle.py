"""The core's one door: ``apply(state, event, now) -> (state, effects)``. Facts in, orders out.

**What comes in.** An event is a fact that somebody saw: a task was called, an attempt ended with this evidence, a
pool has room for two. It is never a wish, so the core may find that it means nothing: a fact about an attempt that
was given up (its generation is not the action's newest, or the action is over) changes nothing and is not recorded.
That is the fence that keeps zombies out, and why every fact about an attempt carries a generation.

**One call of** ``apply`` does three things, in this order:

1. What is due by ``now`` is taken in, oldest first (``time_limits``). Limits are facts, too, made by the core itself:
   a deadline that passed at 12:00 counts before a result that came at 12:00, whichever the shell told first.
2. The event goes to the one function that knows what it means (the table below). That function changes records and
   counts, and appends effects. It may put actions in line, free a place, ask to be reminded; it starts nothing.
3. If any of that could let somebody start, admission is asked, once. Who is named has left the line and holds the
   place already; ``attempts.start`` makes the attempt, and the order to the engine.

Starting only at the end means that an event is judged as a whole: a preempted action is back at the head of its line
before anybody looks for the next one to start.

**What comes out** is a list in order. ``Record`` is a line for the journal, and the rule for shells is: carry out no
effect before the records before it are durable. Everything that the state says follows from recorded facts (and from
what sessions say anew when they open: queues, pools, prices), which makes ``replay`` possible: the same functions,
told the same facts at the same times, with a state that stands in no line and gives no orders (``ReplayState``).
Whatever chance decides is an argument of an event, so that replay needs no luck; what the core decides itself is an
event that it records (``AttemptAdmitted``, ``LimitReached``, ``RelocationOrdered``), so that replay need not decide
it again.

**Life of an action.** ``phases.MOVES`` is the table of phases, and ``phases.move`` the only place that changes one.
An action is *entering* until its queue has room for it, *queued* until admission gives it a place, *running* while an
attempt has that place. An attempt that waits for children is *parked*: it holds no place and counts in no limit, so
no limit can make parent and child wait for each other; when its children are done it is *returning*, before anybody
else. An attempt's end leads to another try at once (*queued*), later (*backing off*), or to one of four ends.
*Dormant* is what a dead controller has left and nobody has asked for again (``recovery``). What an action has, the
record says (``model/records``); what follows from a fact, the function says that the table names.

Must not know clocks, engines or stores.
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
    _TAKEN_IN_BY[type(event)](state, event, now, effects)
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
    _TAKEN_IN_BY[type(event)](state, event, at, [])
    return state


def _time_passed(state: State, event: TimePassed, now: float, effects: list[Effect]) -> None:
    """What was due has been taken in already."""


_TAKEN_IN_BY: Final[dict[type, Callable[[State, Any, float, list[Effect]], None]]] = {
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
