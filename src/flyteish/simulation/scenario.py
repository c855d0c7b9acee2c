"""A scenario: workloads over queues and pools, simulated under several policies side by side.

Every policy meets the same markets, arrivals, work and failures. Must not know how a report is shown, nor where a
scenario comes from.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from flyteish._core.billing.cost_summary import on_demand_price
from flyteish._core.model.policies import DEADLINE_POLICIES, SpotPolicy
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.settings import Scope, Settings
from flyteish._core.rules.experience import Experience
from flyteish._core.wording import not_accepted
from flyteish.errors import ConfigurationError
from flyteish.interfaces import Market
from flyteish.simulation.figures import PolicyReport, report_of
from flyteish.simulation.report import Report
from flyteish.simulation.tally import Tally
from flyteish.simulation.workload import Workload
from flyteish.simulation.world import VirtualWorld
from flyteish.simulation.yardstick import offline_optimum

AS_WRITTEN: Final = "as-written"
PolicyChoice = SpotPolicy | bool | str | None
"""``None``: what the task says; ``False``: on-demand; ``True``: spot by the default rules; a ``SpotPolicy``; or a
deadline policy by name, which takes the place of the one in the task's own ``SpotPolicy``."""

POLICIES: Final[dict[str, PolicyChoice]] = {
    AS_WRITTEN: None,
    "on-demand": False,
    "default": SpotPolicy(deadline_policy="off"),
    "first-preemption": SpotPolicy(fallback="first-preemption", deadline_policy="off"),
    "single-budget": SpotPolicy(budget="single", deadline_policy="off"),
    "never-on-demand": SpotPolicy(fallback="never", deadline_policy="off"),
    **{name: name for name in DEADLINE_POLICIES if name != "off"},
}
"""By the names that ``flyteish simulate --policy`` knows."""


