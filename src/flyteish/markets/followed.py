"""The markets of a shell's pools: which machines they take away now, how much their pools can hold and cost.

Facts in (attempts that started or ended, the time), words out; one ``Reclaimer`` for each pool that has a market.
Must not know engines, nor what becomes of an attempt whose machine goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flyteish._core.model.events import PoolCapacityChanged, PoolPriceChanged
from flyteish._core.model.ids import AttemptKey
from flyteish.markets.price_feed import PriceFeed
from flyteish.markets.reclaimer import Reclaimer, ToReclaim


class Markets:
    """All of them; pools without a market are not in here, and whatever is said of them has no effect."""

    def __init__(self, reclaimers: Mapping[str, Reclaimer], prices: PriceFeed) -> None:
        self._reclaimers = reclaimers
        self._prices = prices
        self._available: dict[str, int | None] = dict.fromkeys(reclaimers)

    def open(self, now: float) -> None:
        """They open; their time counts from here."""
        for reclaimer in self._reclaimers.values():
            reclaimer.opened(now)
        self._prices.open(now)

    def started(self, pool: str, key: AttemptKey, now: float) -> None:
        """A pool got one more attempt."""
        if pool in self._reclaimers:
            self._reclaimers[pool].attempt_started(now, key)

    def ended(self, key: AttemptKey) -> None:
        """An attempt is over, in whichever pool."""
        for reclaimer in self._reclaimers.values():
            reclaimer.attempt_ended(key)

    def times(self) -> Iterator[float]:
        """When to ask again."""
        for reclaimer in self._reclaimers.values():
            due = reclaimer.next_due()
            if due is not None:
                yield due
        priced = self._prices.next_due()
        if priced is not None:
            yield priced

    def due(self, now: float) -> list[ToReclaim]:
        """The attempts whose machines go now."""
        found: list[ToReclaim] = []
        for reclaimer in self._reclaimers.values():
            at = reclaimer.next_due()
            if at is not None and at <= now:
                found += reclaimer.due(now)
        return found

    def capacities(self, now: float) -> list[tuple[str, int | None]]:
        """Pools whose capacity is another than when last asked; None: as many attempts as configured."""
        found: list[tuple[str, int | None]] = []
        for pool, reclaimer in self._reclaimers.items():
            available = reclaimer.capacity(now)
            if available != self._available[pool]:
                self._available[pool] = available
                found.append((pool, available))
        return found

    def news(self, now: float) -> Iterator[PoolPriceChanged | PoolCapacityChanged]:
        """What the core has to hear: prices before capacities, for those who wait for either."""
        yield from self._prices.changes(now)
        for pool, available in self.capacities(now):
            yield PoolCapacityChanged(pool, available, "the pool's market")

    def __repr__(self) -> str:
        return f"<Markets of {', '.join(self._reclaimers) or 'no pool'}>"
