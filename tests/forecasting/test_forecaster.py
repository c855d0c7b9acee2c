"""Forecasts worked out by hand: known work on known markets, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from flyteish import Forecast, Pool, Queue, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.settings import Settings
from flyteish._core.rules.experience import TaskSeen
from flyteish._learning.documents import Child, Learned, Shape
from flyteish._learning.machine_lifetimes import PoolSeen
from flyteish.errors import ConfigurationError, UnknownQueueError
from flyteish.forecasting import forecast
from flyteish.forecasting.forecaster import Basis
from flyteish.simulation import Observed, RandomMarket, ScriptedMarket, WorkModel

PLAIN = Settings()
SPOT = Settings(interruptible=SpotPolicy(deadline_policy="off"), retries=RetryStrategy(count=2))
PRICE = 3.6
"""$ per hour, so that a second costs a tenth of a cent."""


def made(settings: Settings, market: Any = None, learned: Learned | None = None, **options: Any) -> Forecast:
    pools = [
        Pool("spot", "spot", price_per_hour=PRICE / 4, market=market, startup=0.0),
        Pool("od", price_per_hour=PRICE, startup=10.0),
    ]
    queue = options.pop("queue", Queue("default", pools=["spot", "od"]))
    basis = Basis([queue], pools, learned or Learned(), options.pop("waiting", {}), 2, 1000.0)
    asked: Any = {"rounds": 5, **options}
    return forecast("e.t", settings, basis, asked)


def spread(found: Forecast) -> tuple[float, float]:
    assert found.finish is not None
    return found.finish.p5, found.finish.p95


def test_without_spot_it_is_start_and_work() -> None:
    """10 s to start and 100 s of work, billed both; that is also its own alternative."""
    found = made(PLAIN, work=100)
    assert spread(found) == pytest.approx((110.0, 110.0))
    assert found.dollars is not None
    assert found.dollars.p50 == pytest.approx(0.110)
    assert (found.on_demand_seconds, found.on_demand_dollars) == pytest.approx((110.0, 0.110))
    assert (found.preemptions, found.spot_share, found.misses, found.fails, found.made_at) == (0, 0, 0, 0, 1000.0)
    assert found.based_on == ("the given work of 100 s",)


def test_a_reclaim_costs_what_was_done() -> None:
    """Noticed after 50 s and gone after 70, all of it lost; then 100 s again."""
    found = made(SPOT, ScriptedMarket([50.0], notice_seconds=20.0), work=100)
    assert spread(found) == pytest.approx((170.0, 170.0))
    assert (found.preemptions, found.lost_seconds, found.spot_share) == (1.0, 70.0, 1.0)
    assert found.dollars is not None
    assert found.dollars.p50 == pytest.approx(0.170 / 4)
    assert (found.on_demand_seconds, found.on_demand_dollars) == pytest.approx((110.0, 0.110))
    assert "the scripted market of pool spot" in found.based_on
    assert found.assumed == ("e.t saves no checkpoints: none were seen",)


def test_with_checkpoints_nothing_is_lost() -> None:
    """It saves when it is noticed, and goes on from there at once."""
    found = made(SPOT, ScriptedMarket([50.0], notice_seconds=20.0), work=100, checkpoint_every=30)
    assert spread(found) == pytest.approx((100.0, 100.0))
    assert (found.preemptions, found.lost_seconds) == (1.0, 0.0)


def test_the_deadline_and_its_misses() -> None:
    """A hundred seconds of work and ten to start do not fit into a hundred; then there is no time of finish."""
    found = made(Settings(timeout=Timeout(deadline=100.0)), work=Observed((80.0, 100.0)), rounds=200)
    assert found.deadline == 100.0
    assert found.misses == pytest.approx(0.5, abs=0.15)
    assert spread(found) == pytest.approx((90.0, 90.0))
    late = made(Settings(timeout=Timeout(deadline=100.0)), work=100)
    assert (late.misses, late.fails, late.finish) == (1.0, 0.0, None)
    assert "finish       in no simulated run" in str(late)


def test_several_at_once_and_others_ahead() -> None:
    """One at a time in the queue: the last of two ends after two, and one that has another ahead of it, too."""
    queue = Queue("default", pools=["od"], action_concurrency=1)
    assert spread(made(PLAIN, work=100, count=2, queue=queue)) == pytest.approx((220.0, 220.0))
    assert spread(made(PLAIN, work=100, ahead=1, queue=queue)) == pytest.approx((220.0, 220.0))
    there = made(PLAIN, work=100, queue=queue, waiting={"default": 2})
    assert spread(there) == pytest.approx((330.0, 330.0))
    assert there.assumed == ("the 2 others in the queue are like this one",)
    assert there.dollars is not None
    assert there.dollars.p50 == pytest.approx(0.110)
    assert spread(made(PLAIN, work=100, ahead=50)) == pytest.approx((110.0, 110.0)), "nothing is limited"


def test_past_runs_are_what_it_goes_by() -> None:
    """Works, start-up, checkpoints and failures as they were seen; many runs leave little of what is assumed."""
    seen = TaskSeen(
        [100.0] * 32, {"spot": [4.0, 5.0, 90.0]}, gaps=[22.0] * 3, saves=[2.0] * 3, successes=32, failures=8
    )
    found = made(SPOT, ScriptedMarket([]), Learned({"e.t": seen}), rounds=100)
    assert found.finish is not None
    assert 95.0 <= found.finish.p5 < found.finish.p50 < 110.0, "5 s to start, and 100 with all saves"
    assert found.based_on[:3] == (
        "32 past runs of e.t", "checkpoints every 20 s, as seen, 2 s each", "20% of its attempts raised",
    )  # fmt: skip
    alone = made(PLAIN, learned=Learned({"e.t": seen}), rounds=200)
    assert alone.fails == pytest.approx(0.2, abs=0.1)


def test_few_past_runs_leave_much_open() -> None:
    """A single one says little of how much the next will differ."""
    one = made(PLAIN, learned=Learned({"e.t": TaskSeen([100.0])}), rounds=100)
    many = made(PLAIN, learned=Learned({"e.t": TaskSeen([100.0] * 30)}), rounds=100)
    widths = [high - low for low, high in map(spread, (one, many))]
    assert widths[0] > 3 * widths[1] > 0


@pytest.mark.parametrize("in_turn, seconds", [(False, 10 + 10 + 30), (True, 10 + 3 * 30 + 10)])
def test_the_tasks_that_it_calls_count(in_turn: bool, seconds: float) -> None:
    """Ten seconds of its own, and three calls of twenty, at once or in turn; each with ten seconds to start."""
    calls = Shape([10.0] * 32, (Child("e.child", PLAIN, 3),), in_turn)
    learned = Learned({"e.t": TaskSeen([99.0]), "e.child": TaskSeen([20.0] * 32)}, shapes={"e.t": calls})
    found = made(PLAIN, learned=learned, rounds=20)
    assert found.finish is not None
    assert found.finish.p50 == pytest.approx(seconds, rel=0.05)
    assert found.dollars is not None
    assert found.dollars.p50 > 0.1, "the children are paid for, too"
    assert found.based_on == ("32 past runs of e.t", "3 calls of e.child")


def test_markets_that_were_seen_or_are_assumed() -> None:
    """Without a market of its own a pool's machines last as they did, else two hours at the median."""
    seen = made(SPOT, learned=Learned(pools={"spot": PoolSeen(3600.0, 12)}), work=3600, checkpoint_every=60, rounds=50)
    assert 5 <= seen.preemptions <= 15, "one in five minutes"
    assert "12 reclaims in 60 min of machine time in pool spot" in seen.based_on
    assumed = made(SPOT, work=3600, checkpoint_every=60, rounds=50)
    assert 0 < assumed.preemptions < 1
    assert assumed.assumed == ("half of the machines of pool spot last 2 h: none was seen reclaimed",)


