"""Gets a store's file into the shape that this flyteish writes: creates, recognises and migrates it.

Decides by the file's own marks (application id, user version) and changes nothing that it does not know. Must
not know the controller's claim: only who holds it may call ``prepare``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from itertools import count
from pathlib import Path

import msgspec

from flyteish.stores.claim import touch_private
from flyteish.stores.faults import damaged, foreign, too_new, too_old
from flyteish.stores.segments import pack

VERSION = 3
APPLICATION_ID = 0x464C5953  # "FLYS"
_BUSY_SECONDS = 5.0


def connect(path: Path, *, write: bool = False, patience: float = _BUSY_SECONDS) -> sqlite3.Connection:
    """A connection of the caller's own, in autocommit mode; the file must exist.

    May be closed by another thread than the one that opened it, and must not be used by two at once.
    """
    address = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    return sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)


def check(db: sqlite3.Connection, path: Path) -> bool:
    """True for a store of the current version, False for a file with nothing in it yet.

    Raises: StoreVersionError, StoreError (somebody else's file, or one to be migrated first), sqlite3.Error.
    """
    version = _version(db, path)
    if version not in (0, VERSION):
        raise too_old(path, version, VERSION)
    return version == VERSION


def create(path: Path) -> None:
    """Make an empty store, unless there is one. Safe against others who do the same at the same moment.

    Raises: StoreVersionError, StoreError, OSError, sqlite3.Error.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    touch_private(path)
    with closing(connect(path, write=True)) as db:
        if check(db, path):
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            if not check(db, path):
                _run(db, "schema.sql")
                _mark(db, VERSION)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        # After the commit: whoever finds tables finds all of them, in either journal mode.
        db.execute("PRAGMA journal_mode = WAL")


def prepare(path: Path) -> None:
    """Create the store or migrate it to the current version, after a backup. For the owner of the store.

    Raises: StoreVersionError, StoreCorruptError, StoreError, OSError, sqlite3.Error.
    """
    version = 0
    if path.exists():
        with closing(connect(path)) as db:  # read-only: a file that is not ours to change stays as it is
            version = _version(db, path)
    if version == 0:
        create(path)
    elif version < VERSION:
        _migrate(path, version)


def _version(db: sqlite3.Connection, path: Path) -> int:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and application == 0 and version == 0:
        return 0
    if application != APPLICATION_ID:
        raise foreign(path)
    if version > VERSION:
        raise too_new(path, version, VERSION)
    if version < 1 or tables == 0:
        raise damaged(path, f"it says schema {version} and has {tables} tables")
    return int(version)


def _mark(db: sqlite3.Connection, version: int) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {version}")


def _run(db: sqlite3.Connection, *names: str) -> None:
    """Run a file of SQL within the transaction that is open (``executescript`` would commit it)."""
    text = files("flyteish.stores").joinpath(*names).read_text(encoding="utf-8")
    for statement in text.split(";\n"):
        db.execute(statement)


def _migrate(path: Path, version: int) -> None:
    with closing(connect(path, write=True)) as db:
        _back_up(db, path, version)
        db.execute("BEGIN EXCLUSIVE")
        try:
            for step in range(version, VERSION):
                _STEPS[step](db, path)
            _mark(db, VERSION)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("PRAGMA journal_mode = WAL")


def _back_up(db: sqlite3.Connection, path: Path, version: int) -> None:
    """A copy beside the store, complete and on disk before it gets its name: ``NAME.v1.bak``."""
    partial = path.with_name(f"{path.name}.bak.partial")
    partial.unlink(missing_ok=True)
    touch_private(partial)
    with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = FULL")
        db.backup(copy)
    partial.rename(_free_name(path, version))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _free_name(path: Path, version: int) -> Path:
    first = path.with_name(f"{path.name}.v{version}.bak")
    more = (path.with_name(f"{path.name}.v{version}.{number}.bak") for number in count(2))
    return first if not first.exists() else next(name for name in more if not name.exists())


def _from_1_to_2(db: sqlite3.Connection, path: Path) -> None:
    _run(db, "migrations", "v1_to_v2.sql")
    for (run,) in db.execute("SELECT DISTINCT run FROM entries").fetchall():
        first = 1
        for entries in _by_thousands(db, path, run):
            for segment in pack(entries):
                db.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", (run, first, *segment))
                first += segment.length
    db.execute("DROP TABLE entries")


def _by_thousands(db: sqlite3.Connection, path: Path, run: str) -> Iterator[list[msgspec.Raw]]:
    rows = db.execute("SELECT number, data FROM entries WHERE run = ? ORDER BY number", (run,))
    number = 0
    while chunk := rows.fetchmany(1000):
        if [found for found, _ in chunk] != list(range(number + 1, number + len(chunk) + 1)):
            raise damaged(path, f"the journal of run {run} has a gap after entry {number}")
        number += len(chunk)
        yield [msgspec.Raw(data) for _, data in chunk]


def _from_2_to_3(db: sqlite3.Connection, path: Path) -> None:
    _run(db, "migrations", "v2_to_v3.sql")


_STEPS: dict[int, Callable[[sqlite3.Connection, Path], None]] = {1: _from_1_to_2, 2: _from_2_to_3}
