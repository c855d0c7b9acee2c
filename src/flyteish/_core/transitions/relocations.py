"""Planned moves: when a running attempt is looked at again under the deadline rule, and the order to move it.

A move is a planned interruption: notice, checkpoint, restart elsewhere; nobody pays for it. What is right now,
``deadline_pacing`` says; where it starts again is decided when its attempt is over. Must not know why an attempt ends.
"""

from __future__ import annotations

from flyteish._core.model.effects import Effect, Record, RelocateAttempt
from flyteish._core.model.events import RelocationOrdered
from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.records import Action, AttemptRecord, Phase
from flyteish._core.rules import attempt_ends
from flyteish._core.rules.deadline_policies import Decision
from flyteish._core.state import State
from flyteish._core.transitions import deadline_pacing

Effects = list[Effect]


def review(state: State, action: Action, now: float, effects: Effects) -> None:
    """Look at a running attempt, or one that starts up: move it, or say when to look again."""
    if action.profile.settings.timeout.deadline is None:
        return
    deadline_pacing.take_up_work(state, action)
    if not deadline_pacing.is_paced(state, action):
        return
    attempt = action.attempts[-1]
    if (
        attempt.moving
        or attempt.stop
        or attempt_ends.outlived_by_calls(attempt.notice)
        or deadline_pacing.stays(attempt)
    ):
        return  # it leaves already, or it will not move any more
    if action.phase is not Phase.RUNNING:
        return  # a parent that waits: when it goes on, it is looked at again
    if attempt.medium == ON_DEMAND and not deadline_pacing.may_leave_on_demand(state, action, attempt):
        return  # its next checkpoint brings it back here
    free = attempt.medium == SPOT or deadline_pacing.spot_is_free(state, action, now)
    decision = deadline_pacing.decide(state, action, now, free)
    soon = now + deadline_pacing.patience(state, action)
    if decision.go != attempt.medium:
        if decision.go == SPOT or deadline_pacing.on_demand_is_free(state, action, now):
            _order(state, action, attempt, decision, now, effects)
        else:
            _look_again(state, action, attempt, now, soon)
    elif attempt.medium == ON_DEMAND and not free:
        state.watchers[action.key] = None
        _look_again(state, action, attempt, now, min(decision.review, soon))
    else:
        _look_again(state, action, attempt, now, decision.review)


def _look_again(state: State, action: Action, attempt: AttemptRecord, now: float, at: float) -> None:
    """At most one timer is under way for an attempt, unless an earlier one is needed."""
    if at < float("inf") and not now < action.review_at <= at:
        # A review that comes out at this very moment again and again would be one for ever.
        action.review_at = max(at, now + deadline_pacing.SHORTEST_REVIEW)
        state.remind(action.review_at, "pace", action, attempt.generation)


def _order(
    state: State, action: Action, attempt: AttemptRecord, decision: Decision, now: float, effects: Effects
) -> None:
    event = RelocationOrdered(
        action.run, action.id, attempt.generation, decision.go, decision.rule, decision.why
    )  # fmt: skip
    relocation_ordered(state, event, now, effects)
    state.watchers.pop(action.key, None)
    order_again(state, action, attempt, effects)


def order_again(state: State, action: Action, attempt: AttemptRecord, effects: Effects) -> None:
    """The order to move, as it stands: the first time, and to a controller that cannot know whether it arrived."""
    state.moves(action, attempt.moving)
    grace = state.capacity.pools[attempt.pool].config.grace
    effects.append(RelocateAttempt(action.attempt_key(), attempt.pool, grace))


def relocation_ordered(state: State, event: RelocationOrdered, now: float, effects: Effects) -> None:
    """The attempt is on its way out; its end is no preemption."""
    run = state.runs.get(event.run)
    action = run.actions.get(event.action) if run is not None else None
    if action is None or action.generation != event.generation:
        return
    attempt = action.attempts[-1]
    attempt.moving = event.to
    attempt.moving_why = event.why
    if attempt.medium == SPOT:
        action.hurried += 1
    effects.append(Record(now, event))


def spot_came(state: State, pool: str, now: float, effects: Effects) -> None:
    """A spot pool has capacity: whoever runs on-demand for want of it is looked at again."""
    queues = {queue.config.name for queue in state.capacity.pools[pool].feeders}
    for key in list(state.watchers):
        action = state.action(key)
        attempt = action.current if action is not None else None
        if action is None or attempt is None or attempt.medium != ON_DEMAND:
            del state.watchers[key]
        elif action.profile.settings.queue in queues:
            del state.watchers[key]
            review(state, action, now, effects)
