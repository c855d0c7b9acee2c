"""New work: runs, task profiles and calls, as far as they are accepted.

A call that is on record already is found again: that is how a resumed or retried parent gets its finished children
back. Must not know when anything starts.
"""

from __future__ import annotations

import math

from flyteish._core.model.effects import Deliver, Effect, Record, Refuse
from flyteish._core.model.events import ActionSubmitted, CancelRequested, RunSubmitted, TaskDeclared
from flyteish._core.model.ids import ActionKey, child_action
from flyteish._core.model.records import QUEUED, TERMINAL, WITH_ATTEMPT, Action, Phase, RunRecord
from flyteish._core.rules.attempt_ends import outlived_by_calls
from flyteish._core.scheduling.submission_checks import Refusal
from flyteish._core.state import State
from flyteish._core.transitions.parents_and_children import cancel, end, forget_overlap, park
from flyteish._core.transitions.phases import move
from flyteish._core.transitions.waiting import begin, enter

Effects = list[Effect]


def run_submitted(state: State, event: RunSubmitted, now: float, effects: Effects) -> None:
    """A run is announced. It is recorded with its root: a refused run leaves nothing behind."""
    refusal = state.admission.refuses_run(event)
    if refusal is not None:
        effects.append(Refuse(ActionKey(event.run, ""), refusal.error, refusal.message))
        return
    state.capacity.announce_run(event.run, event.task, event.queue)
    run = RunRecord(event.run, event.task, event.queue, now, event.command, event.entry)
    run.unrecorded = (Record(now, event),)
    state.runs[run.id] = run


def task_declared(state: State, event: TaskDeclared, now: float, effects: Effects) -> None:
    """A task with its settings, which calls refer to."""
    run = state.runs.get(event.run)
    if run is not None and event.profile.key not in run.profiles:
        run.profiles[event.profile.key] = event.profile
        if run.root:
            effects.append(Record(now, event))
        else:
            run.unrecorded += (Record(now, event),)


def action_submitted(state: State, event: ActionSubmitted, now: float, effects: Effects) -> None:
    """A task was called: by a running attempt, or as the root of a run."""
    run = state.runs.get(event.run)
    parent = run.actions.get(event.parent) if run is not None and event.parent is not None else None
    if run is None or (event.parent is not None and not _may_call(parent, event.parent_generation)):
        caller = f"attempt {event.parent_generation} of {event.run}/{event.parent}" if event.parent else event.run
        message = f"{caller} was given up; its calls are refused"
        effects.append(Refuse(ActionKey(event.run, event.action), "StaleAttemptError", message))
        return
    known = run.actions.get(event.action)
    if known is not None:
        _call_again(state, known, parent, now, effects)
        return
    action = Action(
        event.run, event.action, event.parent, run.profiles[event.profile], event.inputs, now, event.occurrence,
        event.group,
    )  # fmt: skip
    if event.cached is None:
        refusal = state.admission.refuses(action)
        if refusal is not None:
            _refuse(state, run, event, refusal, effects)
            return
    _accept(state, run, action, parent, event, now, effects)


def _may_call(parent: Action | None, generation: int) -> bool:
    return parent is not None and parent.phase in WITH_ATTEMPT and parent.generation == generation


def _refuse(state: State, run: RunRecord, event: ActionSubmitted, refusal: Refusal, effects: Effects) -> None:
    effects.append(Refuse(ActionKey(event.run, event.action), refusal.error, refusal.message))
    if event.parent is None:  # the run was opened for nothing
        forget_overlap(state, run)
        del state.runs[run.id]


def _accept(
    state: State,
    run: RunRecord,
    action: Action,
    parent: Action | None,
    event: ActionSubmitted,
    now: float,
    effects: Effects,
) -> None:
    if parent is None:
        _open_run(state, run, now, effects)
        run.root = action.id
    effects.append(Record(now, event))
    run.actions[action.id] = action
    run.open += 1
    if event.cached is not None:  # nothing needs to run, so it stands in no line and its caller keeps its place
        action.cached, action.result = True, event.cached
        end(state, action, Phase.SUCCEEDED, now, effects)
        return
    if parent is not None:
        _adopt(state, parent, action, now, effects)
    if (deadline := action.deadline_at) is not None:
        state.remind(deadline, "deadline", action)
    enter(state, run, action, now)


def _open_run(state: State, run: RunRecord, now: float, effects: Effects) -> None:
    effects.extend(run.unrecorded)
    run.unrecorded = ()
    queue = state.capacity.queues.get(run.queue)
    if queue is not None and queue.config.overlap == "replace":
        for other in [name for name in queue.runs_of.get(run.task, ()) if name != run.id]:
            root = state.runs[other].root
            event = CancelRequested(other, root, f"replaced by run {run.id}", by="overlap")
            cancel_requested(state, event, now, effects)


def _adopt(state: State, parent: Action, child: Action, now: float, effects: Effects) -> None:
    if parent.children is None:
        parent.children = {child.id}
    else:
        parent.children.add(child.id)
    park(state, parent, child, now, effects)


def _call_again(state: State, action: Action, parent: Action | None, now: float, effects: Effects) -> None:
    """A parent makes a call that is on record: a resumed or retried one, or one that has lost its connection."""
    if action.phase in TERMINAL:
        if parent is None or action.id not in parent.held:  # held back until the parent has its place again
            effects.append(Deliver(action))
        return
    if parent is not None:
        _adopt(state, parent, action, now, effects)
    if action.phase is Phase.DORMANT:
        move(state, action, QUEUED)
        begin(state, state.runs[action.run], action, now)


def cancel_requested(state: State, event: CancelRequested, now: float, effects: Effects) -> None:
    """Somebody wants an action, and all below it, ended."""
    action = state.action(ActionKey(event.run, event.action))
    if action is not None and action.phase not in TERMINAL and not action.cancel_reason:
        if _dropped_on_the_way_out(state, action, event.by):
            return
        effects.append(Record(now, event))
        cancel(state, action, event.reason, now, effects)


def _dropped_on_the_way_out(state: State, action: Action, by: str) -> bool:
    """Whether it is its caller who no longer waits, and that only since its machine goes away."""
    parent = state.action(ActionKey(action.run, action.parent)) if action.parent is not None else None
    if parent is None or parent.phase not in WITH_ATTEMPT or by != str(parent.attempt_key()):
        return False
    return outlived_by_calls(parent.attempts[-1].notice)


def child_identity(state: State, run: str, parent: str, task: str, digest: bytes, occurrence: int) -> str:
    """The id for a call: that of the recorded call, unless that one ended without success.

    Succeeded calls are found again by a resumed or retried parent; failed ones get a new try. But a call that this very
    attempt has made before, for its answer got lost, is that call, however it ended.
    """
    actions = state.runs[run].actions
    attempts = actions[parent].attempts if parent in actions else ()
    since = attempts[-1].admitted_at if attempts else math.inf
    incarnation = 0
    while True:
        action = child_action(parent, task, digest, occurrence, incarnation)
        known = actions.get(action)
        if known is None or known.phase not in TERMINAL or known.phase is Phase.SUCCEEDED or known.submitted_at > since:
            return action
        incarnation += 1
