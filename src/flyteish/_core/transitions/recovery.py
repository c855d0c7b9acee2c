"""A new controller takes a run up: what still lives goes on where it is, what died with the old one ended with it.

**How it works.** The journal is folded into a record, which ``RunLoaded`` gives to the live state. ``RunRecovered``
then names the attempts that some engine still has. Those keep everything: generation, place, notices, bill, limits in
time; whatever they had been told (to stop, to move) they are told again, since nobody knows whether the order arrived.
All other attempts ended with the old controller, at the last moment on record. Nobody pays for that, and the time
without a controller is on no bill.

**Who goes on.** An action whose attempt lives just goes on. One without is started again if somebody waits for it: the
root, for whom the program waits, and a child whose caller's attempt lives, since that attempt waits over a connection
that comes back. Everything else lies dormant until its parent's next attempt asks for it: calls are found again by
their identity, and those that nobody repeats must not run. An action that was cancelled ends, at once or when its
attempt has let go.

Must not know how engines find their attempts again.
"""

from __future__ import annotations

from flyteish._core.model.effects import Effect, Record, StopAttempt
from flyteish._core.model.events import ControllerRestarted, RunLoaded, RunRecovered
from flyteish._core.model.records import TERMINAL, Action, End, Phase, RunRecord
from flyteish._core.state import State
from flyteish._core.transitions import relocations
from flyteish._core.transitions.engine_facts import engine_facts
from flyteish._core.transitions.parents_and_children import end
from flyteish._core.transitions.phases import move
from flyteish._core.transitions.waiting import begin

Effects = list[Effect]


def run_loaded(state: State, event: RunLoaded, now: float, effects: Effects) -> None:
    """A run from its journal; it stands nowhere before it is recovered."""
    state.runs[event.record.id] = event.record


def controller_restarted(state: State, event: ControllerRestarted, now: float, effects: Effects) -> None:
    """As earlier versions recorded it: nothing lived, and everything ended when the run was taken up."""
    effects.append(Record(now, event))
    _recover(state, state.runs[event.run], frozenset(), now, now, effects)


def run_recovered(state: State, event: RunRecovered, now: float, effects: Effects) -> None:
    """Sort the living from the dead, and see to it that everybody who is waited for goes on."""
    effects.append(Record(now, event))
    _recover(state, state.runs[event.run], frozenset(event.living), event.last_at, now, effects)


def _recover(
    state: State, run: RunRecord, living: frozenset[tuple[str, int]], last_at: float, now: float, effects: Effects
) -> None:
    unfinished = [action for action in run.actions.values() if action.phase not in TERMINAL]
    dead = []
    for action in unfinished:
        _enlist(state, action)
        if action.current is not None and (action.id, action.generation) in living:
            _go_on(state, action, now)
        else:
            dead.append(action)
            _abandon(state, action, last_at)
    _keep_zombies(state, run, living, effects)
    root = run.actions.get(run.root)
    if root is not None and root.phase not in TERMINAL:
        _keep_run(state, run, root)
    for action in unfinished:
        _forget_caller(run, action)
    for action in unfinished:
        if action.phase not in TERMINAL and action.phase is not Phase.DORMANT:
            _tell_again(state, action, now, effects)
    for action in dead:
        if action.cancel_reason and action.phase not in TERMINAL:
            end(state, action, Phase.ABORTED, now, effects)
    for action in dead:
        if action.phase is Phase.DORMANT and (action is root or action.awaited_by):
            move(state, action, Phase.QUEUED)
            begin(state, run, action, now)


# -- the living ------------------------------------------------------------------------------------------------------


def _go_on(state: State, action: Action, now: float) -> None:
    """Its attempt keeps its place; a parent that waits for children holds none."""
    capacity, attempt = state.capacity, action.attempts[-1]
    engine_facts(attempt).taken_up_at = now
    pool = capacity.adopt_pool(attempt.pool, attempt.medium)
    # If its start turns out to be in vain, it goes on with the wait that ended with it.
    action.queued_at = attempt.queued_at
    action.wanted, action.rule, action.why = attempt.medium, attempt.rule, attempt.why
    capacity.occupy(action, pool)
    if not action.occupies:
        return
    if not attempt.placed_at:
        capacity.send_ahead(action)
    capacity.count(action, True)
    if action.outstanding:
        move(state, action, Phase.PARKED)
        capacity.vacate(action)


def _keep_run(state: State, run: RunRecord, root: Action) -> None:
    """It stands in the way of others of its task again, and holds its run place if it had begun."""
    queue = state.capacity.queues.get(root.profile.settings.queue)
    if queue is None:
        return
    queue.runs_of.setdefault(run.task, {})[run.id] = None
    if root.phase is not Phase.DORMANT:
        state.capacity.begin_run(run, queue)


def _keep_zombies(state: State, run: RunRecord, living: frozenset[tuple[str, int]], effects: Effects) -> None:
    """An action that was over has an attempt that is not: it holds its place until it has let go."""
    for name, generation in living:
        action = run.actions.get(name)
        if action is None or action.phase not in TERMINAL or action.generation != generation or not action.attempts:
            continue
        attempt = action.attempts[-1]
        attempt.stop = attempt.stop or "cancelled"
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, attempt.stop))
        state.capacity.adopt_queue(action.profile.settings.queue)
        state.capacity.occupy(action, state.capacity.adopt_pool(attempt.pool, attempt.medium))
        if action.occupies:
            run.zombies += 1
            if not attempt.placed_at:
                state.capacity.send_ahead(action)


def _tell_again(state: State, action: Action, now: float, effects: Effects) -> None:
    """Orders that may not have arrived, and limits that nobody watches yet."""
    attempt = action.attempts[-1]
    limits = action.profile.settings.timeout
    if attempt.stop:
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, attempt.stop))
        return
    if limits.max_runtime is not None and attempt.running_at:
        due = attempt.running_at + float(limits.max_runtime)  # type: ignore[arg-type]
        state.remind(due, "max_runtime", action, attempt.generation)
    if limits.max_queued_time is not None and not attempt.placed_at:
        due = attempt.queued_at + float(limits.max_queued_time)  # type: ignore[arg-type]
        state.remind(due, "max_queued_time", action, action.wait)
    if attempt.moving:
        relocations.order_again(state, action, attempt, effects)
    elif action.profile.settings.timeout.deadline is not None:
        action.review_at = 0.0
        relocations.review(state, action, now, effects)


# -- the dead --------------------------------------------------------------------------------------------------------


def _enlist(state: State, action: Action) -> None:
    state.capacity.adopt_queue(action.profile.settings.queue)
    state.capacity.enlist(action)
    if action.deadline_at is not None:
        state.remind(action.deadline_at, "deadline", action)


def _abandon(state: State, action: Action, last_at: float) -> None:
    attempt = action.current
    if attempt is not None:
        attempt.end, attempt.cause = End.ABANDONED, "its controller stopped"
        attempt.ended_at = attempt.not_before(last_at)
        action.abandoned += 1
    action.outstanding, action.held = 0, ()
    if action.phase is not Phase.DORMANT:
        move(state, action, Phase.DORMANT)


def _forget_caller(run: RunRecord, action: Action) -> None:
    """Nobody waits for it any more, unless the attempt that called it lives."""
    parent = run.actions.get(action.parent) if action.parent is not None else None
    if parent is None or parent.current is None or parent.generation != action.awaited_by:
        action.awaited_by = 0
