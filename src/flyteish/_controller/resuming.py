"""What a run's journal says to whoever takes the run up again: its root task, its settings, its outcome if it has one.

Reads; changes nothing. Must not know how the run goes on from there.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from flyteish._authoring.reference import needs_value
from flyteish._controller.outcomes import outcome_of
from flyteish._core.actions import TERMINAL, RunRecord
from flyteish._core.events import Entry, RunSubmitted
from flyteish._core.settings import SILENT, Opinions
from flyteish._worker.loader import Loader
from flyteish.errors import ConfigurationError, RunNotFoundError, TaskNotImportableError, UnknownQueueError
from flyteish.interfaces import BlobStore, Outcome, RunStore

RUNS_COMPARED = 1000


def outcome_on_record(record: RunRecord) -> Outcome | None:
    """How the run ended, if it did."""
    root = record.actions.get(record.root)
    return outcome_of(root) if root is not None and root.phase in TERMINAL else None


def recorded_opinions(entries: Iterable[Entry]) -> Opinions:
    """What ``with_runcontext`` said when the run was started."""
    for entry in entries:
        if isinstance(entry.event, RunSubmitted):
            return entry.event.opinions
    return SILENT


def unknown_run(run: str, store: RunStore, active: Iterable[str]) -> RunNotFoundError:
    """The error for a name that is not on record."""
    known = [*active, *(row.run for row in store.runs(RUNS_COMPARED))]
    if run in known:
        return RunNotFoundError(f"run {run!r} has just been started and is not on record yet")
    near = difflib.get_close_matches(run, known, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return RunNotFoundError(f"no run {run!r} on record{hint}")


def check_task(record: RunRecord, task: Any) -> None:
    """Raises ConfigurationError where the task given is not the one that the run is of."""
    if task is not None and task.name != record.task:
        raise ConfigurationError(
            f"task={task.name} in resume({record.id!r}) is not accepted: that is a run of {record.task}"
        )


def check_queues(record: RunRecord, known: Collection[str]) -> None:
    """Raises UnknownQueueError where unfinished work is in a queue that is not configured any more."""
    wanted = {each.profile.settings.queue for each in record.actions.values() if each.phase not in TERMINAL}
    missing = sorted({record.queue, *wanted} - set(known))
    if missing:
        raise UnknownQueueError(
            f"run {record.id} cannot be resumed: unfinished work is in queue {' and '.join(map(repr, missing))}; "
            f"known queues: {', '.join(known)}. Configure it again, to resume the run"
        )


def root_task(record: RunRecord, blobs: BlobStore) -> Any:
    """The root task, loaded from where the run recorded that it is.

    Raises:
        TaskNotImportableError: it was defined in a notebook, or is no longer where it was.
    """
    profile = record.root_action.profile
    if needs_value(profile.reference):
        raise TaskNotImportableError(
            f"run {record.id}: its task {profile.task} was not defined at the top of a file; "
            "give the task to Session.resume(run, task)"
        )
    return Loader(lambda: blobs).load(profile.reference, profile.task)
