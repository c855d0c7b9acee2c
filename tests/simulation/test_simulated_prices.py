"""Prices that change in virtual time: the same bill as in a real session, to the second."""

from __future__ import annotations

import pytest

from flyteish._core.billing.bills import billed, lines_of, rows, total
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import RunRecord
from flyteish._core.model.settings import Settings
from flyteish.markets.price_sources import ScriptedPrices
from flyteish.simulation import Workload, WorkModel
from flyteish.simulation.world import VirtualWorld


def test_a_simulated_attempt_pays_what_its_hours_cost() -> None:
    """One hour at $1 and one at $3."""
    prices = ScriptedPrices([(0.0, 1.0), (3600.0, 3.0), (7200.0, 99.0)])
    ended: list[RunRecord] = []
    world = VirtualWorld(
        [Queue("default")], [Pool("od", price_per_hour=prices, startup=0.0)], {}, seed=1,
        settings=lambda workload: Settings(), ended=ended.append, sampled=lambda world, until: None,
    )  # fmt: skip
    world.add(Workload(Settings(), WorkModel(7200.0)))
    world.run()
    [run] = ended
    assert total(billed(run.actions.values(), world.now)).dollars == pytest.approx(4.0)
    [line] = lines_of(run, world.now)
    [row] = rows(billed(run.actions.values(), world.now), "pool")
    assert line.dollars == pytest.approx(row.cost.dollars)
    assert line.attempts == row.attempts
