"""A loop over epochs that survives the loss of its machine: restores, saves when it pays, and leaves after a notice.

One sequence of steps serves ``for`` and ``async for``; they differ only in where a step's work is done. Must not know
how checkpoints are kept, nor how state is written (``epoch_state`` does).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from flyteish._async.feeds import beside_loop
from flyteish._authoring.attempt.checkpoint_data import checked_key
from flyteish._authoring.attempt.epoch_state import Part, checked_functions, part_of
from flyteish.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from flyteish._authoring.attempt.interruption import Interruption
    from flyteish._authoring.attempt.state import AttemptState

MANIFEST: Final = "epochs.json"
FORMAT: Final = 1

#: What an epoch's number is yielded as; anything else that is yielded is work to do.
_Work = Callable[[], object]
_Steps = Generator["int | _Work", None, None]


class Manifest(msgspec.Struct, frozen=True):
    """What a loop's checkpoint says of itself."""

    format: int
    done: int
    """Epochs done."""
    total: int
    parts: tuple[str, ...]
    """What each state was, in the order in which they were given."""


class Saves(Protocol):
    """What the loop needs of its action's checkpoints."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save_since(self, begun: float, data: Path, progress: float, key: str | None) -> object:
        """Save; the work for it began at ``begun`` on the attempt's clock."""

    def load_sync(self, key: str | None = None) -> Path | None:
        """The newest valid one as a directory."""

    def restoring(self) -> AbstractContextManager[None]:
        """What is done within it counts as restoring."""


class Epochs:
    """The epochs that are still to do (``ctx().checkpoint.epochs``); to be walked through once."""

    def __init__(
        self,
        attempt: AttemptState,
        checkpoint: Saves,
        interruption: Interruption,
        total: int,
        state: tuple[object, ...],
        *,
        save: Callable[[Path], object] | None,
        load: Callable[[Path], object] | None,
        key: str | None,
        leave_early: bool,
    ) -> None:
        if isinstance(total, bool) or not isinstance(total, int) or total < 1:
            raise ConfigurationError(f"checkpoint.epochs(total={total!r}) is not accepted: expected an int >= 1")
        parts = [part_of(each, f"state {number}") for number, each in enumerate(state, 1)]
        functions = checked_functions(save, load)
        self._parts: list[Part] = parts if functions is None else [*parts, functions]
        self._attempt = attempt
        self._checkpoint = checkpoint
        self._interruption = interruption
        self._key = checked_key(key)
        self._leave_early = leave_early
        self.total: Final = total
        """How many there are, those done in earlier attempts included."""
        self.done = 0
        """How many are done, as soon as the loop has begun."""
        self._begun = False

    def __repr__(self) -> str:
        return f"Epochs({self.done}/{self.total} done)"

    def __iter__(self) -> Iterator[int]:
        for step in self._steps():
            if isinstance(step, int):
                yield step
            else:
                step()

    async def __aiter__(self) -> AsyncIterator[int]:
        for step in self._steps():
            if isinstance(step, int):
                yield step
            else:
                await beside_loop(self._attempt.feeds, step, f"flyteish epochs {self._attempt.order.key}")

    def _steps(self) -> _Steps:
        if self._begun:
            raise ConfigurationError("these epochs were walked through before: ask checkpoint.epochs() for new ones")
        self._begun = True
        yield self._restore
        checkpoint = self._checkpoint
        while self.done < self.total:
            yield self.done
            self.done += 1
            last = self.done == self.total
            if checkpoint.due() or (last and self._key is not None):
                yield self._save
            if not last:
                self._leave_if_told()

    def _leave_if_told(self) -> None:
        """After the last epoch nobody leaves: a result that is returned in time counts."""
        interruption = self._interruption
        notice = interruption.notice
        if notice is not None and notice.kind != "rebalance" and self._leave_early:
            interruption.leave(f"{self.done} of {self.total} epochs are saved")

    # -- work, beside the loop in ``async def`` tasks -------------------------------------------------------------

    def _save(self) -> None:
        begun = self._attempt.clock()
        folder = Path(mkdtemp(prefix="epochs-", dir=self._attempt.scratch()))
        try:
            for number, part in enumerate(self._parts):
                part.write(folder / str(number))
            names = tuple(part.name for part in self._parts)
            manifest = Manifest(FORMAT, self.done, self.total, names)
            (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
            self._checkpoint.save_since(begun, folder, self.done / self.total, self._key)
        finally:
            rmtree(folder, ignore_errors=True)

    def _restore(self) -> None:
        folder = self._checkpoint.load_sync(self._key)
        if folder is None:
            return
        manifest = self._read(folder)
        names = tuple(part.name for part in self._parts)
        if manifest.parts != names:
            raise CheckpointError(
                f"the checkpoint holds {_listed(manifest.parts)}, and checkpoint.epochs() was given {_listed(names)}: "
                "give it the same state, in the same order, as the attempt that saved it"
            )
        with self._checkpoint.restoring():
            for number, part in enumerate(self._parts):
                part.read(folder / str(number))
        self.done = min(manifest.done, self.total)
        rmtree(folder, ignore_errors=True)

    def _read(self, folder: Path) -> Manifest:
        try:
            manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise CheckpointError(
                "the newest checkpoint was not saved by checkpoint.epochs(): a task has one chain of checkpoints, so "
                f"let the loop save them all (give it more state, or save= and load=) ({type(error).__name__}: {error})"
            ) from error
        if manifest.format > FORMAT:
            raise CheckpointError(f"the checkpoint was saved by a newer flyteish (format {manifest.format})")
        return manifest


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no state"
