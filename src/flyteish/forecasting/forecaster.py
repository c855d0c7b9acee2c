"""Makes a forecast: the task's workload over the session's queues and pools, simulated again and again.

The markets are the pools' own where they have one, else drawn with the lifetimes that were seen, or assumed. Bounded
in time. Must not know where what was learned is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from flyteish._core.billing.cost_summary import on_demand_price
from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import RunRecord
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings
from flyteish._core.rules.experience import Experience
from flyteish._core.wording import span
from flyteish._learning.documents import Learned
from flyteish._learning.forecasts import Forecast, ForecastOptions, Percentiles, settings_digest
from flyteish._learning.machine_lifetimes import SPOT_LIFETIME
from flyteish.errors import ConfigurationError, UnknownQueueError
from flyteish.forecasting.models import Modeller
from flyteish.interfaces import Market
from flyteish.markets.market import RandomMarket, ScriptedMarket, TraceMarket
from flyteish.simulation.scenario import Scenario
from flyteish.simulation.tally import Tally
from flyteish.simulation.workload import Workload
from flyteish.simulation.world import VirtualWorld

SECONDS: Final = 1.2
"""No round is begun after so long, once there were a few; a third of it more goes to the alternative."""
ROUNDS_AT_LEAST: Final = 3
ROUNDS_AT_MOST: Final = 10_000
SEEDS: Final = 100_000
"""Between the seeds of two forecasts."""
HORIZON: Final = 30 * 86400.0
MEAN_TO_MEDIAN: Final = 1 / (1 / 6 + 5 / 6 * math.exp(0.5))
"""Of the lifetimes that ``RandomMarket`` draws by default."""
OTHERS: Final = "(others)"


class Basis(NamedTuple):
    """What there is."""

    queues: Sequence[Queue]
    pools: Sequence[Pool]
    learned: Learned
    ahead: Mapping[str, int]
    """Actions in each queue now."""
    max_workers: int
    """Attempts at once in a pool of worker processes without a capacity."""
    now: float


def forecast(task: str, settings: Settings, basis: Basis, options: ForecastOptions) -> Forecast:
    """Simulate it, and count.

    Args:
        task: its name. settings: as resolved for the run.
        basis: queues, pools, and what was learned of them and of the task.
        options: as ``task.forecast`` takes them.

    Raises:
        ConfigurationError: nothing is known of the task's work, or a parameter is not accepted.
        UnknownQueueError: its queue is not there.
    """
    count = _whole("count", options.get("count", 1), 1, 100_000)
    rounds = _whole("rounds", options.get("rounds", 200), 1, ROUNDS_AT_MOST)
    seed = _whole("seed", options.get("seed", 0), 0, 2**31)
    modeller = Modeller(basis.learned, options.get("work"), _every(options.get("checkpoint_every")))
    workload = modeller.root(task, settings, count)
    setting = _Setting(basis, modeller, settings)
    given = options.get("ahead")
    ahead = basis.ahead.get(settings.queue, 0) if given is None else _whole("ahead", given, 0, 100_000)
    workloads = [workload]
    if ahead and setting.is_limited:
        workloads.insert(0, Workload(settings, workload.model, count=ahead, name=OTHERS))
        setting.assumed.append(f"the {ahead} others in the queue are like this one")
    experience = Experience({name: seen for name, seen in basis.learned.tasks.items() if name in modeller.tasks})
    scenario = Scenario(
        workloads, setting.pools, basis.queues, markets=setting.markets, experience=experience, horizon=HORIZON
    )
    first = 1 + seed * SEEDS
    found = _simulate(scenario, None, task, range(first, first + rounds), SECONDS)
    plain = (
        _simulate(scenario, False, task, range(first, first + min(rounds, 50)), SECONDS / 3) if setting.fallback else []
    )
    priced = any(pool.price_per_hour for pool in setting.pools)
    finishes = [each.finish for each in plain if each.finish is not None]
    machine = sum(each.spot + each.on_demand for each in found)
    limit: Any = settings.timeout.deadline
    return Forecast(
        task=task,
        queue=settings.queue,
        digest=settings_digest(settings),
        made_at=basis.now,
        count=count,
        rounds=len(found),
        finish=Percentiles.of(each.finish for each in found if each.finish is not None),
        dollars=Percentiles.of(each.dollars for each in found) if priced else None,
        on_demand_seconds=median(finishes) if finishes else None,
        on_demand_dollars=_mean(each.dollars for each in plain) if finishes and setting.price else None,
        preemptions=_mean(each.preemptions for each in found),
        lost_seconds=_mean(each.lost for each in found),
        spot_share=sum(each.spot for each in found) / machine if machine else 0.0,
        deadline=None if limit is None else float(limit),
        misses=_mean(each.missed for each in found),
        fails=_mean(each.failed for each in found),
        based_on=(*modeller.based_on, *setting.based_on),
        assumed=(*modeller.assumed, *setting.assumed),
    )


# -- queues, pools and markets ---------------------------------------------------------------------------------------


class _Setting:
    """Pools and markets as they are to be simulated, and the words for them."""

    def __init__(self, basis: Basis, modeller: Modeller, settings: Settings) -> None:
        self.based_on: list[str] = []
        self.assumed: list[str] = []
        self._learned = basis.learned
        self._engines = {pool.name: pool.engine for pool in basis.pools}
        queues = {queue.name: queue for queue in basis.queues}
        used = [self._queue(queues, each) for each in {each.queue: None for each in modeller.settings}]
        fed = [pool for pool in basis.pools if any(not q.pools or pool.name in q.pools for q in used)]
        own = queues[settings.queue]
        its = [pool for pool in fed if not own.pools or pool.name in own.pools]
        self.fallback = any(pool.medium == ON_DEMAND for pool in its)
        self.price = on_demand_price(its)
        self.is_limited = _limits(own) or all(pool.capacity or pool.resources != Resources() for pool in its)
        on_spot = any(each.interruptible is not None for each in modeller.settings)
        self.markets: dict[str, Market] = {}
        for pool in fed:
            if pool.medium == SPOT and on_spot:
                self.markets[pool.name] = self._market(pool)
        self.pools = [self._pool(pool, pool in fed, modeller.tasks, basis.max_workers) for pool in basis.pools]

    @staticmethod
    def _queue(queues: Mapping[str, Queue], name: str) -> Queue:
        if name not in queues:
            raise UnknownQueueError(f"there is no queue {name!r}; known queues are {', '.join(queues)}")
        return queues[name]

    def _pool(self, pool: Pool, fed: bool, tasks: Iterable[str], max_workers: int) -> Pool:
        names = [pool.name], [each for each, engine in self._engines.items() if engine == pool.engine]
        some = [[s for t in tasks for name in each for s in _starts(self._learned, t).get(name, ())] for each in names]
        starts = some[0] or some[1]  # there, else in another pool of the same engine
        capacity = pool.capacity or (max_workers if pool.engine == "processes" else 0)
        # The core's own estimate comes from the same figures; a pool's assumption stands where there are none.
        startup = median(starts) if starts else pool.assumed_startup
        if fed and not starts and pool.startup is None and startup >= 10.0:
            self.assumed.append(f"{span(startup)} to start in pool {pool.name}: no start was seen there")
        return msgspec.structs.replace(pool, startup=startup, capacity=capacity)

    def _market(self, pool: Pool) -> Market:
        if pool.market is not None:
            self.based_on.append(_market_words(pool))
            market: Market = pool.market
            return market
        seen = self._learned.pools.get(pool.name)
        if seen is not None and seen.reclaims:
            lifetime = seen.seconds / seen.reclaims
            self.based_on.append(
                f"{seen.reclaims} reclaims in {span(seen.seconds)} of machine time in pool {pool.name}"
            )
            return RandomMarket(median_lifetime=lifetime * MEAN_TO_MEDIAN, notice_seconds=pool.grace)
        lasting = max(SPOT_LIFETIME, seen.seconds if seen is not None else 0.0)
        self.assumed.append(f"half of the machines of pool {pool.name} last {span(lasting)}: none was seen reclaimed")
        return RandomMarket(median_lifetime=lasting, notice_seconds=pool.grace)


def _market_words(pool: Pool) -> str:
    if isinstance(pool.market, TraceMarket):
        return f"the recorded market {pool.market.trace.name} of pool {pool.name}"
    kinds = {RandomMarket: "seeded", ScriptedMarket: "scripted"}
    kind = kinds.get(type(pool.market))
    return f"the {kind} market of pool {pool.name}" if kind else f"the market of pool {pool.name}"


def _limits(queue: Queue) -> bool:
    limits = (queue.action_concurrency, queue.run_concurrency, queue.spend_limit)
    return any(limits) or queue.max_resources != Resources()


def _starts(learned: Learned, task: str) -> dict[str, list[float]]:
    seen = learned.tasks.get(task)
    return seen.starts if seen is not None else {}


# -- simulating ------------------------------------------------------------------------------------------------------


class _Round(NamedTuple):
    """What came of one."""

    finish: float | None
    """Seconds until the last run ended; None where not all succeeded."""
    dollars: float
    preemptions: int
    lost: float
    spot: float
    on_demand: float
    missed: bool
    failed: bool
    """Without a deadline having ended it."""


class _Own(Tally):
    """Counts the runs of the task only, and draws no timeline."""

    def __init__(self, task: str) -> None:
        super().__init__(None)
        self._task = task

    def run_ended(self, run: RunRecord) -> None:
        if run.task == self._task:
            super().run_ended(run)

    def sample(self, world: VirtualWorld, until: float) -> None:
        world.sample_at = math.inf


def _simulate(scenario: Scenario, choice: bool | None, task: str, seeds: range, seconds: float) -> list[_Round]:
    """Round after round, until time is up."""
    clock: Callable[[], float] = time.perf_counter
    until = clock() + seconds
    count = scenario.workloads[-1].count
    least = ROUNDS_AT_LEAST if choice is None else 1
    found: list[_Round] = []
    for seed in seeds:
        if len(found) >= least and clock() > until:
            break
        tally = _Own(task)
        scenario.world(choice, seed, tally).run()
        succeeded = tally.succeeded == count
        missed = not succeeded and tally.missed > 0
        found.append(
            _Round(
                max(tally.seconds) if succeeded else None, sum(tally.dollars), tally.preemptions, tally.lost_seconds,
                tally.spot_seconds, tally.on_demand_seconds, missed, not succeeded and not missed,
            )
        )  # fmt: skip
    return found


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every) if every else 0.0


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(f"forecast: {name}={value!r} is not accepted: expected an int from {least} to {most}")
    return value


def _every(value: object) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"forecast: checkpoint_every={value!r} is not accepted: expected seconds > 0")
    return float(value)
