"""Logs in memory, for tests: gone with the process.

Must not know who speaks, nor what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from flyteish._core.model.ids import AttemptKey
from flyteish.logs.following import LOOK_SECONDS, followed


class MemoryLogs:
    """``interfaces.LogStore`` that keeps everything."""

    def __init__(self) -> None:
        self._logs: dict[AttemptKey, bytearray] = {}
        self._more = threading.Condition()

    def writer(self, key: AttemptKey) -> MemoryWriter:
        return MemoryWriter(self, key)

    def add(self, key: AttemptKey, data: bytes) -> None:
        """For writers."""
        with self._more:
            self._logs.setdefault(key, bytearray()).extend(data)
            self._more.notify_all()

    def read(self, key: AttemptKey, offset: int = 0, most: int | None = None) -> bytes:
        with self._more:
            return bytes(self._logs.get(key, b"")[offset : None if most is None else offset + most])

    def follow(
        self, keys: Callable[[], Iterable[AttemptKey]], over: Callable[[], bool]
    ) -> Iterator[tuple[AttemptKey, bytes]]:
        return followed(self, keys, over, self._wait)

    def _wait(self) -> None:
        with self._more:
            self._more.wait(LOOK_SECONDS)

    def said(self, run: str) -> list[AttemptKey]:
        with self._more:
            return [key for key in self._logs if key.run == run]

    def file(self, key: AttemptKey) -> str | None:
        return None

    def where(self, key: AttemptKey) -> str:
        return ""

    def __repr__(self) -> str:
        return f"<MemoryLogs of {len(self._logs)} attempts>"


class MemoryWriter:
    """The end of one log."""

    __slots__ = ("_key", "_logs")

    def __init__(self, logs: MemoryLogs, key: AttemptKey) -> None:
        self._logs: MemoryLogs | None = logs
        self._key = key

    def append(self, data: bytes) -> None:
        if self._logs is not None and data:
            self._logs.add(self._key, data)

    def close(self) -> None:
        self._logs = None

    def __repr__(self) -> str:
        return f"<MemoryWriter of {self._key}>"
