"""Promises that concern one event and what follows from it, worked out from the specification and not from the core.

Each function looks at the world before and after an event. What must hold in any state is in the core's invariants;
what concerns a whole history and needs a memory is in ``watch``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from flyteish._core.model.effects import Effect, QueueDrained, Record, Refuse, StartAttempt, StopAttempt
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    Configured,
    Event,
    LimitReached,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    RunSubmitted,
)
from flyteish._core.model.ids import ActionKey
from flyteish._core.model.policies import SpotPolicy
from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import TERMINAL, Action, AttemptRecord, End, Phase
from flyteish._core.state import State

if TYPE_CHECKING:
    from tests.histories.watch import Watched

_HAIR = 1e-6
_KILL_NOTHING = (Configured, PoolCapacityChanged, PoolPriceChanged, QueueStateSet)
BY_DEADLINE = ("deadline-safety", "behind", "slack-kept")
"""Rules that send work on-demand so that it keeps its deadline, whatever ``fallback`` says."""
_BY_USER = (End.USER_ERROR, End.MAX_RUNTIME, End.OUT_OF_MEMORY, End.QUEUE_TIMEOUT)


Timers = dict[tuple[str, ActionKey | None, int], float]
"""When what is due: by kind, action, and the wait or generation that it is about."""


class Standing(NamedTuple):
    """Somebody in a queue's line, before an event."""

    action: Action
    ticket: int
    wait: int
    wanted: str


class Before(NamedTuple):
    """What an event may change, as far as a promise asks for it."""

    standing: dict[ActionKey, Standing]
    quiet: bool
    """Nothing was due."""
    full: bool
    """The queue that is submitted to was full."""
    budgets: tuple[int, int]
    """Of the action whose attempt ends: user attempt, system retries used."""
    queued_at: float
    """Since when that attempt had waited to start."""


def look(state: State, event: Event, now: float) -> Before:
    """The world before an event."""
    standing = {
        action.key: Standing(action, action.ticket, action.wait, action.wanted)
        for run in state.runs.values()
        for action in run.actions.values()
        if action.stands == "line"
    }
    due = state.next_due()
    full, budgets, queued_at = False, (0, 0), 0.0
    if type(event) is ActionSubmitted:
        full = _is_full(state, event)
    elif type(event) is AttemptEnded:
        action = state.action(ActionKey(event.run, event.action))
        if action is not None:
            budgets, queued_at = (action.user_attempt, action.system_used), action.queued_at
    return Before(standing, due is None or due > now, full, budgets, queued_at)


def _is_full(state: State, event: ActionSubmitted) -> bool:
    run = state.runs.get(event.run)
    if run is None:
        return False
    name = run.profiles[event.profile].settings.queue
    queue = state.capacity.queues.get(name)
    if queue is None or not queue.config.depth:
        return False
    inside = sum(
        action.phase in (Phase.QUEUED, Phase.BACKING_OFF, Phase.RUNNING, Phase.RETURNING)
        and not (queue.config.on_full == "wait" and action.stands in ("hold", "overlap"))
        for each in state.runs.values()
        for action in each.actions.values()
        if action.profile.settings.queue == name
    )
    return inside >= queue.config.depth


def check(world: Watched, event: Event, before: Before, effects: list[Effect]) -> None:
    """Everything that one event must and must not lead to."""
    starts = [effect for effect in effects if type(effect) is StartAttempt]
    for start in starts:
        _check_medium(start.action)
        _check_may_start(world, start)
    if starts:
        _check_order(world, event, before, starts)
    for effect in effects:
        if type(effect) is StopAttempt:
            assert type(event) not in _KILL_NOTHING, "work that ran was stopped"
            _check_stop(world, effect)
        elif type(effect) is QueueDrained:
            left = [a for run in world.state.runs.values() for a in run.actions.values() if _is_in(a, effect.queue)]
            assert not left, f"queue {effect.queue} is drained, with work in it: {left}"
    if type(event) is RunSubmitted:
        _check_run(world, event, effects)
    elif type(event) is ActionSubmitted and before.quiet:
        _check_submission(world, event, before, effects)


def _is_in(action: Action, queue: str) -> bool:
    return action.profile.settings.queue == queue and (action.phase not in TERMINAL or bool(action.occupies))


# -- who pays, and what follows --------------------------------------------------------------------------------------


