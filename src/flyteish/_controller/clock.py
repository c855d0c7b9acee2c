"""Time and chance for the controller: the real ones, a hand-held twin for tests, and an alarm.

Seconds since the epoch that never go back, whatever is done to the machine's clock. Must not know what the
time is asked for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable


class SystemClock:
    """Real time, steady: the epoch is read once and advanced by the monotonic clock."""

    __slots__ = ("_base", "_random")

    def __init__(self, seed: int | None = None) -> None:
        self._base = time.time() - time.monotonic()
        self._random = random.Random(seed)

    def now(self) -> float:
        return self._base + time.monotonic()

    def chance(self) -> float:
        return self._random.random()

    def __repr__(self) -> str:
        return f"SystemClock(now={self.now():.3f})"


class HandClock:
    """Time that stands still until it is moved, and chance that is always the same: for tests."""

    __slots__ = ("_chance", "_now")

    def __init__(self, now: float = 0.0, chance: float = 0.5) -> None:
        self._now, self._chance = now, chance

    def now(self) -> float:
        return self._now

    def chance(self) -> float:
        return self._chance

    def advance(self, seconds: float) -> None:
        """Move time on by ``seconds`` >= 0."""
        if seconds < 0:
            raise ValueError(f"seconds={seconds!r} is not accepted: time never goes back")
        self._now += seconds


class Alarm:
    """Rings once, at the time that it was last set to. Lives on one event loop."""

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at: float | None = None

    def set(self, seconds: float | None, at: float | None) -> None:
        """Ring in ``seconds``, which is at ``at`` on the caller's clock; None: not at all. Setting it anew is cheap."""
        if self._timer is not None:
            if at == self._at:
                return
            self._timer.cancel()
            self._timer = None
        self._at = at
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        self._ring()

    def __repr__(self) -> str:
        return f"<Alarm {'off' if self._timer is None else f'at {self._at}'}>"
