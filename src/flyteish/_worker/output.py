"""Gives each attempt's output a file of its own: what Python prints, what C code prints, what children print.

Works on the file descriptors 1 and 2, so that nothing of it reaches the host's terminal. Must not know
what is printed; a file in which nothing was printed is removed again.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO


class Output:
    """The output of one worker process, attempt by attempt. Between attempts it goes nowhere."""

    def __init__(self) -> None:
        self._nowhere = os.open(os.devnull, os.O_RDWR)
        self._path: str | None = None
        self._flush_c = _c_flush()
        os.dup2(self._nowhere, 1)
        os.dup2(self._nowhere, 2)
        self._streams = (_stream(1), _stream(2))
        self._install()

    def __repr__(self) -> str:
        return f"Output({self._path or 'nowhere'})"

    def begin(self, path: str | None) -> None:
        """From here on output belongs to this file; nowhere if it is None or cannot be opened."""
        self._path = path
        if path is None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(path, flags, 0o644)
            except FileNotFoundError:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, flags, 0o644)
        except OSError:
            self._path = None  # a full or read-only disk costs the log, not the attempt
            return
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def end(self) -> None:
        """The attempt's output is complete and on its way to the disk."""
        self._flush()
        self._install()
        path, self._path = self._path, None
        if path is None:
            return
        os.dup2(self._nowhere, 1)
        os.dup2(self._nowhere, 2)
        try:
            if os.stat(path).st_size == 0:
                os.unlink(path)
        except OSError:
            pass  # somebody removed it already

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
