"""Gives each attempt's output a file of its own: what Python prints, what C code prints, what children print.

Works on the file descriptors 1 and 2, so that nothing of it reaches the host's terminal. Must not know
what is printed; a file in which nothing was printed is removed again.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

PUBLISH_SECONDS = 0.25
"""An attempt that runs longer than this can be read along from then on."""


def spool_of(log: Path, pid: int) -> Path:
    """Where a worker writes before it is known whether there is anything worth a file of its own."""
    return log.parent / f".worker-{pid}"


def salvage(log: str, pid: int) -> None:
    """A worker died: what its last attempt said becomes that attempt's file. For the engine, on the host."""
    spool = spool_of(Path(log), pid)
    try:
        if spool.stat().st_size and not os.path.exists(log):
            os.rename(spool, log)
        else:
            os.unlink(spool)
    except OSError:
        pass  # it never said anything, or ended in good order


class WorkerOutput:
    """The output of one worker process, attempt by attempt. Between attempts it goes nowhere.

    Most attempts of a fan-out print nothing, and a file for each would cost more than the attempt. So it goes to a
    spool, which becomes the attempt's file when the attempt ends having printed, or runs for long; when the worker
    dies, the engine finds what was said last in the spool (``spool_of``).
    """

    def __init__(self) -> None:
        self._nowhere = os.open(os.devnull, os.O_RDWR)
        self._path: str | None = None
        self._folder: str | None = None
        self._spool: Path | None = None
        self._published = False
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._publisher: threading.Thread | None = None
        self._flush_c = _c_flush()
        os.dup2(self._nowhere, 1)
        os.dup2(self._nowhere, 2)
        self._streams = (_stream(1), _stream(2))
        self._install()

    def __repr__(self) -> str:
        return f"WorkerOutput({self._path or 'nowhere'})"

    def begin(self, path: str | None) -> None:
        """From here on output belongs to this file; nowhere if it is None or cannot be opened."""
        if path is None:
            self._leave_spool()
            return
        with self._lock:
            if self._folder != (folder := os.path.dirname(path)):
                self._drop_spool()
                self._folder = folder
            if self._spool is None:
                self._open_spool(Path(path))
            elif os.fstat(1).st_size:  # said between attempts, by a thread that outlived its own
                os.ftruncate(1, 0)
            self._path, self._published = path, False
        if not self._begun.is_set():
            self._begun.set()
        if self._publisher is None:
            self._publisher = threading.Thread(target=self._publish, name="flyteish worker output", daemon=True)
            self._publisher.start()

    def end(self) -> None:
        """The attempt's output is complete and on its way to the disk."""
        self._flush()
        self._install()
        with self._lock:
            path, self._path = self._path, None
            if path is None or self._spool is None:
                return
            try:
                if self._published:
                    os.unlink(self._spool)
                    if not os.fstat(1).st_size:
                        os.unlink(path)
                elif os.fstat(1).st_size:
                    os.rename(self._spool, path)
                else:
                    return  # silent, like most: the spool serves the next one as it is
            except OSError:
                pass  # somebody removed it already
            self._spool = None
            self._point_at(self._nowhere)

    def close(self) -> None:
        """The worker ends by itself: nothing is left behind."""
        with self._lock:
            self._drop_spool()

    def _publish(self) -> None:
        while True:
            self._begun.wait()
            before = self._path
            time.sleep(PUBLISH_SECONDS)
            with self._lock:
                path, spool = self._path, self._spool
                if path is None and before is None:
                    self._begun.clear()
                elif path is not None and path is before and spool is not None and not self._published:
                    try:
                        os.link(spool, path)
                        self._published = True
                    except OSError:
                        pass  # it is kept when it ends, then

    def _open_spool(self, log: Path) -> None:
        spool = spool_of(log, os.getpid())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(spool, flags, 0o600)
            except FileNotFoundError:
                spool.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(spool, flags, 0o600)
        except OSError:
            return  # a full or read-only disk costs the log, not the attempt
        self._spool = spool
        self._point_at(descriptor)
        os.close(descriptor)

    def _leave_spool(self) -> None:
        with self._lock:
            self._drop_spool()
            self._path = None

    def _drop_spool(self) -> None:
        spool, self._spool, self._folder = self._spool, None, None
        if spool is not None:
            self._point_at(self._nowhere)
            try:
                os.unlink(spool)
            except OSError:
                pass  # gone with its folder

    @staticmethod
    def _point_at(descriptor: int) -> None:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr, *self._streams):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass  # closed or replaced by user code, or a full disk: the result still counts
        self._flush_c(None)

    def _install(self) -> None:
        """Streams that user code replaced or closed are back for the next attempt."""
        if any(stream.closed for stream in self._streams):
            self._streams = (_stream(1), _stream(2))
        sys.stdout, sys.stderr = self._streams


def _stream(descriptor: int) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _c_flush() -> Any:
    """``fflush`` of this process's C library: output of C code is buffered there."""
    import ctypes

    return ctypes.CDLL(None).fflush
