"""The exit codes: one table, from which ``--help`` and the documentation are made.

Names outcomes only. Must not know which command met them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from flyteish.errors import (
    BlobError,
    ConfigurationError,
    InputTypeError,
    RunNotFoundError,
    SerializationError,
    SessionClosedError,
    StoreError,
    TaskDefinitionError,
    TaskNotImportableError,
)


class ExitCode(IntEnum):
    """What a shell is told. Stable: scripts depend on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ABORTED = 3
    TIMED_OUT = 4
    STORE = 5
    INTERRUPTED = 130
    NOBODY_READS = 141
    TERMINATED = 143


MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "done; of a run: it succeeded",
    ExitCode.FAILED: "the run failed, or its queue refused it",
    ExitCode.USAGE: "wrong usage or configuration; no such task, run, action or queue",
    ExitCode.ABORTED: "the run was aborted",
    ExitCode.TIMED_OUT: "the run's deadline passed",
    ExitCode.STORE: "the store or other infrastructure failed, or another controller owns the store",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C; the run can be resumed",
    ExitCode.NOBODY_READS: "whoever read the output went away",
    ExitCode.TERMINATED: "stopped by SIGTERM; the run can be resumed",
}

#: How a run that is over ended -> the code.
OF_PHASE: Final[dict[str, ExitCode]] = {
    "succeeded": ExitCode.OK,
    "failed": ExitCode.FAILED,
    "refused": ExitCode.FAILED,
    "aborted": ExitCode.ABORTED,
    "timed_out": ExitCode.TIMED_OUT,
}

_USAGE: Final = (
    ConfigurationError,
    InputTypeError,
    RunNotFoundError,
    SerializationError,
    TaskDefinitionError,
    TaskNotImportableError,
)
_STORE: Final = (StoreError, BlobError, SessionClosedError)


class UsageError(ConfigurationError):
    """The command line itself is wrong; the message says what would be right."""


class LoadError(UsageError):
    """A file with tasks raised while it was loaded; its error is the cause."""


def code_for(error: BaseException) -> ExitCode | None:
    """The code of an error that stopped a command; None: nobody expected it, so it is a defect."""
    if isinstance(error, _USAGE):
        return ExitCode.USAGE
    return ExitCode.STORE if isinstance(error, _STORE) else None


def table() -> str:
    """The table as text."""
    return "\n".join(f"  {code.value:>3}  {MEANINGS[code]}" for code in ExitCode)
