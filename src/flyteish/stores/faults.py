"""Says in a person's words what went wrong with a store's file, and what mends it.

Every failure of SQLite or of the file system becomes one of the ``StoreError`` family here, told apart by
its code and never by its text. Must not know what was being stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flyteish.errors import StoreCorruptError, StoreError, StoreVersionError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_PRIMARY = 0xFF  # an extended code holds the primary one in its lowest byte


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Raise what fails inside as a StoreError that names the file and the cure.

    ``doing`` completes "cannot ... this store".
    """
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, path, doing) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot {doing} this store: {error}") from error


def store_error(error: BaseException, path: Path, doing: str, run: str | None = None) -> StoreError:
    """The StoreError for anything that was raised while ``doing`` something with the store at ``path``.

    ``run`` is one that was interrupted by it, if any was: the message says how to resume it.
    """
    if isinstance(error, StoreError):
        return error
    code = getattr(error, "sqlite_errorcode", 0)
    after = "" if run is None else f" Then `flyteish resume {run}`; what was acknowledged is kept."
    if code & _PRIMARY in _DAMAGED:
        return damaged(path, str(error))
    if code & _PRIMARY == sqlite3.SQLITE_FULL:
        return StoreError(f"{path}: disk full, cannot {doing} this store. Free space in {path.parent}.{after}")
    if code & _PRIMARY == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"{path}: cannot {doing} this store, the disk refuses ({error}): full, over quota or failing. "
            f"Free space in {path.parent}, or move the store to a sound disk.{after}"
        )
    if code & _PRIMARY in _HELD:
        return StoreError(
            f"{path}: cannot {doing} this store, another program keeps it locked ({error}). "
            f"Close whatever else has the file open (an SQLite shell, a backup).{after}"
        )
    if code & _PRIMARY in _DENIED:
        return StoreError(
            f"{path}: cannot {doing} this store ({error}). "
            f"Check that you may read and write the file and its folder {path.parent}."
        )
    return StoreError(f"{path}: cannot {doing} this store ({type(error).__name__}: {error})")


def damaged(path: Path, what: str) -> StoreCorruptError:
    """The file is not what was written to it."""
    return StoreCorruptError(
        f"{path}: the store's file is damaged: {what}. Set it aside with `mv {path} {path}.damaged` (and "
        f"{path.name}-wal, {path.name}-shm beside it, where they exist) to start afresh, or put a backup in "
        f"its place; `sqlite3 {path}.damaged .recover` shows what can still be read."
    )


def foreign(path: Path) -> StoreError:
    """The file is in order, and somebody else's."""
    return StoreError(f"{path}: this SQLite file is not a flyteish store; name another file for the store")


def too_new(path: Path, found: int, known: int) -> StoreVersionError:
    """A newer flyteish wrote the file."""
    return StoreVersionError(
        f"{path}: written by a newer flyteish (schema {found}; this one knows up to {known}). "
        f"Nothing was changed. Upgrade flyteish, or name another file for the store."
    )


def too_old(path: Path, found: int, known: int) -> StoreError:
    """An older flyteish wrote the file, and only its owner may migrate it."""
    return StoreError(
        f"{path}: written by an older flyteish (schema {found}, now {known}). The next controller that opens "
        f"it migrates it, with a backup: start or resume any run."
    )
