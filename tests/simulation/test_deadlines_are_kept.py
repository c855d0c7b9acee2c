"""The promise of the deadline rule, over random worlds: what on-demand alone would keep is kept, whatever spot does."""

from __future__ import annotations

import math
from random import Random

import pytest

from flyteish import Pool, Resources, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.settings import Settings
from flyteish.simulation import Scenario, ScriptedMarket, Workload, WorkModel
from tests.simulation.worlds import Seen, played

STRETCHES = 300
MOST_EVENTS = 5000
"""Of one job: looking again may not become a storm."""


def market(random: Random, typical: float, grace: float) -> ScriptedMarket:
    """Machines that live about as long as spot can be had at a stretch: one coin of the world's."""
    lives = [None if random.random() < 0.1 else random.expovariate(1 / typical) for _ in range(STRETCHES)]
    up, at = random.random() < 0.7, 0.0
    capacity = [(at, None if up else 0)]
    for _ in range(STRETCHES):
        at += random.expovariate(1 / typical) if random.random() < 0.9 else 10 * typical
        up = not up
        capacity.append((at, None if up else 0))
    return ScriptedMarket(lives, capacity, notice_seconds=grace)


def one_job(seed: int) -> Seen:
    """A job of any length, with any change-over, grace and habit of saving, and just enough time or more."""
    random = Random(seed)
    on_spot = random.choice([0.0, 1.0, 60.0, 180.0, random.uniform(0, 900)])
    on_demand = random.choice([on_spot, random.uniform(0, 900)])
    work = random.choice([600.0, 3600.0, random.uniform(60, 40 * 3600)])
    every = random.choice([None, None, 60.0, 600.0, 3600.0, random.uniform(5, work)])
    save = random.choice([0.0, 0.0, 5.0, 60.0, 300.0])
    if every is not None:
        every = max(every, work / 400)
        save = min(save, every)
    total = work + (save * math.ceil(work / every) if every is not None else 0.0)
    grace, d = random.choice([0.0, 5.0, 30.0, 120.0, 600.0]), max(on_spot, on_demand)
    more = [0.0, 1.0, d, 2 * d, 2 * d + grace, random.uniform(0, total), random.uniform(0, 3 * total)]
    policy = SpotPolicy(
        work=total,
        deadline_policy=random.choice(["slack-budget", "uniform-progress"]),
        preemptions_without_progress=random.choice([1, 3, 1000]),
    )
    settings = Settings(
        interruptible=policy,
        retries=RetryStrategy(count=1),
        timeout=Timeout(deadline=total + d + 0.01 + random.choice(more)),
        resources=Resources(),
    )
    model = WorkModel(
        work, checkpoint_every=every, save_seconds=save, on_notice=random.choice(["save", "ignore"]),
    )  # fmt: skip
    typical = random.choice([30.0, 600.0, 3600.0, total / 2 + 1, total * 2])
    spot = Pool("spot", "spot", market=market(random, typical, grace), startup=on_spot, grace=grace)
    return played(Scenario([Workload(settings, model)], [spot, Pool("od", startup=on_demand, grace=grace)]))


@pytest.mark.parametrize(
    "seeds", [range(first, first + 75) for first in range(0, 600, 75)], ids=lambda r: f"from-{r[0]}"
)
def test_a_deadline_that_on_demand_alone_would_keep_is_kept(seeds: range) -> None:
    """Not even a hundredth of a second to spare is needed; nor is anybody looked at, or moved, without end."""
    for seed in seeds:
        seen = one_job(seed)
        assert seen.root.phase == "succeeded", f"seed {seed}: {seen.spans()}"
        assert seen.world.events < MOST_EVENTS, f"seed {seed}"


def test_work_that_saves_only_when_told_to_go_is_not_told_so_for_ever() -> None:
    """Each move off spot for safety asks for twice the time in hand that the one before did."""
    spot = Pool("spot", "spot", startup=0.0, grace=30.0)
    settings = Settings(
        interruptible=SpotPolicy(work=3600), retries=RetryStrategy(count=1), timeout=Timeout(deadline=3700),
        resources=Resources(),
    )  # fmt: skip
    model = WorkModel(3600, checkpoint_every=7200, on_notice="save")
    seen = played(Scenario([Workload(settings, model)], [spot, Pool("od", startup=0.0, grace=30.0)]))
    assert [(medium, end) for medium, _, _, end in seen.spans()] == [("spot", "moved"), ("on-demand", "succeeded")]


def test_the_change_over_counts_restoring_in_the_simulator_too() -> None:
    """The first checkpoint after a restore tells how long that took, as a real attempt's does."""
    model = WorkModel(1000, checkpoint_every=100, restore_seconds=40)
    settings = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(count=1))
    spot = Pool("spot", "spot", market=ScriptedMarket([250.0], notice_seconds=0.0), startup=0.0, grace=0.0)
    seen = played(Scenario([Workload(settings, model, name="t")], [spot, Pool("od", startup=0.0)]))
    assert seen.world.state.experience.tasks["t"].restores == [40.0]
    assert seen.root.kept == pytest.approx(1000.0, abs=101.0), "run time kept is work, without the restore"
