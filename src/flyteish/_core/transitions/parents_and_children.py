"""Parents and children: who waits for whom, who hears of an end, and what an end takes with it.

A parent that waits for its children counts in no limit; when it goes on it is first in line. An action that ends
takes its unfinished descendants with it. Must not know why an attempt ended (spec: queues, "never deadlocks").
"""

from __future__ import annotations

from flyteish._core.model.effects import Deliver, Effect, QueueDrained, RunEnded, StopAttempt
from flyteish._core.model.records import PARKED, RETURNING, TERMINAL, WITH_ATTEMPT, Action, Phase, RunRecord
from flyteish._core.scheduling.queue_state import QueueState
from flyteish._core.state import State
from flyteish._core.transitions.engine_facts import shows_that_it_runs
from flyteish._core.transitions.phases import move
from flyteish._core.transitions.waiting import release_roots

Effects = list[Effect]


def park(state: State, parent: Action, child: Action, now: float, effects: Effects) -> None:
    """The parent's attempt waits for this child: while it only waits, it can't block its child."""
    if child.awaited_by == parent.generation:
        return  # asked for twice: it is waiting already
    child.awaited_by = parent.generation
    parent.outstanding += 1
    if not parent.attempts[-1].placed_at:
        shows_that_it_runs(state, parent, now, effects)
    capacity = state.capacity
    if parent.phase is RETURNING:
        capacity.withdraw(parent)
        deliver_held(state, parent, effects)
        move(state, parent, PARKED)
    elif parent.occupies:
        move(state, parent, PARKED)
        capacity.vacate(parent)


def deliver_held(state: State, parent: Action, effects: Effects) -> None:
    """What its children returned may reach the parent now."""
    actions = state.runs[parent.run].actions
    held, parent.held = parent.held, ()
    effects.extend(Deliver(actions[child]) for child in held)


def child_ended(state: State, child: Action, effects: Effects) -> None:
    """The caller hears of it: at once, or when it has its place back."""
    parent = state.runs[child.run].actions[child.parent] if child.parent is not None else None
    if parent is not None:
        if parent.children is not None:
            parent.children.discard(child.id)
        if parent.phase in WITH_ATTEMPT and child.awaited_by == parent.generation:
            child.awaited_by = 0
            parent.outstanding -= 1
            if not parent.outstanding and parent.phase is PARKED:
                parent.held += (child.id,)
                move(state, parent, RETURNING)
                state.capacity.ask_to_return(parent)
                return
    effects.append(Deliver(child))


# -- ends ----------------------------------------------------------------------------------------------------------


def end(state: State, action: Action, phase: Phase, now: float, effects: Effects) -> None:
    """The action is over: its descendants are cancelled, its caller hears of it, its run may end."""
    run = state.runs[action.run]
    _leave(state, run, action, phase, now)
    for gone in _end_descendants(state, run, action, now, effects) if action.children else (action,):
        gone.children = None
        child_ended(state, gone, effects)
        _leave_queue(state, run, gone, now, effects)
    if not run.open:
        run.ended_at = now
        effects.append(RunEnded(run.id, run.phase))


def _end_descendants(state: State, run: RunRecord, action: Action, now: float, effects: Effects) -> list[Action]:
    """Those of which nothing is alive are over at once; the action, and they after it."""
    ended = [action]
    for gone in ended:  # grows while it is walked: a chain of calls may be longer than Python's stack
        for child_id in sorted(gone.children) if gone.children else ():
            child = run.actions[child_id]
            if _tell_to_stop(child, f"its parent {gone.phase.value.replace('_', ' ')}", effects):
                _leave(state, run, child, Phase.ABORTED, now)
                ended.append(child)
    return ended


def cancel(state: State, action: Action, reason: str, now: float, effects: Effects) -> None:
    """End it now, or as soon as its attempt has let go."""
    if action.phase not in TERMINAL and _tell_to_stop(action, reason, effects):
        end(state, action, Phase.ABORTED, now, effects)


def _tell_to_stop(action: Action, reason: str, effects: Effects) -> bool:
    """Whether nothing of it is alive, so that it is over at once."""
    action.cancel_reason = action.cancel_reason or reason
    if action.phase not in WITH_ATTEMPT:
        return True
    attempt = action.attempts[-1]
    if not attempt.stop:
        effects.append(StopAttempt(action.attempt_key(), attempt.pool, "cancelled"))
    attempt.stop = "cancelled"  # also where it was told to stop for running too long: it gets no other try
    return False


def _leave(state: State, run: RunRecord, action: Action, phase: Phase, now: float) -> None:
    if action.ticket:
        state.capacity.withdraw(action)
    move(state, action, phase)
    action.ended_at = now
    action.held = ()
    if state.unpaced and action.profile.task in state.unpaced:
        state.unpaced[action.profile.task].pop(action.key, None)
    run.open -= 1
    if action.occupies:
        run.zombies += 1


def _leave_queue(state: State, run: RunRecord, action: Action, now: float, effects: Effects) -> None:
    capacity = state.capacity
    if action.enlisted:
        capacity.strike_off(action)
    queue = capacity.queues.get(action.profile.settings.queue)
    if queue is None:
        return  # a cached result in a queue that is gone
    if action.parent is None:
        forget_overlap(state, run)
        capacity.finish_run(run, queue)
        release_roots(state, queue, now)
    if queue.state == "draining":
        note_drained(state, queue, effects)


def forget_overlap(state: State, run: RunRecord) -> None:
    """The run no longer stands in the way of another of its task."""
    queue = state.capacity.queues.get(run.queue)
    runs = queue.runs_of.get(run.task) if queue is not None else None
    if queue is not None and runs is not None:
        runs.pop(run.id, None)
        if not runs:
            del queue.runs_of[run.task]


def note_drained(state: State, queue: QueueState, effects: Effects) -> None:
    """A draining queue whose last work is done is drained; one that is not configured any more goes."""
    if queue.state == "draining" and queue.is_idle:
        queue.state = "drained"
        effects.append(QueueDrained(queue.config.name))
        if queue.removed:
            state.capacity.drop(queue)
