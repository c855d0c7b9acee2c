"""How long machines of a pool last, learned from the attempts that ran there; ``checkpoint.due()`` goes by it.

The estimate is machine time per reclaim; until one was seen, what is assumed of the medium. Must not know how often
anybody saves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from flyteish._core.model.queues import SPOT, Pool

SPOT_LIFETIME: Final = 2 * 3600.0
"""Seconds; the median that the providers' users report for spot machines."""
ON_DEMAND_LIFETIME: Final = 7 * 24 * 3600.0
RECLAIMS_COUNTED: Final = 100
"""Beyond it the past is halved, so that a market that has changed is noticed."""


class PoolSeen(NamedTuple):
    """What is remembered of a pool."""

    seconds: float
    """Machine time of its attempts."""
    reclaims: int


class Lifetimes:
    """The experience with pools, of this session and those before. Used on the controller's thread only."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._assumed = {pool.name: SPOT_LIFETIME if pool.medium == SPOT else ON_DEMAND_LIFETIME for pool in pools}
        self._seconds = dict.fromkeys(self._assumed, 0.0)
        self._reclaims = dict.fromkeys(self._assumed, 0)

    def of(self, pool: str) -> float:
        """Seconds that a machine of this pool is expected to last: the assumption, until one was reclaimed."""
        seconds, reclaims = self._seconds[pool], self._reclaims[pool]
        return seconds / reclaims if reclaims and seconds else max(self._assumed[pool], seconds)

    def saw(self, pool: str, seconds: float, *, reclaimed: bool) -> None:
        """An attempt of the pool is over after so many seconds; those that were not reclaimed count, too."""
        if pool in self._assumed:
            self._seconds[pool] += max(0.0, seconds)
            self._reclaims[pool] += reclaimed
            if self._reclaims[pool] > RECLAIMS_COUNTED:
                self._seconds[pool] /= 2
                self._reclaims[pool] //= 2

    def seen(self) -> dict[str, PoolSeen]:
        """All that is remembered, of pools where anything ran."""
        return {pool: PoolSeen(seconds, self._reclaims[pool]) for pool, seconds in self._seconds.items() if seconds}

    def recall(self, seen: dict[str, PoolSeen]) -> None:
        """What an earlier session remembered; pools that there are no more are passed over."""
        for pool, (seconds, reclaims) in seen.items():
            if pool in self._assumed:
                self._seconds[pool] += seconds
                self._reclaims[pool] += reclaims

    def __repr__(self) -> str:
        return f"Lifetimes({', '.join(f'{pool}={self.of(pool):.0f} s' for pool in self._assumed)})"