def check_payment(action: Action, attempt: AttemptRecord, end: End, types: tuple[str, ...], before: Before) -> str:
    """The table of the specification, for one attempt that has just ended as ``end``; returns what follows."""
    settings = action.profile.settings
    user_attempt, used = before.budgets
    policy, strategy = settings.interruptible, settings.retries
    assert attempt.end is end, f"an end was seen as {attempt.end}, expected {end}"
    if end is End.SUCCEEDED:
        assert action.phase is Phase.SUCCEEDED, "a success did not count"
        return "done"
    if end is End.CANCELLED:
        assert action.phase is Phase.ABORTED, "cancelled, and goes on"
        return "ends"
    if end is End.REJECTED:
        assert action.phase not in TERMINAL, "a rejection ended it"
        assert not attempt.charged, f"a rejection was charged to {attempt.charged}"
        assert (action.user_attempt, action.system_used) == before.budgets, "a rejection was charged"
        return "at the head"
    if end is End.RELOCATED:
        assert action.phase not in TERMINAL, "a planned move ended it"
        assert not attempt.charged, f"a planned move was charged to {attempt.charged}"
        assert (action.user_attempt, action.system_used) == before.budgets, "a planned move was charged"
        return "at the head"
    if end in (End.FINAL_ERROR, End.UNMENDABLE):
        assert action.phase is Phase.FAILED, f"{end}: it must fail at once"
        assert not attempt.charged, f"{end}: nobody pays"
        return "ends"
    if end is End.PREEMPTED and attempt.medium == SPOT and not (policy and policy.budget == "single"):
        assert action.phase not in TERMINAL, "a preemption on spot ended it"
        assert attempt.charged == "preemptions", f"a preemption on spot was charged to {attempt.charged or 'nobody'}"
        assert (action.user_attempt, action.system_used) == before.budgets, "a preemption was charged"
        assert action.phase is not Phase.BACKING_OFF, "preempted work is delayed"
        return "at the head"
    if end in _BY_USER or (end is End.PREEMPTED and attempt.medium == SPOT):
        allowed = not types or strategy.retry_on is None or any(name in strategy.retry_on for name in types)
        again = allowed and user_attempt <= strategy.count
        charged = "retries" if allowed else ""
        expected = (user_attempt + 1, 0) if again else before.budgets
    else:
        assert end in (End.PREEMPTED, End.INFRASTRUCTURE), f"nobody is known to pay for {end}"
        again, charged = used < strategy.system_retries, "system_retries"
        expected = (user_attempt, used + 1) if again else before.budgets
    assert attempt.charged == charged, f"{end} was charged to {attempt.charged or 'nobody'}, expected {charged}"
    assert (action.phase is Phase.FAILED) == (not again), f"{end}: expected {'another try' if again else 'a failure'}"
    assert (action.user_attempt, action.system_used) == expected, f"{end} was charged wrongly"
    return "delayed" if again else "ends"


def delay_of(action: Action, end: End, before: Before, chance: float) -> float:
    """The back-off that is owed before the next try, seconds."""
    user_attempt, used = before.budgets
    if action.user_attempt > user_attempt:
        backoff = action.profile.settings.retries.backoff
        return backoff.delay(user_attempt - 1, chance) if backoff is not None and end is not End.PREEMPTED else 0.0
    return min(60.0, 2.0**used) * (1 - 0.5 * chance)


# -- the medium ------------------------------------------------------------------------------------------------------


def in_row(action: Action, attempts: list[AttemptRecord], limit: int) -> int:
    """Preemptions in a row without a checkpoint in the newest user attempt; stays at ``limit`` once there."""
    row = 0
    for attempt in attempts:
        if attempt.user_attempt == action.user_attempt:
            if attempt.last_checkpoint_at and row < limit:
                row = 0
            if attempt.end is End.PREEMPTED and attempt.medium == SPOT:
                row += 1
    return row


def _check_medium(action: Action) -> None:
    attempt, earlier = action.attempts[-1], action.attempts[:-1]
    policy: SpotPolicy | None = action.profile.settings.interruptible
    if policy is None:
        assert attempt.medium != SPOT, "on spot without being interruptible"
        return
    final = action.user_attempt > action.profile.settings.retries.count
    fired = in_row(action, earlier, policy.preemptions_without_progress) >= policy.preemptions_without_progress
    preempted = any(each.end is End.PREEMPTED for each in earlier)
    risky = not action.profile.settings.idempotent and not policy.force
    if attempt.medium == SPOT:
        assert not risky, "on spot, though its effects must not happen twice"
        assert policy.fallback != "final" or not final, "the last user attempt is on spot"
        assert policy.fallback != "final" or not fired, "on spot, though the trip-wire has fired"
        assert policy.fallback != "first-preemption" or not preempted, "on spot after its first preemption"
        return
    if attempt.rule in BY_DEADLINE:
        assert action.deadline_at is not None, "on-demand for a deadline that it does not have"
        assert policy.deadline_policy != "off", "on-demand for a deadline, though its policy is off"
        return
    assert risky or attempt.rule != "not-idempotent", "on-demand as not idempotent, which it is or need not be"
    assert policy.fallback != "never" or risky, "on-demand, though its policy says never"
    holds = {
        "final-attempt": policy.fallback == "final" and final,
        "trip-wire": policy.fallback == "final" and fired,
        "first-preemption": policy.fallback == "first-preemption" and preempted,
        "stock-out": policy.max_spot_wait is not None
        and attempt.admitted_at - attempt.queued_at >= float(policy.max_spot_wait) - _HAIR,  # type: ignore[arg-type]
    }
    assert holds.get(attempt.rule, True), f"on-demand by rule {attempt.rule}, which does not hold"
    assert attempt.rule != "interruptible", "on-demand without a reason"


