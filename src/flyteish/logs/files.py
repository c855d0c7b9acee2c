"""Logs in files: a folder for each run, a file for each attempt that says something.

A file is ``RUN/ACTION.GENERATION.log``, made at the first word and readable by its owner only. Worker processes of this
machine write theirs by themselves (``file``). Must not know who they are, nor what they say.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from flyteish._core.model.ids import AttemptKey
from flyteish.logs.following import LOOK_SECONDS, followed

_log = logging.getLogger(__name__)


class FileLogs:
    """``interfaces.LogStore`` in a folder, which is made when something is first said."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = ("", "")
        """The run whose folder was asked for last, and that folder: made once, not for each of its many attempts."""

    def writer(self, key: AttemptKey) -> FileWriter:
        return FileWriter(self, key)

    def read(self, key: AttemptKey, offset: int = 0, most: int | None = None) -> bytes:
        try:
            with open(self.path(key), "rb") as file:
                file.seek(offset)
                return file.read() if most is None else file.read(most)
        except FileNotFoundError:
            return b""

    def follow(
        self, keys: Callable[[], Iterable[AttemptKey]], over: Callable[[], bool]
    ) -> Iterator[tuple[AttemptKey, bytes]]:
        return followed(self, keys, over, lambda: time.sleep(LOOK_SECONDS))

    def said(self, run: str) -> list[AttemptKey]:
        names = (path.stem.rpartition(".") for path in (self._folder / run).glob("*.log"))
        return [AttemptKey(run, action, int(number)) for action, _, number in names if number.isdecimal()]

    def file(self, key: AttemptKey) -> str | None:
        run, folder = self._made
        if run != key.run:
            folder = str(self._folder / key.run)
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:  # no room for logs is no reason not to run; the journal says it if it has none too
                _log.debug("no logs of run %s can be kept: %s", key.run, error)
                return None
            self._made = key.run, folder
        return f"{folder}/{_name(key)}"

    def path(self, key: AttemptKey) -> Path:
        """Where the attempt's file is, or would be."""
        return self._folder / key.run / _name(key)

    def where(self, key: AttemptKey) -> str:
        return str(self.path(key))

    def __repr__(self) -> str:
        return f"FileLogs({str(self._folder)!r})"


class FileWriter:
    """Opens its file with the first word."""

    __slots__ = ("_closed", "_file", "_key", "_lock", "_logs")

    def __init__(self, logs: FileLogs, key: AttemptKey) -> None:
        self._logs = logs
        self._key = key
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    def append(self, data: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                if self._file is None:
                    path = self._logs.file(self._key)
                    if path is None:
                        return
                    self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - until ``close``
                self._file.write(data)
            except OSError as error:
                _log.debug("the log of %s cannot be kept: %s", self._key, error)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def __repr__(self) -> str:
        return f"<FileWriter of {self._key}{', closed' if self._closed else ''}>"


def _name(key: AttemptKey) -> str:
    return f"{key.action}.{key.generation}.log"
