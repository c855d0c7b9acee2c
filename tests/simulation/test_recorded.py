"""Recorded runs as workloads: on an undisturbed machine they take the time that they took, less what was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from flyteish import TaskEnvironment, ctx, testing
from flyteish._core.model.records import RunRecord
from flyteish._core.model.settings import Settings
from flyteish.errors import ConfigurationError
from flyteish.simulation import Calls, Workload, WorkModel, recorded
from tests.simulation.worlds import Seen, simulated, spot

env = TaskEnvironment("recorded")


def record_of(seen: Seen) -> RunRecord:
    (run,) = seen.runs
    return run


def test_an_undisturbed_run_is_read_as_it_was() -> None:
    """Work, start-up, cadence and saves: 100 s, 20 s, one of 2 s after each 30 s."""
    model = WorkModel(100, checkpoint_every=30, save_seconds=2)
    (found,) = recorded(record_of(simulated(Workload(spot(), model), startup=20)))
    assert found.model.work == pytest.approx(100)
    assert found.model.checkpoint_every == pytest.approx(30)
    assert (found.model.save_seconds, found.model.startup, found.model.on_notice) == (2, 20, "save")
    assert (found.task, found.count, found.start) == (spot(), 1, 0)


def test_lost_work_is_not_work() -> None:
    """Two preemptions, one without and one with a checkpoint: 100 s of work all the same."""
    model = WorkModel(100, checkpoint_every=30, save_seconds=2, on_notice="ignore")
    seen = simulated(Workload(spot(), model), [10, 70], grace=5)
    assert seen.tally.lost_seconds > 20
    (found,) = recorded(record_of(seen))
    assert found.model.work == pytest.approx(100)


def test_simulating_what_was_recorded_on_the_same_market_repeats_it() -> None:
    """The same attempts from and to the same seconds, with children in the midst of the work, and failures replayed."""
    one = Workload(spot(), WorkModel(60, checkpoint_every=20, save_seconds=1), name="one")
    two = Workload(spot(), WorkModel(30, fails_at=(12,)), name="two")
    last = Workload(spot(), WorkModel(5), name="last")
    model = WorkModel(100, children=(Calls((one, two), at=20), Calls((last,), at=70)))
    market = [None, 25, None, 8]
    seen = simulated(Workload(spot(), model, name="parent"), market)
    again = simulated(recorded(record_of(seen), replay_failures=True), market)
    assert spans_by_task(again) == spans_by_task(seen)
    assert {"one", "two", "last", "parent"} == set(spans_by_task(seen))


def spans_by_task(seen: Seen) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for action in seen.runs[0].actions.values():
        spans = [(m, round(start, 6), round(end, 6), how) for m, start, end, how in seen.spans(action)]
        found.setdefault(action.profile.task, []).extend(spans)
    return found


def test_failures_are_replayed_only_where_that_is_asked_for() -> None:
    """A user attempt that raised after 40 s does so again, or not."""
    seen = simulated(Workload(spot(retries=2), WorkModel(100, fails_at=(40, None))))
    (calm,) = recorded(record_of(seen))
    assert (calm.model.fails_at, calm.model.work) == ((), 100)
    (same,) = recorded(record_of(seen), replay_failures=True)
    assert same.model.fails_at == (40,)


def test_a_parent_that_failed_with_its_child_has_no_failure_of_its_own() -> None:
    """Only the child fails when it is replayed; the parent follows from it."""
    child = Workload(Settings(), WorkModel(10, fails_at=(5,)), name="child")
    seen = simulated(Workload(Settings(), WorkModel(10, children=(child,)), name="parent"))
    (found,) = recorded(record_of(seen), replay_failures=True)
    assert found.model.fails_at == ()
    (calls,) = found.model.children
    assert isinstance(calls, Calls)
    assert calls.workloads[0].model.fails_at == (5,)
    again = simulated(found)
    assert again.tally.failed == 1


def test_calls_at_once_and_calls_in_turn_are_told_apart() -> None:
    """Three at once, then one, after 10 s and 30 s of the parent's own work."""
    child = Workload(Settings(), WorkModel(7), count=3, name="child")
    last = Workload(Settings(), WorkModel(2), name="last")
    model = WorkModel(40, children=(Calls((child,), at=10), Calls((last,), at=30)))
    (found,) = recorded(record_of(simulated(Workload(Settings(), model))))
    assert found.model.work == 40
    calls = [each for each in found.model.children if isinstance(each, Calls)]
    assert [(each.at, len(each.workloads)) for each in calls] == [(10, 3), (30, 1)]


def test_several_runs_come_as_they_came() -> None:
    """The second begins as long after the first as it did."""
    seen = simulated(Workload(Settings(), WorkModel(5), count=2, every=30))
    workloads = recorded(*seen.runs)
    assert [each.start for each in workloads] == [0, 30]


def test_what_cannot_be_read_is_refused() -> None:
    """No run, something else, a run of which nothing has run."""
    with pytest.raises(ConfigurationError, match=r"runs=\(\)"):
        recorded()
    with pytest.raises(ConfigurationError, match="runs='r1' is not accepted"):
        recorded("r1")
    never = simulated(Workload(Settings(), WorkModel(50), start=10), horizon=20)
    (run,) = never.world.state.runs.values()
    (alive,) = recorded(run)  # as far as it is
    assert alive.model.work == 0  # when it began is all that is on record of it
    action = msgspec.structs.replace(run.root_action, attempts=[])
    with pytest.raises(ConfigurationError, match="nothing of run s1 has run"):
        recorded(msgspec.structs.replace(run, actions={"a0": action}))


@env.task(interruptible=True, retries=1)
async def saves() -> int:
    saved = await ctx().checkpoint.load_bytes()
    for step in range(saved[0] if saved else 0, 6):
        await asyncio.sleep(0.02)
        await ctx().checkpoint.save(bytes([step + 1]))
        if ctx().interruption.pending:
            await asyncio.sleep(60)
    return 6


@env.task
async def calls_it() -> int:
    return await saves() + await saves()


def test_a_real_run_is_read_from_its_journal() -> None:
    """Its two calls one after the other, each with its checkpoints, and the preemption's loss left out."""
    with testing.spot_session([0.05], notice_seconds=0.05) as session:
        run = session.run(calls_it)
        assert run.result(30) == 12
        (found,) = recorded(run)
    calls = [each for each in found.model.children if isinstance(each, Calls)]
    assert [len(each.workloads) for each in calls] == [1, 1]
    models: list[Any] = [each.workloads[0].model for each in calls]
    for model in models:
        assert model.checkpoint_every > 0.015
        assert model.work > 0.1
    assert found.model.work < sum(model.work for model in models)
    assert found.task.queue == "default"