# -- admission -------------------------------------------------------------------------------------------------------


def _check_may_start(world: Watched, start: StartAttempt) -> None:
    action, capacity = start.action, world.state.capacity
    assert not action.cancel_reason, "a cancelled action starts"
    parent = world.state.runs[action.run].actions[action.parent] if action.parent is not None else None
    assert parent is None or parent.phase not in TERMINAL, "it starts after its parent has ended"
    assert world.now >= world.earliest.get(action.key, 0.0) - _HAIR, "it starts before its back-off is over"
    queue, pool = capacity.queues[action.profile.settings.queue], capacity.pools[start.pool]
    assert queue.state != "held", "a held queue lets work start"
    assert pool.available is None or pool.running <= pool.available, "a start in a pool without capacity"
    assert world.now >= world.cooling.get(start.pool, 0.0) - _HAIR, "a start in a pool that is left alone"
    configured = {config.name: config for config in world.config.queues}
    if queue.config.name in configured:
        named = configured[queue.config.name].pools or [config.name for config in world.config.pools]
        assert start.pool in named, f"queue {queue.config.name} does not feed pool {start.pool}"
    assert start.medium == pool.config.medium, "the wrong medium"


def _check_order(world: Watched, event: Event, before: Before, starts: list[StartAttempt]) -> None:
    """Nobody who stood in a line all the time was passed by one who comes later in the same line."""
    if type(event) is Configured:
        return  # lines may have been made anew
    capacity = world.state.capacity
    for start in starts:
        queue = capacity.queues[start.action.profile.settings.queue]
        for each in capacity.queues.values():
            back = each.first_back(start.pool)
            blocked = back is not None and each.no_way_back(back, capacity.pools[start.pool])
            assert back is None or blocked, "it starts where a parent waits for its place back"
        was = before.standing.get(start.action.key)
        if was is None or was.wait != start.action.wait or was.wanted != start.action.wanted:
            continue
        for left in before.standing.values():
            if left.action.stands == "line" and left.action.ticket == left.ticket and _same_line(queue, was, left):
                assert not _is_before(queue.config.fairness, left, was), f"{start.action!r} passed {left.action!r}"


def _same_line(queue: object, one: Standing, other: Standing) -> bool:
    mine, theirs = one.action.profile.settings, other.action.profile.settings
    greedy = queue.config.scheduling == "greedy_capacity"  # type: ignore[attr-defined]
    same = mine.queue == theirs.queue and one.wanted == other.wanted
    return same and (not greedy or mine.amounts == theirs.amounts)


def _is_before(fairness: str, one: Standing, other: Standing) -> bool:
    first, second = one.action.profile.settings.priority, other.action.profile.settings.priority
    if first != second:
        return first > second
    comparable = fairness == "fifo" or one.action.run == other.action.run or one.ticket < 0
    return comparable and one.ticket < other.ticket


def check_head(world: Watched, action: Action) -> None:
    """A preempted attempt that could not go on at once stands before all others of its priority."""
    capacity = world.state.capacity
    if action.stands != "line":
        return
    queue = capacity.queues[action.profile.settings.queue]
    for other in queue.lines[queue.line_key(action)]:
        if other is action:
            return
        same = other.profile.settings.priority == action.profile.settings.priority
        assert not same or other.ticket < 0, f"preempted, and behind {other!r}"


def check_medium_of_wait(world: Watched, action: Action, timers: Timers) -> None:
    """Who waits in a line waits for a medium that its queue has, and for spot no longer than it is willing to."""
    capacity, settings = world.state.capacity, action.profile.settings
    policy: SpotPolicy | None = settings.interruptible
    if action.stands != "line":
        return
    queue = capacity.queues[settings.queue]
    if not world.reconfigured:
        lasting = any(
            settings.amounts.within(pool.limit) for pool in queue.pools if pool.config.medium == action.wanted
        )
        assert lasting, f"{action!r} waits for {action.wanted}, which its queue will never have"
    if policy is None or policy.fallback == "never":
        return
    has_spot = any(settings.amounts.within(pool.limit) for pool in queue.spot)
    assert action.wanted != SPOT or has_spot, f"{action!r} waits for spot, which its queue does not have"
    assert action.rule != "no-spot-pool" or not has_spot, f"{action!r} waits for on-demand, and its queue has spot"
    out = queue.out_since()
    if policy.max_spot_wait is not None and action.wanted == SPOT and out is not None:
        patience = max(out, action.queued_at) + float(policy.max_spot_wait)  # type: ignore[arg-type]
        # It may have passed at the door already, or while spot could be had: then it is due in the same moment.
        watched = timers.get(("max_spot_wait", action.key, action.wait), math.inf)
        assert watched <= max(patience, world.now), f"{action!r}: nobody watches its max_spot_wait"


