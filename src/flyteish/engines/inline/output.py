"""The output of attempts that run in this process: each attempt's own lines, kept in its own log.

What ``ctx().logger`` says is always kept; what tasks print is kept too where the session asks for it, and still goes
where it went before. Which attempt is speaking is told by a context variable, so attempts that run at the same time do
not mix. Must not know what an attempt is, nor where logs are kept.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from flyteish.interfaces import LogWriter


class Spoken(Protocol):
    """What has a log."""

    def log_writer(self) -> LogWriter:
        """For adding to it."""


class Speaker:
    """One attempt's voice: its log, asked for when it first says something."""

    __slots__ = ("_lock", "_of", "_writer")

    def __init__(self, of: Spoken) -> None:
        self._of: Spoken | None = of
        self._writer: LogWriter | None = None
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Keep this; nothing is kept of what is said after the attempt's end."""
        with self._lock:
            if self._writer is None:
                if self._of is None:
                    return
                self._writer = self._of.log_writer()
            self._writer.append(text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._writer, self._of = None, None


SPEAKER: ContextVar[Speaker | None] = ContextVar("flyteish_speaker", default=None)


class InlineOutput:
    """Installed while an engine is open; leaves everything as it was."""

    def __init__(self, prints: bool) -> None:
        self._prints = prints
        self._handler = _Handler()
        self._tees: list[tuple[str, _Tee]] = []

    def open(self) -> None:
        logging.getLogger("flyteish.task").addHandler(self._handler)
        if self._prints:
            for name in ("stdout", "stderr"):
                tee = _Tee(getattr(sys, name))
                setattr(sys, name, tee)
                self._tees.append((name, tee))

    def close(self) -> None:
        logging.getLogger("flyteish.task").removeHandler(self._handler)
        for name, tee in self._tees:
            if getattr(sys, name) is tee:  # somebody may have put another in its place; then that one stays
                setattr(sys, name, tee.behind)
        self._tees.clear()


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        speaker = SPEAKER.get()
        if speaker is not None:
            speaker.say(self.format(record) + "\n")


class _Tee:
    """A text stream that also gives what is written to the attempt that writes it."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        speaker = SPEAKER.get()
        if speaker is not None:
            speaker.say(text)
        return self.behind.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)
