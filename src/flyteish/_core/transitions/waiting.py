"""Where an action waits for its next attempt, and from when its limits on waiting run.

At the door of a full queue, in the hold of runs that may not begin yet, or in line for the medium that ``placement``
chose. Must not know why it waits again, nor who goes next (``admission``).
"""

from __future__ import annotations

import math

from flyteish._core.model.policies import SpotPolicy
from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.records import QUEUED, Action, RunRecord
from flyteish._core.rules import placement
from flyteish._core.rules.deadline_policies import DEADLINE_SAFETY
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.queue_state import QueueState
from flyteish._core.state import State
from flyteish._core.transitions import deadline_pacing
from flyteish._core.transitions.phases import move


def enter(state: State, run: RunRecord, action: Action, now: float) -> None:
    """The first time in its queue: through the door, if there is room."""
    capacity = state.capacity
    queue = capacity.enlist(action)
    if queue.config.depth and queue.is_full():
        capacity.wait_outside(action)
    else:
        move(state, action, QUEUED)
    begin(state, run, action, now)


def begin(state: State, run: RunRecord, action: Action, now: float, at_head: bool = False) -> None:
    """A new wait: its limits run from here."""
    action.queued_at = now
    action.wait += 1
    limit = action.profile.settings.timeout.max_queued_time
    if limit is not None:
        state.remind(now + float(limit), "max_queued_time", action, action.wait)  # type: ignore[arg-type]
    if action.phase is QUEUED and action.enlisted:
        _stand(state, run, action, at_head, now)


def go_on(state: State, action: Action, since: float, now: float) -> None:
    """The same wait, interrupted by a vain try: its limits run from its beginning, its medium stays.

    Unless a deadline says otherwise: what the try has shown may be what it went by.
    """
    action.queued_at = since
    if not action.enlisted:
        return
    limit = action.profile.settings.timeout.max_queued_time
    if limit is not None:  # it may have passed meanwhile, unheard
        state.remind(since + float(limit), "max_queued_time", action, action.wait)  # type: ignore[arg-type]
    if action.wanted == SPOT and _placement(state.capacity, action).medium != SPOT:
        line_up(state, action, at_head=True, now=now)  # its queue has lost its spot pools meanwhile
        return
    state.capacity.line_up(action, at_head=True)
    watch_stock(state, action)
    if action.profile.settings.timeout.deadline is not None:
        review(state, action, now)


def _stand(state: State, run: RunRecord, action: Action, at_head: bool, now: float) -> None:
    capacity = state.capacity
    if action.parent is not None or run.active:
        line_up(state, action, at_head, now)
        return
    queue = capacity.queues[action.profile.settings.queue]
    config = queue.config
    if queue.held or config.run_concurrency or config.depth or config.overlap == "queue":
        capacity.hold_root(action)
        release_roots(state, queue, now)
    else:  # nobody is before it and nothing keeps runs back, so it does not stand in the hold first
        capacity.begin_run(run, queue)
        line_up(state, action, at_head=False, now=now)


def line_up(state: State, action: Action, at_head: bool, now: float) -> None:
    """In line for the medium of the next attempt."""
    capacity = state.capacity
    chosen = _placement(capacity, action)
    again = math.inf
    if chosen.medium == SPOT and action.profile.settings.timeout.deadline is not None:
        chosen, again = _by_deadline(state, action, chosen, now, deadline_pacing.spot_is_free(state, action, now))
    action.wanted, action.rule, action.why = chosen
    capacity.line_up(action, at_head)
    if action.profile.settings.interruptible is not None:
        watch_stock(state, action)
        if again < math.inf:
            state.remind(again, "review", action, action.wait)


def _by_deadline(
    state: State, action: Action, chosen: placement.Placement, now: float, free: bool
) -> tuple[placement.Placement, float]:
    """What its deadline says, where it steers: the medium to wait for, and when to look again if it still waits."""
    deadline_pacing.take_up_work(state, action)
    if not deadline_pacing.is_paced(state, action):
        return chosen, math.inf
    decision = deadline_pacing.decide(state, action, now, free)
    placed = placement.by_deadline(decision)
    again = math.inf if placed.medium == ON_DEMAND else decision.review
    if decision.go == SPOT:
        again = now + deadline_pacing.SHORTEST_REVIEW  # by then it has its place, or somebody else had it
    elif placed.medium == ON_DEMAND and placed.rule != DEADLINE_SAFETY:
        again = now + deadline_pacing.patience(state, action)  # spot may come before its place on-demand does
    return placed, max(again, now + deadline_pacing.SHORTEST_REVIEW)


