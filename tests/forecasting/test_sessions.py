"""Forecasts in sessions: what runs teach, what outlives a session, and how forecasts and runs are compared."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest

import flyteish
from flyteish import Calibration, Pool, Queue, Session, TaskEnvironment, ctx, testing
from flyteish._core.state import State
from flyteish._learning import recorder as keepers
from flyteish._learning.documents import LEARNED, Learned, read
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish._learning.recorder import Keeper
from flyteish.errors import ConfigurationError
from flyteish.stores.memory import MemoryStore
from flyteish.stores.sqlite import SqliteStore

env = TaskEnvironment("fc", retries=2)


@env.task(interruptible=True)
async def saves() -> int:
    for step in range(3):
        await ctx().checkpoint.save(b"%d" % step)
    return 1


@env.task
async def leaf(x: int) -> int:
    return x


@env.task
async def together(n: int) -> int:
    return sum(await asyncio.gather(*[leaf(x) for x in range(n)]))


@env.task
async def flaky() -> int:
    if ctx().attempt == 1:
        raise ValueError("the first time")
    return 1


def session(home: Path | None = None) -> Session:
    pools = [Pool("spot", "spot", price_per_hour=0.3), Pool("od", price_per_hour=1.0)]
    kept = {"durability": "memory"} if home is None else {"home": home}
    return Session([Queue("default", pools=["spot", "od"])], pools, **kept)


def test_runs_teach_what_forecasts_need() -> None:
    """Work, checkpoints, failures and the tasks that are called, from real runs."""
    with session() as live:
        with pytest.raises(ConfigurationError, match="no run of it has succeeded yet"):
            saves.forecast()
        for task in (saves, flaky, flaky):
            live.run(task).result(20)
        live.run(together, 5).result(20)
        assert "one past run of fc.saves" in saves.forecast(rounds=2).based_on
        assert any(text.startswith("checkpoints every") for text in saves.forecast(rounds=2).based_on)
        assert "50% of its attempts raised" in flaky.forecast(rounds=2).based_on
        found = together.forecast(rounds=2)
        assert found.based_on == ("one past run of fc.together", "5 calls of fc.leaf")
        assert found.finish is not None
        assert found.finish.p50 < 5.0


def test_a_forecast_is_of_the_settings_that_it_is_asked_with() -> None:
    """``override`` and ``with_runcontext`` are followed."""
    with session() as live:
        assert saves.override(interruptible=False).forecast(work=100, rounds=2).spot_share == 0.0
        assert saves.forecast(work=100, rounds=2).spot_share == 1.0
        assert live.with_runcontext(interruptible=False).forecast(saves, work=100, rounds=2).spot_share == 0.0


def test_runs_are_compared_with_the_latest_forecast_before_them() -> None:
    """Of the same settings and one run; the handle, ``why`` and the history tell of it."""
    with session() as live:
        before = live.run(leaf, 1).wait(20)
        first = leaf.forecast(work=100, rounds=2)
        leaf.forecast(work=50, rounds=2, count=3)
        leaf.override(retries=7).forecast(work=70, rounds=2)
        run = live.run(leaf, 1).wait(20)
        later = leaf.forecast(work=60, rounds=2)
        assert (before.forecast, before.comparison) == (None, None)
        assert run.forecast == first
        found = run.comparison
        assert found is not None
        assert (found.run, found.task, found.phase, found.rank, found.within) == (
            run.name, "fc.leaf", "succeeded", 0.0, False,
        )  # fmt: skip
        assert 0 < found.seconds < 20
        assert run.why().splitlines()[-1].startswith("forecast: 100 s (p50), 100 s (p90); took ")
        assert live.forecasts() == live.forecasts(leaf) == flyteish.forecasts("fc.leaf") == (found,)
        assert live.forecasts(saves) == ()
        assert live.run(leaf, 1).wait(20).forecast == later
        assert Calibration.of(live.forecasts()).runs == 2


def test_all_of_it_survives_the_session(tmp_path: Path) -> None:
    """The next one forecasts from the runs of the one before, compares with its forecasts, and has its history."""
    with session(tmp_path) as live:
        for _ in range(3):
            live.run(leaf, 1).result(20)
        forecast = leaf.forecast(rounds=5)
        assert "3 past runs of fc.leaf" in forecast.based_on
        compared = live.run(leaf, 1).wait(20).comparison
    with session(tmp_path) as live:
        assert live.forecasts() == (compared,)
        run = live.run(leaf, 1).wait(20)
        assert run.forecast == forecast
        assert "5 past runs of fc.leaf" in leaf.forecast(rounds=2).based_on
        assert len(live.forecasts()) == 2


def test_memory_keeps_nothing() -> None:
    """``durability="memory"`` is for what is not to be remembered."""
    with session() as live:
        live.run(leaf, 1).result(20)
    with session(), pytest.raises(ConfigurationError, match="no run of it has succeeded yet"):
        leaf.forecast()


def test_a_corrupt_memory_is_no_reason_not_to_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said in the log, and replaced."""
    with session(tmp_path) as live:
        live.run(leaf, 1).result(20)
        store = live.config.paths.store
    SqliteStore(store).put_note(LEARNED, b"nonsense")
    with session(tmp_path) as live:
        live.run(leaf, 1).result(20)
        assert "'learned' cannot be read" in caplog.text
    learned = read(SqliteStore(store), LEARNED, Learned)
    assert learned is not None
    assert list(learned.tasks) == ["fc.leaf"]


def test_machines_that_were_reclaimed_are_remembered(tmp_path: Path) -> None:
    """Machine time and reclaims of the pool, over sessions."""
    begun = []

    @env.task(interruptible=True)
    async def once_reclaimed() -> int:
        begun.append(1)
        if len(begun) == 1:
            await ctx().interruption.wait()
            raise RuntimeError("gone")
        return 1

    with testing.spot_session([0.05], notice_seconds=0.01, home=tmp_path) as live:
        live.run(once_reclaimed).result(20)
        store = live.config.paths.store
    learned = read(SqliteStore(store), LEARNED, Learned)
    assert learned is not None
    assert learned.pools["spot"].reclaims == 1


class Core(NamedTuple):
    """All that a keeper needs of a controller."""

    state: State


async def test_the_tasks_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are more names than are kept, those go that were not used for longest."""
    monkeypatch.setattr(keepers, "TASKS_KEPT", 3)
    store, state = MemoryStore(), State.configured((Queue("default"),), (Pool("od"),))
    keeper = Keeper(store, Lifetimes([]), testing.HandClock())
    keeper.open(Core(state))
    for name in "abc":
        state.experience.finished(name, 1.0)
    assert list(keeper.learned().tasks) == ["a", "b", "c"]
    state.experience.finished("a", 1.0)
    state.experience.finished("d", 1.0)
    keeper.close()
    kept = read(store, LEARNED, Learned)
    assert kept is not None
    assert list(kept.tasks) == ["c", "a", "d"]
