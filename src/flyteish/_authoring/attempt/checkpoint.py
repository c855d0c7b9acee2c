"""Saves an action's progress and restores it: a chain of checkpoints over all the action's attempts.

A checkpoint counts once the controller has journalled it; restore takes the newest whose content verifies, and the
two newest good ones are kept. Must not know where content is kept, nor who may commit: the controller refuses
attempts that were given up.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

import msgspec

from flyteish._async.feeds import beside_loop, through_thread
from flyteish._authoring.attempt.checkpoint_data import (
    DEFAULT_NAME,
    CheckpointInfo,
    Data,
    checked_data,
    checked_key,
    checked_progress,
    decoded,
    info,
    ref,
    shown,
    sole_content,
    space_of,
    tree_size,
)
from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.values import CheckpointRecord
from flyteish._core.rules.checkpoint_interval import interval
from flyteish.blobs import sweeping
from flyteish.errors import (
    BlobCorruptError,
    BlobError,
    BlobMissingError,
    ConfigurationError,
    InputTypeError,
    StaleAttemptError,
)

if TYPE_CHECKING:
    from flyteish._authoring.attempt.epochs import Epochs
    from flyteish._authoring.attempt.interruption import Interruption
    from flyteish._authoring.attempt.state import AttemptState
    from flyteish.interfaces import BlockingBlobs, BlockingContent

COSTS_REMEMBERED: Final = 5
"""Recent saves whose mean is the cost of a save: a model that grows makes old costs worthless."""
KEPT: Final = 2
"""Checkpoints of an action whose content is kept: the newest good ones. Older ones are removed after each save."""


class Checkpoint:
    """The action's checkpoints (``ctx().checkpoint``); never shared with other tasks. Thread-safe.

    ``save`` and ``load`` are awaited, ``save_sync`` and ``load_sync`` block; ``read``, ``write`` and
    ``restore`` block too and mean what they mean in Flyte 1. Saves of one attempt happen one after the other.
    If an awaited save is cancelled, it goes on by itself and may still be committed.
    """

    def __init__(self, attempt: AttemptState, interruption: Interruption) -> None:
        self._attempt = attempt
        self._interruption = interruption
        self._chain: list[CheckpointRecord] = list(attempt.order.checkpoints)
        costs = (record.save_seconds for record in self._chain if record.save_seconds > 0)
        self._costs: deque[float] = deque(costs, maxlen=COSTS_REMEMBERED)
        self._saving = threading.Lock()
        self._begun_at = -math.inf  # of this attempt's last save, on its clock
        self._saved_at = attempt.started
        self._restoring = 0.0  # seconds spent on it since the last save
        self._damaged: set[int] = set()  # sequences that this attempt could not restore

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
        work = partial(self._save, checked_data(data), checked_progress(progress), checked_key(key))
        return await beside_loop(self._attempt.feeds, work, f"flyteish save {self._attempt.order.key}")

    def save_sync(self, data: Data, progress: float | None = None, key: str | None = None) -> CheckpointInfo:
        """``save`` for ``def`` tasks: blocks."""
        return self._save(checked_data(data), checked_progress(progress), checked_key(key))

    def write(self, data: bytes) -> None:
        """Flyte 1: save these bytes. Blocks."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputTypeError(
                f"checkpoint.write(data={shown(data)}): expected bytes; save() takes files and directories"
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
        return await beside_loop(self._attempt.feeds, work, f"flyteish load {self._attempt.order.key}")

    def load_sync(self, key: str | None = None) -> Path | None:
        """``load`` for ``def`` tasks: blocks."""
        found = self._load(checked_key(key))
        return None if found is None else found[1]

    async def load_bytes(self, key: str | None = None) -> bytes | None:
        """The newest valid checkpoint's bytes; None if there is none. Otherwise as ``load``.

        Raises:
            CheckpointError: it is a directory of more or less than one file.
        """

        def work() -> bytes | None:
            path = self.load_sync(key)
            return None if path is None else sole_content(path)

        return await beside_loop(self._attempt.feeds, work, f"flyteish load {self._attempt.order.key}")

    def read(self) -> bytes | None:
        """Flyte 1: the newest valid checkpoint's bytes; None if there is none. Blocks.

        Raises:
            CheckpointError: it is a directory of more or less than one file.
        """
        path = self.load_sync()
        return None if path is None else sole_content(path)

    def restore(self, path: str | os.PathLike[str] | None = None) -> Path | None:
        """Flyte 1: put the newest valid checkpoint into the directory ``path``; None if there is none.

        A saved directory's content comes to lie in ``path``, a file under its name (bytes as ``checkpoint``).
        ``path`` is made where it is missing; entries of the same name are replaced. Default: a directory of
        this attempt's own. Returns the directory. Blocks.
        """
        if path is not None and not isinstance(path, str | os.PathLike):
            raise InputTypeError(f"checkpoint.restore(path={shown(path)}): expected a path or None")
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
        return info(chain[-1]) if chain else None

    @property
    def interval(self) -> float:
        """Seconds of work between two saves that lose the least time, by Daly's estimate.

        The cost is the mean of recent saves, their commit included; the time to live is the pool's, and after a
        notice the time left. Until a save was measured: soon.
        """
        lifetime = self._attempt.order.pool_lifetime
        left = self._interruption.seconds_left
        if left is not None:
            lifetime = min(lifetime, left)
        costs = list(self._costs)
        return interval(sum(costs) / len(costs) if costs else None, lifetime)

    def due(self, now: float | None = None) -> bool:
        """Whether it is time to save: ``interval`` has passed since this attempt's last save or its start.

        At once when a notice came, or became graver or sooner, after the last save began. Cheap enough for every
        step of a loop.

        Args:
            now: the time on ``time.monotonic``'s clock. Default: this moment.
        """
        changed_at = self._interruption.changed_at
        if changed_at is not None and self._begun_at < changed_at:
            return True  # a save that began earlier does not hold what was done since
        now = self._attempt.clock() if now is None else now
        return now - self._saved_at >= self.interval

    def epochs(
        self,
        total: int,
        *state: object,
        save: Callable[[Path], object] | None = None,
        load: Callable[[Path], object] | None = None,
        key: str | None = None,
        leave_early: bool = True,
    ) -> Epochs:
        """The epochs that are still to do, for ``for`` in ``def`` tasks and ``async for`` in ``async def`` ones.

        Restores ``state`` before the first one. After each, saves it if that is ``due()``, and with a ``key`` after
        the last one in any case. ``total`` may be another one than in earlier attempts. After a notice that its
        machine goes away, the attempt saves at the end of the epoch and leaves: it ends as preempted, and the next
        one goes on from there. A ``rebalance`` notice is only a recommendation: it saves, and goes on.

        Args:
            total: number of epochs, counted from 0.
            state: objects that an epoch changes, restored in place: whatever has ``state_dict`` and
                ``load_state_dict`` (torch's modules, optimizers, ...), lists, dicts, sets, numpy arrays, and other
                objects by their attributes (scikit-learn's estimators, data classes, your own).
            save: writes further state to the path it is given, as a file or a directory.
            load: restores it from there.
            key: also publish each checkpoint under this name, and begin with what is there, as ``load`` does.
            leave_early: False works on until the machine is taken away.

        Raises:
            ConfigurationError, InputTypeError: an argument is wrong, or a state can't be restored in place.
            CheckpointError: the newest checkpoint was saved by something else, or for other ``state``.
        """
        from flyteish._authoring.attempt.epochs import Epochs

        return Epochs(
            self._attempt,
            self,
            self._interruption,
            total,
            state,
            save=save,
            load=load,
            key=key,
            leave_early=leave_early,
        )

    # -- inside -------------------------------------------------------------------------------------

    def save_since(self, begun: float, data: Path, progress: float, key: str | None) -> CheckpointInfo:
        """Internal: a save whose work began earlier, with writing the files, at ``begun`` on the attempt's clock."""
        return self._save(data, progress, key, begun)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Internal: what is done within it counts as restoring."""
        begun = self._attempt.clock()
        try:
            yield
        finally:
            self._restoring += self._attempt.clock() - begun

    def _save(
        self, data: bytes | Path, progress: float | None, key: str | None, begun: float | None = None
    ) -> CheckpointInfo:
        attempt = self._attempt
        me = attempt.order.key
        with self._saving:
            if not attempt.active:
                raise StaleAttemptError(f"attempt {me} is over; it can't save checkpoints any more")
            begun = attempt.clock() if begun is None else begun
            space = space_of(me.run, me.action)
            store = attempt.blobs.blocking.space(space)
            kind, name, size, blob = _store(store, data)
            record = CheckpointRecord(
                sequence=self._chain[-1].sequence + 1 if self._chain else 1,
                generation=me.generation,
                blob=blob,
                kind=kind,
                size=size,
                saved_at=attempt.wall(),
                save_seconds=attempt.clock() - begun,
                progress=progress,
                name=name,
                restore_seconds=self._restoring,
                space=space,
            )
            (refused,) = through_thread(partial(attempt.link.commit_checkpoint, record))
            if refused is not None:
                raise StaleAttemptError(
                    f"checkpoint {record.sequence} of {me.action} was refused: {refused}; "
                    f"this attempt ({me}) was given up and may not commit anything"
                )
            self._chain.append(record)
            self._restoring = 0.0
            if key is not None:  # only now: what a stale attempt saved must not be published
                published = msgspec.msgpack.encode(record)
                store.set_ref(ref(key), published)  # first where the content is, so that it is never swept away
                attempt.blobs.blocking.set_ref(ref(key), published)
            self._forget_superseded(store)
            self._begun_at, self._saved_at = begun, attempt.clock()
            self._costs.append(max(self._saved_at - begun, 1e-9))
        return info(record)

    def _forget_superseded(self, store: BlockingBlobs) -> None:
        """Remove what no restore needs any more, and what attempts that were cut off left unfinished.

        Nobody else has content in this space, save a newer attempt where this one is a zombie: what that puts is
        newer than the save that was committed.
        """
        good = [record for record in self._chain if record.sequence not in self._damaged]
        kept = {record.blob for record in good[-KEPT:]}
        self._chain = good[-KEPT:]
        try:
            sweeping.supersede(store, kept, newest=self._chain[-1].blob)
        except BlobError as error:  # it is litter, and the next save tries again: the checkpoint is committed
            self._attempt.logger.warning("superseded checkpoints could not be removed: %s", error)

    def _load(self, key: str | None) -> tuple[CheckpointRecord, Path] | None:
        with self.restoring():
            found = self._newest_valid(tuple(self._chain[-KEPT:]))
            if found is None and len(self._chain) > KEPT:
                found = self._newest_valid(tuple(self._chain[:-KEPT]), superseded=True)
            if found is None and key is not None:
                data = self._published(key)
                if data is not None:
                    found = self._newest_valid([decoded(key, data)])
            return found

    def _published(self, key: str) -> bytes | None:
        blobs = self._attempt.blobs.blocking
        found = blobs.get_ref(ref(key))
        if found is None:
            return None
        if found.is_stale(self._attempt.wall()):
            blobs.replace_ref(ref(key), found.data, found.version)  # a newer one needs no renewal
        return found.data

    def _newest_valid(
        self, chain: Sequence[CheckpointRecord], superseded: bool = False
    ) -> tuple[CheckpointRecord, Path] | None:
        for record in reversed(chain):
            name = Path(record.name).name
            folder = Path(mkdtemp(prefix=f"restored-{record.sequence}-", dir=self._attempt.scratch()))
            target = folder / (DEFAULT_NAME if name in ("", "..") else name)
            blobs = self._attempt.blobs.blocking
            try:
                return record, (blobs.space(record.space) if record.space else blobs).fetch(record.blob, target)
            except (BlobCorruptError, BlobMissingError) as error:
                if not (superseded and isinstance(error, BlobMissingError)):  # those were removed on purpose
                    self._damaged.add(record.sequence)
                    self._skipped(record, error)
        return None

    def _skipped(self, record: CheckpointRecord, error: Exception) -> None:
        me, link, logger = self._attempt.order.key, self._attempt.link, self._attempt.logger
        logger.warning("checkpoint %d of %s is passed over: %s", record.sequence, me.action, error)
        link.checkpoint_skipped(
            CheckpointSkipped(
                run=me.run,
                action=me.action,
                generation=me.generation,
                sequence=record.sequence,
                why=f"{type(error).__name__}: {error}",
            )
        )


def _store(store: BlockingContent, data: bytes | Path) -> tuple[str, str, int, str]:
    if isinstance(data, bytes):
        return "bytes", "", len(data), store.put(data)
    name = data.resolve().name  # the path may be "." or end in ".."
    kind, size = ("dir", tree_size(data)) if data.is_dir() else ("file", data.stat().st_size)
    return kind, name, size, store.put_path(data)
