"""What the tests of the simulator share: two pools with round prices, and worlds whose records can be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flyteish import Pool, Queue, Resources, RetryStrategy, SpotPolicy, Timeout
from flyteish._core import invariants
from flyteish._core.model.records import Action, RunRecord
from flyteish._core.model.settings import Settings
from flyteish.interfaces import Market
from flyteish.simulation import Scenario, ScriptedMarket, Workload
from flyteish.simulation.tally import Tally
from flyteish.simulation.world import EPOCH, VirtualWorld

SPOT_PRICE, ON_DEMAND_PRICE = 0.36, 3.6
"""$ per hour: $0.0001 and $0.001 a second."""


def pools(market: Market | None = None, startup: float = 0.0, capacity: int = 0) -> list[Pool]:
    return [
        Pool("spot", "spot", price_per_hour=SPOT_PRICE, market=market, startup=startup, capacity=capacity),
        Pool("on-demand", price_per_hour=ON_DEMAND_PRICE, startup=startup, capacity=capacity),
    ]


def spot(retries: int = 1, timeout: Timeout | None = None, queue: str = "default", **policy: Any) -> Settings:
    """Settings of an interruptible task."""
    return Settings(
        queue=queue, interruptible=SpotPolicy(**{"deadline_policy": "off", **policy}),
        retries=RetryStrategy(count=retries), timeout=timeout or Timeout(), resources=Resources(),
    )  # fmt: skip


class Seen(NamedTuple):
    """What a world left behind."""

    world: VirtualWorld
    runs: list[RunRecord]
    tally: Tally
    jobs: dict[tuple[str, str], tuple[float, int]]
    """By run and action: the work, and what says where its attempts fail."""

    @property
    def root(self) -> Action:
        """Of the only run."""
        (run,) = self.runs
        return run.root_action

    def spans(self, action: Action | None = None) -> list[tuple[str, float, float, str]]:
        """Medium, from, to (seconds from the world's beginning) and end of each attempt."""
        of = self.root if action is None else action
        return [
            (each.medium, each.admitted_at - EPOCH, each.ended_at - EPOCH, each.end.value if each.end else "-")
            for each in of.attempts
        ]


def simulated(
    workloads: Workload | Sequence[Workload],
    market: Market | Sequence[float | None] | None = None,
    *,
    grace: float = 10.0,
    startup: float = 0.0,
    capacity: int = 0,
    queues: Sequence[Queue] = (),
    policy: Any = None,
    seed: int = 0,
    horizon: float = 365 * 86400.0,
) -> Seen:
    """Run a world to its end, and check the core's invariants there. ``market``: or notices, attempt by attempt."""
    if isinstance(market, Sequence):
        market = ScriptedMarket(list(market), notice_seconds=grace)
    scenario = Scenario(workloads, pools(market, startup, capacity), queues, horizon=horizon)
    return played(scenario, policy, seed)


def played(scenario: Scenario, policy: Any = None, seed: int = 0) -> Seen:
    """One world of a scenario."""
    tally = Tally(ON_DEMAND_PRICE)
    world = scenario.world(policy, seed, tally)
    runs: list[RunRecord] = []
    counted = world._ended

    jobs: dict[tuple[str, str], tuple[float, int]] = {}

    def ended(run: RunRecord) -> None:
        jobs.update({(run.id, name): (job.work, job.chance) for name, job in world._jobs[run.id].items()})
        runs.append(run)
        counted(run)

    world._ended = ended
    world.run()
    tally.world_ended(world)
    invariants.check(world.state, world.now)
    return Seen(world, runs, tally, jobs)


def figures(report: Any) -> Mapping[str, Any]:
    """A report without what differs from one time to the next."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(report)
    del found["peak_megabytes"]
    for each in found["policies"]:
        del each["wall_seconds"]
    return found
