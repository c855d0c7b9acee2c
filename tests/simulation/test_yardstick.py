"""The offline optimum beside a report: by hand on a small recording, never above a policy that keeps the deadline."""

from __future__ import annotations

import pytest

from flyteish import Pool, Timeout
from flyteish.markets.traces import Trace
from flyteish.simulation import Scenario, TraceMarket, Workload, WorkModel
from tests.simulation.worlds import pools, spot

UP_DOWN = Trace(name="made", gap_seconds=100.0, data=(1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0))


def scenario(deadline: float | None, work: float = 300, notice: float = 0.0, failure_rate: float = 0.0) -> Scenario:
    settings = spot(
        retries=9, timeout=Timeout(deadline=deadline), work=work, deadline_policy="uniform-progress",
        preemptions_without_progress=99,
    )  # fmt: skip
    market = TraceMarket(UP_DOWN, notice_seconds=notice)
    workload = Workload(settings, WorkModel(work, checkpoint_every=10, failure_rate=failure_rate))
    return Scenario(workload, pools(market, startup=10), policies=["as-written", "on-demand"])


def test_the_optimum_of_a_small_market_is_that_by_hand() -> None:
    """200 s and 100 s of spot with a start-up of 10 s each make 280 s of work; 20 s and a start-up are on-demand."""
    report = scenario(deadline=500).simulate()
    assert report.optimum == pytest.approx(0.0001 * 300 + 0.001 * 30)
    assert str(report).splitlines()[-1].split() == ["offline", "optimum", "$0.0600"]


def test_a_notice_lengthens_what_can_be_used() -> None:
    """With 15 s of notice after each stretch the work is all done on spot: 205 + 105 s, less what is not needed."""
    assert scenario(deadline=520, notice=15).simulate().optimum == pytest.approx(0.0001 * 320)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("deadline", [400, 600, 900])
def test_no_policy_in_time_is_cheaper(deadline: float, seed: int) -> None:
    """Wherever in the recording the job begins."""
    report = scenario(deadline=deadline, notice=5).simulate(seeds=[seed])
    assert report.optimum is not None
    for policy in report.policies:
        if not policy.missed:
            assert policy.dollars >= report.optimum - 1e-9


def test_where_it_is_not_known_there_is_none() -> None:
    """No deadline, failures, children, several jobs, unequal start-ups."""
    assert scenario(deadline=None).simulate().optimum is None
    assert scenario(deadline=900, failure_rate=0.1).simulate().optimum is None
    known = scenario(deadline=900)
    uneven = [known.pools[0], Pool("on-demand", price_per_hour=3.6, startup=99)]
    assert known.changed(pools=uneven).simulate().optimum is None
    assert Scenario([*known.workloads, *known.workloads], known.pools).simulate().optimum is None
