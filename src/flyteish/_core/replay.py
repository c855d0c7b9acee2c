"""The third way to drive the core: reading a journal back, for ``why``, for costs and to resume a run.

Folds recorded facts through ``lifecycle.replay`` and answers questions about the outcome. Must not know where the
journal is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from flyteish._core.lifecycle import replay
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptAdmitted,
    AttemptEnded,
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    AttemptRunning,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    ControllerRestarted,
    Entry,
    Evidence,
    LimitReached,
    NoticeWithdrawn,
    RelocationOrdered,
    RunEvent,
    RunRecovered,
    RunSubmitted,
    TaskDeclared,
    ValueTraced,
)
from flyteish._core.model.records import Action, RunRecord
from flyteish._core.state import ReplayState
from flyteish._core.wording import did_you_mean, span
from flyteish.errors import RunNotFoundError


def state_of(entries: Iterable[Entry]) -> ReplayState:
    """The state after these entries; no queues, no timers: only what happened."""
    state = ReplayState()
    for entry in entries:
        state = replay(state, entry.event, entry.at)
    return state


def record_of(run: str, entries: Iterable[Entry]) -> RunRecord | None:
    """The run as it stands after its entries; None where there are none."""
    return state_of(entries).runs.get(run)


def find_action(record: RunRecord, name: str | None) -> Action:
    """An action by id, by the beginning of its id, or by task name where only one action has it.

    Raises:
        RunNotFoundError: none or several match; near names are suggested.
    """
    if name is None:
        return record.root_action
    actions = list(record.actions.values())
    if name in record.actions:
        return record.actions[name]
    found = [action for action in actions if action.id.startswith(name)] or [
        action for action in actions if name in (action.profile.task, action.profile.task.rpartition(".")[2])
    ]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(action.id for action in found[:5])
        raise RunNotFoundError(f"{len(found)} actions of run {record.id} match {name!r}: {some}; give the id")
    hint = did_you_mean(name, [*record.actions, *(action.profile.task for action in actions)])
    raise RunNotFoundError(f"run {record.id} has no action {name!r}{hint}")


def describe(event: RunEvent) -> tuple[str, str]:
    """The action that an event is about, and the event in words."""
    match event:
        case RunSubmitted():
            return "", f"run of {event.task} submitted to queue {event.queue}"
        case TaskDeclared():
            return "", f"task {event.profile.task} declared"
        case ActionSubmitted():
            return event.action, "called" + (" (result found in the cache)" if event.cached is not None else "")
        case AttemptAdmitted():
            starts = "is sent ahead to" if event.ahead else "starts on"
            return event.action, f"attempt {event.generation} {starts} {event.medium} ({event.pool}): {event.why}"
        case AttemptOrdered():
            return event.action, f"attempt {event.generation} is ordered"
        case AttemptPending():
            return event.action, f"attempt {event.generation} has no machine yet: {_because(event)}"
        case AttemptPlaced():
            return event.action, f"attempt {event.generation} has its machine{_where(event)}"
        case AttemptRunning():
            return event.action, f"attempt {event.generation} runs"
        case AttemptNoticed():
            return event.action, f"attempt {event.generation}: {event.kind} notice, {span(event.seconds)} left"
        case NoticeWithdrawn():
            return event.action, f"attempt {event.generation}: {event.source} withdraws its notice: {event.why}"
        case AttemptEnded():
            return event.action, f"attempt {event.generation} ended: {_seen(event.evidence)}"
        case CheckpointCommitted():
            progress = "" if event.record.progress is None else f", progress {event.record.progress:.0%}"
            return event.action, f"attempt {event.generation} committed checkpoint {event.record.sequence}{progress}"
        case CheckpointSkipped():
            return event.action, f"checkpoint {event.sequence} skipped: {event.why}"
        case CancelRequested():
            return event.action, f"to be cancelled: {event.reason}"
        case RelocationOrdered():
            return event.action, f"attempt {event.generation} is moved to {event.to}: {event.why}"
        case LimitReached():
            return event.action, f"{event.limit} reached"
        case ControllerRestarted():
            return "", "taken over by a new controller"
        case RunRecovered():
            living = len(event.living)
            goes_on = f"; {living} attempt{'s' if living > 1 else ''} of it still live{'s' if living == 1 else ''}"
            return "", "taken up by a new controller" + (goes_on if living else "")
        case ValueTraced():
            return event.action, f"traced {event.key}"


def _because(event: AttemptPending) -> str:
    return f"{event.reason}: {event.message}" if event.message else event.reason


def _where(event: AttemptPlaced) -> str:
    known = [
        *([f"node {event.node}"] if event.node else []),
        *([f"zone {event.zone}"] if event.zone else []),
        *([event.instance_type] if event.instance_type else []),
        *([f"${event.price_per_hour:g} per hour"] if event.price_per_hour is not None else []),
    ]
    return f": {', '.join(known)}" if known else ""


def _seen(evidence: Evidence) -> str:
    """What was seen of an attempt's end; what it counts as is for ``why`` to say."""
    if evidence.result is not None:
        return "returned"
    if evidence.error is not None:
        error = evidence.error
        return f"raised {error.type.rpartition('.')[2]}" + (f": {error.message}" if error.message else "")
    said = evidence.reclaimed or evidence.vanished or evidence.unmendable or evidence.denied or evidence.rejected
    if said is not None:
        return said
    if evidence.stopped:
        return "stopped"
    return "out of memory" if evidence.out_of_memory else f"exit code {evidence.exit_code}"
