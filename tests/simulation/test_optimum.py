"""The offline optimum: the same as every schedule tried, a schedule that can be had, and never beaten."""

from __future__ import annotations

import random
from functools import cache

import pytest

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish.simulation.optimum import MachineUse, Optimum, optimum
from tests.benchmarks.deadline_policies import ALL_POLICIES, CHANGEOVERS, DEADLINES, HOUR, WORK, Job, compare, recorded

Stretches = list[tuple[float, float]]


def best_of_all(free: list[bool], work: int, d: int, price: float) -> float:
    """Second by second, everything that could be done."""

    @cache
    def least(second: int, done: int, on: str, changing: int) -> float:
        if done == work:
            return 0.0
        if second == len(free):
            return float("inf")
        best = least(second + 1, done, "", 0)
        for medium, paid in ((SPOT, price), (ON_DEMAND, 1.0)):
            if medium == SPOT and not free[second]:
                continue
            wait = changing if medium == on else d
            after = (done, medium, wait - 1) if wait else (done + 1, medium, 0)
            best = min(best, paid + least(second + 1, *after))
        return best

    return least(0, 0, "", 0)


def check(found: Optimum, stretches: Stretches, work: float, budget: float, d: float, price: float) -> None:
    """The schedule is one that can be had, does the work, and costs what is said."""
    moment = done = cost = 0.0
    for medium, start, end in found.schedule:
        assert moment - 1e-6 <= start < end <= budget + 1e-6
        assert medium == ON_DEMAND or any(a - 1e-6 <= start and end <= b + 1e-6 for a, b in stretches)
        moment, done = end, done + end - start - d
        cost += (end - start) * (price if medium == SPOT else 1.0)
    assert done == pytest.approx(work, abs=1e-3)
    assert cost == pytest.approx(found.cost, abs=1e-6)


def test_it_is_the_least_of_all_schedules() -> None:
    """On small random markets it costs as much as the cheapest of all schedules, tried second by second."""
    rng = random.Random(5)
    for _ in range(1500):
        seconds, d = rng.randint(4, 30), rng.randint(0, 4)
        work, price = rng.randint(1, max(1, seconds - d)), rng.choice([0.0, 0.2, 0.3, 0.5, 0.9, 1.0])
        goes, comes, up = rng.random() / 2, rng.random() / 2, rng.random() < 0.5
        free, stretches = list[bool](), list[tuple[float, float]]()
        for second in range(seconds):
            if up:
                joined = bool(free) and free[-1]
                begin = stretches.pop()[0] if joined else float(second)
                stretches.append((begin, second + 1.0))
            free.append(up)
            up = up != (rng.random() < (goes if up else comes))
        found = optimum(stretches, work=work, budget=seconds, changeover=d, price=price)
        least = best_of_all(free, work, d, price)
        if found is None:
            assert least == float("inf")
        else:
            assert found.cost == pytest.approx(least, abs=1e-6), (stretches, work, seconds, d, price)
            check(found, stretches, work, seconds, d, price)


def test_schedules_worth_reading() -> None:
    """Spot as a whole, on-demand through an outage, idle where there is time, and no deadline that cannot be kept."""
    spot = [(0, 100), (0, 40), (60, 100)]
    only_spot = optimum(spot[:1], work=50, budget=100, changeover=10, price=0.5)
    assert only_spot == Optimum(30, (MachineUse(SPOT, 0, 60),))
    bridged = optimum(spot[1:], work=70, budget=100, changeover=10, price=0.5)
    assert bridged == Optimum(60, (MachineUse(SPOT, 0, 40), MachineUse(ON_DEMAND, 40, 60), MachineUse(SPOT, 60, 100)))
    through = optimum([(20, 30)], work=70, budget=85, changeover=8, price=0.5)
    assert through == Optimum(78, (MachineUse(ON_DEMAND, 0, 78),))
    assert optimum([(0, 100)], work=91, budget=100, changeover=10, price=0.5) is None
    assert optimum([], work=90, budget=100, changeover=10, price=0.5) == Optimum(100, (MachineUse(ON_DEMAND, 0, 100),))


def test_no_policy_beats_it() -> None:
    """On random markets no policy is cheaper, and on-demand alone is not either."""
    rng = random.Random(2)
    for _ in range(25):
        moment, market = 0.0, list[tuple[float, float]]()
        up, down = rng.uniform(0.3, 6) * HOUR, rng.uniform(0.3, 6) * HOUR
        while moment < 70 * HOUR:
            begin = moment + rng.expovariate(1 / down)
            moment = begin + rng.expovariate(1 / up)
            market.append((begin, moment))
        for budget in DEADLINES:
            for d in CHANGEOVERS:
                found = optimum(market, work=WORK, budget=budget, changeover=d, price=0.3)
                assert found is not None
                check(found, market, WORK, budget, d, 0.3)
                assert found.cost <= WORK + d + 1e-6
                for policy in ALL_POLICIES.values():
                    assert Job(market, WORK, budget, d).run(policy).cost >= found.cost - 1e-6


def test_recorded_markets() -> None:
    """On every recording, deadline and change-over: no miss, and no dearer than Uniform Progress."""
    traces = recorded()
    if not traces:
        pytest.skip("no recorded traces beside the checkout")
    for row in compare(traces, bound=False):
        assert not any(row.misses.values()), row
        assert row.costs["slack-budget"] <= row.costs["uniform-progress"], row
    for row in compare(traces, offsets=1):
        assert row.optimum is not None
        assert row.optimum <= min(row.costs.values()) + 1e-9, row