def review(state: State, action: Action, now: float) -> None:
    """It still waits under the deadline rule: whether it waits for the right medium, and until when."""
    capacity = state.capacity
    if action.stands != "line" or action.rule in (placement.STOCK_OUT, DEADLINE_SAFETY):
        return
    standing = _placement(capacity, action)
    if standing.medium != SPOT:
        return
    # What is free and has not been given to it in its line is for somebody else, unless the queue holds it back.
    held_back = capacity.queues[action.profile.settings.queue].refusal(action) is not None
    free = (held_back or action.wanted != SPOT) and deadline_pacing.spot_is_free(state, action, now)
    chosen, again = _by_deadline(state, action, standing, now, free)
    action.rule, action.why = chosen.rule, chosen.why
    if chosen.medium != action.wanted:  # it has waited, so it goes to the head of the other line
        capacity.withdraw(action)
        action.wanted = chosen.medium
        capacity.line_up(action, at_head=True)
    elif free:
        again = now + deadline_pacing.patience(state, action)
    if again < math.inf:
        state.remind(again, "review", action, action.wait)


def _placement(capacity: Capacity, action: Action) -> placement.Placement:
    chosen, settings = placement.choose(action), action.profile.settings
    if chosen.medium == SPOT and not capacity.queues[settings.queue].takes_spot(settings.amounts):
        return placement.where_there_is_no_spot(chosen, settings)
    return chosen


def let_in(state: State, now: float) -> None:
    """Queues that are no longer full: those at the door come in, in order."""
    capacity = state.capacity
    roomy, capacity.roomy = capacity.roomy, {}
    for name in roomy:
        queue = capacity.queues.get(name)
        if queue is None:
            continue
        while not queue.is_full() and (action := capacity.next_inside(queue)) is not None:
            move(state, action, QUEUED)
            _stand(state, state.runs[action.run], action, at_head=False, now=now)
        release_roots(state, queue, now)


def release_roots(state: State, queue: QueueState, now: float) -> None:
    """Let the next runs of a queue begin, as far as ``run_concurrency`` and ``overlap`` allow."""
    capacity, config = state.capacity, queue.config
    while (root := queue.hold.head()) is not None:
        if config.run_concurrency and queue.active_runs >= config.run_concurrency:
            return
        if config.on_full == "wait" and queue.is_full():
            return
        run = state.runs[root.run]
        if config.overlap == "queue" and run.task in queue.active_tasks:
            capacity.block_root(root, queue, run.task)
            continue
        capacity.leave_hold(root, queue)
        capacity.begin_run(run, queue)
        line_up(state, root, at_head=False, now=now)


def change_lines(state: State, queue: QueueState, now: float) -> None:
    """The queue may feed other pools now: whoever waits for a medium that it has lost, or got, changes lines."""
    capacity = state.capacity
    waiting = sorted((action for line in queue.lines.values() for action in line), key=lambda action: action.ticket)
    for action in waiting:
        if action.rule != placement.STOCK_OUT and _placement(capacity, action).medium != action.wanted:
            at_head = action.ticket < 0
            capacity.withdraw(action)
            line_up(state, action, at_head, now)
        else:
            watch_stock(state, action)  # the pools that are left may all be out of capacity
            if action.profile.settings.timeout.deadline is not None:
                review(state, action, now)


# -- stock-outs -----------------------------------------------------------------------------


def watch_stock(state: State, action: Action) -> None:
    """If its spot pools are out of capacity, come back when its patience ends."""
    due = patience_ends(state, action)
    if due is not None:
        state.remind(due, "max_spot_wait", action, action.wait)


def patience_ends(state: State, action: Action) -> float | None:
    """When ``max_spot_wait`` is over, if nothing changes; None: not while things are as they are."""
    policy: SpotPolicy | None = action.profile.settings.interruptible
    if policy is None or policy.max_spot_wait is None or policy.fallback == "never":
        return None
    if action.wanted != SPOT or action.stands != "line":
        return None
    out = state.capacity.queues[action.profile.settings.queue].out_since()
    return None if out is None else max(out, action.queued_at) + float(policy.max_spot_wait)  # type: ignore[arg-type]


def ran_out(state: State, name: str, now: float) -> None:
    """A pool reports no capacity: whoever waits for spot and has limited patience is watched from here."""
    pool = state.capacity.pools[name]
    if pool.no_capacity_since is not None:
        return
    pool.no_capacity_since = now
    for queue in pool.feeders:
        if queue.out_since() is not None:
            for line in queue.lines.values():
                for action in line:
                    watch_stock(state, action)
