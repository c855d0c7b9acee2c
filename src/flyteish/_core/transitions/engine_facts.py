"""What an engine tells of an attempt that lives: which machine it has or waits for, and what is about to happen to it.

Writes it down where ``why``, bills and the judgement of its end find it. Must not know how an attempt begins or ends,
nor which engine it is.
"""

from __future__ import annotations

from typing import Any

from flyteish._core.model.effects import Effect, Record
from flyteish._core.model.events import (
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    NoticeWithdrawn,
)
from flyteish._core.model.records import WITH_ATTEMPT, Action, AttemptRecord, EngineFacts
from flyteish._core.rules import attempt_ends
from flyteish._core.state import State

Effects = list[Effect]


def live_attempt(state: State, event: Any) -> tuple[Action, AttemptRecord] | None:
    """The action and its attempt, if the event is about the one that counts; else a zombie speaks."""
    run = state.runs.get(event.run)
    action = run.actions.get(event.action) if run is not None else None
    if action is None or action.generation != event.generation or action.phase not in WITH_ATTEMPT:
        return None
    return action, action.attempts[-1]


def noticed(state: State, event: AttemptNoticed, now: float, effects: Effects) -> None:
    """From here on an exception counts as the preemption that was announced. Several sources may tell of one end."""
    live = live_attempt(state, event)
    if live is None:
        return
    facts = engine_facts(live[1])
    if attempt_ends.news(facts.notices.get(event.source, ""), event.kind):
        facts.notices = {**facts.notices, event.source: event.kind}
        live[1].notice = attempt_ends.gravest(facts.notices.values())
        effects.append(Record(now, event))


def notice_withdrawn(state: State, event: NoticeWithdrawn, now: float, effects: Effects) -> None:
    """What one source has announced does not come; what another one has may still."""
    live = live_attempt(state, event)
    if live is None or live[1].engine_facts is None or event.source not in live[1].engine_facts.notices:
        return
    facts = live[1].engine_facts
    facts.notices = {source: kind for source, kind in facts.notices.items() if source != event.source}
    live[1].notice = attempt_ends.gravest(facts.notices.values())
    effects.append(Record(now, event))


def engine_facts(attempt: AttemptRecord) -> EngineFacts:
    """Where to write what its engine says of it."""
    if attempt.engine_facts is None:
        attempt.engine_facts = EngineFacts()
    return attempt.engine_facts


def ordered(state: State, event: AttemptOrdered, now: float, effects: Effects) -> None:
    """Who the attempt will prove to be, also to a later controller."""
    live = live_attempt(state, event)
    if live is not None:
        engine_facts(live[1]).token_digest = event.token_digest
        effects.append(Record(now, event))


def pending(state: State, event: AttemptPending, now: float, effects: Effects) -> None:
    """Why it has no machine yet."""
    live = live_attempt(state, event)
    if live is None or live[1].running_at:
        return
    facts, said = engine_facts(live[1]), f"{event.reason}: {event.message}" if event.message else event.reason
    if facts.pending != said:
        facts.pending = said
        effects.append(Record(now, event))


def placed(state: State, event: AttemptPlaced, now: float, effects: Effects) -> None:
    """It has its machine."""
    live = live_attempt(state, event)
    if live is None:
        return
    attempt = live[1]
    known = attempt.engine_facts or EngineFacts()
    said = (event.node, event.zone, event.instance_type, event.price_per_hour)
    if (
        attempt.placed_at
        and not known.pending
        and said == (known.node, known.zone, known.instance_type, known.price_per_hour)
    ):
        return
    if not attempt.placed_at:
        has_machine(state, live[0], now)
    if known.pending or any(said):
        facts = engine_facts(attempt)
        facts.node, facts.zone, facts.instance_type, facts.price_per_hour = said
        facts.pending = ""
    if event.price_per_hour is not None:
        attempt.price_per_hour = event.price_per_hour
    effects.append(Record(now, event))


def shows_that_it_runs(state: State, action: Action, now: float, effects: Effects) -> None:
    """It was sent ahead and does what only a running attempt can do: its engine has not said yet that it has a machine.

    A fact of its own, so that replay need not conclude it.
    """
    if action.occupies:
        placed(state, AttemptPlaced(*action.attempt_key()), now, effects)


def has_machine(state: State, action: Action, at: float) -> None:
    """What was sent ahead has its machine from ``at`` on."""
    state.capacity.has_machine(action)
    attempt = action.attempts[-1]
    attempt.placed_at = attempt.not_before(at)
