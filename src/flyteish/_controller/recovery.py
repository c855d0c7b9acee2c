"""How a run is found again: its root task and where that is, its settings, and its outcome if it has one.

Reads the journal and changes nothing. Must not know how the run goes on from there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flyteish._authoring.values import names
from flyteish._authoring.values.kind_checks import declared
from flyteish._authoring.values.task_reference import needs_value, reference_for
from flyteish._controller.outcomes import outcome_of
from flyteish._core.model.events import RunSubmitted
from flyteish._core.model.records import TERMINAL, RunRecord
from flyteish._core.model.settings import SILENT, Opinions
from flyteish._core.replay import state_of
from flyteish._core.state import State
from flyteish._core.wording import did_you_mean
from flyteish._worker.loader import Loader
from flyteish.errors import (
    ConfigurationError,
    RunNotFoundError,
    TaskNotImportableError,
    UnknownQueueError,
)
from flyteish.interfaces import BlobStore, Outcome, RunStore

RUNS_COMPARED = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Found(NamedTuple):
    """A run on record."""

    state: State
    """Its journal, replayed: it, and nothing else."""
    task: Any
    """Its root task."""
    said: Opinions
    """What ``with_runcontext`` said when it was started."""
    outcome: Outcome | None
    """How it ended, if it did."""
    last_at: float
    """The last moment on record of it, though the clock may have gone back."""


def look_up(
    run: str, task: Any, store: RunStore, blobs: BlobStore, active: Iterable[str], *, allow_pickle: bool
) -> Found:
    """The run, ready to be taken up; ``task`` is the root task, or None to have it loaded.

    Raises:
        RunNotFoundError, ConfigurationError, TaskNotImportableError: as ``Session.resume`` says.
    """
    entries = [entry for _, entry in store.read(run)]
    state = state_of(entries)
    if run not in state.runs or not state.runs[run].root:
        raise unknown_run(run, store, active)
    record = state.runs[run]
    check_task(record, task)
    said = next((entry.event.opinions for entry in entries if isinstance(entry.event, RunSubmitted)), SILENT)
    outcome = outcome_of(record.root_action) if record.root_action.phase in TERMINAL else None
    last_at = max(entry.at for entry in entries)
    return Found(state, task or root_task(record, blobs, allow_pickle=allow_pickle), said, outcome, last_at)


def unknown_run(run: str, store: RunStore, active: Iterable[str]) -> RunNotFoundError:
    """The error for a name that is not on record."""
    known = [*active, *(row.run for row in store.runs(RUNS_COMPARED))]
    if run in known:
        return RunNotFoundError(f"run {run!r} has just been started and is not on record yet")
    return RunNotFoundError(f"no run {run!r} on record{did_you_mean(run, known)}")


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


def check_pools(record: RunRecord, keeping: Collection[str]) -> None:
    """Raises ConfigurationError where attempts may go on of which no engine of this session would know.

    Args:
        keeping: pools whose engine can say what lives of an earlier controller's attempts.
    """
    last = [each.attempts[-1] for each in record.actions.values() if each.attempts and each.phase not in TERMINAL]
    missing = sorted({each.pool for each in last if not each.ended_at and each.may_outlive} - set(keeping))
    if missing:
        raise ConfigurationError(
            f"run {record.id} cannot be resumed: attempts in pool {' and '.join(map(repr, missing))} may have outlived "
            "their controller, and would run twice, for no engine of this session can tell. Give that pool the engine "
            "that it had, Session(engines=...), and take the run up there"
        )


def check_name(name: str | None) -> None:
    """Raises ConfigurationError where this can be no run's name: it is a folder's, and a word of the command line."""
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigurationError(
            f"name={name!r} in with_runcontext() is not accepted: expected up to 100 letters, digits, '-', '_' and "
            "'.', the first a letter or a digit"
        )


def entry_of(task: Any) -> str:
    """Where a person, and a later process, find the task: ``FILE:name``; ``module:name`` for what has no file.

    Empty for a task of a notebook, of a prompt or inside a function, which no later process can find.
    """
    reference = reference_for(task)
    if needs_value(reference):
        return ""
    file = reference.file or getattr(sys.modules.get(reference.module), "__file__", None)
    return f"{Path(file).resolve() if file else reference.module}:{reference.name}"


def root_task(record: RunRecord, blobs: BlobStore, *, allow_pickle: bool) -> Any:
    """The root task, loaded from where the run recorded that it is.

    Args:
        allow_pickle: whether it may be unpickled, where the record says that it travels by value.

    Raises:
        TaskNotImportableError: it was defined in a notebook, or is no longer where it was.
    """
    profile = record.root_action.profile
    reference = profile.reference
    if needs_value(reference):
        raise TaskNotImportableError(
            f"run {record.id}: its task {profile.task} was not defined at the top of a file; "
            "give the task to Session.resume(run, task)"
        )
    main = sys.modules.get("__main__")
    if reference.file is not None and _same_file(reference.file, getattr(main, "__file__", None)):
        # The script that is running: to load it a second time would give the program two of everything.
        found = names.look_up(vars(main), reference.name)
        if declared(type(found), "__flyteish_task__") is True:
            return found
    return Loader(lambda: blobs.blocking).load(reference, profile.task, may_unpickle=allow_pickle)


def _same_file(one: str, other: str | None) -> bool:
    return other is not None and Path(one).resolve() == Path(other).resolve()
