"""Follows the price sources of a shell's pools: says when a pool's price is another than before.

It has no clock: the caller asks again at ``next_due()`` and tells the core. A source that fails, or says what is no
price, costs nobody a run: its last price stays. Must not know engines, attempts, or whether time is real.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Final

from flyteish._core.model.events import PoolPriceChanged
from flyteish._core.model.queues import Pool
from flyteish.interfaces import PriceSource

_log = logging.getLogger(__name__)

AGAIN: Final = 60.0
"""Seconds after which a source that failed is asked again."""


class PriceFeed:
    """Those of all pools that have a source; a pool with a fixed price is not in here."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._sources: dict[str, PriceSource] = {
            pool.name: source for pool in pools if (source := pool.price_source) is not None
        }
        self._opened = 0.0
        self._latest: dict[str, float] = {}
        self._due: dict[str, float] = {}
        """By pool: when to ask again, in seconds since the market opened."""

    def open(self, now: float) -> None:
        """Sources count from here."""
        self._opened = now
        self._due = dict.fromkeys(self._sources, 0.0)

    def next_due(self) -> float | None:
        """When ``changes`` next has news; None: never, as things stand."""
        return self._opened + min(self._due.values()) if self._due else None

    def changes(self, now: float) -> list[PoolPriceChanged]:
        """The pools whose price is another than when last asked."""
        found = []
        for pool, due in list(self._due.items()):
            if self._opened + due > now:
                continue
            # ``now - opened`` may fall short of the very change that ``next_due`` announced, by a rounding.
            price = self._ask(pool, max(due, now - self._opened))
            if price is not None and price != self._latest.get(pool):
                self._latest[pool] = price
                found.append(PoolPriceChanged(pool, price))
        return found

    def _ask(self, pool: str, at: float) -> float | None:
        source = self._sources[pool]
        try:
            price, following = source.price(at), source.next_change(at)
            if price is not None and not 0 <= price < math.inf:
                raise ValueError(f"{price!r} is no price: expected $ per hour >= 0, or None")
        except Exception as error:  # somebody else's code: an unknown price is no reason to stop work
            _log.warning("pool %s: its price source failed, the last price stays: %s: %s", pool, source, error)
            price, following = None, at + AGAIN
        if following is None:
            del self._due[pool]
        else:
            self._due[pool] = following if following > at else at + AGAIN
        return price

    def __repr__(self) -> str:
        return f"<PriceFeed of {', '.join(self._sources) or 'no pool'}>"
