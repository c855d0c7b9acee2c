"""All markets of a shell, followed in one place: when to ask, whom they reclaim, what the core has to hear."""

from __future__ import annotations

import math

from flyteish._core.model.events import PoolCapacityChanged, PoolPriceChanged
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool
from flyteish.markets.followed import Markets
from flyteish.markets.market import ScriptedMarket
from flyteish.markets.price_sources import ScriptedPrices

NOW = 1_000_000.0


def key(number: int) -> AttemptKey:
    return AttemptKey("r", f"a{number}", 1)


def followed() -> Markets:
    a = ScriptedMarket(capacity=[(0, 2), (100, 1), (200, 2)], notice_seconds=5)
    b = ScriptedMarket([50.0])
    pools = [Pool("a", "spot"), Pool("b", "spot", price_per_hour=ScriptedPrices([(0, 1.0), (150, 3.0)])), Pool("c")]
    markets = Markets(pools, {"a": a, "b": b})
    markets.open(NOW)
    return markets


def test_what_they_begin_with_is_news_at_once() -> None:
    """Prices come first, for those who wait for either; then it is silent until the next change."""
    markets = followed()
    assert markets.next_at == NOW
    assert list(markets.news(NOW)) == [
        PoolPriceChanged("b", 1.0), PoolCapacityChanged("a", 2, "the pool's market"),
    ]  # fmt: skip
    assert markets.next_at == NOW + 100
    assert list(markets.news(NOW + 99)) == []


def test_a_market_takes_only_its_own_pools_attempts() -> None:
    """The newest of the pool that shrinks, the one that outlived its machine; those of pools without market never."""
    markets = followed()
    list(markets.news(NOW))
    for number, pool in enumerate(("a", "a", "b", "c")):
        markets.started(pool, key(number), NOW)
    assert markets.next_at == NOW + 50, "a machine's lifetime is sooner than a change of capacity"
    assert [each.key for each in markets.due(NOW + 50)] == [key(2)]
    assert list(markets.news(NOW + 50)) == []
    assert [(each.key, each.notice.seconds) for each in markets.due(NOW + 100)] == [(key(1), 5)]
    assert list(markets.news(NOW + 100)) == [PoolCapacityChanged("a", 1, "the pool's market")]
    assert list(markets.news(NOW + 150)) == [PoolPriceChanged("b", 3.0)]
    assert (markets.next_at, markets.due(NOW + 200)) == (NOW + 200, [])
    assert list(markets.news(NOW + 200)) == [PoolCapacityChanged("a", 2, "the pool's market")]
    assert markets.next_at == math.inf


def test_an_attempt_that_is_over_is_taken_by_nobody() -> None:
    """Whether its pool is known to whoever says so, or not."""
    for pool in ("a", None):
        markets = followed()
        list(markets.news(NOW))
        markets.started("a", key(0), NOW)
        markets.started("a", key(1), NOW)
        markets.ended(key(1), pool)
        assert markets.due(NOW + 100) == []
