"""Logs that nobody keeps: ``keep_logs = false``, and sessions of which nothing is kept.

Must not know who speaks, nor what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flyteish._core.model.ids import AttemptKey


class NoLogs:
    """``interfaces.LogStore`` in which nothing is ever found, and its own writer."""

    def writer(self, key: AttemptKey) -> NoLogs:
        return self

    def append(self, data: bytes) -> None:
        """As a writer: drop it."""

    def close(self) -> None:
        """As a writer: there is nothing to close."""

    def read(self, key: AttemptKey, offset: int = 0, most: int | None = None) -> bytes:
        return b""

    def follow(
        self, keys: Callable[[], Iterable[AttemptKey]], over: Callable[[], bool]
    ) -> Iterator[tuple[AttemptKey, bytes]]:
        return iter(())

    def said(self, run: str) -> list[AttemptKey]:
        return []

    def file(self, key: AttemptKey) -> str | None:
        return None

    def where(self, key: AttemptKey) -> str:
        return ""

    def __repr__(self) -> str:
        return "NoLogs()"
