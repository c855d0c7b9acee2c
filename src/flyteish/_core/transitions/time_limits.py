"""Limits in time: what is due, whether it still concerns anybody, and what reaching a limit means.

``deadline`` ends an action whatever is left; ``max_runtime`` and ``max_queued_time`` pay from the user budget;
``max_spot_wait`` changes the medium. Must not know a clock: what is due is due by the ``now`` that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flyteish._core.model.effects import Effect, Record, StopAttempt
from flyteish._core.model.events import LimitReached
from flyteish._core.model.ids import ActionKey, chance_of
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, Action, AttemptRecord, End, Phase
from flyteish._core.rules import placement
from flyteish._core.state import State, Timer
from flyteish._core.transitions import relocations
from flyteish._core.transitions.attempts import failed, priced
from flyteish._core.transitions.parents_and_children import end
from flyteish._core.transitions.phases import move
from flyteish._core.transitions.waiting import begin, patience_ends, review
from flyteish._core.wording import span

Effects = list[Effect]
_AT_THE_DOOR_OR_IN_LINE: Final = frozenset((Phase.ENTERING, Phase.QUEUED))


def take_due(state: State, now: float, effects: Effects) -> None:
    """Everything that is due by ``now``, in the order in which it became due."""
    while (timer := state.pop_due(now)) is not None:
        if timer.key is None:
            state.capacity.touch_pool(timer.pool)
            continue
        action = state.action(timer.key)
        if action is not None and action.phase not in TERMINAL:
            _DUE[timer.kind](state, action, timer, now, effects)


def _deadline_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    limit_reached(state, LimitReached(action.run, action.id, action.generation, "deadline"), now, effects)


def _max_runtime_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    limit_reached(state, LimitReached(action.run, action.id, timer.guard, "max_runtime"), now, effects)


def _waiting_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.wait != timer.guard:
        return
    if action.waits_for_machine:
        if timer.kind == "max_queued_time":
            attempt = action.attempts[-1]
            event = LimitReached(
                action.run, action.id, action.generation, "max_queued_time", attempt.medium, attempt.queued_at
            )
            limit_reached(state, event, now, effects)
        return
    if action.phase not in _AT_THE_DOOR_OR_IN_LINE:
        return
    if timer.kind == "max_spot_wait":
        ends = patience_ends(state, action)
        if ends is None or ends > now:
            return  # a pool had capacity meanwhile; if that is over again, another timer watches
    event = LimitReached(
        action.run, action.id, action.generation, timer.kind, action.wanted, action.queued_at,
        # No shell tells us of this end, so that none could draw: those whose wait is over together still differ.
        chance=chance_of(action.attempt_key()) if timer.kind == "max_queued_time" else 0.0,
    )  # fmt: skip
    limit_reached(state, event, now, effects)


def _backoff_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.wait == timer.guard and action.phase is Phase.BACKING_OFF:
        move(state, action, Phase.QUEUED)
        begin(state, state.runs[action.run], action, now)


def _review_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.wait == timer.guard:
        review(state, action, now)


def _pace_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.generation == timer.guard and action.phase in WITH_ATTEMPT and action.review_at <= now:
        relocations.review(state, action, now, effects)


_DUE: Final[dict[str, Callable[[State, Action, Timer, float, Effects], None]]] = {
    "deadline": _deadline_due,
    "max_runtime": _max_runtime_due,
    "max_queued_time": _waiting_due,
    "max_spot_wait": _waiting_due,
    "backoff": _backoff_due,
    "review": _review_due,
    "pace": _pace_due,
}


def limit_reached(state: State, event: LimitReached, now: float, effects: Effects) -> None:
    """A limit passed, which is a fact of its own: replay reads it from the journal."""
    action = state.action(ActionKey(event.run, event.action))
    if action is None or action.phase in TERMINAL:
        return
    attempt = action.attempts[-1] if action.phase in WITH_ATTEMPT else None
    if event.limit == "deadline":
        if attempt is not None:
            event = priced(state, event, attempt, now)
        effects.append(Record(now, event))
        _deadline_passed(state, action, attempt, now, effects)
    elif action.generation != event.generation:
        return  # it is about an attempt, or a wait, that is over
    elif attempt is not None:
        _attempt_too_long(action, attempt, event, now, effects)
    elif event.limit == "max_queued_time":
        effects.append(Record(now, event))
        _queue_timed_out(state, action, event, now, effects)
    elif event.limit == "max_spot_wait":
        effects.append(Record(now, event))
        _change_medium(state, action, now)


def _attempt_too_long(
    action: Action, attempt: AttemptRecord, event: LimitReached, now: float, effects: Effects
) -> None:
    """It has run too long, or waited too long for a machine where it was sent ahead to: it is told to end."""
    waits = event.limit == "max_queued_time" and not attempt.placed_at
    if (event.limit == "max_runtime" or waits) and not attempt.stop:
        effects.append(Record(now, event))
        attempt.stop = event.limit
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, event.limit))


def _deadline_passed(state: State, action: Action, attempt: AttemptRecord | None, now: float, effects: Effects) -> None:
    state.settled(action)
    if attempt is not None:
        attempt.end, attempt.cause, attempt.ended_at = End.DEADLINE, "deadline exceeded", attempt.not_before(now)
        if not attempt.stop:
            effects.append(StopAttempt(action.attempt_key(), attempt.pool, "deadline"))
        attempt.stop = "deadline"
    end(state, action, Phase.TIMED_OUT, now, effects)


def _queue_timed_out(state: State, action: Action, event: LimitReached, now: float, effects: Effects) -> None:
    """Waiting too long pays from the user budget, as if the attempt had failed, though none was started."""
    limit = action.profile.settings.timeout.max_queued_time
    if action.phase not in _AT_THE_DOOR_OR_IN_LINE:  # in replay: how it came back into the line is not recorded
        move(state, action, Phase.QUEUED)
    action.generation += 1
    attempt = AttemptRecord(
        action.generation, action.user_attempt, "", event.medium, "never-started", "waited too long", 0.0, now,
        event.queued_at, ended_at=now, end=End.QUEUE_TIMEOUT, cause=f"waited longer than max_queued_time={span(limit)}",
    )  # fmt: skip
    action.attempts.append(attempt)
    failed(state, action, attempt, None, event.chance, now, effects)


def _change_medium(state: State, action: Action, now: float) -> None:
    """It has waited for spot for long enough; it has waited longest, so it goes to the head of the other line."""
    state.capacity.withdraw(action)
    action.wanted, action.rule, action.why = placement.stock_out(now - action.queued_at)
    state.capacity.line_up(action, at_head=True)
