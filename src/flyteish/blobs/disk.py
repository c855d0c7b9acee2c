"""What the store of files asks of the file system: a lock between processes, times, memory maps, durable names.

Must not know what lies where.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from weakref import WeakSet

MAPPED: Final = 1 << 20
"""Bytes from which a file is mapped into memory: below, reading it costs no more."""
MAPS: Final = 128
"""At most so many at a time: each holds a file descriptor, of which a process may have as few as 256."""


@contextmanager
def locked(path: Path, alone: bool) -> Iterator[None]:
    """Hold the lock at ``path``, together with others who don't want it ``alone``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def touch(path: Path) -> None:
    """Written now, by the clock that callers go by: the kernel's own stamps lag some milliseconds behind."""
    now = time.time_ns()
    try:
        os.utime(path, ns=(now, now))
    except PermissionError:  # not its owner, who alone may choose the time
        os.utime(path)


def mapped(file: BinaryIO, living: WeakSet[mmap.mmap]) -> mmap.mmap | None:
    """The file's content in memory, where that is worth it and can be done; ``living`` are those that are in use."""
    if os.fstat(file.fileno()).st_size < MAPPED or len(living) >= MAPS:
        return None
    try:
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return None
    living.add(found)
    return found


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a renamed file is not safe before that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # swept away, with all that was in it
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
