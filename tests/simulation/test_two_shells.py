"""The simulator and a real session are two shells of one core: the same small work on the same market has the same
history in both, attempt by attempt: medium, rule, end and who paid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flyteish import RetryStrategy, SpotPolicy, TaskEnvironment, Timeout, ctx, testing
from flyteish._core.model.records import Action, RunRecord
from flyteish.errors import FlyteishError
from flyteish.simulation import Calls, Scenario, ScriptedMarket, Workload, WorkModel
from tests.simulation.worlds import played, pools

env = TaskEnvironment("shells")
NEVER = 3600.0
"""Seconds: ends only by the market or a limit."""
GRACE = 0.02


@env.task(interruptible=True, retries=1)
async def quick() -> None:
    """Works for as good as no time."""


@env.task(interruptible=True, retries=1)
async def outlasts(reclaims: int) -> None:
    """As long as its first attempts run, until they are reclaimed."""
    if len(_attempts()) <= reclaims:
        await asyncio.sleep(NEVER)


def _attempts() -> list[int]:
    SEEN.append(ctx().attempt)
    return SEEN


SEEN: list[int] = []


@env.task(interruptible=True, retries=2)
async def fails_twice() -> None:
    if ctx().attempt < 3:
        raise ValueError("not yet")


@env.task(interruptible=True, retries=1, timeout=Timeout(max_runtime=0.05))
async def too_long() -> None:
    await asyncio.sleep(NEVER)


@env.task(interruptible=True, timeout=Timeout(deadline=0.05))
async def late() -> None:
    await asyncio.sleep(NEVER)


@env.task
async def parent() -> None:
    await asyncio.gather(outlasts(1), fails_twice())


def history(action: Action) -> list[tuple[Any, ...]]:
    return [
        (each.generation, each.user_attempt, each.medium, each.rule, each.end, each.charged, each.notice)
        for each in action.attempts
    ]


def histories(record: RunRecord) -> dict[str, Any]:
    """By task, for no task is called twice."""
    return {a.profile.task: (a.phase, a.user_attempt, a.preemptions, history(a)) for a in record.actions.values()}


def both(task: Any, inputs: dict[str, Any], model: WorkModel, reclaims: list[float | None]) -> tuple[Any, Any]:
    SEEN.clear()
    with testing.spot_session(reclaims, notice_seconds=GRACE) as session:
        run = session.run(task, **inputs)
        try:
            run.result(30)
        except (FlyteishError, ValueError):
            assert run.phase != "succeeded"
        real = histories(run.record())
    market = ScriptedMarket(reclaims, notice_seconds=GRACE)
    seen = played(Scenario(Workload(task, model), pools(market)))
    return real, histories(seen.runs[0])


def again(**changes: Any) -> Callable[[], Any]:
    return lambda: outlasts.override(**changes)


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], WorkModel, list[float | None]]] = {
    "undisturbed": (lambda: quick, {}, WorkModel(0), []),
    "one preemption": (again(), {"reclaims": 1}, WorkModel(0.1), [0.02]),
    "the trip-wire": (again(), {"reclaims": 3}, WorkModel(0.1), [0.02, 0.02, 0.02, 0.02]),
    "first preemption": (
        again(interruptible=SpotPolicy(fallback="first-preemption")), {"reclaims": 1}, WorkModel(0.1), [0.02, 0.02],
    ),
    "single budget": (
        again(interruptible=SpotPolicy(budget="single"), retries=2), {"reclaims": 2}, WorkModel(0.1), [0.02] * 3,
    ),
    "no retries, so on-demand": (again(retries=0), {"reclaims": 0}, WorkModel(0.1), [0.02]),
    "user errors": (lambda: fails_twice, {}, WorkModel(0.1, fails_at=(0.0, 0.0)), []),
    "user errors of one kind": (
        lambda: fails_twice.override(retries=RetryStrategy(count=1)), {}, WorkModel(0.1, fails_at=(0.0, 0.0)), [],
    ),
    "max_runtime": (lambda: too_long, {}, WorkModel(NEVER), []),
    "a deadline": (lambda: late, {}, WorkModel(NEVER), []),
    "a family": (
        lambda: parent,
        {},
        WorkModel(
            0,
            children=(
                Calls((Workload(outlasts, WorkModel(0.1)), Workload(fails_twice, WorkModel(0.1, fails_at=(0.0, 0.0))))),
            ),
        ),
        [0.02],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_market_gives_the_same_history_in_both_shells(case: str) -> None:
    """Media, rules, ends, charges and notices of every attempt; phases and counts of every action."""
    task, inputs, model, reclaims = CASES[case]
    real, simulated = both(task(), inputs, model, reclaims)
    assert simulated == real
