"""Saves an action's progress and restores it: a chain of checkpoints over all the action's attempts.

A checkpoint counts once the controller has journalled it; restore takes the newest whose content verifies.
Must not know where content is kept, nor who may commit: the controller refuses attempts that were given up.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

import msgspec

from flyteish._authoring.feed import beside_loop, through_thread
from flyteish._core.events import CheckpointSkipped
from flyteish._core.values import CheckpointRecord
from flyteish.errors import (
    BlobCorruptError,
    BlobMissingError,
    CheckpointError,
    ConfigurationError,
    InputTypeError,
    StaleAttemptError,
)

if TYPE_CHECKING:
    from flyteish._authoring.context import AttemptContext

Data = bytes | bytearray | memoryview | str | os.PathLike[str]

FIRST_SAVE_SECONDS: Final = 30.0
"""``due()`` asks for the first save at the latest after this, so that the cost of a save gets known."""
FIRST_SAVE_SHARE: Final = 0.01
"""The same as a share of the pool's lifetime, for pools that live minutes."""
COSTS_REMEMBERED: Final = 5
"""Recent saves whose mean is the cost of a save: a model that grows makes old costs worthless."""
DEFAULT_NAME: Final = "checkpoint"
KEY_LENGTH: Final = 180

_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@-]*(/[A-Za-z0-9_][A-Za-z0-9_.=+@-]*)*")


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a checkpoint without reading it."""

    sequence: int
    """Position in the action's chain, from 1."""
    generation: int
    """The attempt that saved it."""
    kind: str
    """``bytes``, ``file`` or ``dir``."""
    name: str
    """File or directory name, where it was saved from one; else empty."""
    size: int
    """In bytes."""
    saved_at: datetime
    """In UTC."""
    save_seconds: float
    """How long it took to store."""
    progress: float | None
    """The author's measure of done work, 0..1."""