def check_stock_out(world: Watched, event: LimitReached) -> None:
    """``max_spot_wait`` ends only where no spot pool of the queue has had capacity for so long."""
    action, capacity = world.state.action(ActionKey(event.run, event.action)), world.state.capacity
    assert action is not None
    policy: SpotPolicy | None = action.profile.settings.interruptible
    assert policy is not None
    assert policy.max_spot_wait is not None
    for pool in capacity.queues[action.profile.settings.queue].spot:
        had = world.had_capacity.get(pool.config.name, 0.0)
        least = float(policy.max_spot_wait) - world.behind - _HAIR  # type: ignore[arg-type]
        assert world.now - had >= least, "it gave up on spot, which had capacity"


def check_lines(world: Watched) -> None:
    """In each line, by priority, the preempted stand before those who have not run yet."""
    capacity = world.state.capacity
    for queue in capacity.queues.values():
        for line in queue.lines.values():
            order = [(-action.profile.settings.priority, action.ticket > 0) for action in line]
            assert order == sorted(order), f"{queue!r}: its line is out of order"


# -- stops and submissions -------------------------------------------------------------------------------------------


def _check_stop(world: Watched, stop: StopAttempt) -> None:
    action = world.state.action(ActionKey(stop.key.run, stop.key.action))
    assert action is not None
    limit = action.profile.settings.timeout
    attempt = next(each for each in action.attempts if each.generation == stop.key.generation)
    if stop.reason == "cancelled":
        assert action.cancel_reason, "stopped as cancelled, and nobody cancelled it"
    elif stop.reason == "max_runtime":
        assert limit.max_runtime is not None
        assert attempt.running_at, "stopped for its max_runtime before it ran"
        assert world.now >= attempt.running_at + float(limit.max_runtime) - world.behind - _HAIR, "stopped too early"  # type: ignore[arg-type]
    elif stop.reason == "max_queued_time":
        assert limit.max_queued_time is not None
        waited = (world.now if attempt.ended_at else attempt.placed_at or world.now) - attempt.queued_at
        assert waited >= float(limit.max_queued_time) - world.behind - _HAIR, "stopped too early"  # type: ignore[arg-type]
    elif stop.reason == "deadline":
        assert action.deadline_at is not None
        assert world.now >= action.deadline_at - world.behind - _HAIR, "stopped before its deadline"
    else:
        raise AssertionError(f"stopped for an unknown reason: {stop.reason}")


def _check_run(world: Watched, event: RunSubmitted, effects: list[Effect]) -> None:
    refused = [effect for effect in effects if type(effect) is Refuse]
    capacity = world.state.capacity
    queue = capacity.queues.get(event.queue)
    if queue is None or queue.removed:
        assert refused, "a run in a queue that is not there"
        return
    others = [
        run
        for run in world.state.runs.values()
        if run.id != event.run and (run.task, run.queue) == (event.task, event.queue) and run.root and not run.ended_at
    ]
    others = [run for run in others if run.root_action.phase not in TERMINAL]
    takes = queue.state in ("active", "held") and not (queue.config.overlap == "skip" and others)
    assert takes == (not refused), (
        f"queue {event.queue} is {queue.state}, and a run was {'refused' if refused else 'accepted'}"
    )


def _check_submission(world: Watched, event: ActionSubmitted, before: Before, effects: list[Effect]) -> None:
    accepted = any(type(effect) is Record and effect.event is event for effect in effects)
    action = world.state.action(ActionKey(event.run, event.action))
    if not accepted or event.cached is not None or action is None:
        return
    config = world.state.capacity.queues[action.profile.settings.queue].config
    assert not before.full or config.on_full == "wait", "a full queue let somebody in"
    if action.parent is None and config.overlap == "replace":
        mine = world.state.runs[event.run]
        for run in world.state.runs.values():
            if run.id != mine.id and (run.task, run.queue) == (mine.task, mine.queue) and run.root:
                root = run.root_action
                assert root.phase in TERMINAL or root.cancel_reason, f"run {run.id} was not replaced"
