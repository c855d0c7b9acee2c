"""Who is reclaimed when: a market driven through virtual time, with exact times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import SPOT, Pool
from flyteish.interfaces import Market, Notice
from flyteish.markets.market import Outages, RandomMarket, ScriptedMarket, TraceMarket
from flyteish.markets.reclaimer import Reclaimer
from flyteish.markets.traces import Trace

EPOCH = 1_790_000_000.3  # a time of day that no float holds exactly
POOL = Pool("spot", SPOT, capacity=8)


def key(number: int) -> AttemptKey:
    return AttemptKey("r1", f"a{number}", 1)


def opened(market: Market, now: float = 1000.0) -> Reclaimer:
    reclaimer = Reclaimer(POOL, market)
    reclaimer.opened(now)
    return reclaimer


def reclaimed(reclaimer: Reclaimer, now: float) -> list[str]:
    return [order.key.action for order in reclaimer.due(now)]


def test_an_attempt_is_noticed_when_its_lifetime_is_over() -> None:
    """Not a moment earlier, once, and with the market's notice."""
    reclaimer = opened(ScriptedMarket([5.0], notice_seconds=2.0))
    reclaimer.attempt_started(1010.0, key(0))
    assert reclaimer.next_due() == 1015.0
    assert reclaimer.due(1014.999) == []
    assert reclaimer.due(1015.0) == [(key(0), Notice(kind="terminate", seconds=2.0, source="market"))]
    assert (reclaimer.due(1016.0), reclaimer.next_due()) == ([], None)


def test_attempts_are_numbered_in_the_order_in_which_they_start() -> None:
    """The market's script goes by attempt, not by action: a second attempt of an action is another number."""
    reclaimer = opened(ScriptedMarket([30.0, None, 10.0]))
    for number in range(3):
        reclaimer.attempt_started(1000.0 + number, key(number))
    assert reclaimer.next_due() == 1012.0
    assert reclaimed(reclaimer, 1012.0) == ["a2"]
    assert reclaimer.next_due() == 1030.0
    assert reclaimed(reclaimer, 1030.0) == ["a0"]
    assert reclaimer.next_due() is None


def test_an_attempt_that_ended_is_not_reclaimed() -> None:
    """Its planned notice is dropped, and nobody is woken for it; ends of other pools' attempts mean nothing."""
    reclaimer = opened(ScriptedMarket([5.0, 7.0]))
    reclaimer.attempt_started(1000.0, key(0))
    reclaimer.attempt_started(1000.0, key(1))
    reclaimer.attempt_ended(key(0))
    reclaimer.attempt_ended(key(99))
    assert reclaimer.next_due() == 1007.0
    assert reclaimed(reclaimer, 1020.0) == ["a1"]


def test_an_action_that_comes_back_gets_a_machine_of_its_own() -> None:
    """The same key started again is a new attempt: the old one's planned notice does not hit it."""
    reclaimer = opened(ScriptedMarket([5.0, 50.0]))
    reclaimer.attempt_started(1000.0, key(0))
    reclaimer.attempt_ended(key(0))
    reclaimer.attempt_started(1001.0, key(0))
    assert reclaimed(reclaimer, 1020.0) == []
    assert reclaimer.next_due() == 1051.0


def test_a_drop_of_capacity_reclaims_the_newest_first() -> None:
    """Capacity 3, then 1: of three attempts the two newest go, newest first; the oldest stays."""
    reclaimer = opened(ScriptedMarket(capacity=[(0, 3), (60, 1), (90, 0)]))
    for number in range(3):
        reclaimer.attempt_started(1001.0 + number, key(number))
    assert (reclaimer.capacity(1059.9), reclaimer.next_due()) == (3, 1060.0)
    assert reclaimed(reclaimer, 1059.9) == []
    assert reclaimed(reclaimer, 1060.0) == ["a2", "a1"]
    assert (reclaimer.capacity(1060.0), reclaimer.next_due()) == (1, 1090.0)
    assert reclaimed(reclaimer, 1090.0) == ["a0"]


def test_attempts_under_notice_make_room() -> None:
    """An attempt that is leaving already is not counted against capacity, so its neighbour may stay."""
    reclaimer = opened(ScriptedMarket([10.0, None], capacity=[(20, 1)]))
    reclaimer.attempt_started(1000.0, key(0))
    reclaimer.attempt_started(1000.0, key(1))
    assert reclaimed(reclaimer, 1010.0) == ["a0"]
    assert reclaimed(reclaimer, 1020.0) == []


def test_a_dip_that_nobody_saw_still_reclaims() -> None:
    """Asked late, after capacity went and came back, the market has taken the machines all the same."""
    reclaimer = opened(ScriptedMarket(capacity=[(10, 0), (11, None)]))
    reclaimer.attempt_started(1000.0, key(0))
    assert reclaimed(reclaimer, 1060.0) == ["a0"]
    assert (reclaimer.capacity(1060.0), reclaimer.next_due()) == (None, None)


