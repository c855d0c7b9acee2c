"""The contract of a spot market, over every implementation: a schedule that agrees with itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flyteish.errors import ConfigurationError
from flyteish.interfaces import Market
from flyteish.markets.market import Outages, RandomMarket, ScriptedMarket, TraceMarket
from flyteish.markets.traces import Trace

DATA = (2, 2, 1, 0, 0, 3, 3, 1)
HORIZON = 400.0


def trace_file(folder: Path) -> Path:
    file = folder / "zone.json"
    file.write_text(json.dumps({"metadata": {"gap_seconds": 7}, "data": DATA, "prices": [0.1 * n for n in DATA]}))
    return file


MAKERS: dict[str, Callable[[Path], Market]] = {
    "scripted": lambda _: ScriptedMarket([5, None, 0.5], [(10, 0), (20.5, 4), (30, None)], notice_seconds=3),
    "scripted-silent": lambda _: ScriptedMarket(),
    "random": lambda _: RandomMarket(7, median_lifetime=60),
    "random-outages": lambda _: RandomMarket(7, outages=Outages(mean_up=20, mean_down=5, remaining=1)),
    "trace": lambda folder: TraceMarket(trace_file(folder)),
    "trace-fast": lambda folder: TraceMarket(trace_file(folder), speed=3.3, start=17.1, nodes=100),
    "trace-flat": lambda _: TraceMarket(Trace(name="flat", gap_seconds=1.0, data=(1, 1))),
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Market]:
    return lambda: MAKERS[request.param](tmp_path)


def changes(market: Market, until: float) -> list[float]:
    found: list[float] = []
    at = 0.0
    while (following := market.next_change(at)) is not None and following < until:
        assert following > at, "next_change does not get on"
        found.append(at := following)
    return found


def test_changes_are_strictly_later(make: Callable[[], Market]) -> None:
    """From any time on, the next change lies after it; also when asked at the very time of a change."""
    times = changes(make(), HORIZON)
    assert times == sorted(set(times))
    assert all(at > 0 for at in times)


def test_capacity_is_constant_between_changes_and_differs_across_them(make: Callable[[], Market]) -> None:
    """Capacity changes at the times that ``next_change`` names, takes effect at once, and at no other time."""
    market = make()
    times = changes(market, HORIZON)
    for start, end in zip([0.0, *times], [*times, HORIZON], strict=True):
        inside = [start + (end - start) * share for share in (0.0, 0.25, 0.5, 0.999)]
        assert len({market.capacity(at) for at in inside}) == 1
        assert end == HORIZON or market.capacity(end) != market.capacity(inside[-1])


def test_equal_questions_get_equal_answers_in_any_order(make: Callable[[], Market]) -> None:
    """Two markets made alike agree, whether asked forwards or backwards: a market keeps no state."""
    one, other = make(), make()
    moments = [step * 3.7 for step in range(100)]
    forwards = [(one.capacity(at), one.next_change(at), one.lifetime(at, n)) for n, at in enumerate(moments)]
    backwards = [
        (other.capacity(at), other.next_change(at), other.lifetime(at, n))
        for n, at in reversed(list(enumerate(moments)))
    ]
    assert forwards == backwards[::-1]


def test_lifetimes_capacities_and_notice_are_never_negative(make: Callable[[], Market]) -> None:
    """Whatever a market says can be scheduled."""
    market = make()
    assert all((market.lifetime(0.0, number) or 0.0) >= 0 for number in range(100))
    assert all((market.capacity(at) or 0) >= 0 for at in [0.0, *changes(market, HORIZON)])
    assert market.notice_seconds >= 0


def test_its_repr_says_what_it_is(make: Callable[[], Market]) -> None:
    """The repr names the class and its parameters, for logs and failing tests."""
    market = make()
    assert repr(market).startswith(type(market).__name__ + "(")
    assert "notice_seconds=" in repr(market)


# -- each for itself ----------------------------------------------------------------------------------------


def test_a_scripted_market_follows_its_script() -> None:
    """Lifetimes go by attempt number, capacity by time; silence before and after means no opinion."""
    market = ScriptedMarket([5, None, 0.5], [(10, 0), (20, 4)], notice_seconds=3)
    assert [market.lifetime(99.0, n) for n in range(4)] == [5.0, None, 0.5, None]
    assert [market.capacity(at) for at in (0, 9.99, 10, 19.99, 20, 1e9)] == [None, None, 0, 0, 4, 4]
    assert [market.next_change(at) for at in (0, 10, 20)] == [10.0, 20.0, None]
    assert market.notice_seconds == 3.0


def test_a_random_market_has_the_documented_median_and_floor() -> None:
    """Half of ten thousand machines outlive two hours, none ends before twenty minutes, some live a day."""
    market = RandomMarket(1)
    lives = sorted(life for n in range(10_000) if (life := market.lifetime(0.0, n)) is not None)
    assert len(lives) == 10_000
    assert lives[5_000] == pytest.approx(7200, rel=0.03)
    assert lives[0] >= 1200
    assert lives[1_000] == pytest.approx(48 * 60, rel=0.05)
    assert lives[9_000] == pytest.approx(6 * 3600 + 20 * 60, rel=0.05)


def test_a_random_market_is_a_function_of_seed_and_number() -> None:
    """Another seed is another fate; the time of the start changes nothing."""
    one, same, other = RandomMarket(1), RandomMarket(1), RandomMarket(2)
    assert [one.lifetime(0, n) for n in range(50)] == [same.lifetime(n * 9.0, n) for n in range(50)]
    assert [one.lifetime(0, n) for n in range(50)] != [other.lifetime(0, n) for n in range(50)]


def test_the_floor_follows_the_median_unless_it_is_given() -> None:
    """A market sped up for a demonstration keeps its shape: every time scales with the median."""
    slow, fast = RandomMarket(3), RandomMarket(3, median_lifetime=7.2)
    for number in range(20):
        life = slow.lifetime(0, number)
        assert life is not None
        assert fast.lifetime(0, number) == pytest.approx(life / 1000)
    assert RandomMarket(3, shape=0, floor=0).lifetime(0, 5) == 7200


def test_outages_alternate_with_the_means_asked_for() -> None:
    """A pool with outages is up and down in turn, and down for the share of the time that was configured."""
    market = RandomMarket(5, outages=Outages(mean_up=300, mean_down=100))
    assert market.capacity(0) is None
    times = changes(market, 1_000_000)
    downs = sum(up - down for down, up in zip(times[::2], times[1::2], strict=False))
    assert downs / times[-1] == pytest.approx(0.25, abs=0.02)
    assert [market.capacity(at) for at in times[:4]] == [0, None, 0, None]


def test_a_trace_market_follows_the_recording_and_wraps(tmp_path: Path) -> None:
    """Capacity at tick i is the recording's i-th count, ticks being gap/speed apart; then it begins again."""
    market = TraceMarket(trace_file(tmp_path), speed=2)
    ticks = [market.capacity(i * 3.5) for i in range(3 * len(DATA))]
    assert ticks == list(DATA) * 3
    assert market.next_change(0) == 7.0
    assert market.prices(7 * 2.5) == pytest.approx(0.3)
    assert [market.lifetime(0, n) for n in range(3)] == [None] * 3


