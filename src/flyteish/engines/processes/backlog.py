"""What waits for a worker, and how much of it a worker gets ahead of time.

Order and numbers only. Must not know what an attempt is about, nor touch a process.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from flyteish._core.model.ids import AttemptKey

if TYPE_CHECKING:
    from flyteish.engines.processes.worker_pool import PooledAttempt


class Backlog:
    """Attempts that no worker has yet, in order; every operation costs the same however many there are."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[AttemptKey, PooledAttempt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._attempts)

    def __repr__(self) -> str:
        return f"Backlog({len(self._attempts)} attempts)"

    def append(self, attempt: PooledAttempt) -> None:
        """A new one, at the end."""
        self._attempts[attempt.key] = attempt

    def put_back(self, attempt: PooledAttempt) -> None:
        """One that a worker gave back, at the head."""
        self._attempts[attempt.key] = attempt
        self._attempts.move_to_end(attempt.key, last=False)

    def take(self, count: int) -> list[PooledAttempt]:
        """The first ones, at most ``count``."""
        return [self._attempts.popitem(last=False)[1] for _ in range(min(count, len(self._attempts)))]

    def remove(self, attempt: PooledAttempt) -> None:
        """It needs no worker any more. One that is not in the line is left alone."""
        self._attempts.pop(attempt.key, None)


class Pace:
    """How long attempts take here, and so how many a worker may have: as many as it does in ``AHEAD`` seconds.

    At first one at a time, since nothing is known.
    """

    #: Seconds: hides a round trip, and hardly disturbs the order.
    AHEAD = 0.005

    def __init__(self, most: int) -> None:
        self._most = most
        self.seconds = self.AHEAD
        """What the next one is expected to take."""

    def __repr__(self) -> str:
        return f"Pace({self.seconds * 1000:.3f} ms, {self.ahead} ahead)"

    def took(self, seconds: float) -> None:
        """Another attempt's time; recent ones count most."""
        self.seconds = 0.75 * self.seconds + 0.25 * max(seconds, 1e-5)

    @property
    def ahead(self) -> int:
        """Attempts that a worker may have, the current one included."""
        return max(1, min(self._most, int(self.AHEAD / self.seconds)))