def test_a_lifetime_that_ended_before_a_dip_makes_room_in_it() -> None:
    """Late or not, things are taken in the order in which they happened: the lifetime first, then the dip."""
    reclaimer = opened(ScriptedMarket([None, 5.0, None], capacity=[(10, 2)]))
    for number in range(3):
        reclaimer.attempt_started(1000.0, key(number))
    assert reclaimed(reclaimer, 1060.0) == ["a1"]


def test_starting_in_an_empty_market_is_reclaimed_at_once() -> None:
    """An attempt that started while capacity had just gone is due immediately, not at the next change."""
    reclaimer = opened(ScriptedMarket(capacity=[(10, 0), (500, 5)]))
    assert reclaimed(reclaimer, 1010.0) == []
    reclaimer.attempt_started(1011.0, key(0))
    assert reclaimer.next_due() == 1011.0
    assert reclaimed(reclaimer, 1011.0) == ["a0"]
    assert reclaimer.next_due() == 1500.0


def test_an_attempt_is_not_hit_by_what_happened_before_it_started() -> None:
    """A dip that nobody has asked about yet takes the attempt of then, not the one that started since."""
    reclaimer = opened(ScriptedMarket(capacity=[(10, 0), (11, None)]))
    reclaimer.attempt_started(1000.0, key(0))
    reclaimer.attempt_started(1060.0, key(1))
    assert reclaimer.next_due() == 1010.0
    assert reclaimed(reclaimer, 1060.0) == ["a0"]
    assert reclaimer.next_due() is None


def test_an_attempt_that_ended_before_its_order_was_fetched_is_left_alone() -> None:
    """Between losing its machine and the next look an attempt may end by itself."""
    reclaimer = opened(ScriptedMarket(capacity=[(10, 0)]))
    reclaimer.attempt_started(1011.0, key(0))
    reclaimer.attempt_ended(key(0))
    assert reclaimed(reclaimer, 1011.0) == []


def test_the_market_opens_once_and_first() -> None:
    """Use before opening, opening twice and starting twice are defects of the caller and say so."""
    reclaimer = Reclaimer(POOL, ScriptedMarket())
    with pytest.raises(RuntimeError, match="has not been opened"):
        reclaimer.attempt_started(0.0, key(0))
    reclaimer.opened(1000.0)
    with pytest.raises(RuntimeError, match="is open already"):
        reclaimer.opened(1000.0)
    reclaimer = opened(ScriptedMarket())
    reclaimer.attempt_started(1000.0, key(0))
    with pytest.raises(RuntimeError, match="r1/a0#1 has started already"):
        reclaimer.attempt_started(1001.0, key(0))
    assert repr(reclaimer).startswith("Reclaimer(pool 'spot', ScriptedMarket(")


def test_many_short_attempts_leave_no_plans_behind() -> None:
    """Attempts that end before their notice do not pile up until it would be due."""
    reclaimer = opened(RandomMarket(1))
    for number in range(20_000):
        reclaimer.attempt_started(1000.0 + number * 0.01, key(number))
        reclaimer.attempt_ended(key(number))
    assert len(reclaimer._ends) <= 65
    assert reclaimer.next_due() is None


def test_a_long_sleep_with_nobody_to_reclaim_is_skipped() -> None:
    """A laptop that slept through a million changes of the market wakes up at once."""
    reclaimer = opened(TraceMarket(Trace(name="t", gap_seconds=0.001, data=(1, 0))), EPOCH)
    assert reclaimer.due(EPOCH + 1e6) == []
    following = reclaimer.next_due()
    assert following is not None
    assert EPOCH + 1e6 < following <= EPOCH + 1e6 + 0.01


MARKETS = [
    RandomMarket(3, median_lifetime=10.0, outages=Outages(7.0, 3.0, remaining=1)),
    TraceMarket(Trace(name="t", gap_seconds=0.7, data=(3, 2, 0, 0, 1, 4)), speed=1.3, start=0.1),
]


@pytest.mark.parametrize("market", MARKETS, ids=["random", "trace"])
@given(starts=st.lists(st.floats(0, 3), min_size=1, max_size=12))
def test_whoever_wakes_at_next_due_gets_on(market: Market, starts: list[float]) -> None:
    """Waking exactly when told always moves time on, keeps capacity, and reclaims nobody twice."""
    reclaimer = opened(market, EPOCH)
    now, gone = EPOCH, set[AttemptKey]()
    for started, pause in enumerate(starts, start=1):
        until = now + pause
        while (due := reclaimer.next_due()) is not None and due <= until:
            now = max(now, due)
            orders = [order.key for order in reclaimer.due(now)]
            assert not gone & set(orders)
            gone.update(orders)
            held = reclaimer.capacity(now)
            assert held is None or started - 1 - len(gone) <= held
            following = reclaimer.next_due()
            assert following is None or following > now
        now = until
        reclaimer.attempt_started(now, key(started))