class Checkpoint:
    """The action's checkpoints (``ctx().checkpoint``); never shared with other tasks. Thread-safe.

    ``save`` and ``load`` are awaited, ``save_sync`` and ``load_sync`` block; ``read``, ``write`` and
    ``restore`` block too and mean what they mean in Flyte 1. Saves of one attempt happen one after the other.
    If an awaited save is cancelled, it goes on by itself and may still be committed.
    """

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._chain: list[CheckpointRecord] = list(context.order.checkpoints)
        costs = (record.save_seconds for record in self._chain if record.save_seconds > 0)
        self._costs: deque[float] = deque(costs, maxlen=COSTS_REMEMBERED)
        self._saving = threading.Lock()
        self._begun_at = -math.inf  # of this attempt's last save, on its clock
        self._saved_at = context.started

    def __repr__(self) -> str:
        latest = self.latest()
        if latest is None:
            return "Checkpoint(none)"
        done = "" if latest.progress is None else f", progress {latest.progress:.0%}"
        return f"Checkpoint(#{latest.sequence} {latest.kind}, {latest.size} bytes{done})"

    # -- saving -------------------------------------------------------------------------------------

    async def save(self, data: Data, progress: float | None = None, key: str | None = None) -> CheckpointInfo:
        """Save, and return once the checkpoint is committed: it survives the loss of this machine.

        Args:
            data: bytes (may be empty), or the path of a file or directory. A str is a path, never data.
            progress: done work, 0..1, for placement by deadline. Default: no opinion.
            key: also publish it under this name, for ``load(key=...)`` in other runs. Default: it stays here.

        Raises:
            StaleAttemptError: this attempt was given up and replaced.
            BlobError: the store can't be written.
            FileNotFoundError, InputTypeError, ConfigurationError: ``data``, ``progress`` or ``key`` is wrong.
        """
        work = partial(self._save, _checked_data(data), _checked_progress(progress), _checked_key(key))
        return await beside_loop(self._context.feeds, work, f"flyteish save {self._context.order.key}")

    def save_sync(self, data: Data, progress: float | None = None, key: str | None = None) -> CheckpointInfo:
        """``save`` for ``def`` tasks: blocks."""
        return self._save(_checked_data(data), _checked_progress(progress), _checked_key(key))

    def write(self, data: bytes) -> None:
        """Flyte 1: save these bytes. Blocks."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputTypeError(
                f"checkpoint.write(data={_shown(data)}): expected bytes; save() takes files and directories"
            )
        self.save_sync(data)

    # -- restoring ----------------------------------------------------------------------------------

    async def load(self, key: str | None = None) -> Path | None:
        """The newest valid checkpoint as a file or directory of this attempt's own; None if there is none.

        Torn or corrupt ones are passed over with a warning. The copy may be changed freely and is removed
        when the attempt ends; each call makes a new one.

        Args:
            key: where the action has no valid checkpoint of its own, take what was last published under it.

        Raises:
            BlobError: the store can't be read. That is never taken for "no checkpoint".
        """
        work = partial(self.load_sync, key)
        return await beside_loop(self._context.feeds, work, f"flyteish load {self._context.order.key}")

    def load_sync(self, key: str | None = None) -> Path | None:
        """``load`` for ``def`` tasks: blocks."""
        found = self._load(_checked_key(key))
        return None if found is None else found[1]

    async def load_bytes(self, key: str | None = None) -> bytes | None:
        """The newest valid checkpoint's bytes; None if there is none. Otherwise as ``load``.

        Raises:
            CheckpointError: it is a directory of more or less than one file.
        """
        path = await self.load(key)
        return None if path is None else _sole_content(path)

    def read(self) -> bytes | None:
        """Flyte 1: the newest valid checkpoint's bytes; None if there is none. Blocks.

        Raises:
            CheckpointError: it is a directory of more or less than one file.
        """
        path = self.load_sync()
        return None if path is None else _sole_content(path)

    def restore(self, path: str | os.PathLike[str] | None = None) -> Path | None:
        """Flyte 1: put the newest valid checkpoint into the directory ``path``; None if there is none.

        A saved directory's content comes to lie in ``path``, a file under its name (bytes as ``checkpoint``).
        ``path`` is made where it is missing; entries of the same name are replaced. Default: a directory of
        this attempt's own. Returns the directory. Blocks.
        """
        if path is not None and not isinstance(path, str | os.PathLike):
            raise InputTypeError(f"checkpoint.restore(path={_shown(path)}): expected a path or None")
        if path is not None and os.path.lexists(path) and not os.path.isdir(path):
            raise ConfigurationError(f"checkpoint.restore(path={os.fspath(path)!r}): expected a directory")
        found = self._load(None)
        if found is None:
            return None
        record, copy = found
        if path is None:
            return copy if record.kind == "dir" else copy.parent
        target = Path(path)
        if record.kind == "dir":
            shutil.copytree(copy, target, symlinks=True, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(copy, target / copy.name)
        return target

    # -- knowing ------------------------------------------------------------------------------------

    def latest(self) -> CheckpointInfo | None:
        """The newest committed checkpoint of this action, unverified; None if there is none."""
        chain = self._chain
        return _info(chain[-1]) if chain else None

    @property
    def interval(self) -> float:
        """Seconds of work between saves that lose the least: ``sqrt(2 * cost of a save * time to live)``.

        Young and Daly's interval. The cost is the mean of recent saves, the time to live is the pool's, and
        after a notice the time left. Until a save was measured: soon.
        """
        lifetime = self._context.order.pool_lifetime
        left = self._context.interruption.seconds_left
        if left is not None:
            lifetime = min(lifetime, left)
        costs = list(self._costs)
        if not costs:
            return min(FIRST_SAVE_SECONDS, lifetime * FIRST_SAVE_SHARE)
        return min(math.sqrt(2 * sum(costs) / len(costs) * lifetime), lifetime)

    def due(self, now: float | None = None) -> bool:
        """Whether it is time to save: ``interval`` has passed since this attempt's last save or its start.

        At once when a notice came after the last save began. Cheap enough for every step of a loop.

        Args:
            now: the time on ``time.monotonic``'s clock. Default: this moment.
        """
        noticed_at = self._context.interruption.noticed_at
        if noticed_at is not None and self._begun_at < noticed_at:
            return True  # a save that began earlier does not hold what was done since
        now = self._context.clock() if now is None else now
        return now - self._saved_at >= self.interval

    # -- inside -------------------------------------------------------------------------------------

    def _save(self, data: bytes | Path, progress: float | None, key: str | None) -> CheckpointInfo:
        context = self._context
        with self._saving:
            if not context.active:
                raise StaleAttemptError(f"attempt {context.order.key} is over; it can't save checkpoints any more")
            begun = context.clock()
            kind, name, size, blob = self._store(data)
            record = CheckpointRecord(
                sequence=self._chain[-1].sequence + 1 if self._chain else 1,
                generation=context.generation,
                blob=blob,
                kind=kind,
                size=size,
                saved_at=context.wall(),
                save_seconds=context.clock() - begun,
                progress=progress,
                name=name,
            )
            (refused,) = through_thread(partial(context.link.commit_checkpoint, record))
            if refused is not None:
                raise StaleAttemptError(
                    f"checkpoint {record.sequence} of {context.action} was refused: {refused}; "
                    f"this attempt ({context.order.key}) was given up and may not commit anything"
                )
            self._chain.append(record)
            self._begun_at, self._saved_at = begun, context.clock()
            self._costs.append(max(self._saved_at - begun, 1e-9))
            if key is not None:  # only now: what a stale attempt saved must not be published
                context.blobs.set_ref(_ref(key), msgspec.msgpack.encode(record))
        return _info(record)

    def _store(self, data: bytes | Path) -> tuple[str, str, int, str]:
        blobs = self._context.blobs
        if isinstance(data, bytes):
            return "bytes", "", len(data), blobs.put(data)
        name = data.resolve().name  # the path may be "." or end in ".."
        kind, size = ("dir", _tree_size(data)) if data.is_dir() else ("file", data.stat().st_size)
        return kind, name, size, blobs.put_path(data)

    def _load(self, key: str | None) -> tuple[CheckpointRecord, Path] | None:
        found = self._newest_valid(tuple(self._chain))
        if found is None and key is not None:
            data = self._context.blobs.get_ref(_ref(key))
            if data is not None:
                found = self._newest_valid([_decoded(key, data)])
        return found

    def _newest_valid(self, chain: Sequence[CheckpointRecord]) -> tuple[CheckpointRecord, Path] | None:
        for record in reversed(chain):
            name = Path(record.name).name
            folder = Path(mkdtemp(prefix=f"restored-{record.sequence}-", dir=self._context.scratch()))
            target = folder / (DEFAULT_NAME if name in ("", "..") else name)
            try:
                return record, self._context.blobs.fetch(record.blob, target)
            except (BlobCorruptError, BlobMissingError) as error:
                self._skipped(record, error)
        return None

    def _skipped(self, record: CheckpointRecord, error: Exception) -> None:
        context = self._context
        context.logger.warning("checkpoint %d of %s is passed over: %s", record.sequence, context.action, error)
        context.link.checkpoint_skipped(
            CheckpointSkipped(
                run=context.run,
                action=context.action,
                generation=context.generation,
                sequence=record.sequence,
                why=f"{type(error).__name__}: {error}",
            )
        )


def _info(record: CheckpointRecord) -> CheckpointInfo:
    return CheckpointInfo(
        sequence=record.sequence,
        generation=record.generation,
        kind=record.kind,
        name=record.name,
        size=record.size,
        saved_at=datetime.fromtimestamp(record.saved_at, UTC),
        save_seconds=record.save_seconds,
        progress=record.progress,
    )


def _ref(key: str) -> str:
    return f"checkpoints/{key}"


def _decoded(key: str, data: bytes) -> CheckpointRecord:
    try:
        return msgspec.msgpack.decode(data, type=CheckpointRecord)
    except msgspec.MsgspecError as error:
        raise CheckpointError(
            f"what is published under the checkpoint key {key!r} can't be read ({error}); "
            "save under this key again to replace it"
        ) from error


def _checked_data(data: object) -> bytes | Path:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)  # a copy, now: the caller may go on writing into its buffer
    if not isinstance(data, str | os.PathLike):
        raise InputTypeError(
            f"checkpoint.save(data={_shown(data)}): expected bytes, or the path of a file or directory"
        )
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(
            f"checkpoint.save(data={_shown(data)}): no such file or directory (a str is a path; pass data as bytes)"
        )
    return path


def _checked_progress(progress: float | None) -> float | None:
    if progress is None:
        return None
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1:
        raise ConfigurationError(
            f"checkpoint.save(progress={progress!r}) is not accepted: expected a number from 0 to 1, or None"
        )
    return float(progress)


def _checked_key(key: str | None) -> str | None:
    # As strict as the stores' references: what is wrong must be said before anything is committed.
    if key is None or (isinstance(key, str) and len(key) <= KEY_LENGTH and _KEY.fullmatch(key)):
        return key
    raise ConfigurationError(
        f"checkpoint key={key!r} is not accepted: expected None, or up to {KEY_LENGTH} letters, digits and "
        "_.=+@- in segments separated by /, each beginning with a letter, a digit or _"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"<{type(value).__name__}>"


def _tree_size(path: Path) -> int:
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def _sole_content(path: Path) -> bytes:
    if not path.is_dir():
        return path.read_bytes()
    entries = sorted(entry.name for entry in path.iterdir())
    if len(entries) != 1 or not (path / entries[0]).is_file():
        raise CheckpointError(
            f"the checkpoint is a directory ({', '.join(entries[:5]) or 'empty'}), not one file: "
            "use load() or restore()"
        )
    return (path / entries[0]).read_bytes()
