"""Price sources: schedules that agree with themselves, and the feed that follows them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from flyteish._core.model.events import PoolPriceChanged
from flyteish._core.model.queues import Pool
from flyteish.config import load_config
from flyteish.errors import ConfigurationError
from flyteish.interfaces import PriceSource
from flyteish.markets.market import TraceMarket
from flyteish.markets.price_feed import AGAIN, PriceFeed
from flyteish.markets.price_sources import ScriptedPrices, TracePrices
from flyteish.markets.traces import Trace

TRACE = Trace(name="zone", gap_seconds=7.0, data=(1, 2, 2, 0, 1), prices=(0.1, 0.1, 0.3, 0.2, 0.1))
FLAT = Trace(name="flat", gap_seconds=7.0, data=(1, 2), prices=(0.5, 0.5))
MAKERS: dict[str, Callable[[], PriceSource]] = {
    "scripted": lambda: ScriptedPrices([(0, 1.0), (10, 2.0), (30.5, 0.0)]),
    "late": lambda: ScriptedPrices([(5.0, 1.0)]),
    "trace": lambda: TracePrices(TRACE),
    "trace-fast": lambda: TracePrices(TRACE, speed=3.3, start=17.1),
    "flat": lambda: TracePrices(FLAT),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_price_holds_until_the_next_change(name: str) -> None:
    """Between changes the price is the same, at a change it is another, and each change comes after the one before."""
    source, at = MAKERS[name](), 0.0
    for _ in range(50):
        following = source.next_change(at)
        if following is None:
            break
        assert following > at
        middle = (at + following) / 2
        assert source.price(middle) == source.price(at)
        assert source.next_change(middle) == pytest.approx(following)
        assert source.price(following) != source.price(at)
        at = following


def test_recorded_prices_go_round_with_the_market() -> None:
    """The pool's market gives its own prices, at its own speed and place."""
    market = TraceMarket(TRACE, speed=2.0, start=14.0)
    source = market.price_source
    assert source is not None
    assert [source.price(at) for at in (0.0, 3.5, 7.0, 10.5, 14.0, 17.5)] == [0.3, 0.2, 0.1, 0.1, 0.1, 0.3]
    assert all(source.price(at) == market.prices(at) for at in range(100))
    assert TraceMarket(Trace(name="n", gap_seconds=1.0, data=(1,))).price_source is None


def followed(source: PriceSource, until: float) -> list[tuple[float, float]]:
    feed, found, now = PriceFeed([Pool("p", price_per_hour=source), Pool("fixed", price_per_hour=1.0)]), [], 1000.0
    feed.open(now)
    while (due := feed.next_due()) is not None and due <= until:
        now = max(now, due)
        for event in feed.changes(now):
            assert event == PoolPriceChanged("p", event.price_per_hour)
            found.append((now, event.price_per_hour))
    return found


def test_the_feed_tells_each_change_once() -> None:
    """At the very moment, and only where the price is another."""
    source = ScriptedPrices([(0, 1.0), (10, 1.0), (20, 2.0)])
    assert followed(source, 2000.0) == [(1000.0, 1.0), (1020.0, 2.0)]


class Moody:
    """A source that does not always answer."""

    def __init__(self, answers: list[object]) -> None:
        self.answers = answers

    def price(self, at: float) -> float | None:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    def next_change(self, at: float) -> float | None:
        return at + 10.0 if self.answers else None


def test_where_no_price_is_known_the_last_one_stays(caplog: pytest.LogCaptureFixture) -> None:
    """None changes nothing; a source that fails or says nonsense is asked again later, and the log says so."""
    source = Moody([1.0, None, OSError("no route"), -3.0, 2.0])
    with caplog.at_level(logging.WARNING):
        found = followed(source, 5000.0)
    assert found == [(1000.0, 1.0), (1000.0 + 20.0 + 2 * AGAIN, 2.0)]
    assert "no route" in caplog.text
    assert "-3.0 is no price" in caplog.text


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: ScriptedPrices([]), "changes"),
        (lambda: ScriptedPrices([(5, 1), (5, 2)]), "growing"),
        (lambda: ScriptedPrices([(0, -1)]), r"changes\[0\]=-1"),
        (lambda: TracePrices(Trace(name="n", gap_seconds=1.0, data=(1,))), "'n' has no prices"),
        (lambda: TracePrices(TRACE, speed=0), "speed=0"),
    ],
)
def test_impossible_prices_are_refused(make: Callable[[], object], complaint: str) -> None:
    """Where they are written, with what is accepted."""
    with pytest.raises(ConfigurationError, match=complaint):
        make()


def write(folder: Path, text: str) -> Path:
    (folder / "zone.json").write_text('{"metadata": {"gap_seconds": 5}, "data": [1, 2], "prices": [0.1, 0.2]}')
    (folder / "bare.json").write_text('{"metadata": {"gap_seconds": 5}, "data": [1, 2]}')
    (folder / "flyteish.toml").write_text(text)
    return folder


def test_a_file_may_name_price_sources(tmp_path: Path) -> None:
    """A number, the market's own, a recording, or changes at known times."""
    config = load_config(
        environ={},
        cwd=write(
            tmp_path,
            """
            [pools.a]
            medium = "spot"
            price_per_hour = "market"
            market = { kind = "trace", file = "zone.json", speed = 5 }
            [pools.b]
            price_per_hour = { kind = "trace", file = "zone.json", start = "5s" }
            [pools.c]
            price_per_hour = { kind = "script", changes = [[0, 1.0], ["1h", 0.5]] }
            [pools.d]
            price_per_hour = 2
            """,
        ),
    )
    a, b, c, d = config.pools
    assert [a.price_source.price(at) for at in (0, 1)] == [0.1, 0.2]
    assert [b.price_source.price(at) for at in (0, 5)] == [0.2, 0.1]
    assert [c.price_source.price(at) for at in (0, 3600)] == [1.0, 0.5]
    assert (d.price_source, d.fixed_price) == (None, 2.0)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ('price_per_hour = "dear"', r"pools.p.price_per_hour='dear' is not accepted: expected \$ >= 0, 'market' or a"),
        ('price_per_hour = "market"', "price_per_hour='market' is not accepted: expected a market with recorded"),
        (
            'price_per_hour = { kind = "aws" }',
            "price_per_hour.kind='aws' is not accepted: expected 'script' or 'trace'",
        ),
        ('price_per_hour = { kind = "trace" }', "price_per_hour.file is missing"),
        ('price_per_hour = { kind = "trace", file = "bare.json" }', "bare.json' has no prices"),
        ('price_per_hour = { kind = "script", change = [] }', "did you mean changes"),
        ('price_per_hour = { kind = "script", changes = [[0]] }', "pairs"),
        ("price_per_hour = -1", "price_per_hour=-1"),
        ('market = { kind = "trace", file = "bare.json" }\nprice_per_hour = "market"', "a market with recorded prices"),
    ],
)
def test_a_mistake_in_a_file_is_reported_there(tmp_path: Path, line: str, complaint: str) -> None:
    """File, key, value, and what is accepted."""
    folder = write(tmp_path, f"[pools.p]\n{line}\n")
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_config(environ={}, cwd=folder)
    assert "flyteish.toml" in str(caught.value)
