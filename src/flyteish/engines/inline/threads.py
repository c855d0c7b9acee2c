"""A bounded pool of daemon threads for ``def`` tasks, in which a job that only waits frees its place.

A job that waits for a child calls ``parked``: another thread may start meanwhile, so a chain of waiting parents
never exhausts the pool. Threads are daemons: one that user code never gives back can't keep the program from
ending. Must not know what the jobs are.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)

IDLE_SECONDS = 10.0
"""An idle thread ends after this long."""


class Threads:
    """At most ``limit`` busy threads, not counting parked ones. Thread-safe."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._ready = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._parked = 0
        self._closed = False
        self._started = 0

    def put(self, job: Callable[[], None]) -> None:
        """Run ``job`` on a thread as soon as one is free."""
        with self._ready:
            self._jobs.append(job)
            self._staff()

    def parked(self, change: int) -> None:
        """A job began (+1) or ceased (-1) to only wait."""
        with self._ready:
            self._parked += change
            if change > 0:
                self._staff()

    def close(self) -> None:
        """Start nothing more; idle threads end."""
        with self._ready:
            self._closed = True
            self._jobs.clear()
            self._ready.notify_all()

    def _staff(self) -> None:
        if len(self._jobs) <= self._idle:
            self._ready.notify()
        elif self._threads - self._parked < self._limit and not self._closed:
            self._threads += 1
            self._started += 1
            name = f"{self._name}-{self._started}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _next(self) -> Callable[[], None] | None:
        with self._ready:
            # More threads than the limit are busy when parked jobs went on: the surplus ends first.
            while not self._closed and self._threads - self._parked <= self._limit:
                if self._jobs:
                    return self._jobs.popleft()
                self._idle += 1
                try:
                    if not self._ready.wait(IDLE_SECONDS) and not self._jobs:
                        break
                finally:
                    self._idle -= 1
            self._threads -= 1
            return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:  # a defect of the job's: its thread still counts, and serves the next one
                _log.exception("a job of the threads %s failed", self._name)

    def __repr__(self) -> str:
        return f"<Threads {self._name} {self._threads}/{self._limit}, {self._parked} parked, {len(self._jobs)} waiting>"
