"""What may be saved as a checkpoint and how it is described: checks of arguments, sizes, names.

Says what is wrong where it was written, before anything is stored. Must not know where content is kept, nor when
anybody saves.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from flyteish._core.model.values import CheckpointRecord
from flyteish.errors import CheckpointError, ConfigurationError, InputTypeError

Data = bytes | bytearray | memoryview | str | os.PathLike[str]

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


def info(record: CheckpointRecord) -> CheckpointInfo:
    """The record as user code sees it."""
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


def ref(key: str) -> str:
    """The reference under which a key's checkpoint is published."""
    return f"checkpoints/{key}"


def space_of(run: str, action: str) -> str:
    """The space of the blob store in which an action's checkpoints lie; nobody else puts anything there."""
    name = f"{run}/{action}"
    return name if _KEY.fullmatch(name) and len(name) <= KEY_LENGTH else blake2b(name.encode()).hexdigest()[:40]


def decoded(key: str, data: bytes) -> CheckpointRecord:
    """The record that is published under ``key``."""
    try:
        return msgspec.msgpack.decode(data, type=CheckpointRecord)
    except msgspec.MsgspecError as error:
        raise CheckpointError(
            f"what is published under the checkpoint key {key!r} can't be read ({error}); "
            "save under this key again to replace it"
        ) from error


def checked_data(data: object) -> bytes | Path:
    """What is to be saved: a copy of bytes, or a path that exists."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)  # a copy, now: the caller may go on writing into its buffer
    if not isinstance(data, str | os.PathLike):
        raise InputTypeError(f"checkpoint.save(data={shown(data)}): expected bytes, or the path of a file or directory")
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(
            f"checkpoint.save(data={shown(data)}): no such file or directory (a str is a path; pass data as bytes)"
        )
    return path


def checked_progress(progress: float | None) -> float | None:
    """A share of done work, or None."""
    if progress is None:
        return None
    if isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1:
        raise ConfigurationError(
            f"checkpoint.save(progress={progress!r}) is not accepted: expected a number from 0 to 1, or None"
        )
    return float(progress)


def checked_key(key: str | None) -> str | None:
    """A name to publish under, or None."""
    # As strict as the stores' references: what is wrong must be said before anything is committed.
    if key is None or (isinstance(key, str) and len(key) <= KEY_LENGTH and _KEY.fullmatch(key)):
        return key
    raise ConfigurationError(
        f"checkpoint key={key!r} is not accepted: expected None, or up to {KEY_LENGTH} letters, digits and "
        "_.=+@- in segments separated by /, each beginning with a letter, a digit or _"
    )


def shown(value: object) -> str:
    """A value in an error: itself if it is short."""
    text = repr(value)
    return text if len(text) <= 60 else f"<{type(value).__name__}>"


def tree_size(path: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def sole_content(path: Path) -> bytes:
    """The bytes of a file, or of a directory's only one."""
    if not path.is_dir():
        return path.read_bytes()
    entries = sorted(entry.name for entry in path.iterdir())
    if len(entries) != 1 or not (path / entries[0]).is_file():
        raise CheckpointError(
            f"the checkpoint is a directory ({', '.join(entries[:5]) or 'empty'}), not one file: "
            "use load() or restore()"
        )
    return (path / entries[0]).read_bytes()
