"""Flyte 2's pages on interruptible tasks and queues come true: their programs, with only the import changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyteish import Pool, Queue, Session, SpotPolicy, testing
from flyteish.errors import UnknownQueueError
from tests.compat.attempts import PATIENCE, Ends, charged, ends, media, reclaims, root
from tests.compat.seeds import program

SPOT, ON_DEMAND = "spot", "on-demand"
PROGRAMS = [("ours", "flyte_2"), ("page", "flyte_2"), ("page", "flyte_2_older")]


@pytest.fixture(params=PROGRAMS, ids="-".join)
def levels(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The program; ``train_model`` calls ``work`` before it returns, which does nothing unless a test says so."""
    changes = {'return {"accuracy"': 'work(); return {"accuracy"'}
    module = program(request.param[0], request.param[1], tmp_path, changes=changes)
    module.work = lambda: None
    return module


def test_the_more_specific_level_decides_where_a_task_may_run(levels: Any) -> None:
    """``interruptible`` of the environment, over it the task's, over that the call's."""
    with testing.spot_session() as session:
        run = session.run(levels.main, data=[1, 2])
        assert run.result(PATIENCE) == "saved"
        said = [(a.profile.settings.interruptible, a.profile.settings.source("interruptible")) for a in run.actions()]
        assert said == [
            (SpotPolicy(), "TaskEnvironment"),
            (SpotPolicy(), "TaskEnvironment"),
            (None, ".override()"),
        ]
        declared = session.run(levels.save_results, results={"data": [1]})
        declared.result(PATIENCE)
        assert media(declared) == [ON_DEMAND]
        assert root(declared).profile.settings.source("interruptible") == "@env.task"
        # The other way round: said for the call, against the decorator.
        overridden = session.run(levels.save_results.override(interruptible=True, retries=1), results={"data": [1]})
        overridden.result(PATIENCE)
        assert media(overridden) == [SPOT]


def test_without_retries_it_is_effectively_on_demand(levels: Any) -> None:
    """Its single attempt is its final one, so it never runs on spot, and that is said before."""
    assert [row.medium for row in levels.preprocess.plan().attempts] == [ON_DEMAND]
    with testing.spot_session() as session:
        run = session.run(levels.preprocess, data=[1])
        assert run.result(PATIENCE) == [2]
        assert [(a.medium, a.rule) for a in root(run).attempts] == [(ON_DEMAND, "final-attempt")]


@pytest.mark.parametrize("retries, expected", [(2, [SPOT, SPOT, ON_DEMAND]), (3, [SPOT, SPOT, SPOT, ON_DEMAND])])
def test_the_final_attempt_runs_on_demand(levels: Any, retries: int, expected: list[str]) -> None:
    """``retries=2`` makes up to three attempts: the first two on spot, the third, if it is reached, on-demand."""
    levels.work = Ends(*["fails"] * 9)
    task = levels.train_model.override(retries=retries)
    assert [row.medium for row in task.plan().attempts] == expected
    with testing.spot_session() as session:
        run = session.run(task, data=[])
        assert media(run) == expected
        assert charged(run) == ["retries"] * (retries + 1)
        with pytest.raises(RuntimeError, match="does not work"):
            run.result()
        levels.work = Ends("fails")
        early = session.run(task, data=[])
        assert media(early) == [SPOT, SPOT]  # the final one was not reached


def test_a_reclaimed_task_is_rescheduled_and_pays_no_retry(levels: Any) -> None:
    """Preemptions are tracked apart: they use up no retry, and the medium is chosen by what is left of those."""
    levels.work = Ends("preempted", "preempted", "fails", "fails", "fails")
    with testing.spot_session(reclaims(*levels.work.ends)) as session:
        run = session.run(levels.train_model, data=[])
        assert run.result(PATIENCE) == {"accuracy": 0.95}
        assert ends(run) == ["preempted"] * 2 + ["user error"] * 3 + ["succeeded"]
        assert charged(run) == ["preemptions"] * 2 + ["retries"] * 3 + [""]
        assert media(run) == [SPOT] * 5 + [ON_DEMAND]
        assert [a.user_attempt for a in root(run).attempts] == [1, 1, 1, 2, 3, 4]


def test_a_preemption_loop_ends_on_demand(levels: Any) -> None:
    """What is preempted again and again without progress stops gambling on spot before its budget is used up."""
    levels.work = Ends(*["preempted"] * 3)
    with testing.spot_session(reclaims(*levels.work.ends)) as session:
        run = session.run(levels.train_model, data=[])
        assert run.result(PATIENCE) == {"accuracy": 0.95}
        assert media(run) == [SPOT, SPOT, SPOT, ON_DEMAND]
        assert root(run).user_attempt == 1


def test_there_is_no_quiet_way_out_of_the_fallback(levels: Any) -> None:
    """Where Flyte has none, this has one that must be asked for, and that is warned of."""
    everything_on_spot = levels.train_model.override(interruptible=SpotPolicy(fallback="never")).plan()
    assert {row.medium for row in everything_on_spot.attempts} == {SPOT}
    assert "may never finish" in everything_on_spot.warnings[0]


# -- queues --------------------------------------------------------------------------------------------------------


def queues(*names: str) -> Session:
    return Session([Queue(name) for name in names], [Pool("machines")], durability="memory")


@pytest.mark.parametrize("origin", ["ours", "page"])
def test_a_queue_routes_all_tasks_of_an_environment(origin: str, tmp_path: Path) -> None:
    """A queue is a name that the administrator gave; the work waits there and nowhere else."""
    train_model = program(origin, "flyte_2_queue", tmp_path).train_model
    with queues("default", "gpu-pool") as session:
        run = session.run(train_model, data=[])
        assert run.result(PATIENCE) == {"accuracy": 0.95}
        assert root(run).profile.settings.queue == "gpu-pool"
    with queues("default") as session, pytest.raises(UnknownQueueError, match="gpu-pool"):
        session.run(train_model, data=[]).result(PATIENCE)


@pytest.mark.parametrize("origin", ["ours", "page"])
def test_the_more_specific_level_decides_in_which_queue(origin: str, tmp_path: Path) -> None:
    """The environment's queue, over it the task's, over that the call's; the default one where nobody says."""
    module = program(origin, "flyte_2_queues", tmp_path)

    @module.flyte.TaskEnvironment("silent").task
    def says_nothing() -> int:
        return 1

    with queues("default", "default-pool", "gpu-pool", "third") as session:
        runs = {
            "default-pool": session.run(module.preprocess, data=[1]),
            "gpu-pool": session.run(module.train_model, data=[]),
            "third": session.run(module.train_model.override(queue="third"), data=[]),
            "default": session.run(says_nothing),
        }
        for queue, run in runs.items():
            run.result(PATIENCE)
            assert root(run).profile.settings.queue == queue
