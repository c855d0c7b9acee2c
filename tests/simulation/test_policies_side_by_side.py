"""A scenario under several policies: the same work, failures and markets for each, and the same report every time."""

from __future__ import annotations

from typing import Any

import pytest

from flyteish import RetryStrategy, SpotPolicy, TaskEnvironment
from flyteish._core.model.settings import Settings
from flyteish.errors import ConfigurationError
from flyteish.simulation import (
    POLICIES,
    Calls,
    Exponential,
    LogNormal,
    Observed,
    RandomMarket,
    Report,
    Scenario,
    Workload,
    WorkModel,
)
from tests.simulation.worlds import figures, played, pools, spot

env = TaskEnvironment("simulated")


@env.task(interruptible=True, retries=2)
async def decorated() -> None:
    """Never run."""


def mixed(**changes: Any) -> Scenario:
    """Streams of random work with failures and children, on a market that is hard on them."""
    child = Workload(spot(retries=2), WorkModel(LogNormal(60), failure_rate=0.2), count=3, name="child")
    parent = WorkModel(LogNormal(300), failure_rate=0.1, children=(Calls((child,), at=100),))
    workloads = [
        Workload(spot(retries=3), parent, count=15, every=Exponential(200), name="parent"),
        Workload(decorated, WorkModel(Observed((100.0, 2000.0)), checkpoint_every=120, save_seconds=5), count=15),
    ]
    market = RandomMarket(seed=5, median_lifetime=600)
    return Scenario(workloads, pools(market, startup=30), **{"policies": ["as-written", "on-demand"], **changes})


def test_the_same_seed_gives_the_same_report() -> None:
    """To the bit; and another seed another one."""
    first, second = (mixed().simulate(seeds=2) for _ in range(2))
    assert figures(first) == figures(second)
    assert first.of("as-written").preemptions > 10
    other = mixed().simulate(seeds=[7])
    assert other.of("as-written").dollars != mixed().simulate(seeds=[8]).of("as-written").dollars


def test_a_policy_does_not_depend_on_those_beside_it() -> None:
    """Alone or in company, in whichever order."""
    together = mixed(policies=list(POLICIES)).simulate()
    for name in POLICIES:
        alone = mixed(policies=[name]).simulate()
        assert figures(alone)["policies"][0] == next(
            each for each in figures(together)["policies"] if each["policy"] == name
        )


def test_every_policy_meets_the_same_work_and_the_same_failures() -> None:
    """By action: how much there is to do, and what decides which of its attempts raise, and where."""
    jobs = [played(mixed(), POLICIES[name]).jobs for name in ("on-demand", "default", "first-preemption")]
    roots = [{key: job for key, job in each.items() if key[1] == "a0"} for each in jobs]
    assert roots[0] == roots[1] == roots[2]
    assert len({work for work, _ in roots[0].values()}) > 10
    for other in jobs[1:]:
        both = jobs[0].keys() & other.keys()
        assert len(both) > 60
        assert all(jobs[0][key] == other[key] for key in both)


def test_a_policy_changes_only_where_it_runs() -> None:
    """On-demand: no spot second, no preemption; spot at a tenth of the price: cheaper."""
    report = mixed().simulate(seeds=3)
    written, alone = report.of("as-written"), report.of("on-demand")
    assert (alone.spot_seconds, alone.preemptions) == (0, 0)
    assert written.dollars < alone.dollars
    assert written.runs == alone.runs == 90
    with pytest.raises(KeyError):
        report.of("default")


def test_own_policies_stand_beside_the_known_ones() -> None:
    """A ``SpotPolicy`` by a name of one's own, on-demand, and what the task says."""
    own = {"mine": SpotPolicy(preemptions_without_progress=1), "never": False, "said": None}
    report = mixed(policies=own).simulate()
    assert [each.policy for each in report.policies] == ["mine", "never", "said"]


def test_the_table_shows_what_happened() -> None:
    """One line for each policy, columns for what there is to say, and the optimum where somebody knows it."""
    scenario = Scenario(Workload(Settings(), WorkModel(3600)), pools(), policies=["as-written", "never-on-demand"])
    report = scenario.simulate()
    assert str(report).splitlines() == [
        "policy              cost  of on-demand  finish p50     p95  missed  preempted  lost  spot",
        "as-written         $3.60        100.0%      60 min  60 min       0          0   0 s    0%",
        "never-on-demand  $0.3600         10.0%      60 min  60 min       0          0   0 s  100%",
    ]
    known = Report(report.policies, report.seeds, optimum=0.36)
    assert str(known).splitlines()[-1] == "offline optimum  $0.3600"
    assert "attempts in" in report.speed
    assert report.peak_megabytes > 1


def test_refusals_and_failures_get_columns_of_their_own() -> None:
    """Only where there are any."""
    from flyteish import Queue

    failing = Workload(Settings(retries=RetryStrategy(count=0)), WorkModel(10, failure_rate=1), count=3)
    table = str(Scenario(failing, pools(), [Queue("default", depth=2)]).simulate())
    head, row = (line.split("  ") for line in table.splitlines())
    assert {"failed", "refused"} <= {cell.strip() for cell in head}
    assert "2" in {cell.strip() for cell in row}
    assert "1" in {cell.strip() for cell in row}


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: WorkModel(-1), "WorkModel: work=-1 is not accepted: expected seconds >= 0"),
        (lambda: WorkModel(1, failure_rate=2), "failure_rate=2"),
        (lambda: WorkModel(1, fails_at=(-1,)), "fails_at=-1"),
        (lambda: WorkModel(1, children=(3,)), "children="),  # type: ignore[arg-type]
        (lambda: WorkModel(1, checkpoint_every=0), "checkpoint_every=0"),
        (lambda: Calls((1,)), "Calls: workloads="),  # type: ignore[arg-type]
        (lambda: Calls((), at=-1), "Calls: at=-1"),
        (lambda: Workload(Settings(), WorkModel(1), count=0), "Workload: count=0"),
        (lambda: Workload(Settings(), WorkModel(1), every=-1), "Workload: every=-1"),
        (lambda: Workload(print, WorkModel(1)), "Workload: task="),
        (lambda: Scenario([], pools()), r"Scenario: workloads=\[\]"),
        (lambda: Scenario(Workload(Settings(), WorkModel(1)), []), r"Scenario: pools=\[\]"),
        (lambda: mixed(markets={"sopt": RandomMarket()}), r"Scenario: markets=\['sopt'\]"),
        (lambda: mixed(policies=["nope"]), "policy 'nope' is not accepted: expected one of as-written"),
        (lambda: mixed().simulate(seeds=0), "simulate: seeds=0"),
        (lambda: Observed(()), r"Observed: values=\(\)"),
        (lambda: LogNormal(0), "LogNormal: median=0"),
    ],
)
def test_a_wrong_parameter_is_named(make: Any, complaint: str) -> None:
    """Whose it is, its name, its value, and what would be accepted."""
    with pytest.raises(ConfigurationError, match=complaint):
        make()


def test_a_scenario_can_be_changed() -> None:
    """Other policies, prices and markets; what is not named stays."""
    scenario = mixed()
    changed = scenario.changed(policies=["default"], pools=pools(), markets={"spot": RandomMarket(seed=1)})
    assert (list(changed.policies), changed.workloads) == (["default"], scenario.workloads)
    assert changed.markets["spot"] is not scenario.markets["spot"]
    assert scenario.changed().markets == scenario.markets
