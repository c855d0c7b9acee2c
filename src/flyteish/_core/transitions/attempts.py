"""One attempt from its admission to its end, and what its end means for the action.

Asks ``attempt_ends`` what an end was and ``retries`` who pays. Only the attempt of the action's newest generation is
heard; whatever an attempt that was given up still says is void. Must not know queues' rules, nor which medium is
next.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flyteish._core.billing.price_history import Prices
from flyteish._core.model.effects import Effect, Record, Refuse, StartAttempt
from flyteish._core.model.events import (
    AttemptAdmitted,
    AttemptEnded,
    AttemptRunning,
    CheckpointCommitted,
    CheckpointSkipped,
    ValueTraced,
)
from flyteish._core.model.ids import ActionKey
from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import (
    CHAIN_KEPT,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    WITH_ATTEMPT,
    Action,
    AttemptRecord,
    End,
    Phase,
)
from flyteish._core.model.values import ErrorDocument
from flyteish._core.rules import attempt_ends, placement, retries
from flyteish._core.scheduling.admission import Start
from flyteish._core.scheduling.queue_state import PoolState
from flyteish._core.state import State
from flyteish._core.transitions import relocations
from flyteish._core.transitions.engine_facts import has_machine, live_attempt, shows_that_it_runs
from flyteish._core.transitions.parents_and_children import deliver_held, end, note_drained
from flyteish._core.transitions.phases import move
from flyteish._core.transitions.waiting import begin, go_on, ran_out, review
from flyteish._core.wording import span

Effects = list[Effect]
_PREEMPTED: Final = End.PREEMPTED
_SUCCEEDED: Final = End.SUCCEEDED
_NO_CAPACITY: Final = End.NO_CAPACITY


def start(state: State, order: Start, now: float, effects: Effects) -> None:
    """Admission named a place: the attempt begins in it, or the parent goes on in it."""
    action, pool = order.action, order.pool.config
    queue = state.capacity.queues[action.profile.settings.queue]
    if order.returning:
        move(state, action, RUNNING)
        deliver_held(state, action, effects)
        relocations.review(state, action, now, effects)
        return
    rule, why = action.rule, action.why
    if pool.medium != action.wanted:
        _, rule, why = placement.spot_share()
    elif order.why:
        why = f"{why}; {order.why}"
    event = AttemptAdmitted(
        action.run, action.id, action.generation + 1, action.user_attempt, pool.name, pool.medium, rule, why,
        order.pool.prices.latest, action.queued_at, queue.on_demand_price, pool.ahead > 0,
    )  # fmt: skip
    admitted(state, event, now, effects)
    if event.ahead:
        state.capacity.send_ahead(action)
    effects.append(StartAttempt(action, action.generation, pool.name, pool.medium))
    if pool.medium == SPOT and action.profile.settings.timeout.deadline is not None:
        relocations.review(state, action, now, effects)  # its start-up may take longer than it can afford


def admitted(state: State, event: AttemptAdmitted, now: float, effects: Effects) -> None:
    """An attempt has its place."""
    action = state.runs[event.run].actions[event.action]
    attempt = AttemptRecord(
        event.generation, event.user_attempt, event.pool, event.medium, event.rule, event.why,
        event.price_per_hour, now, event.queued_at, 0.0 if event.ahead else now, on_demand_price=event.on_demand_price,
    )  # fmt: skip
    action.generation = event.generation
    action.user_attempt = event.user_attempt
    action.attempts.append(attempt)
    action.outstanding = 0
    action.held = ()
    action.review_at = 0.0
    if action.phase is not QUEUED:  # in replay: how it came back into the line is not recorded
        move(state, action, QUEUED)
    move(state, action, RUNNING)
    effects.append(Record(now, event))


def running(state: State, event: AttemptRunning, now: float, effects: Effects) -> None:
    """Start-up is over: ``max_runtime`` runs from here."""
    live = live_attempt(state, event)
    if live is None or live[1].running_at:
        return
    action, attempt = live
    if not attempt.placed_at:
        has_machine(state, action, now)
    attempt.running_at = attempt.not_before(now)
    action.rejections = 0
    limit = action.profile.settings.timeout.max_runtime
    if limit is not None:
        state.remind(now + float(limit), "max_runtime", action, attempt.generation)  # type: ignore[arg-type]
    _got_machine(state.capacity.pools[attempt.pool], attempt, now)
    state.experience.started(action.profile.task, attempt.pool, attempt.running_at - attempt.placed_at)
    effects.append(Record(now, event))
    if action.profile.settings.timeout.deadline is not None:
        relocations.review(state, action, now, effects)


def _got_machine(pool: PoolState, attempt: AttemptRecord, now: float) -> None:
    """There was one to be had in this pool when the attempt got it."""
    since = pool.no_capacity_since
    if pool.available == 0 or (since is not None and attempt.placed_at < since):
        return  # that was before the stock-out began
    pool.no_capacity_since = None
    if pool.config.medium == SPOT:
        pool.memory.got(now)


def _remember(pool: PoolState, attempt: AttemptRecord, now: float) -> None:
    """What the end of a spot attempt says of its pool."""
    if not attempt.placed_at:
        return
    seconds = attempt.ended_at - attempt.placed_at
    if attempt.end is not _PREEMPTED:
        pool.memory.ended(now, seconds)
        return
    # Its work since the last checkpoint, and the start-up that the next attempt needs again.
    lost = attempt.ended_at - (attempt.last_checkpoint_at or attempt.placed_at)
    start_up = attempt.running_at - attempt.placed_at if attempt.running_at else 0.0
    pool.memory.preempted(now, seconds, lost + max(0.0, start_up))


# -- the end of an attempt -----------------------------------------------------------------------------------------


def ended(state: State, event: AttemptEnded, now: float, effects: Effects) -> None:
    """An attempt is over: done, again, or given up."""
    live = live_attempt(state, event)
    if live is None:
        _let_go(state, event, effects)
        return
    action, attempt = live
    capacity = state.capacity
    if action.profile.settings.timeout.deadline is not None:
        state.settled(action)
    if not attempt.placed_at:
        _place_late(state, action, attempt, event, now)
    event = priced(state, event, attempt, now)
    effects.append(Record(now, event))
    if action.ticket:
        capacity.withdraw(action)
    if action.occupies:
        capacity.vacate(action)
    if not attempt.running_at and event.running_at:
        attempt.running_at = event.running_at
        action.rejections = 0
        _got_machine(capacity.pools[attempt.pool], attempt, now)
        state.experience.started(action.profile.task, attempt.pool, event.running_at - attempt.placed_at)
    over = event.ended_at if 0 < event.ended_at < now else now
    attempt.ended_at = over if attempt.engine_facts is None else attempt.not_before(over)
    attempt.end, attempt.cause = attempt_ends.classify(event.evidence, attempt, action.rejections)
    if attempt.medium == SPOT and attempt.end is not _NO_CAPACITY:
        _remember(capacity.pools[attempt.pool], attempt, now)
    if attempt.end is _SUCCEEDED:
        action.result = event.evidence.result
        if attempt.running_at:
            since = max(attempt.running_at, attempt.last_checkpoint_at)
            state.experience.finished(action.profile.task, action.kept + attempt.ended_at - since)
        end(state, action, SUCCEEDED, now, effects)
        if state.unpaced:
            _work_is_known(state, action.profile.task, now, effects)
    elif attempt.end is End.CANCELLED:
        end(state, action, Phase.ABORTED, now, effects)
    elif attempt.end is _NO_CAPACITY:
        _denied(state, action, attempt, now)
    else:
        if event.evidence.rejected is not None and not attempt.running_at:
            action.rejections += 1
        if attempt.end is End.MAX_RUNTIME:
            attempt.cause = f"ran longer than max_runtime={span(action.profile.settings.timeout.max_runtime)}"
        elif attempt.end is End.QUEUE_TIMEOUT:
            limit = action.profile.settings.timeout.max_queued_time
            attempt.cause = f"waited longer than max_queued_time={span(limit)}"
        failed(state, action, attempt, event.evidence.error, event.chance, now, effects)


def _place_late(state: State, action: Action, attempt: AttemptRecord, event: AttemptEnded, now: float) -> None:
    """A short one, which was over before its engine said that it had its machine."""
    seen = event.evidence
    ran = seen.result is not None or seen.error is not None or seen.exit_code is not None
    if event.placed_at or event.running_at or ran:
        at = event.placed_at or event.running_at or now
        if 0 < event.running_at < at:
            at = event.running_at
        has_machine(state, action, at if at < now else now)


def _work_is_known(state: State, task: str, now: float, effects: Effects) -> None:
    """The first success of a task: the deadline rule steers those that wait or run already, too."""
    for key in state.unpaced.pop(task, ()):
        action = state.action(key)
        if action is not None and action.phase in WITH_ATTEMPT:
            relocations.review(state, action, now, effects)
        elif action is not None:
            review(state, action, now)


def priced(state: State, event: Any, attempt: AttemptRecord, now: float) -> Any:
    """The event that ends an attempt, with the mean price of its life where that is not the price it began with."""
    if event.price_per_hour is None:
        prices, since = state.capacity.pools[attempt.pool].prices, attempt.placed_at or now
        if attempt.engine_facts is None and prices.was_steady(since):
            return event
        price = _mean_price(prices, since, attempt, now)
        if price is None:
            return event
        event = msgspec.structs.replace(event, price_per_hour=price)
    attempt.price_per_hour = event.price_per_hour
    return event


def _mean_price(prices: Prices, since: float, attempt: AttemptRecord, now: float) -> float | None:
    """None: the price that is on record of it already."""
    facts = attempt.engine_facts
    if facts is not None:
        if facts.price_per_hour is not None:
            return None  # its engine knows the price of its very machine
        if facts.taken_up_at and now > since:
            # What earlier controllers saw of the pool's price is on no record, but the price it began with is.
            taken = max(facts.taken_up_at, since)
            later = prices.latest if prices.was_steady(taken) else prices.mean(taken, now)
            if later == attempt.price_per_hour:
                return later  # the mean of two equal prices may differ from both in its last digit
            dollars = attempt.price_per_hour * (taken - since) + later * (now - taken)
            return dollars / (now - since)
    return None if prices.was_steady(since) else prices.mean(since, now)


def _let_go(state: State, event: AttemptEnded, effects: Effects) -> None:
    """The end of an attempt that was given up: nothing of it counts, but its place is free only now."""
    run = state.runs.get(event.run)
    action = run.actions.get(event.action) if run is not None else None
    if run is None or action is None or action.generation != event.generation or not action.occupies:
        return
    state.capacity.vacate(action)
    run.zombies -= 1
    if run.forgotten and not run.zombies:
        del state.runs[run.id]
    queue = state.capacity.queues[action.profile.settings.queue]
    note_drained(state, queue, effects)


def failed(
    state: State,
    action: Action,
    attempt: AttemptRecord,
    error: ErrorDocument | None,
    chance: float,
    now: float,
    effects: Effects,
) -> None:
    """An attempt ended without success: charge whoever pays, and try again or give up."""
    assert attempt.end is not None
    verdict = retries.decide(attempt.end, action, attempt.medium, error, chance)
    attempt.charged = verdict.charged
    if attempt.end in attempt_ends.OWN_DOING:
        state.experience.failed(action.profile.task)
    if attempt.end is End.PREEMPTED:
        action.preemptions += 1
        if attempt.medium == "spot":
            action.preemptions_in_row += 1
    if not verdict.again:
        action.error = retries.final_error(attempt.end, attempt.cause, verdict, error)
        if verdict.spent not in attempt.cause:
            attempt.cause = f"{attempt.cause} ({verdict.spent})"
        end(state, action, Phase.FAILED, now, effects)
        return
    if verdict.charged == "system_retries":
        action.system_used += 1
    if verdict.next_user_attempt:
        action.user_attempt += 1
        action.system_used = 0
        action.preemptions_in_row = 0
    _wait_again(state, action, verdict, now)


def _wait_again(state: State, action: Action, verdict: retries.Verdict, now: float) -> None:
    if action.phase is Phase.ENTERING:  # it keeps its place at the door: that is wait enough
        begin(state, state.runs[action.run], action, now)
    elif verdict.delay > 0:
        state.capacity.withdraw(action)
        move(state, action, Phase.BACKING_OFF)
        action.wait += 1
        state.remind(now + verdict.delay, "backoff", action, action.wait)
    else:
        state.capacity.withdraw(action)
        if action.phase is not Phase.QUEUED:
            move(state, action, Phase.QUEUED)
        begin(state, state.runs[action.run], action, now, verdict.at_head)


def _denied(state: State, action: Action, attempt: AttemptRecord, now: float) -> None:
    """The pool had no capacity: the attempt never was; the pool is left alone for its cooldown."""
    action.attempts.pop()
    action.denials += 1
    pool = state.capacity.pools[attempt.pool]
    if now >= pool.cooling_until and pool.config.medium == SPOT:
        pool.memory.refused(now)  # those that were on their way when it was refused first say nothing new
    pool.cooling_until = now + pool.config.cooldown
    state.remind(pool.cooling_until, "cooldown", None, pool=attempt.pool)
    ran_out(state, attempt.pool, now)
    move(state, action, Phase.QUEUED)
    go_on(state, action, min(attempt.queued_at, now), now)  # the clock may have gone back since


# -- what a running attempt leaves behind ---------------------------------------------------------------------------


def checkpoint_committed(state: State, event: CheckpointCommitted, now: float, effects: Effects) -> None:
    """A link of the chain: progress, so the count of preemptions without it begins anew."""
    live = live_attempt(state, event)
    if live is None:
        effects.append(_given_up(event, "its checkpoint"))
        return
    action, attempt = live
    if event.record in action.checkpoints:  # sent again, since its worker has not heard that it is on record
        return
    if not attempt.placed_at:
        shows_that_it_runs(state, action, now, effects)
    action.checkpoints = (*action.checkpoints[1 - CHAIN_KEPT :], event.record)
    if not placement.trip_wire_fired(action):  # a fired one sends all the rest of the user attempt on-demand
        action.preemptions_in_row = 0
    gap = now - max(attempt.running_at or attempt.placed_at, attempt.last_checkpoint_at)
    action.kept += max(0.0, gap - event.record.restore_seconds)
    attempt.last_checkpoint_at = now
    if event.record.restore_seconds:
        state.experience.restored(action.profile.task, event.record.restore_seconds)
    state.experience.saved(action.profile.task, gap, event.record.save_seconds)
    effects.append(Record(now, event))
    if action.profile.settings.timeout.deadline is not None:
        relocations.review(state, action, now, effects)


def _given_up(event: CheckpointCommitted | ValueTraced, what: str) -> Refuse:
    key = ActionKey(event.run, event.action)
    return Refuse(key, "StaleAttemptError", f"attempt {event.generation} of {key} was given up; {what} is refused")


def checkpoint_skipped(state: State, event: CheckpointSkipped, now: float, effects: Effects) -> None:
    """A warning that stays with the action."""
    live = live_attempt(state, event)
    if live is None:
        return
    action = live[0]
    action.warnings += (f"checkpoint {event.sequence} was skipped on restore: {event.why}",)
    if event.sequence not in action.skipped:
        action.skipped += (event.sequence,)
        action.kept = max(0.0, action.kept - _kept_by(action, event.sequence))
    effects.append(Record(now, event))


def _kept_by(action: Action, sequence: int) -> float:
    """Running time between a checkpoint and the one before it, or the beginning of the attempt that saved it."""
    before = None
    for record in action.checkpoints:
        if record.sequence == sequence:
            saver = next(each for each in action.attempts if each.generation == record.generation)
            since = saver.running_at or saver.placed_at
            if before is not None and before.generation == record.generation:
                since = before.saved_at
            return max(0.0, record.saved_at - since - record.restore_seconds)
        before = record
    return 0.0


def value_traced(state: State, event: ValueTraced, now: float, effects: Effects) -> None:
    """A traced helper's value, for the attempts to come."""
    live = live_attempt(state, event)
    if live is None:
        effects.append(_given_up(event, "the value of its traced helper"))
        return
    action = live[0]
    if action.traced is None:
        action.traced = {}
    elif action.traced.get(event.key) == event.result:  # sent again, as above
        return
    action.traced[event.key] = event.result
    effects.append(Record(now, event))
