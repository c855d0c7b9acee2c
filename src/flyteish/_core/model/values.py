"""What travels through the core without being opened: payloads, error documents, task references.

The core moves these and reads only the few fields that decide something (is the error final? which type?).
Must not know how values are encoded.
"""

from __future__ import annotations

import msgspec

from flyteish._core.model.settings import Settings


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Encoded inputs or a result: small ones travel inline, large ones as an address in the blob store.

    ``data`` is None when ``blob`` (a content address) is set. ``size`` is in bytes.
    """

    data: bytes | None = None
    blob: str | None = None
    size: int = 0


class ErrorDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as plain data: can be stored, sent and rebuilt without unpickling anything."""

    type: str
    """Qualified name, ``module.QualName``."""
    message: str = ""
    bases: tuple[str, ...] = ()
    """Qualified names along the class's MRO, its own first: what ``retry_on`` is matched against."""
    args: bytes | None = None
    """The exception's ``args``, encoded; None where they could not be."""
    attributes: bytes | None = None
    """The exception's ``__dict__``, encoded; None where it is empty or could not be."""
    notes: tuple[str, ...] = ()
    traceback: str = ""
    cause: ErrorDocument | None = None
    context: ErrorDocument | None = None
    group: tuple[ErrorDocument, ...] = ()
    """The members, where the exception is an ``ExceptionGroup``."""
    final: bool = False
    """No retry can mend it: ``NonRecoverableError``, bad input, unserialisable output."""


class TaskReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a worker finds the function: by module and name, by file, or by value."""

    module: str
    name: str
    file: str | None = None
    """Set where the module is a script (``__main__``): the path a worker loads it from."""
    by_value: str | None = None
    """Address in the blob store of the pickled function, for notebooks and closures."""


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task with its resolved settings, recorded once per run; actions refer to it by ``key``."""

    key: str
    task: str
    settings: Settings
    reference: TaskReference
    is_async: bool = True
    cache_version: str | None = None
    """What stands for the function's code in cache keys; None where caching is off."""


class CheckpointRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One committed checkpoint: a link of the action's chain over all its attempts."""

    sequence: int
    """Position in the chain, from 1."""
    generation: int
    """Of the attempt that saved it."""
    blob: str
    """Content address; its digest is the checksum that restore verifies."""
    kind: str
    """``bytes``, ``file`` or ``dir``."""
    size: int
    saved_at: float
    """Seconds since the epoch."""
    save_seconds: float = 0.0
    """How long the save took: the cost that ``due()`` weighs."""
    progress: float | None = None
    """The author's measure of done work, 0..1."""
    name: str = ""
    """File or directory name, where it was saved from one."""
    restore_seconds: float = 0.0
    """How long restoring took in the attempt that saved it, on the first one that it saved after a restore; else 0."""
    space: str = ""
    """Space of the blob store that holds the content: the action's own; empty where an earlier version saved it."""
