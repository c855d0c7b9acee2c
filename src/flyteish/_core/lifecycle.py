"""The one file that changes what an action is: ``apply(state, event, now) -> (state, effects)``.

Facts in, orders out. ``MOVES`` is the table of phases; every change of phase goes through ``_move``, which
refuses what the table does not know. Asks ``endings`` what an end was, ``retries`` who pays, ``placement``
which medium, and the books of ``admission`` who starts. Must not know clocks, engines or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flyteish._core import endings, placement, retries
from flyteish._core.actions import (
    CHAIN_KEPT,
    TERMINAL,
    WITH_ATTEMPT,
    Action,
    Attempt,
    End,
    Phase,
    RunRecord,
)
from flyteish._core.admission import Start
from flyteish._core.effects import (
    Deliver,
    Effect,
    QueueDrained,
    Record,
    Refuse,
    RunEnded,
    StartAttempt,
    StopAttempt,
)
from flyteish._core.events import (
    ActionSubmitted,
    AttemptAdmitted,
    AttemptEnded,
    AttemptNoticed,
    AttemptRunning,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    Configured,
    ControllerRestarted,
    Event,
    LimitReached,
    PoolCapacityChanged,
    QueueStateSet,
    RunEvent,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
    ValueTraced,
)
from flyteish._core.ids import ActionKey, AttemptKey, child_action
from flyteish._core.state import State, Timer
from flyteish._core.submission import Refusal, check_run, check_submission
from flyteish._core.values import ErrorDocument

Effects = list[Effect]

#: Which phase may follow which: the lifecycle as data (its diagram in the docs is made from this).
MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.ENTERING: frozenset((Phase.QUEUED, Phase.ABORTED, Phase.TIMED_OUT, Phase.DORMANT)),
    Phase.QUEUED: frozenset(
        (
            Phase.RUNNING,
            Phase.BACKING_OFF,
            Phase.FAILED,
            Phase.ABORTED,
            Phase.TIMED_OUT,
            Phase.DORMANT,
            Phase.SUCCEEDED,
        )
    ),
    Phase.BACKING_OFF: frozenset((Phase.QUEUED, Phase.ABORTED, Phase.TIMED_OUT, Phase.DORMANT)),
    Phase.RUNNING: frozenset(
        (Phase.PARKED, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT)
        + (Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT)
    ),
    Phase.PARKED: frozenset(
        (Phase.RETURNING, Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT)
        + (Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT)
    ),
    Phase.RETURNING: frozenset(
        (Phase.RUNNING, Phase.PARKED, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT)
        + (Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT)
    ),
    Phase.DORMANT: frozenset((Phase.QUEUED, Phase.ABORTED, Phase.TIMED_OUT)),
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.ABORTED: frozenset(),
    Phase.TIMED_OUT: frozenset(),
}
_COUNTED: Final = frozenset((Phase.QUEUED, Phase.BACKING_OFF, Phase.RUNNING))


def apply(state: State, event: Event, now: float) -> tuple[State, list[Effect]]:
    """Take in one fact and say what follows. ``now`` is seconds since the epoch and never goes back.

    The state given in is consumed: go on with the one returned. Limits that are due by ``now`` are taken in
    first, so a result that comes with or after a deadline is late.
    """
    effects: Effects = []
    if state.timers:
        _take_due(state, now, effects)
    _HANDLERS[type(event)](state, event, now, effects)
    _admit(state, now, effects)
    return state, effects


def replay(state: State, event: RunEvent, at: float) -> State:
    """Take in a fact from the journal: no orders follow, everything was decided when it was new."""
    _HANDLERS[type(event)](state, event, at, [])
    return state


def child_identity(state: State, run: str, parent: str, task: str, digest: bytes, occurrence: int) -> str:
    """The id for a call: that of the recorded call, unless that one ended without success.

    Succeeded calls are found again by a resumed or retried parent; failed ones get a new try.
    """
    actions = state.runs[run].actions
    incarnation = 0
    while True:
        action = child_action(parent, task, digest, occurrence, incarnation)
        known = actions.get(action)
        if known is None or known.phase not in TERMINAL or known.phase is Phase.SUCCEEDED:
            return action
        incarnation += 1


# -- the one place where a phase changes --------------------------------------------------------------------------


def _move(state: State, action: Action, phase: Phase) -> None:
    before = action.phase
    if phase not in MOVES[before]:
        raise AssertionError(
            f"{action!r} cannot become {phase}: closed to {sorted(MOVES[before]) or 'everything'}"
        )
    action.phase = phase
    if state.books is not None and (before in _COUNTED) != (phase in _COUNTED):
        book = state.books.queues[action.profile.settings.queue]
        book.counted += 1 if phase in _COUNTED else -1
        if book.entering and phase not in _COUNTED:
            _let_in(state, book.config.name)


def _let_in(state: State, queue: str) -> None:
    """A full queue has room again: whoever waits outside comes in, in order."""
    assert state.books is not None
    book = state.books.queues[queue]
    while book.entering and (not book.config.depth or book.counted < book.config.depth):
        action = book.entering.popleft()
        if action.phase is Phase.ENTERING:
            _move(state, action, Phase.QUEUED)
            _line_up(state, action, action.queued_at, at_head=False)


# -- runs and submissions -----------------------------------------------------------------------------------------


def _run_submitted(state: State, event: RunSubmitted, now: float, effects: Effects) -> None:
    if state.books is not None:
        refusal = check_run(state, event)
        if refusal is not None:
            effects.append(Refuse(ActionKey(event.run, ""), refusal.error, refusal.message))
            return
        if state.books.queues[event.queue].config.overlap == "replace":
            for run in list(state.runs.values()):
                if run.task == event.task and run.queue == event.queue and not run.ended_at and run.root:
                    _cancel(state, run.root_action, f"replaced by run {event.run}", now, effects)
    state.runs[event.run] = RunRecord(
        id=event.run,
        task=event.task,
        queue=event.queue,
        submitted_at=now,
        command=event.command,
        entry=event.entry,
    )
    effects.append(Record(now, event))


def _task_declared(state: State, event: TaskDeclared, now: float, effects: Effects) -> None:
    run = state.runs.get(event.run)
    if run is not None and event.profile.key not in run.profiles:
        run.profiles[event.profile.key] = event.profile
        effects.append(Record(now, event))


def _action_submitted(state: State, event: ActionSubmitted, now: float, effects: Effects) -> None:
    run = state.runs.get(event.run)
    parent = run.actions.get(event.parent) if run is not None and event.parent is not None else None
    if run is None or (event.parent is not None and not _is_live(parent, event.parent_generation)):
        message = f"attempt {event.parent_generation} of {event.run}/{event.parent} was given up; its calls are refused"
        effects.append(Refuse(ActionKey(event.run, event.action), "StaleAttemptError", message))
        return
    known = run.actions.get(event.action)
    if known is not None:
        _call_again(state, known, parent, now, effects)
        return
    action = Action(event.run, event.action, event.parent, run.profiles[event.profile], event.inputs, now)
    action.occurrence, action.group = event.occurrence, event.group
    refusal = check_submission(state, action) if state.books is not None and event.cached is None else None
    if refusal is not None:
        _refuse(state, run, event, refusal, effects)
        return
    effects.append(Record(now, event))
    run.actions[action.id] = action
    run.open += 1
    if parent is None:
        run.root = action.id
    else:
        parent.children = {action.id} if parent.children is None else parent.children
        parent.children.add(action.id)
        _park_for(state, parent, action)
    if action.deadline_at is not None:
        state.remind(action.deadline_at, "deadline", action)
    _enter(state, run, action, now)
    if event.cached is not None:
        action.cached, action.result = True, event.cached
        _end(state, action, Phase.SUCCEEDED, now, effects)


def _is_live(parent: Action | None, generation: int) -> bool:
    return parent is not None and parent.phase in WITH_ATTEMPT and parent.generation == generation


def _refuse(state: State, run: RunRecord, event: ActionSubmitted, refusal: Refusal, effects: Effects) -> None:
    effects.append(Refuse(ActionKey(event.run, event.action), refusal.error, refusal.message))
    if event.parent is None:  # the run was opened for nothing
        del state.runs[run.id]


def _call_again(state: State, action: Action, parent: Action | None, now: float, effects: Effects) -> None:
    """A resumed or retried parent makes a call that is on record."""
    if action.phase in TERMINAL:
        effects.append(Deliver(action))
        return
    if parent is not None:
        parent.children = {action.id} if parent.children is None else parent.children
        parent.children.add(action.id)
        _park_for(state, parent, action)
    if action.phase is Phase.DORMANT:
        _move(state, action, Phase.QUEUED)
        _line_up(state, action, now, at_head=False)


def _enter(state: State, run: RunRecord, action: Action, now: float) -> None:
    """The first time in its queue: through the door if the queue is full, past the run limit if it is a root."""
    if state.books is None:
        return
    book = state.books.queues[action.profile.settings.queue]
    depth = book.config.depth
    if depth and book.counted >= depth:
        action.phase, action.queued_at = Phase.ENTERING, now
        book.entering.append(action)
        return
    book.counted += 1
    if action.parent is None:
        action.queued_at = now
        book.held_roots.append(action)
        _release_roots(state, book.config.name, now)
        return
    _line_up(state, action, now, at_head=False)


def _release_roots(state: State, queue: str, now: float) -> None:
    """Let the next runs of a queue begin, as far as ``run_concurrency`` and ``overlap`` allow."""
    assert state.books is not None
    book = state.books.queues[queue]
    limit, still_held = book.config.run_concurrency, []
    while book.held_roots:
        root = book.held_roots.popleft()
        if root.phase is not Phase.QUEUED:
            continue
        run = state.runs[root.run]
        root.hold = ""
        if limit and book.active_runs >= limit:
            root.hold = "RUN_CONCURRENCY"
        elif book.config.overlap == "queue" and book.active_tasks.get(run.task):
            root.hold = "OVERLAP"
        if root.hold:
            still_held.append(root)
            continue
        run.active = True
        book.active_runs += 1
        book.active_tasks[run.task] = book.active_tasks.get(run.task, 0) + 1
        _line_up(state, root, now, at_head=False)
    book.held_roots.extend(still_held)


def _line_up(state: State, action: Action, now: float, at_head: bool) -> None:
    """Wait in line for the next attempt, on the medium that placement chooses."""
    action.queued_at = now
    action.wait += 1
    if state.books is None:
        return
    chosen = placement.choose(action)
    book = state.books.queues[action.profile.settings.queue]
    if chosen.medium == "spot" and not book.spot:
        chosen = placement.no_spot_pool(book.config.name)
    action.wanted, action.rule, action.why = chosen
    settings = action.profile.settings
    if settings.timeout.max_queued_time is not None:
        state.remind(now + float(settings.timeout.max_queued_time), "max_queued_time", action, action.wait)  # type: ignore[arg-type]
    policy = settings.interruptible
    if action.wanted == "spot" and policy is not None and policy.max_spot_wait is not None:
        state.remind(now + float(policy.max_spot_wait), "max_spot_wait", action, action.wait)  # type: ignore[arg-type]
    state.books.line_up(action, at_head)


# -- admission ----------------------------------------------------------------------------------------------------


def _admit(state: State, now: float, effects: Effects) -> None:
    if state.books is None:
        return
    for start in state.books.starts(now):
        if start.returning:
            _go_on(state, start.action, effects)
        else:
            _start(state, start, now, effects)


def _start(state: State, start: Start, now: float, effects: Effects) -> None:
    action, pool = start.action, start.pool.config
    rule, why = action.rule, action.why
    if pool.medium != action.wanted:
        rule, why = "spot-share", "the queue's spot_share is used up"
    event = AttemptAdmitted(
        action.run, action.id, action.generation + 1, action.user_attempt, pool.name, pool.medium, rule, why,
        pool.price_per_hour,
    )  # fmt: skip
    _attempt_admitted(state, event, now, effects)
    effects.append(StartAttempt(action, action.generation, pool.name, pool.medium))


def _attempt_admitted(state: State, event: AttemptAdmitted, now: float, effects: Effects) -> None:
    action = state.runs[event.run].actions[event.action]
    attempt = Attempt(
        event.generation, event.user_attempt, event.pool, event.medium, event.rule, event.why,
        event.price_per_hour, now, action.queued_at,
    )  # fmt: skip
    action.generation = event.generation
    action.user_attempt = event.user_attempt
    action.attempts.append(attempt)
    action.outstanding = 0
    action.held = ()
    if action.phase is not Phase.QUEUED:  # in replay the waits in between are not recorded
        _move(state, action, Phase.QUEUED)
    _move(state, action, Phase.RUNNING)
    effects.append(Record(now, event))


# -- parents and children -----------------------------------------------------------------------------------------


def _park_for(state: State, parent: Action, child: Action) -> None:
    """The parent waits for this child: while it only waits it counts in no limit, so it can't block its child."""
    child.awaited_by = parent.generation
    parent.outstanding += 1
    if state.books is None or parent.phase is Phase.PARKED:
        return
    if parent.phase is Phase.RETURNING:
        state.books.give_up_return(parent)
    _move(state, parent, Phase.PARKED)
    state.books.vacate(parent)


