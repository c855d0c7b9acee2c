"""Flyte 1's pages on spot instances come true: their programs, with only the import changed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import ctx, testing
from flyteish.compat.flytekit import FIRST_PREEMPTION, SINGLE_BUDGET
from tests.compat.attempts import PATIENCE, Ends, charged, ends, media, reclaims, root
from tests.compat.programs import flyte_1
from tests.compat.seeds import program

SPOT, ON_DEMAND = "spot", "on-demand"
ORIGINS = ["ours", "page"]


@pytest.fixture(params=ORIGINS)
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return program(request.param, "flyte_1", tmp_path)


@pytest.fixture(params=ORIGINS)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The older page's program; ``add_one_and_print`` calls ``work`` before it returns."""
    header = "from flyteish.compat.flytekit.older import task\n\n"
    changes = {"return value_to_print": "work(); return value_to_print"}
    module = program(request.param, "flyte_1_older", tmp_path, header, changes)
    module.work = lambda: None
    return module


# -- the newer page: one budget ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "these, paid",
    [
        (["preempted"] * 3, ["retries"] * 3 + [""]),
        (["fails"] * 3, ["retries"] * 3 + [""]),
        (["preempted", "fails", "preempted"], ["retries"] * 3 + [""]),
        (["fails"] * 4, ["retries"] * 4),
    ],
    ids="-".join,
)
def test_all_but_the_final_attempt_run_on_spot(newer: Any, these: list[str], paid: list[str]) -> None:
    """``retries=3``: spot, spot, spot, on-demand, after a preemption as after a failure; each costs a retry."""
    work = Ends(*these)

    def run_batch(batch_id: int) -> float:
        work()
        return batch_id / 2

    newer.run_batch = run_batch
    assert [row.medium for row in newer.resilient_training_step.plan().attempts] == [SPOT, SPOT, SPOT, ON_DEMAND]
    with testing.spot_session(reclaims(*these)) as session:
        run = session.run(newer.resilient_training_step, batch_id=7)
        assert media(run) == [SPOT, SPOT, SPOT, ON_DEMAND]
        assert charged(run) == paid
        assert run.phase == ("failed" if len(these) == 4 else "succeeded")


def test_one_retry_is_enough_to_recover(newer: Any) -> None:
    """``retries=1``: on spot, and once more on-demand."""
    assert [row.medium for row in newer.add_one_and_print.plan().attempts] == [SPOT, ON_DEMAND]
    with testing.spot_session() as session:
        assert newer.add_one_and_print(value_to_print=1) == 2
        assert media(session.run(newer.add_one_and_print, value_to_print=1)) == [SPOT]


def test_without_retries_a_preemption_is_final() -> None:
    """A task without retries stays off spot; one that is sent there all the same fails for good when preempted."""
    from flyteish.compat.flytekit import task

    work = Ends("preempted")

    @task(interruptible=True)
    def careful() -> None:
        work()

    @task(interruptible=flyteish.SpotPolicy(fallback="never", budget="single"))
    def careless() -> None:
        work()

    assert [row.medium for row in careful.plan().attempts] == [ON_DEMAND]
    with testing.spot_session([0.0]) as session:
        run = session.run(careless)
        assert (media(run), charged(run)) == ([SPOT], ["retries"])
        assert (run.phase, ends(run)) == ("failed", ["preempted"])
        with pytest.raises(InterruptedError):  # what it raised after the notice
            run.result()


def test_a_preemption_never_costs_more_than_one_epoch(newer: Any) -> None:
    """The checkpoint that was written after each epoch is where the next attempt goes on."""
    trained: list[int] = []
    lost_in = {3, 7}

    def train_one_epoch(epoch: int) -> None:
        trained.append(epoch)
        if epoch in lost_in:
            lost_in.discard(epoch)
            assert ctx().interruption.wait_sync(PATIENCE) is not None
            raise InterruptedError("the machine is gone")

    newer.train_one_epoch = train_one_epoch
    with testing.spot_session([0.0, 0.0]) as session:
        run = session.run(newer.long_training_job, num_epochs=10)
        assert run.result(PATIENCE) == "training_complete"
        assert ends(run) == ["preempted", "preempted", "succeeded"]
    assert trained == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9]


# -- the older page: a preemption pays from nothing ----------------------------------------------------------


def test_what_is_preempted_goes_to_a_machine_that_is_not_spot(older: Any) -> None:
    """On spot without any retries; preempted once, it is retried on-demand."""
    older.work = Ends("preempted")
    with testing.spot_session([0.0]) as session:
        run = session.run(older.add_one_and_print, value_to_print=1)
        assert run.result(PATIENCE) == 2
        assert list(zip(media(run), charged(run), strict=True)) == [(SPOT, "preemptions"), (ON_DEMAND, "")]
        older.work = Ends()
        assert media(session.run(older.add_one_and_print, value_to_print=1)) == [SPOT]
        assert older.add_one_and_print(value_to_print=1) == 2


def test_that_retry_does_not_count_towards_the_users(older: Any) -> None:
    """With ``retries=1`` there are a preemption, a failure and a success; two failures are one too many."""
    task = older.add_one_and_print.override(retries=1)
    with testing.spot_session([0.0, None]) as session:
        older.work = Ends("preempted", "fails")
        run = session.run(task, value_to_print=1)
        assert run.result(PATIENCE) == 2
        assert charged(run) == ["preemptions", "retries", ""]
        assert media(run) == [SPOT, ON_DEMAND, ON_DEMAND]
        older.work = Ends("fails", "fails")
        assert charged(session.run(task, value_to_print=1)) == ["retries", "retries"]


def test_both_rules_are_policies_that_a_task_may_name() -> None:
    """Whichever module ``task`` is from, ``interruptible=`` takes the other rule by name."""
    from flyteish.compat import flytekit
    from flyteish.compat.flytekit import older

    def settings(decorator: Any, interruptible: object) -> object:
        @decorator(interruptible=interruptible)
        def work() -> None: ...

        return work.settings().interruptible

    assert settings(flytekit.task, True) == settings(older.task, SINGLE_BUDGET) == SINGLE_BUDGET
    assert settings(older.task, True) == settings(flytekit.task, FIRST_PREEMPTION) == FIRST_PREEMPTION
    assert settings(flytekit.task, False) is settings(older.task, None) is None


# -- in worker processes -------------------------------------------------------------------------------------


def test_the_programs_run_in_worker_processes() -> None:
    """Tasks are found by name in workers that are really killed; checkpoints outlive them."""
    assert pickle.loads(pickle.dumps(flyte_1.pipeline)) is flyte_1.pipeline
    with testing.spot_session([0.2], notice_seconds=0.05, engine="processes") as session:
        run = session.run(flyte_1.long_training_job, num_epochs=40)
        assert run.result(PATIENCE) == "training_complete"
        assert ends(run) == ["preempted", "succeeded"]
        assert root(run).profile.task == "tests-compat-programs-flyte-1.long_training_job"
        assert len(root(run).checkpoints) > 1
        assert flyte_1.pipeline(batches=2) == [0.0, 0.5, 1.0]
        assert flyte_1.flaky(fail=True) == "settled"