def test_every_tick_of_a_long_recording_is_exact() -> None:
    """Gaps, speeds and starts that no float holds exactly: each change still happens at its own tick, once."""
    data = tuple(i * 7919 % 5 for i in range(1001))
    market = TraceMarket(Trace(name="long", gap_seconds=0.1, data=data), speed=0.3, start=33.33)
    ticks = range(334, 3334)  # the first whole tick, and nearly three rounds
    assert [market.capacity(((i + 0.5) * 0.1 - 33.33) / 0.3) for i in ticks] == [data[i % 1001] for i in ticks]
    moving = [data[i % 1001] for i in ticks if data[i % 1001] != data[i % 1001 - 1]]
    assert [market.capacity(at) for at in changes(market, (333.35 - 33.33) / 0.3)] == moving


def test_a_trace_starts_where_it_is_told_and_scales_to_nodes(tmp_path: Path) -> None:
    """``start`` is seconds into the recording; ``nodes`` is what its highest count stands for."""
    market = TraceMarket(trace_file(tmp_path), start=35, nodes=100)
    assert [market.capacity(at) for at in (0, 14, 21)] == [100, 33, 66]


def test_a_recording_that_never_changes_has_no_next_change() -> None:
    """A flat recording is a constant, not an endless loop."""
    market = TraceMarket(Trace(name="dry", gap_seconds=60.0, data=(0, 0, 0)), nodes=5)
    assert (market.capacity(1e6), market.next_change(1e6), market.prices(3)) == (0, None, None)


FLAT = Trace(name="flat", gap_seconds=1.0, data=(1,))


@pytest.mark.parametrize(
    "build, complaint",
    [
        (lambda: ScriptedMarket([-1]), r"reclaims\[0\]=-1 is not accepted: expected a number >= 0"),
        (lambda: ScriptedMarket([1, float("nan")]), r"reclaims\[1\]=nan"),
        (lambda: ScriptedMarket(capacity=[(5, 1), (5, 2)]), "growing `at`"),
        (
            lambda: ScriptedMarket(capacity=[(5, -1)]),
            r"capacity\[0\]=-1 is not accepted: expected an int >= 0",
        ),
        (lambda: ScriptedMarket(notice_seconds=-2), "notice_seconds=-2"),
        (lambda: RandomMarket("x"), "seed='x' is not accepted: expected an int"),  # type: ignore[arg-type]
        (
            lambda: RandomMarket(1, median_lifetime=0),
            "median_lifetime=0 is not accepted: expected a number > 0",
        ),
        (lambda: RandomMarket(1, median_lifetime=60, floor=61), "floor=61 .* from 0 to median_lifetime=60"),
        (lambda: RandomMarket(1, shape=-0.1), "shape=-0.1"),
        (lambda: RandomMarket(1, outages=Outages(0, 5)), "outages.mean_up=0 is not accepted"),
        (lambda: TraceMarket(FLAT, speed=0), "speed=0 is not accepted: expected a number > 0"),
        (lambda: TraceMarket(FLAT, nodes=-3), "nodes=-3 is not accepted: expected an int >= 0"),
        (lambda: TraceMarket("/does/not/exist.json"), "trace file '/does/not/exist.json' cannot be read"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_accepted(build: Callable[[], Market], complaint: str) -> None:
    """A market that cannot be is refused where it is made: parameter, value and what is accepted."""
    with pytest.raises(ConfigurationError, match=complaint):
        build()