def _child_ended(state: State, child: Action, effects: Effects) -> None:
    run = state.runs[child.run]
    parent = run.actions[child.parent] if child.parent is not None else None
    if parent is None:
        effects.append(Deliver(child))
        return
    if parent.children is not None:
        parent.children.discard(child.id)
    awaited = parent.phase in WITH_ATTEMPT and child.awaited_by == parent.generation
    if awaited:
        parent.outstanding -= 1
    if awaited and parent.phase is Phase.PARKED and not parent.outstanding and state.books is not None:
        parent.held += (child.id,)
        _move(state, parent, Phase.RETURNING)
        state.books.ask_to_return(parent)
        return
    effects.append(Deliver(child))


def _go_on(state: State, parent: Action, effects: Effects) -> None:
    """The parent has its place back: what its children returned may reach it."""
    _move(state, parent, Phase.RUNNING)
    actions = state.runs[parent.run].actions
    held, parent.held = parent.held, ()
    effects.extend(Deliver(actions[child]) for child in held)


# -- attempts ------------------------------------------------------------------------------------------------------


def _live_attempt(state: State, event: Any) -> tuple[Action, Attempt] | None:
    """The action and its attempt, if the event is about the one that counts; else a zombie speaks."""
    run = state.runs.get(event.run)
    action = run.actions.get(event.action) if run is not None else None
    if action is None or action.generation != event.generation or action.phase not in WITH_ATTEMPT:
        return None
    return action, action.attempts[-1]


