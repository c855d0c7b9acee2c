"""What a run's journal says to whoever takes the run up again: its root task, its settings, its outcome if it has one.

Reads; changes nothing. Must not know how the run goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flyteish._authoring.reference import needs_value
from flyteish._controller.outcomes import outcome_of
from flyteish._core.actions import TERMINAL, RunRecord
from flyteish._core.events import Entry, RunSubmitted
from flyteish._core.settings import SILENT, Opinions
from flyteish._worker.loader import Loader
from flyteish.errors import TaskNotImportableError
from flyteish.interfaces import BlobStore, Outcome


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
