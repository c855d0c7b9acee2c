"""What attempts cost, what was lost, and what on-demand machines would have cost for the same work."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish._core.billing.bills import billed, total
from flyteish._core.billing.cost_summary import CostSummary, on_demand_price
from flyteish._core.model.queues import ON_DEMAND, SPOT, Medium, Pool
from flyteish._core.model.records import Action, AttemptRecord, End
from flyteish._core.model.values import Payload
from tests.core.world import profile

HOUR = 3600.0

EPOCH = 1000.0
"""A time of 0 means never."""


def tried(
    medium: Medium,
    price: float,
    started_at: float,
    ended_at: float,
    last_checkpoint_at: float | None = None,
    kept: bool = False,
) -> AttemptRecord:
    end = End.SUCCEEDED if kept else End.PREEMPTED
    started_at, ended_at = EPOCH + started_at, EPOCH + ended_at
    return AttemptRecord(
        1, 1, "p", medium, "", "", price, started_at, started_at, started_at, ended_at=ended_at, end=end,
        last_checkpoint_at=EPOCH + last_checkpoint_at if last_checkpoint_at else 0.0,
    )  # fmt: skip


def of(*attempts: AttemptRecord) -> Action:
    return Action("r", "a", None, profile(), Payload(), 0.0, attempts=list(attempts))


def summarize(attempts: list[AttemptRecord], on_demand_price: float | None) -> CostSummary:
    return total(billed([of(*attempts)], 0.0, on_demand_price))


@pytest.mark.parametrize(
    "checkpoint, kept, lost",
    [
        (None, False, 100.0),  # nothing saved: all of it, start-up included
        (160.0, False, 40.0),  # what came after the last checkpoint
        (200.0, False, 0.0),  # saved at the last moment
        (250.0, False, 0.0),  # committed a moment after the end
        (50.0, False, 100.0),  # a checkpoint of an earlier attempt saves nothing of this one
        (None, True, 0.0),
        (160.0, True, 0.0),
    ],
)
def test_what_an_attempt_loses(checkpoint: float | None, kept: bool, lost: float) -> None:
    """An attempt that was not kept loses the time after its last checkpoint; one that was kept loses nothing."""
    attempt = tried(SPOT, 0.36, 100.0, 200.0, checkpoint, kept)
    found = summarize([attempt], None)
    assert (found.spot_seconds, found.lost_seconds) == (100.0, lost)
    assert found.dollars == pytest.approx(0.01)


def test_a_run_with_two_reclaims_and_an_on_demand_finish() -> None:
    """Spot an hour lost, spot an hour half kept, on-demand half an hour: what it cost, and the alternative."""
    attempts = [
        tried(SPOT, 0.3, 0.0, HOUR),
        tried(SPOT, 0.3, HOUR, 2 * HOUR, last_checkpoint_at=1.5 * HOUR),
        tried(ON_DEMAND, 1.0, 2 * HOUR, 2.5 * HOUR, kept=True),
    ]
    summary = summarize(attempts, on_demand_price=1.0)
    assert (summary.spot_seconds, summary.on_demand_seconds) == (2 * HOUR, 0.5 * HOUR)
    assert summary.lost_seconds == 1.5 * HOUR
    assert (summary.dollars, summary.on_demand_dollars) == pytest.approx((1.1, 1.0))
    assert summary.saved == pytest.approx(-0.1)
    assert summary.seconds == 2.5 * HOUR


def test_nothing_costs_nothing() -> None:
    """No attempts: zeros."""
    assert summarize([], 1.0) == CostSummary(
        spot_seconds=0, on_demand_seconds=0, lost_seconds=0, dollars=0, on_demand_dollars=0, saved=0
    )


def test_without_an_on_demand_price_nothing_is_said_of_savings() -> None:
    """An unknown price is not a price of zero, which would make every spot machine a waste."""
    summary = summarize([tried(SPOT, 0.3, 0.0, HOUR, kept=True)], None)
    assert (summary.on_demand_dollars, summary.saved) == (None, None)
    assert summary.dollars == pytest.approx(0.3)


def test_the_alternative_is_the_cheapest_priced_on_demand_pool() -> None:
    """Spot pools, and pools whose price nobody configured, are no alternative."""
    pools = [
        Pool("s", SPOT, price_per_hour=0.1),
        Pool("free", ON_DEMAND),
        Pool("a", ON_DEMAND, price_per_hour=3.0),
        Pool("b", ON_DEMAND, price_per_hour=2.0),
    ]
    assert on_demand_price(pools) == 2.0
    assert on_demand_price(pools[:2]) is None


times = st.floats(1, 1e6)


@st.composite
def attempts(draw: st.DrawFn) -> AttemptRecord:
    start, end = sorted((draw(times), draw(times)))
    checkpoint = draw(st.none() | times)
    return tried(
        draw(st.sampled_from([SPOT, ON_DEMAND])),
        draw(st.floats(0, 50)),
        start,
        end,
        checkpoint,
        draw(st.booleans()),
    )


@given(st.lists(attempts()), st.floats(0, 50))
def test_no_more_is_lost_than_was_billed(found: list[AttemptRecord], price: float) -> None:
    """Lost time lies within billed time, costs are never negative, and savings are what the two costs differ by."""
    summary = summarize(found, price)
    assert 0 <= summary.lost_seconds <= summary.seconds * (1 + 1e-12)
    assert summary.dollars >= 0
    assert summary.on_demand_dollars is not None
    assert summary.on_demand_dollars >= 0
    assert summary.saved == summary.on_demand_dollars - summary.dollars
    expected = (summary.seconds - summary.lost_seconds) * price / 3600
    assert summary.on_demand_dollars == pytest.approx(expected, abs=1e-3)


@given(st.lists(attempts()), st.randoms())
def test_the_order_of_attempts_does_not_matter(found: list[AttemptRecord], chance: Random) -> None:
    """Attempts added up in another order cost the same."""
    shuffled = list(found)
    chance.shuffle(shuffled)
    one, other = summarize(shuffled, 2.0), summarize(found, 2.0)
    for name in CostSummary.__struct_fields__:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-6)


@given(st.lists(attempts(), min_size=1))
def test_work_that_is_all_kept_on_demand_saves_nothing(found: list[AttemptRecord]) -> None:
    """On-demand at the on-demand price with nothing lost is the alternative itself."""
    kept = [tried(ON_DEMAND, 2.0, a.admitted_at, a.ended_at, kept=True) for a in found]
    assert summarize(kept, 2.0).saved == pytest.approx(0, abs=1e-6)