def _attempt_running(state: State, event: AttemptRunning, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    if live is None or live[1].running_at:
        return
    action, attempt = live
    attempt.running_at = now
    limit = action.profile.settings.timeout.max_runtime
    if limit is not None:
        state.remind(now + float(limit), "max_runtime", action, attempt.generation)  # type: ignore[arg-type]
    if state.books is not None:
        state.books.pools[attempt.pool].no_capacity_since = None
    effects.append(Record(now, event))


def _attempt_noticed(state: State, event: AttemptNoticed, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    if live is not None:
        live[1].notice = event.kind
        effects.append(Record(now, event))


def _attempt_ended(state: State, event: AttemptEnded, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    if live is None:
        _bury(state, event, now)
        return
    action, attempt = live
    effects.append(Record(now, event))
    if state.books is not None:
        if action.phase is Phase.RETURNING:
            state.books.give_up_return(action)
        state.books.vacate(action)
    attempt.ended_at = now
    attempt.running_at = event.running_at or attempt.running_at
    ending = endings.classify(event.evidence, attempt)
    attempt.end, attempt.cause = ending
    if ending.end is End.SUCCEEDED:
        action.result = event.evidence.result
        _end(state, action, Phase.SUCCEEDED, now, effects)
    elif ending.end is End.CANCELLED:
        _end(state, action, Phase.ABORTED, now, effects)
    else:
        _after_failure(state, action, attempt, event.evidence.error, event.chance, now, effects)


def _bury(state: State, event: AttemptEnded, now: float) -> None:
    """The end of an attempt that was given up: nothing of it counts, but its place is free only now."""
    run = state.runs.get(event.run)
    action = run.actions.get(event.action) if run is not None else None
    if action is not None and action.generation == event.generation and action.attempts:
        attempt = action.attempts[-1]
        attempt.ended_at = attempt.ended_at or now
        if state.books is not None:
            state.books.vacate(action)


def _after_failure(
    state: State,
    action: Action,
    attempt: Attempt,
    error: ErrorDocument | None,
    chance: float,
    now: float,
    effects: Effects,
) -> None:
    assert attempt.end is not None
    if attempt.end is End.NO_CAPACITY:
        _denied(state, action, attempt, now)
        return
    verdict = retries.decide(attempt.end, action, attempt.medium, error, chance)
    attempt.charged = verdict.charged
    if attempt.end is End.PREEMPTED:
        action.preemptions += 1
        if attempt.medium == "spot":
            action.preemptions_in_row += 1
    if not verdict.again:
        action.error = error or _error_for(attempt, verdict)
        attempt.cause = (
            f"{attempt.cause} ({verdict.spent})" if verdict.spent not in attempt.cause else attempt.cause
        )
        _end(state, action, Phase.FAILED, now, effects)
        return
    if verdict.charged == "system_retries":
        action.system_used += 1
    if verdict.next_user_attempt:
        action.user_attempt += 1
        action.system_used = 0
        action.preemptions_in_row = 0
    if verdict.delay > 0:
        _move(state, action, Phase.BACKING_OFF)
        action.wait += 1
        state.remind(now + verdict.delay, "backoff", action, action.wait)
    else:
        _move(state, action, Phase.QUEUED)
        _line_up(state, action, now, verdict.at_head)


def _denied(state: State, action: Action, attempt: Attempt, now: float) -> None:
    """The pool had no capacity: the attempt never was; the pool is left alone for its cooldown."""
    action.attempts.pop()
    action.denials += 1
    queued_at = attempt.queued_at
    if state.books is not None:
        pool = state.books.pools[attempt.pool]
        pool.cooling_until = now + pool.config.cooldown
        if pool.no_capacity_since is None:
            pool.no_capacity_since = now
        state.remind(pool.cooling_until, "cooldown", None, pool=attempt.pool)
    _move(state, action, Phase.QUEUED)
    wait = action.wait
    _line_up(state, action, now, at_head=True)
    # It is one wait, interrupted by a vain try: limits on waiting run from its beginning.
    action.queued_at, action.wait = queued_at, wait


def _error_for(attempt: Attempt, verdict: retries.Verdict) -> ErrorDocument:
    """The error of an attempt that left none of its own."""
    names = {
        End.MAX_RUNTIME: "TaskTimeoutError",
        End.QUEUE_TIMEOUT: "TaskTimeoutError",
        End.OUT_OF_MEMORY: "OOMError",
        End.PREEMPTED: "PreemptedError",
        End.INFRASTRUCTURE: "SystemRetriesExhaustedError",
        End.UNMENDABLE: "NonRecoverableError",
    }
    assert attempt.end is not None
    exited = "ExitedBeforeReturningError" if "before returning" in attempt.cause else "WorkerCrashedError"
    name = "flyteish.errors." + names.get(attempt.end, exited)
    return ErrorDocument(type=name, message=f"{attempt.cause} ({verdict.spent})", bases=(name,))


def _end(state: State, action: Action, phase: Phase, now: float, effects: Effects) -> None:
    """The action is over: its descendants are cancelled, its caller hears of it, its run may end."""
    if state.books is not None:
        state.books.withdraw(action)
    _move(state, action, phase)
    action.ended_at = now
    action.held = ()
    run = state.runs[action.run]
    run.open -= 1
    if action.children:
        for child in sorted(action.children):
            _cancel(state, run.actions[child], f"its parent {phase.value.replace('_', ' ')}", now, effects)
    _child_ended(state, action, effects)
    if state.books is not None and action.parent is None:
        _leave_queue(state, run, now)
    if not run.open:
        run.ended_at = now
        effects.append(RunEnded(run.id, run.phase))
    _note_drained(state, action, effects)


def _leave_queue(state: State, run: RunRecord, now: float) -> None:
    assert state.books is not None
    book = state.books.queues[run.queue]
    if run.active:
        run.active = False
        book.active_runs -= 1
        book.active_tasks[run.task] -= 1
    _release_roots(state, run.queue, now)


def _note_drained(state: State, action: Action, effects: Effects) -> None:
    if state.books is None:
        return
    book = state.books.queues[action.profile.settings.queue]
    if book.state == "draining" and not (book.counted or book.running or book.entering or book.returning):
        book.state = "drained"
        effects.append(QueueDrained(book.config.name))


# -- checkpoints and traced values ---------------------------------------------------------------------------------


def _checkpoint_committed(state: State, event: CheckpointCommitted, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    key = ActionKey(event.run, event.action)
    if live is None or live[1].stop:
        message = f"attempt {event.generation} of {key} was given up; its checkpoint is refused"
        effects.append(Refuse(key, "StaleAttemptError", message))
        return
    action, attempt = live
    action.checkpoints = (*action.checkpoints[1 - CHAIN_KEPT :], event.record)
    action.preemptions_in_row = 0
    attempt.last_checkpoint_at = now
    effects.append(Record(now, event))


def _checkpoint_skipped(state: State, event: CheckpointSkipped, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    if live is not None:
        live[0].warnings += (f"checkpoint {event.sequence} was skipped on restore: {event.why}",)
        effects.append(Record(now, event))


def _value_traced(state: State, event: ValueTraced, now: float, effects: Effects) -> None:
    live = _live_attempt(state, event)
    if live is not None:
        action = live[0]
        action.traced = {**(action.traced or {}), event.key: event.result}
        effects.append(Record(now, event))


# -- cancellation and limits ---------------------------------------------------------------------------------------


def _cancel_requested(state: State, event: CancelRequested, now: float, effects: Effects) -> None:
    action = state.action(ActionKey(event.run, event.action))
    if action is not None and action.phase not in TERMINAL and not action.cancel_reason:
        effects.append(Record(now, event))
        _cancel(state, action, event.reason, now, effects)


def _cancel(state: State, action: Action, reason: str, now: float, effects: Effects) -> None:
    if action.phase in TERMINAL:
        return
    action.cancel_reason = action.cancel_reason or reason
    attempt = action.current if action.phase in WITH_ATTEMPT else None
    if attempt is None:
        _end(state, action, Phase.ABORTED, now, effects)
    elif not attempt.stop:
        attempt.stop = "cancelled"
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, "cancelled"))


def _take_due(state: State, now: float, effects: Effects) -> None:
    while (timer := state.pop_due(now)) is not None:
        if timer.kind == "cooldown":
            if state.books is not None:
                state.books.touch_pool(timer.pool)
            continue
        action = state.action(timer.key) if timer.key is not None else None
        if action is None or action.phase in TERMINAL:
            continue
        _DUE[timer.kind](state, action, timer, now, effects)
        _admit(state, now, effects)


def _deadline_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    _limit_reached(state, LimitReached(action.run, action.id, action.generation, "deadline"), now, effects)


def _max_runtime_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.generation == timer.guard and action.phase in WITH_ATTEMPT:
        _limit_reached(state, LimitReached(action.run, action.id, timer.guard, "max_runtime"), now, effects)


def _max_queued_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.wait == timer.guard and action.phase is Phase.QUEUED:
        _limit_reached(
            state, LimitReached(action.run, action.id, action.generation, "max_queued_time"), now, effects
        )


def _max_spot_wait_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if (
        action.wait != timer.guard
        or action.phase is not Phase.QUEUED
        or action.wanted != "spot"
        or not state.books
    ):
        return
    policy = action.profile.settings.interruptible
    assert policy is not None and policy.max_spot_wait is not None
    patience = float(policy.max_spot_wait)  # type: ignore[arg-type]
    book = state.books.queues[action.profile.settings.queue]
    since = [pool.no_capacity_since for pool in book.spot]
    if None in since:  # some pool is merely full: look again when it could have been empty for so long
        state.remind(now + patience, "max_spot_wait", action, action.wait)
        return
    without = max(action.queued_at, *(moment for moment in since if moment is not None))
    if now < without + patience:
        state.remind(without + patience, "max_spot_wait", action, action.wait)
    elif policy.fallback != "never":
        _limit_reached(
            state, LimitReached(action.run, action.id, action.generation, "max_spot_wait"), now, effects
        )


def _backoff_due(state: State, action: Action, timer: Timer, now: float, effects: Effects) -> None:
    if action.wait == timer.guard and action.phase is Phase.BACKING_OFF:
        _move(state, action, Phase.QUEUED)
        _line_up(state, action, now, at_head=False)


_DUE: Final[dict[str, Callable[[State, Action, Timer, float, Effects], None]]] = {
    "deadline": _deadline_due,
    "max_runtime": _max_runtime_due,
    "max_queued_time": _max_queued_due,
    "max_spot_wait": _max_spot_wait_due,
    "backoff": _backoff_due,
}


def _limit_reached(state: State, event: LimitReached, now: float, effects: Effects) -> None:
    action = state.action(ActionKey(event.run, event.action))
    if action is None or action.phase in TERMINAL:
        return
    effects.append(Record(now, event))
    attempt = action.current if action.phase in WITH_ATTEMPT else None
    if event.limit == "deadline":
        _deadline_passed(state, action, attempt, now, effects)
    elif event.limit == "max_runtime" and attempt is not None and not attempt.stop:
        attempt.stop = "max_runtime"
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, "max_runtime"))
    elif event.limit == "max_queued_time":
        _queue_timed_out(state, action, now, effects)
    elif event.limit == "max_spot_wait" and state.books is not None:
        state.books.withdraw(action)
        action.wanted, action.rule, action.why = placement.stock_out(now - action.queued_at)
        state.books.line_up(action, at_head=True)


def _deadline_passed(
    state: State, action: Action, attempt: Attempt | None, now: float, effects: Effects
) -> None:
    if attempt is not None:
        if state.books is not None and action.phase is Phase.RETURNING:
            state.books.give_up_return(action)
        attempt.end, attempt.cause, attempt.ended_at = End.DEADLINE, "deadline exceeded", now
        if not attempt.stop:
            attempt.stop = "deadline"
            effects.append(StopAttempt(action.attempt_key(), attempt.pool, "deadline"))
    _end(state, action, Phase.TIMED_OUT, now, effects)


def _queue_timed_out(state: State, action: Action, now: float, effects: Effects) -> None:
    """Waiting too long pays from the user budget, as if the attempt had failed, though none was started."""
    if state.books is not None:
        state.books.withdraw(action)
    limit = action.profile.settings.timeout.max_queued_time
    action.generation += 1
    attempt = Attempt(
        action.generation, action.user_attempt, "", action.wanted, action.rule, action.why, 0.0, now, action.queued_at,
        ended_at=now, end=End.QUEUE_TIMEOUT, cause=f"waited longer than max_queued_time={limit:g} s",
    )  # fmt: skip
    action.attempts.append(attempt)
    if action.phase is Phase.QUEUED and not action.is_final_user_attempt:
        _move(state, action, Phase.BACKING_OFF)  # so that the way back into the line is the usual one
    _after_failure(state, action, attempt, None, 0.0, now, effects)


# -- the session's own facts ---------------------------------------------------------------------------------------


def _controller_restarted(state: State, event: ControllerRestarted, now: float, effects: Effects) -> None:
    """Attempts died with their controller, which nobody pays for; the root goes on, the rest when asked for."""
    run = state.runs[event.run]
    effects.append(Record(now, event))
    for action in run.actions.values():
        if action.phase in TERMINAL:
            continue
        attempt = action.current
        if attempt is not None:
            attempt.end, attempt.cause, attempt.ended_at = End.ABANDONED, "its controller stopped", now
            action.abandoned += 1
        action.outstanding, action.held, action.children = 0, (), None
        if action.phase is not Phase.DORMANT:
            _move(state, action, Phase.DORMANT)
        if action.deadline_at is not None:
            state.remind(action.deadline_at, "deadline", action)
    root = run.actions.get(run.root)
    if root is not None and root.phase is Phase.DORMANT:
        _move(state, root, Phase.QUEUED)
        if state.books is not None:
            state.books.queues[run.queue].held_roots.append(root)
            root.queued_at = now
            _release_roots(state, run.queue, now)


def _pool_capacity_changed(state: State, event: PoolCapacityChanged, now: float, effects: Effects) -> None:
    if state.books is None:
        return
    pool = state.books.pools[event.pool]
    pool.available = event.available
    if event.available == 0:
        pool.no_capacity_since = now if pool.no_capacity_since is None else pool.no_capacity_since
    else:
        pool.no_capacity_since = None
    state.books.touch_pool(event.pool)


def _queue_state_set(state: State, event: QueueStateSet, now: float, effects: Effects) -> None:
    if state.books is not None:
        book = state.books.queues[event.queue]
        book.state = event.state
        if book.state == "draining" and not (book.counted or book.running or book.entering or book.returning):
            book.state = "drained"
            effects.append(QueueDrained(book.config.name))
        state.books.touch(event.queue)


def _configured(state: State, event: Configured, now: float, effects: Effects) -> None:
    if state.books is not None:
        state.books.configure(event.queues, event.pools)
        for name in state.books.queues:
            _let_in(state, name)
            _release_roots(state, name, now)


def _time_passed(state: State, event: TimePassed, now: float, effects: Effects) -> None:
    """What was due has been taken in already."""


_HANDLERS: Final[dict[type, Callable[[State, Any, float, Effects], None]]] = {
    RunSubmitted: _run_submitted,
    TaskDeclared: _task_declared,
    ActionSubmitted: _action_submitted,
    AttemptAdmitted: _attempt_admitted,
    AttemptRunning: _attempt_running,
    AttemptNoticed: _attempt_noticed,
    AttemptEnded: _attempt_ended,
    CheckpointCommitted: _checkpoint_committed,
    CheckpointSkipped: _checkpoint_skipped,
    ValueTraced: _value_traced,
    CancelRequested: _cancel_requested,
    LimitReached: _limit_reached,
    ControllerRestarted: _controller_restarted,
    PoolCapacityChanged: _pool_capacity_changed,
    QueueStateSet: _queue_state_set,
    Configured: _configured,
    TimePassed: _time_passed,
}

__all__ = ["MOVES", "AttemptKey", "apply", "child_identity", "replay"]
