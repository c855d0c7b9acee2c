"""What is told of actions and runs: to a caller the result or the error with its story, to the list of runs a row.

Reads facts only. Must not know who is told.
"""

from __future__ import annotations

import msgspec

from flyteish._core.billing.bills import CostLine, lines_of
from flyteish._core.model.records import Action, Phase, RunRecord
from flyteish._core.model.values import ErrorDocument
from flyteish._core.wording import span
from flyteish.interfaces import Outcome, RunRow


def outcome_of(action: Action) -> Outcome:
    """The outcome of an ended action."""
    if action.phase is Phase.SUCCEEDED:
        return Outcome(action.run, action.id, "succeeded", result=action.result)
    return Outcome(action.run, action.id, action.phase.value, error=_error(action), story=_story(action))


def type_name(error: object) -> str:
    """The qualified name of an error's class."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def row_of(record: RunRecord) -> RunRow:
    """The run at a glance. For people it is over when its root is, though descendants may still be letting go."""
    root = record.actions.get(record.root)
    ended_at = root.ended_at if root is not None else record.ended_at
    return RunRow(
        run=record.id,
        task=record.task,
        queue=record.queue,
        phase=record.phase,
        submitted_at=record.submitted_at,
        ended_at=ended_at or None,
        actions=len(record.actions),
        command=record.command,
        entry=record.entry,
        costs=msgspec.msgpack.encode(lines_of(record, record.ended_at)) if record.ended_at else b"",
    )


def costs_in(row: RunRow) -> list[CostLine] | None:
    """What an ended run cost, without reading its journal; None: the row does not say."""
    return msgspec.msgpack.decode(row.costs, type=list[CostLine]) if row.costs else None


def _error(action: Action) -> ErrorDocument:
    if action.phase is Phase.ABORTED:
        name, message = "ActionAbortedError", action.cancel_reason or "aborted"
    elif action.phase is Phase.TIMED_OUT:
        limit = action.profile.settings.timeout.deadline
        name, message = "ActionTimedOutError", f"its deadline of {span(limit)} passed"
    elif action.error is not None:
        return action.error
    else:
        name, message = "AttemptError", "ended without an error"
    text = f"{action.profile.task} ({action.run}/{action.id}): {message}"
    return ErrorDocument(type=f"flyteish.errors.{name}", message=text)


def _story(action: Action) -> tuple[str, ...]:
    from flyteish._core.story import attempt_lines

    return tuple(attempt_lines(action))
