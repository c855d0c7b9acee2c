"""Time and chance for the controller: the real ones, and a hand-held twin for tests.

Seconds since the epoch that never go back, whatever is done to the machine's clock. Must not know what the
time is asked for.
"""

from __future__ import annotations

import random
import time


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