class Scenario:
    """What is to be simulated.

    Args:
        workloads: what comes, and when.
        pools: all pools; ``market`` of each says who reclaims, ``startup`` how long a start takes.
        queues: all queues. Default: ``default``, feeding all pools, spot first.
        policies: by name, or names from ``POLICIES``. Default: what the tasks say.
        markets: by pool name, in place of the pools' own.
        experience: what was learned of tasks before. Default: nothing.
        horizon: seconds after which what has not ended is left unfinished. Default: a year.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    def __init__(
        self,
        workloads: Sequence[Workload] | Workload,
        pools: Sequence[Pool],
        queues: Sequence[Queue] = (),
        *,
        policies: Mapping[str, PolicyChoice] | Sequence[str] = (AS_WRITTEN,),
        markets: Mapping[str, Market] | None = None,
        experience: Experience | None = None,
        horizon: float = 365 * 86400.0,
    ) -> None:
        self.workloads = (workloads,) if isinstance(workloads, Workload) else tuple(workloads)
        if not self.workloads or not all(isinstance(workload, Workload) for workload in self.workloads):
            raise ConfigurationError(
                f"Scenario: workloads={workloads!r} is not accepted: expected Workload(...) objects"
            )
        self.pools = tuple(pools)
        if not self.pools or not all(isinstance(pool, Pool) for pool in self.pools):
            raise not_accepted("Scenario: pools", pools, "Pool(...) objects")
        by_preference = sorted(self.pools, key=lambda pool: pool.medium != "spot")
        self.queues = tuple(queues) or (Queue("default", pools=tuple(pool.name for pool in by_preference)),)
        self.policies = _policies(policies)
        names = {pool.name for pool in self.pools}
        if strangers := sorted(set(markets or ()) - names):
            raise not_accepted("Scenario: markets", strangers, f"names of pools: {', '.join(sorted(names))}")
        self.markets = {pool.name: pool.market for pool in self.pools if pool.market is not None} | dict(markets or {})
        self.experience = experience
        self.horizon = horizon

    def simulate(self, *, seeds: int | Sequence[int] = 1) -> Report:
        """Run it under every policy, once for each seed (a number: 0, 1, ...), and report.

        Raises:
            ConfigurationError, UnknownQueueError: a queue can never take the work.
        """
        numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        if not numbers or isinstance(seeds, bool) or not all(isinstance(number, int) for number in numbers):
            raise ConfigurationError(
                f"simulate: seeds={seeds!r} is not accepted: expected an int >= 1, or several ints"
            )
        reports = [self._under(name, choice, numbers) for name, choice in self.policies.items()]
        return Report(tuple(reports), numbers, self._optimum(numbers), _peak_megabytes())

    def _optimum(self, seeds: Sequence[int]) -> float | None:
        """What the best schedules cost together; None where one of them is not known."""
        total = 0.0
        said = _chooser(None)(self.workloads[0])
        for seed in seeds:
            markets = {name: _seeded(market, seed) for name, market in self.markets.items()}
            best = offline_optimum(self.workloads, said, self.pools, markets)
            if best is None:
                return None
            total += best
        return total

    def changed(
        self,
        *,
        policies: Mapping[str, PolicyChoice] | Sequence[str] | None = None,
        markets: Mapping[str, Market] | None = None,
        pools: Sequence[Pool] | None = None,
    ) -> Scenario:
        """The same under other policies, with other pools of the same names, or with other markets for some of them.

        Raises:
            ConfigurationError: as the constructor's.
        """
        return Scenario(
            self.workloads, self.pools if pools is None else pools, self.queues,
            policies=self.policies if policies is None else policies, markets={**self.markets, **(markets or {})},
            experience=self.experience, horizon=self.horizon,
        )  # fmt: skip

    def _under(self, name: str, choice: PolicyChoice, seeds: Sequence[int]) -> PolicyReport:
        price = on_demand_price(self.pools)
        began = time.perf_counter()
        tally = Tally(price)
        attempts = events = 0
        for seed in seeds:
            world = self.world(choice, seed, tally)
            with _rare_collections():
                world.run()
            tally.world_ended(world)
            attempts, events = attempts + world.attempts, events + world.events
        wall = time.perf_counter() - began
        return report_of(name, tally, attempts=attempts, events=events, wall_seconds=wall)

    def world(self, choice: PolicyChoice, seed: int, tally: Tally) -> VirtualWorld:
        """A world with the workloads in it, ready to run."""
        experience = (
            None
            if self.experience is None
            else msgspec.msgpack.decode(msgspec.msgpack.encode(self.experience), type=Experience)
        )
        tally.timeline_begins()
        markets = {name: _seeded(market, seed) for name, market in self.markets.items()}
        # Recorded prices go with the recorded capacity, wherever in the recording a round begins.
        pools = [
            msgspec.structs.replace(pool, market=markets[pool.name]) if pool.price_per_hour == "market" else pool
            for pool in self.pools
        ]
        world = VirtualWorld(
            self.queues, pools, markets,
            seed=seed, settings=_chooser(choice), ended=tally.run_ended, sampled=tally.sample,
            experience=experience, horizon=self.horizon,
        )  # fmt: skip
        for workload in self.workloads:
            world.add(workload)
        return world

    def __repr__(self) -> str:
        return f"Scenario({len(self.workloads)} workloads, pools={[pool.name for pool in self.pools]})"


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A world makes a million long-lived objects and no cycles to speak of: going through them again finds nothing."""
    before = gc.get_threshold()
    if before[0]:  # 0: somebody has switched it off
        gc.set_threshold(max(before[0], 100_000), before[1], before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _peak_megabytes() -> float:
    """The most memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _seeded(market: Market, seed: int) -> Market:
    """Another seed is another market, where the market can be drawn anew."""
    reseed: Any = getattr(market, "reseeded", None)
    return market if reseed is None or not seed else reseed(seed)


def _policies(given: Mapping[str, PolicyChoice] | Sequence[str]) -> dict[str, PolicyChoice]:
    if isinstance(given, str):
        given = (given,)
    chosen: dict[str, PolicyChoice] = {}
    for name in given:
        choice = given[name] if isinstance(given, Mapping) else POLICIES.get(name, "unknown")
        known = choice in DEADLINE_POLICIES if isinstance(choice, str) else isinstance(choice, SpotPolicy | bool)
        if not known and choice is not None:
            raise ConfigurationError(
                f"policy {name!r} is not accepted: expected one of {', '.join(POLICIES)}, or a SpotPolicy by name"
            )
        chosen[name] = choice
    return chosen


def _chooser(choice: PolicyChoice) -> Callable[[Workload], Settings]:
    def settings(workload: Workload) -> Settings:
        task: Any = workload.task
        said: Settings = task if isinstance(task, Settings) else task.settings(Scope())
        if choice is None:
            return said
        if choice is False:
            return msgspec.structs.replace(said, interruptible=None)
        if isinstance(choice, str):
            policy = msgspec.structs.replace(said.interruptible or SpotPolicy(), deadline_policy=choice)
        else:
            policy = SpotPolicy() if choice is True else choice
        if policy.work is None:
            policy = msgspec.structs.replace(policy, work=_work(said, workload))
        return msgspec.structs.replace(said, interruptible=policy)

    return settings


def _work(said: Settings, workload: Workload) -> float | None:
    """The author's estimate, else what the model says, where that is one number."""
    if said.interruptible is not None and said.interruptible.work is not None:
        return float(said.interruptible.work)  # type: ignore[arg-type]
    work: Any = workload.model.work
    return work if isinstance(work, float) else None