def test_equal_questions_get_equal_answers() -> None:
    """And another seed another one."""
    market = RandomMarket(7, median_lifetime=600.0)
    first, again, other = (made(SPOT, market, work=3600, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.finish != other.finish


def test_a_work_model_says_everything() -> None:
    """The caller may describe the task himself."""
    found = made(PLAIN, work=WorkModel(work=50, startup=1))
    assert spread(found) == pytest.approx((51.0, 51.0))
    assert found.based_on == ("the work model that was given",)


def test_the_author_s_estimate_serves_until_something_was_seen() -> None:
    """``SpotPolicy(work=...)``."""
    found = made(Settings(interruptible=SpotPolicy(work=100)), ScriptedMarket([]))
    assert found.based_on[0] == "the author's estimate SpotPolicy(work=100 s)"


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, r"forecast of e\.t: work=None is not accepted, for no run of it has succeeded yet: .*SpotPolicy\(work="),
        ({"work": -1}, r"work=-1 is not accepted: expected seconds >= 0"),
        ({"work": 1, "count": 0}, "count=0 is not accepted: expected an int from 1"),
        ({"work": 1, "rounds": 1.5}, r"rounds=1\.5 is not accepted"),
        ({"work": 1, "seed": -1}, "seed=-1 is not accepted"),
        ({"work": 1, "ahead": -1}, "ahead=-1 is not accepted"),
        ({"work": 1, "checkpoint_every": 0}, "checkpoint_every=0 is not accepted: expected seconds > 0"),
    ],
)
def test_what_is_not_accepted_is_named(options: dict[str, Any], message: str) -> None:
    """With the value, and what is accepted."""
    with pytest.raises(ConfigurationError, match=message):
        made(PLAIN, **options)


def test_an_unknown_queue_is_refused() -> None:
    """As a run would be."""
    with pytest.raises(UnknownQueueError, match="there is no queue 'other'; known queues are default"):
        made(Settings(queue="other"), work=1)
