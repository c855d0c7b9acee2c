"""What must hold between any two events, checked against the state itself: used by tests, after every event.

Works everything out anew from the facts and compares it with what is counted. Must not know how the state came
about; the rules that concern a whole history are the tests' to check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, Action, End, Phase, RunRecord
from flyteish._core.model.resources import NO_AMOUNTS, Amounts
from flyteish._core.rules.retries import most_attempts
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.queue_state import PoolState, QueueState, Reason
from flyteish._core.state import ReplayState, State
from flyteish._core.story import attempt_lines
from flyteish._core.transitions.phases import COUNTED

_BLOCKING: Final = (Reason.RESOURCES, Reason.SPEND_LIMIT)
_STANDS: Final = {
    Phase.ENTERING: ("door",),
    Phase.QUEUED: ("line", "hold", "overlap"),
    Phase.RETURNING: ("return",),
}


def check(state: State, now: float | None = None, tightened: Collection[str] = ()) -> None:
    """Everything that must hold.

    Args:
        now: also check that nobody waits who could start; seconds since the epoch.
        tightened: queues and pools (as in ``exceeded``) whose limits were lowered while work was in them.

    Raises:
        AssertionError: says what is broken, with the action's story where it is about one.
    """
    live = not isinstance(state, ReplayState)
    for run in state.runs.values():
        _check_run(run)
        for action in run.actions.values():
            _check_action(action)
            _check_history(action)
            _check_family(state, run, action)
            if live:
                _check_place(action)
    if live:
        everybody = [action for run in state.runs.values() for action in run.actions.values()]
        _check_counts(state.capacity, everybody, state.runs)
        over = {name: what for name, what in exceeded(state.capacity).items() if name not in tightened}
        _must(not over, "all queues", f"limits are exceeded: {over}")
        if now is not None:
            _check_nobody_idles(state, now)


def _must(holds: bool, about: object, what: str) -> None:
    if not holds:
        story = "".join(f"\n  {line}" for line in attempt_lines(about)) if isinstance(about, Action) else ""
        raise AssertionError(f"{about!r}: {what}{story}")


# -- one action ------------------------------------------------------------------------------------------------------


def _check_run(run: RunRecord) -> None:
    actions = run.actions.values()
    unfinished = sum(action.phase not in TERMINAL for action in actions)
    _must(run.open == unfinished, run.id, f"open={run.open}, but {unfinished} actions are not over")
    _must(bool(run.ended_at) == (bool(run.root) and not unfinished), run.id, f"ended_at={run.ended_at}")
    zombies = sum(action.phase in TERMINAL and bool(action.occupies) for action in actions)
    _must(run.zombies == zombies, run.id, f"zombies={run.zombies}, but {zombies} ended actions hold a place")


def _check_action(action: Action) -> None:
    over = action.phase in TERMINAL
    _must(over == bool(action.ended_at), action, f"ended_at={action.ended_at}")
    _must((action.result is not None) == (action.phase is Phase.SUCCEEDED), action, "its result and phase disagree")
    _must((action.error is not None) == (action.phase is Phase.FAILED), action, "its error and phase disagree")
    _must((action.current is not None) == (action.phase in WITH_ATTEMPT), action, "its live attempt and phase disagree")
    _must(action.phase is Phase.ABORTED or not over or not action.held, action, "over, with undelivered children")
    _must(1 <= action.user_attempt <= action.max_attempts, action, "more user attempts than its retries allow")


def _check_history(action: Action) -> None:
    attempts, settings = action.attempts, action.profile.settings
    generations = [attempt.generation for attempt in attempts]
    _must(generations == sorted(set(generations)), action, "generations do not grow")
    _must(not attempts or generations[-1] <= action.generation, action, "its newest generation is not its own")
    _must(all(attempt.ended_at for attempt in attempts[:-1]), action, "two live attempts")
    tries = [attempt.user_attempt for attempt in attempts]
    _must(tries == sorted(tries), action, "user attempts go back")
    policy = settings.interruptible
    spot = [attempt for attempt in attempts if attempt.pool and attempt.medium == SPOT]
    _must(policy is not None or not spot, action, "on spot without being interruptible")
    if policy is not None and policy.fallback == "final":
        last = [attempt for attempt in spot if attempt.user_attempt == action.max_attempts]
        _must(not last, action, "its final user attempt ran on spot")
    charged = Counter(
        attempt.charged for attempt in attempts if attempt.user_attempt == action.user_attempt and attempt.ended_at
    )
    _check_budgets(action)
    system = charged["system_retries"] - (action.phase is Phase.FAILED and attempts[-1].charged == "system_retries")
    _must(system == action.system_used, action, f"system_used={action.system_used}, charged {system} times")
    _must(action.system_used <= settings.retries.system_retries, action, "more system_retries than allowed")
    bound = most_attempts(settings.retries.count, policy, settings.retries.system_retries)
    counted = sum(attempt.end not in (End.ABANDONED, End.RELOCATED, End.REJECTED) for attempt in attempts)
    if bound is not None and not action.checkpoints:
        _must(counted <= bound, action, f"{counted} attempts without progress, more than {bound}")


def _check_budgets(action: Action) -> None:
    """What was paid, added up from the attempts."""
    attempts = action.attempts
    paid = sum(attempt.charged == "retries" for attempt in attempts)
    paid -= action.phase is Phase.FAILED and attempts[-1].charged == "retries"
    _must(paid == action.user_attempt - 1, action, f"retries paid {paid} times, on user attempt {action.user_attempt}")
    preempted = sum(attempt.end is End.PREEMPTED for attempt in attempts)
    _must(preempted == action.preemptions, action, f"preemptions={action.preemptions}, but there were {preempted}")
    abandoned = sum(attempt.end is End.ABANDONED for attempt in attempts)
    _must(abandoned == action.abandoned, action, f"abandoned={action.abandoned}, but {abandoned} were")
    policy = action.profile.settings.interruptible
    row, before = 0, 0
    savers = {record.generation for record in action.checkpoints}  # also those that their pool then denied
    for attempt in attempts:
        if attempt.user_attempt == action.user_attempt:
            progress = attempt.last_checkpoint_at or any(before < each < attempt.generation for each in savers)
            if progress and policy is not None and row < policy.preemptions_without_progress:
                row = 0
            row += attempt.end is End.PREEMPTED and attempt.medium == SPOT
        before = attempt.generation
    if policy is not None and row < policy.preemptions_without_progress and any(each > before for each in savers):
        row = 0
    _must(row == action.preemptions_in_row, action, f"preemptions_in_row={action.preemptions_in_row}, found {row}")
    for each in attempts:
        times = [at for at in (each.admitted_at, each.placed_at, each.running_at, each.ended_at) if at]
        _must(times == sorted(times), action, "the times of an attempt go back")
    _must(all(each.queued_at <= each.admitted_at for each in attempts), action, "admitted before it was queued")
    saved = [record.generation for record in action.checkpoints]
    _must(saved == sorted(saved) and saved[-1:] <= [action.generation], action, "its chain of checkpoints is torn")


def _check_family(state: State, run: RunRecord, action: Action) -> None:
    if action.parent is not None:
        parent = run.actions[action.parent]
        listed = parent.children is not None and action.id in parent.children
        _must(action.phase in TERMINAL or parent.phase in TERMINAL or listed, action, "its parent does not list it")
        told = action.phase in WITH_ATTEMPT and bool(action.attempts[-1].stop) and bool(action.cancel_reason)
        _must(action.phase in TERMINAL or parent.phase not in TERMINAL or told, action, "it outlives its parent")
    children = [run.actions[child] for child in action.children or ()]
    _must(all(child.phase not in TERMINAL for child in children), action, "lists an ended child")
    if action.phase in WITH_ATTEMPT and not isinstance(state, ReplayState):
        awaited = sum(child.awaited_by == action.generation for child in children)
        _must(action.outstanding == awaited, action, f"outstanding={action.outstanding}, awaits {awaited}")
        _must((awaited > 0) == (action.phase is Phase.PARKED), action, f"awaits {awaited} children")
        _must(not action.held or action.phase is Phase.RETURNING, action, "holds outcomes back from a live attempt")


def _check_place(action: Action) -> None:
    allowed = _STANDS.get(action.phase, ("",))
    _must(action.stands in allowed, action, f"stands at {action.stands!r}, expected {allowed}")
    _must(bool(action.ticket) == bool(action.stands), action, f"ticket={action.ticket} where it stands")
    if action.phase is Phase.RUNNING:
        _must(action.occupies == action.attempts[-1].pool, action, f"runs, but its place is in {action.occupies!r}")
    elif action.phase not in TERMINAL:
        _must(not action.occupies, action, f"does not run, but has a place in {action.occupies!r}")
    else:
        _must(not action.occupies or bool(action.attempts[-1].stop), action, "over, with a place nobody will free")
    _must(action.enlisted == (action.phase not in TERMINAL), action, f"enlisted={action.enlisted}")
    _must(action.counted == (action.phase in COUNTED), action, f"counted={action.counted}")


# -- queues and pools ------------------------------------------------------------------------------------------------


def _check_counts(capacity: Capacity, everybody: list[Action], runs: dict[str, RunRecord]) -> None:
    mine: dict[str, list[Action]] = {name: [] for name in capacity.queues}
    for action in everybody:
        if action.enlisted or action.occupies:
            mine[action.profile.settings.queue].append(action)
    for name, queue in capacity.queues.items():
        _check_queue(queue, mine[name], runs)
    for pool in capacity.pools.values():
        inside = [action for action in everybody if action.occupies == pool.config.name]
        back = [a for a in everybody if a.stands == "return" and a.attempts[-1].pool == pool.config.name]
        _same(pool, "running", pool.running, len(inside))
        _same(pool, "ahead", pool.ahead, _ahead(inside))
        _same(pool, "used", pool.used, _sum(inside))
        _same(pool, "returners", pool.returners, len(back))
    eager = sum(action.stands in ("line", "return") for action in everybody)
    _same("all queues", "eager", capacity.eager, eager)


def _check_queue(queue: QueueState, mine: list[Action], runs: dict[str, RunRecord]) -> None:
    inside = [action for action in mine if action.occupies]
    _same(queue, "running", queue.running, len(inside))
    _same(queue, "ahead", queue.ahead, _ahead(inside))
    _same(queue, "spot_running", queue.spot_running, sum(action.place_medium == SPOT for action in inside))
    _same(queue, "used", queue.used, _sum(inside))
    by_pool = Counter(action.occupies for action in inside)
    _same(queue, "inside", {pool.config.name: count for pool, count in queue.inside.items()}, dict(by_pool))
    _same(queue, "counted", queue.counted, sum(action.counted for action in mine))
    _same(queue, "enlisted", queue.enlisted, sum(action.enlisted for action in mine))
    _must(queue.state != "drained" or queue.is_idle, queue, "drained, with work in it")
    where = Counter(action.stands for action in mine)
    _same(queue, "waiting", queue.waiting, where["line"])
    _same(queue, "entering", queue.entering, where["door"])
    _same(queue, "held", queue.held, where["hold"] + where["overlap"])
    _same(queue, "returners", queue.returners, where["return"])
    lined = sorted(action.ticket for line in queue.lines.values() for action in line)
    _same(queue, "line", lined, sorted(action.ticket for action in mine if action.stands == "line"))
    standing: Callable[[str], list[int]] = lambda at: sorted(a.ticket for a in mine if a.stands == at)  # noqa: E731
    _same(queue, "door", sorted(action.ticket for action in queue.door), standing("door"))
    _same(queue, "hold", sorted(action.ticket for action in queue.hold), standing("hold"))
    blocked = sorted(ticket for heap in queue.blocked.values() for ticket, a in heap if a.ticket == ticket)
    _same(queue, "blocked", blocked, standing("overlap"))
    active = Counter(
        run.task for run in runs.values() if run.active and run.root_action.profile.settings.queue == queue.config.name
    )
    _same(queue, "active_runs", queue.active_runs, active.total())
    _same(queue, "active_tasks", queue.active_tasks, dict(active))


def _same(about: object, what: str, kept: Any, found: Any) -> None:
    _must(kept == found, about, f"{what} is kept as {kept!r}, but is {found!r}")


def _ahead(actions: list[Action]) -> int:
    return sum(not action.attempts[-1].placed_at for action in actions)


def _sum(actions: list[Action]) -> Amounts:
    total = NO_AMOUNTS
    for action in actions:
        total = total.plus(action.profile.settings.amounts)
    return total


def exceeded(capacity: Capacity) -> dict[str, str]:
    """Where more runs than limits allow, and what.

    The keys are ``pool NAME``, ``queue NAME``, and of a queue ``runs of NAME`` and ``spot of NAME``.
    """
    found = {}
    for name, pool in capacity.pools.items():
        if over := list(_over_pool(pool)):
            found[f"pool {name}"] = f"{pool!r}: {', '.join(over)}"
    for name, queue in capacity.queues.items():
        if over := list(_over_queue(queue)):
            found[f"queue {name}"] = f"{queue!r}: {', '.join(over)}"
        share = queue.config.spot_share * queue.capacity
        if queue.config.spot_share < 1 and queue.capacity and queue.spot_running > share + 1e-6:
            found[f"spot of {name}"] = (
                f"{queue!r}: {queue.spot_running} on spot, more than spot_share allows ({share:g})"
            )
        if over := list(_over_runs(queue)):
            found[f"runs of {name}"] = f"{queue!r}: {', '.join(over)}"
    return found


def _over_pool(pool: PoolState) -> Iterator[str]:
    config = pool.config
    if config.capacity and pool.running > config.capacity + config.ahead:
        yield f"more attempts than capacity={config.capacity} and ahead={config.ahead}"
    if not pool.used.within(pool.limit):
        yield f"uses {pool.used}, more than {pool.limit}"


def _over_queue(queue: QueueState) -> Iterator[str]:
    config = queue.config
    if 0 < config.action_concurrency < queue.running:
        yield f"more attempts than action_concurrency={config.action_concurrency}"
    if not queue.used.within(queue.limit):
        yield f"uses {queue.used}, more than max_resources={queue.limit}"
    if config.spend_limit and queue.rate > config.spend_limit + 1e-6:
        yield f"${queue.rate} per hour, more than spend_limit={config.spend_limit}"


def _over_runs(queue: QueueState) -> Iterator[str]:
    config = queue.config
    if 0 < config.run_concurrency < queue.active_runs:
        yield f"{queue.active_runs} active runs, more than run_concurrency={config.run_concurrency}"
    if config.overlap == "queue" and any(count > 1 for count in queue.active_tasks.values()):
        yield f"overlapping runs: {queue.active_tasks}"


def _check_nobody_idles(state: State, now: float) -> None:
    """Admission is done: whoever is first anywhere has a reason not to run."""
    capacity = state.capacity
    for queue in capacity.queues.values():
        _must(not queue.entering or queue.is_full(), queue, "somebody is at its door, though it is not full")
        limit = queue.config.run_concurrency
        kept = (limit and queue.active_runs >= limit) or (queue.config.on_full == "wait" and queue.is_full())
        _must(queue.hold.first() is None or bool(kept), queue, "a run could begin and does not")
        for action in queue.firsts():
            reason = state.admission.reason(action, now)
            _must(reason is not None and reason[0] is not Reason.BEHIND_OTHERS, action, "could start and does not")
            if queue.config.scheduling == "strict_fifo" and reason is not None and reason[0] in _BLOCKING:
                break  # those behind it must not pass it
        for name in queue.returning:
            action_back = queue.first_back(name)
            if action_back is not None:
                refused = queue.no_way_back(action_back, capacity.pools[name]) or _kept_out(
                    capacity.pools[name], action_back
                )
                _must(refused is not None, action_back, "could go on and does not")


def _kept_out(pool: PoolState, action: Action) -> Any:
    return pool.no_way_back(action.profile.settings.amounts)
