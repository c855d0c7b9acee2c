"""What attempts say, kept for people: written piece by piece, and read while it grows.

Contracts only; tests/contracts runs over every implementation. Must not know who speaks, nor who reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from flyteish._core.model.ids import AttemptKey


class LogWriter(Protocol):
    """The end of one attempt's log. Callable from any thread."""

    def append(self, data: bytes) -> None:
        """Add to it; readers see it at once. A log that cannot be kept costs the log and not the attempt: no error."""

    def close(self) -> None:
        """Nothing more will be said; what is appended after it is dropped."""


class LogStore(Protocol):
    """The logs of all attempts: bytes, UTF-8 as far as their authors keep to it. Callable from any thread; blocks."""

    def writer(self, key: AttemptKey) -> LogWriter:
        """For adding to an attempt's log. Costs nothing before something is appended."""

    def read(self, key: AttemptKey, offset: int = 0, most: int | None = None) -> bytes:
        """What was said from a byte on, at most so much of it; empty where there is nothing (yet)."""

    def follow(
        self, keys: Callable[[], Iterable[AttemptKey]], over: Callable[[], bool]
    ) -> Iterator[tuple[AttemptKey, bytes]]:
        """What these attempts say, as it comes, from the beginning, until ``over()`` and all of it was given.

        ``keys`` is asked again and again: attempts may join.
        """

    def said(self, run: str) -> list[AttemptKey]:
        """The attempts of a run that have a log, in no order."""

    def file(self, key: AttemptKey) -> str | None:
        """Where a process of this machine that writes by file descriptors may put the attempt's log, with its folder;
        None: nowhere, it has to go through ``writer``.
        """

    def where(self, key: AttemptKey) -> str:
        """Where the log is, for people; empty if it is nowhere that they could look."""
