"""The link of a ``def`` task on a thread: while it waits for a call, another task may have its place.

Passes everything on. Must not know how threads are kept, nor who is at the other end of the link.
"""

from __future__ import annotations

import threading
from typing import Any

from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.engines.inline.threads import Threads
from flyteish.interfaces import Call, InlineLink, OnJournalled, OnOutcome


class ThreadLink:
    """The link of a ``def`` task: while a call is outstanding, its thread does not count."""

    __slots__ = ("_link", "_lock", "_outstanding", "_threads")

    def __init__(self, link: InlineLink, threads: Threads) -> None:
        self._link = link
        self._threads = threads
        self._lock = threading.Lock()
        self._outstanding = 0

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        self._change(1)

        def answered(outcome: Any, live: BaseException | None) -> None:
            self._change(-1)
            done(outcome, live)

        return self._link.call(call, answered, task)

    def _change(self, change: int) -> None:
        with self._lock:
            before, self._outstanding = self._outstanding, self._outstanding + change
        if (before == 0) != (self._outstanding == 0):
            self._threads.parked(change)

    def cancel(self, number: int, reason: str) -> None:
        self._link.cancel(number, reason)

    def commit_checkpoint(self, record: CheckpointRecord, done: OnJournalled) -> None:
        self._link.commit_checkpoint(record, done)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._link.checkpoint_skipped(event)

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        self._link.traced(key, result, done)
