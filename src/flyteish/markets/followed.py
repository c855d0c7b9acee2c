"""The markets of a shell's pools: which machines they take away now, how much their pools can hold and cost.

Facts in (attempts that started or ended, the time), words out; one ``Reclaimer`` for each pool that has a market. The
controller and the simulator follow their markets here, so a market does the same in both. Must not know engines, nor
what becomes of an attempt whose machine goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from flyteish._core.model.events import PoolCapacityChanged, PoolPriceChanged
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool
from flyteish.interfaces import Market
from flyteish.markets.price_feed import PriceFeed
from flyteish.markets.reclaimer import Reclaimer, ToReclaim


class Markets:
    """All of them; pools without a market are not in here, and whatever is said of them has no effect.

    When ``next_at`` has come, ask ``due``, then ``news``.

    Args:
        pools: those of the shell; their price sources are followed too.
        markets: by the name of their pool.
    """

    def __init__(self, pools: Iterable[Pool], markets: Mapping[str, Market]) -> None:
        pools = list(pools)
        self._reclaimers = {pool.name: Reclaimer(pool, markets[pool.name]) for pool in pools if pool.name in markets}
        self._prices = PriceFeed(pools)
        self._available: dict[str, int | None] = dict.fromkeys(self._reclaimers)
        self._times: dict[str, float] = {}
        """When to ask each reclaimer again; the simulator looks far more often than anything is due."""
        self._priced_at = math.inf
        self.next_at = math.inf
        """When to ask again, never later than there is something to hear; infinite: never, as things stand."""

    def open(self, now: float) -> None:
        """They open; their time counts from here. What they begin with is news."""
        for reclaimer in self._reclaimers.values():
            reclaimer.opened(now)
        self._prices.open(now)
        self._times = dict.fromkeys(self._reclaimers, now)
        self._priced_at = self.next_at = now

    def started(self, pool: str, key: AttemptKey, now: float) -> None:
        """A pool got one more attempt."""
        reclaimer = self._reclaimers.get(pool)
        if reclaimer is not None and reclaimer.attempt_started(now, key):
            at = reclaimer.next_due()
            if at is not None:
                self._times[pool] = at
                if at < self.next_at:
                    self.next_at = at

    def ended(self, key: AttemptKey, pool: str | None = None) -> None:
        """An attempt is over, in that pool or, where nobody says in which, in any."""
        if pool is None:
            for reclaimer in self._reclaimers.values():
                reclaimer.attempt_ended(key)
        elif pool in self._reclaimers:
            self._reclaimers[pool].attempt_ended(key)

    def due(self, now: float) -> list[ToReclaim]:
        """The attempts whose machines go now."""
        found: list[ToReclaim] = []
        for pool, at in self._times.items():
            if at <= now:
                found += self._reclaimers[pool].due(now)
        return found

    def news(self, now: float) -> Iterator[PoolPriceChanged | PoolCapacityChanged]:
        """What the core has to hear: prices before capacities, for those who wait for either."""
        if now < self.next_at:
            return
        if self._priced_at <= now:
            yield from self._prices.changes(now)
            self._priced_at = _at(self._prices.next_due())
        for pool, at in list(self._times.items()):
            if at <= now:
                reclaimer = self._reclaimers[pool]
                available = reclaimer.capacity(now)
                if available != self._available[pool]:
                    self._available[pool] = available
                    yield PoolCapacityChanged(pool, available, "the pool's market")
                self._times[pool] = _at(reclaimer.next_due())
        self.next_at = min(self._times.values(), default=math.inf)
        if self._priced_at < self.next_at:
            self.next_at = self._priced_at

    def __repr__(self) -> str:
        return f"<Markets of {', '.join(self._reclaimers) or 'no pool'}>"


def _at(due: float | None) -> float:
    return math.inf if due is None else due
