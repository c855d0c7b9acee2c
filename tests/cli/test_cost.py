"""`flyteish cost`, and the same figures from a run's handle: what was paid, for what, and what on-demand would cost."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from flyteish import Pool, Queue, RetryStrategy, Session, SpotPolicy, TaskEnvironment
from flyteish.cli.exit_codes import ExitCode
from flyteish.errors import ConfigurationError
from flyteish.markets.price_sources import ScriptedPrices
from flyteish.testing import ScriptedMarket
from tests.cli.conftest import Cli

env = TaskEnvironment(name="paid")
POOLS = [
    Pool("cheap", medium="spot", price_per_hour=360.0, market=ScriptedMarket([0.05], notice_seconds=0.0)),
    Pool("dear", price_per_hour=3600.0),
]


@env.task(interruptible=SpotPolicy(), retries=RetryStrategy(1))
async def part(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@env.task(cache="auto")
async def known(number: int) -> int:
    return number


@env.task
async def main() -> float:
    await known(1)
    return await part(0.1) + await part(0.01)


@pytest.fixture
def paid() -> str:
    with Session(queues=[Queue("default")], pools=POOLS) as session:
        session.run(known, 1).result()
        return session.run(main).wait(20).name


def figures(row: dict[str, Any]) -> tuple[float, ...]:
    return row["spot_seconds"], row["on_demand_seconds"], row["lost_seconds"], row["dollars"]


def test_the_ledger_adds_up_whichever_way_it_is_told_apart(cli: Cli, paid: str) -> None:
    """By attempt, action, task, queue, pool and run: other rows, the same total, from rows or from journals."""
    totals = []
    for by in ("attempt", "action", "task", "queue", "pool", "run"):
        told = json.loads(cli("cost", paid, "--by", by, "--json").out)
        assert told["by"] == by
        for mine, whole in zip(
            zip(*(figures(row) for row in told["rows"]), strict=True), figures(told["total"]), strict=True
        ):
            assert sum(mine) == pytest.approx(whole)
        totals.append(figures(told["total"]))
    for found in totals[1:]:
        assert found == pytest.approx(totals[0])
    spot, on_demand, lost, dollars = totals[0]
    assert dollars == pytest.approx(spot * 0.1 + on_demand)
    assert 0.04 < lost < spot


def test_a_preempted_attempt_is_lost_and_a_cached_result_costs_nothing(cli: Cli, paid: str) -> None:
    """The first attempt on spot shows as lost; the cached call does not show at all."""
    rows = json.loads(cli("cost", paid, "--by", "attempt", "--json").out)["rows"]
    lost = [row for row in rows if row["lost_seconds"]]
    assert [(row["task"], row["attempt"], row["pool"]) for row in lost] == [("paid.part", 1, "cheap")]
    assert {row["task"] for row in rows} == {"paid.main", "paid.part"}


def test_all_runs_with_a_total(cli: Cli, paid: str) -> None:
    """Without RUN: a line for each run, newest first, and what they come to; the store need not be configured alike."""
    said = cli("cost").out.splitlines()
    assert said[0].split()[:4] == ["RUN", "TASK", "SUBMITTED", "ATTEMPTS"]
    assert re.split(" {2,}", said[1])[:2] == [paid, "paid.main"]
    assert said[-1].startswith("total")
    assert "$" in said[-1]
    assert len(said) == 4
    by_queue = json.loads(cli("cost", "--by", "queue", "--json").out)
    assert [row["queue"] for row in by_queue["rows"]] == ["default"]
    assert by_queue["total"]["saved"] is not None  # what on-demand costs is on record
    assert json.loads(cli("cost", "--since", "1h", "--json").out)["total"] == by_queue["total"]
    assert json.loads(cli("cost", "--since", "0s", "--json").out)["rows"] == []


def test_an_action_with_all_below_it(cli: Cli, paid: str) -> None:
    """RUN/ACTION counts what the action called, attempt by attempt."""
    whole = json.loads(cli("cost", paid, "--json").out)["total"]
    assert json.loads(cli("cost", f"{paid}/main", "--json").out)["total"]["dollars"] == pytest.approx(whole["dollars"])
    heading, *rows = cli("cost", f"{paid}/main").out.splitlines()
    assert heading.split()[:2] == ["ACTION", "ATTEMPT"]
    assert len(rows) == 5


def test_mistakes_are_usage_errors(cli: Cli, paid: str) -> None:
    """A wrong time, a wrong way to tell apart, and --since with a run."""
    for wrong in (["--since", "soon"], ["--by", "colour"], [paid, "--since", "1h"]):
        assert cli("cost", *wrong).code == ExitCode.USAGE
    assert cli("cost", "nonsense").code != ExitCode.OK


def test_the_handle_tells_the_same() -> None:
    """``cost_of`` an action with or without what it called, ``costs`` told apart."""
    with Session(queues=[Queue("default")], pools=POOLS, durability="memory") as session:
        run = session.run(main).wait(20)
        whole, own = run.cost(), run.cost_of(descendants=False)
        parts = run.costs("action")
        assert run.cost_of().dollars == pytest.approx(whole.dollars)
        assert own.spot_seconds == 0.0 < own.on_demand_seconds
        assert sum(row.cost.dollars for row in parts) == pytest.approx(whole.dollars)
        assert whole.saved is not None
        with pytest.raises(ConfigurationError, match="by='colour' in costs"):
            run.costs("colour")


def test_a_price_that_changes_while_work_runs_is_in_the_bill() -> None:
    """In a real session: the price of an attempt is a mean of those that it lived through."""
    prices = ScriptedPrices([(0.0, 0.0), (0.5, 3600.0), (0.7, 7200.0)])
    with Session(pools=[Pool("od", price_per_hour=prices)], durability="memory") as session:
        run = session.run(part, 0.9)
        run.result(20)
        [attempt] = run.record().root_action.attempts
        assert 0.0 < attempt.price_per_hour < 7200.0
        hours = (attempt.ended_at - attempt.admitted_at) / 3600.0
        assert run.cost().dollars == pytest.approx(hours * attempt.price_per_hour)
