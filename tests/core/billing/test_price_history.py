"""Prices that change: what an attempt is billed, and what a limit on spending makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish._core.billing.price_history import Prices
from flyteish._core.model.effects import Refuse
from flyteish._core.model.events import Configured, Evidence, PoolPriceChanged
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.policies import Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Action
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload
from flyteish._core.scheduling.queue_state import Reason
from flyteish.errors import ConfigurationError
from flyteish.markets.price_sources import ScriptedPrices
from tests.core.world import World, profile

DONE = Evidence(result=Payload(b"done"))
SOURCE = ScriptedPrices([(0.0, 1.0)])


def world_of(pool: Pool, **limits: Any) -> World:
    world = World([Queue("default", **limits)], [pool])
    world.tell(PoolPriceChanged(pool.name, 1.0))
    return world


def action(world: World, run: str) -> Action:
    found = world.state.action(ActionKey(run, "a0"))
    assert found is not None
    return found


def key(world: World, run: str) -> AttemptKey:
    return next(key for key in world.live if key.run == run)


def reason(world: World, run: str) -> Reason | None:
    found = world.state.admission.reason(action(world, run), world.now)
    return None if found is None else found[0]


def test_an_attempt_is_billed_at_the_mean_price_of_its_life() -> None:
    """Ten seconds at $1, thirty at $3: the record says 2.5, and so does the journal."""
    world = world_of(Pool("od", price_per_hour=SOURCE))
    run = world.submit(profile())
    assert action(world, run).attempts[0].price_per_hour == 1.0
    world.advance(10.0)
    world.tell(PoolPriceChanged("od", 3.0))
    world.advance(30.0)
    world.end(key(world, run), DONE)
    world.tell(PoolPriceChanged("od", 9.0))
    assert action(world, run).attempts[0].price_per_hour == 2.5
    world.check_replay()


def test_an_attempt_that_its_deadline_ends_is_billed_alike() -> None:
    """The price of its life is on record with the limit that ended it."""
    world = world_of(Pool("od", price_per_hour=SOURCE))
    run = world.submit(profile(Settings(timeout=Timeout(deadline=40.0)), task="e.late"))
    world.advance(10.0)
    world.tell(PoolPriceChanged("od", 3.0))
    world.advance(30.0)
    assert action(world, run).attempts[0].price_per_hour == 2.5
    world.check_replay()


def test_a_steady_price_adds_nothing_to_the_journal() -> None:
    """Where the price did not change during its life, the end of an attempt says nothing of it."""
    world = world_of(Pool("od", price_per_hour=SOURCE))
    run = world.submit(profile())
    world.advance(10.0)
    world.end(key(world, run), DONE)
    ends = [event for _, event in world.journal if type(event).__name__ == "AttemptEnded"]
    assert [event.price_per_hour for event in ends] == [None]  # type: ignore[union-attr]


def test_nothing_is_started_above_the_limit_whatever_prices_do() -> None:
    """What runs is rated at the price of now; what waits goes on waiting until it fits, and says why."""
    world = world_of(Pool("od", price_per_hour=SOURCE), spend_limit=2.5)
    first, second, third = (world.submit(profile()) for _ in range(3))
    assert reason(world, third) is Reason.SPEND_LIMIT
    assert {key.run for key in world.live} == {first, second}
    world.tell(PoolPriceChanged("od", 2.0))  # $4 an hour run now: nothing is ended for it
    assert {key.run for key in world.live} == {first, second}
    world.end(key(world, first), DONE)
    assert reason(world, third) is Reason.SPEND_LIMIT
    world.tell(PoolPriceChanged("od", 3.0))  # alone it would not fit either
    world.end(key(world, second), DONE)
    assert reason(world, third) is Reason.SPEND_LIMIT
    world.tell(PoolPriceChanged("od", 2.5))
    assert {key.run for key in world.live} == {third}


def test_a_limit_can_be_raised_and_lowered_while_work_waits() -> None:
    """A new configuration applies at once, and ends nothing."""
    pool = Pool("od", price_per_hour=1.0)
    world = World([Queue("default", spend_limit=1.0)], [pool])
    first, second, third = (world.submit(profile()) for _ in range(3))
    world.configure(Configured((Queue("default", spend_limit=2.0),), (pool,)))
    assert {key.run for key in world.live} == {first, second}
    world.configure(Configured((Queue("default", spend_limit=1.0),), (Pool("od", price_per_hour=0.25),)))
    assert {key.run for key in world.live} == {first, second, third}  # all of them cost 0.25 now


def test_work_that_can_never_be_paid_is_refused() -> None:
    """A fixed price above the limit is refused at the door; one that a source says may fall."""
    world = World([Queue("default", spend_limit=1.0)], [Pool("od", price_per_hour=2.0)])
    world.submit(profile())
    assert [type(refusal) for refusal in world.refusals] == [Refuse]
    assert "spend_limit of $1 per hour" in world.refusals[0].message
    world = world_of(Pool("od", price_per_hour=SOURCE), spend_limit=0.5)
    run = world.submit(profile())
    assert not world.refusals
    assert reason(world, run) is Reason.SPEND_LIMIT


def test_what_on_demand_would_have_cost_is_recorded_at_admission() -> None:
    """The cheapest priced on-demand pool of the queue, else of the session, at the price of then."""
    pools = (Pool("s", medium="spot"), Pool("a", price_per_hour=3.0), Pool("b", price_per_hour=2.0), Pool("c"))
    world = World([Queue("default", pools=("s", "a", "c")), Queue("lean", pools=("s", "c"))], pools)
    run = world.submit(profile())
    assert action(world, run).attempts[0].on_demand_price == 3.0
    world.tell(PoolPriceChanged("b", 1.5))
    run = world.submit(profile(Settings(queue="lean"), task="e.lean"))
    assert action(world, run).attempts[0].on_demand_price == 1.5


@pytest.mark.parametrize("price", [-1, float("inf"), float("nan"), True, "dear", object(), "market"])
def test_a_wrong_price_is_refused(price: object) -> None:
    """The message names the pool, the parameter and what is accepted."""
    with pytest.raises(ConfigurationError, match=r"Pool\('p'\): price_per_hour=.* is not accepted: expected"):
        Pool("p", price_per_hour=price)


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 50.0)), max_size=20),
    st.floats(0.0, 1000.0),
    st.floats(0.0, 1000.0),
)
def test_the_mean_is_the_integral(changes: list[tuple[float, float]], since: float, length: float) -> None:
    """Added up piece by piece, the same comes out; a mean lies between the lowest and the highest price."""
    prices, now, known = Prices(7.0), 1000.0, [(0.0, 7.0)]
    for wait, price in changes:
        now += wait
        prices.changed(price, now)
        known.append((now, price))
    begin, end = 900.0 + since, 900.0 + since + length
    paid = 0.0
    for (at, price), (until, _) in zip(known, [*known[1:], (1e9, 0.0)], strict=True):
        paid += max(0.0, min(end, until) - max(begin, at)) * price
    mean = prices.mean(begin, end)
    if length:
        assert mean * length == pytest.approx(paid, rel=1e-6, abs=1e-6)
    assert min(p for _, p in known) - 1e-6 <= mean <= max(p for _, p in known) + 1e-6 or length < 1e-6


def test_old_changes_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; what is remembered stays exact."""
    monkeypatch.setattr("flyteish._core.billing.price_history.MOST", 10)
    prices = Prices(0.0)
    for second in range(100):
        prices.changed(float(second + 1), 1000.0 + second)
    assert prices.mean(1098.0, 1100.0) == pytest.approx(99.5)
    assert prices.mean(1095.0, 1097.0) == pytest.approx(96.5)
