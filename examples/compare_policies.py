"""A job of 48 hours and its deadline: what each policy would cost on a spot market, and whether it comes in time.

    python examples/compare_policies.py [TRACE.json]

TRACE is a recording, ``{"metadata": {"gap_seconds": G}, "data": [machines at tick 0, 1, ...]}``. Without one the market
is made up from a seed: capacity comes for eight hours and goes for four, on average.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import flyteish
from flyteish import Pool, SpotPolicy, Timeout
from flyteish.interfaces import Market
from flyteish.simulation import Outages, RandomMarket, Scenario, TraceMarket, Workload, WorkModel

WORK = timedelta(hours=48)
CHANGE_OVER = timedelta(minutes=12).total_seconds()
ROUNDS = 20
env = flyteish.TaskEnvironment("compare")


# Some recordings take machines away while they still start. That is for the deadline policies to bear, and not for the
# trip-wire, which would send the rest of the job on-demand.
@env.task(interruptible=SpotPolicy(work=WORK, preemptions_without_progress=100), retries=3)
async def train() -> None:
    """What it would do is the model's to say; a simulation does not run it."""


def market(arguments: list[str]) -> Market:
    if arguments:
        return TraceMarket(arguments[0])
    outages = Outages(mean_up=8 * 3600.0, mean_down=4 * 3600.0)
    return RandomMarket(seed=1, median_lifetime=7200, outages=outages)


def scenario(deadline: timedelta, spot: Market) -> Scenario:
    pools = [
        Pool("spot", "spot", price_per_hour=0.918, startup=CHANGE_OVER, market=spot),
        Pool("on-demand", price_per_hour=3.06, startup=CHANGE_OVER),
    ]
    model = WorkModel(WORK, checkpoint_every=timedelta(minutes=10), save_seconds=15)
    job = train.override(timeout=Timeout(deadline=deadline))
    return Scenario(Workload(job, model), pools, policies=["slack-budget", "uniform-progress", "default", "on-demand"])


def main(arguments: list[str]) -> None:
    spot = market(arguments)
    for hours in (52, 70):
        report = scenario(timedelta(hours=hours), spot).simulate(seeds=ROUNDS)
        print(f"48 h of work, deadline {hours} h, {ROUNDS} rounds on {spot!r}")
        print(report, end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
