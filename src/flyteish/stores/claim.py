"""One controller per store: a claim that the kernel takes back when its process dies, however it dies.

Decides only who owns a store, and must not know what is in it. The lock is SQLite's own (POSIX record locks
on an empty side file): SQLite keeps the books that such locks need inside one process, where a second claim
must be refused too and where closing any other descriptor of the file would drop the lock. Unlike ``flock``,
it does not pass to forked children, so a worker that outlives its killed controller does not keep the store.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from flyteish.errors import StoreError, StoreLockedError
from flyteish.stores.faults import explained

_PATIENCE = 0.25  # seconds; somebody who only asks for the owner holds the lock for microseconds
_GRACE = 1.0  # seconds that an owner may take from claiming the store to writing its pid


class Claim:
    """The exclusive right to write the journal at ``path``, from construction until ``release``.

    Raises: StoreLockedError where a live process has it (this one included), StoreError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid_file = _pid_file(path)
        with explained(path, "claim"):
            lock = _lock_file(path)
            touch_private(lock)
            self._lock = _connect(lock, _PATIENCE)
            try:
                if not _take(self._lock):
                    raise _locked(path, _read_pid(path))
                _write_pid(self._pid_file)
            except BaseException:
                self._lock.close()
                raise

    def __repr__(self) -> str:
        return f"Claim({str(self._path)!r}, pid {os.getpid()})"

    def release(self) -> None:
        """Let the next controller in."""
        self._pid_file.unlink(missing_ok=True)
        self._lock.close()


def owner(path: Path) -> int | None:
    """Process id of the live controller that has the claim, or None. Raises: StoreError."""
    lock = _lock_file(path)
    if not lock.exists():
        return None
    deadline = time.monotonic() + _GRACE
    while True:
        with explained(path, "ask for the owner of"):
            if not _is_taken(lock):
                return None
            pid = _read_pid(path)
        if pid is not None and _lives(pid):
            return pid
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    if pid is None:
        raise StoreError(f"{path}: a live process has claimed this store, but {_pid_file(path)} is missing")
    return pid  # the lock proves that it lives, where this process cannot see it (another container)


def touch_private(path: Path) -> None:
    """Create an empty file that only its user may read, if it is missing.

    Never opens one that exists: closing it again would drop the locks that SQLite has on it in this process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass  # somebody was first, which is as good


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _pid_file(path: Path) -> Path:
    return path.with_name(path.name + ".pid")


def _connect(lock: Path, patience: float) -> sqlite3.Connection:
    # Another thread may release the claim; only one at a time ever touches the connection.
    return sqlite3.connect(lock, timeout=patience, isolation_level=None, check_same_thread=False)


def _take(connection: sqlite3.Connection) -> bool:
    try:
        # Nothing is ever written, so the file stays empty and a killed owner leaves nothing to recover.
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True


def _is_taken(lock: Path) -> bool:
    probe = _connect(lock, 0)
    try:
        return not _take(probe)
    finally:
        probe.close()


def _read_pid(path: Path) -> int | None:
    try:
        return int(_pid_file(path).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _write_pid(target: Path) -> None:
    fresh = target.with_name(target.name + ".new")  # only the owner gets here
    fresh.unlink(missing_ok=True)
    touch_private(fresh)
    fresh.write_text(str(os.getpid()))
    fresh.replace(target)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _locked(path: Path, pid: int | None) -> StoreLockedError:
    if pid == os.getpid():
        who = f"this very process ({pid}): two sessions cannot write one store, so share the session"
    else:
        who = f"process {'unknown' if pid is None else pid}: stop that controller or wait for its end"
    return StoreLockedError(f"{path} is in use by {who}, or name another file for this one's store. Reading works.")
