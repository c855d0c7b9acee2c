"""``current_context()`` with Flyte 1's meaning, ``checkpoint`` above all.

Shows the running attempt under Flyte 1's names and holds nothing. Everything else that an attempt knows is on
``flyteish.ctx()``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flyteish._authoring.attempt.context import AttemptContext, ctx
from flyteish.errors import CheckpointError, InputTypeError

if TYPE_CHECKING:
    import logging

    from flyteish._authoring.attempt.checkpoint import Checkpoint as Chain


class Identifier(NamedTuple):
    """Of a run or a task; Flyte 1's also name a project, a domain and a version, which there are none of here."""

    name: str


class Checkpoint:
    """The action's checkpoints, as Flyte 1 has them. All methods block.

    What was saved is on record when ``write`` or ``save`` returns, and stays so when a later attempt saves nothing.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def __repr__(self) -> str:
        return repr(self._chain)

    def prev_exists(self) -> bool:
        """Whether there is one."""
        return self._chain.latest() is not None

    def read(self) -> bytes | None:
        """The newest one's bytes; None if there is none.

        Raises:
            ValueError: it is a directory of more or less than one file.
        """
        try:
            return self._chain.read()
        except CheckpointError as error:
            raise ValueError(str(error)) from error  # what programs for Flyte 1 catch

    def write(self, b: bytes) -> None:
        """Save these bytes."""
        self._chain.write(b)

    def restore(self, path: str | os.PathLike[str] | None = None) -> Path | None:
        """Put the newest one into the directory ``path``, which is made where it is missing; None if there is none.

        Default: a directory of this attempt's own.

        Raises:
            ValueError: ``path`` is not a directory.
        """
        return self._chain.restore(path)

    def save(self, cp: str | os.PathLike[str] | Any) -> None:
        """Save a file, a directory, or what an open binary file holds from where it stands.

        Raises:
            FileNotFoundError: there is no such path.
            TypeError: ``cp`` is something else.
        """
        if isinstance(cp, str | os.PathLike):
            self._chain.save_sync(Path(cp))
        elif callable(getattr(cp, "read", None)):
            self._chain.write(cp.read())
        else:
            raise InputTypeError(
                f"checkpoint.save(cp=<{type(cp).__name__}>): expected a path or an open binary file; "
                "write() takes bytes"
            )


class ExecutionParameters:
    """The running attempt in Flyte 1's words.

    Raises:
        OutsideTaskError: by each attribute, where no task is running.
    """

    def __init__(self, attempt: AttemptContext) -> None:
        self._attempt = attempt

    def __repr__(self) -> str:
        return f"<current_context(): {self._attempt!r}>"

    @property
    def checkpoint(self) -> Checkpoint:
        """Saves and restores the task's progress."""
        return Checkpoint(self._attempt.checkpoint)

    @property
    def execution_id(self) -> Identifier:
        """The run."""
        return Identifier(self._attempt.run)

    @property
    def task_id(self) -> Identifier:
        """The task."""
        return Identifier(self._attempt.task)

    @property
    def logging(self) -> logging.LoggerAdapter[logging.Logger]:
        """The attempt's logger."""
        return self._attempt.logger

    @property
    def working_directory(self) -> str:
        """A folder of this attempt's own, removed when it ends."""
        return str(self._attempt.scratch())


def current_context() -> ExecutionParameters:
    """The running attempt. Can be called anywhere; what it returns is of use inside a task only."""
    return ExecutionParameters(ctx())
