"""One conformance suite over every engine: the same program ends in the same way wherever its attempts run.

Each test runs on each engine, through a session of its own. Where engines may differ (a ``def`` task can only be killed
in a process of its own), the difference is stated in the test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flyteish import Pool, Queue, Session, SpotPolicy, Timeout, errors
from flyteish._core.model.records import End
from flyteish.testing import RemoteEngine, ScriptedMarket
from tests.conformance import tasks

PATIENCE = 30.0
ENGINES = ("inline", "processes", "remote")
OWN_PROCESS = ("processes", "remote")

Open = Callable[..., Session]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(engine: str, tmp_path: Path) -> Iterator[Open]:
    """Opens sessions whose pools use the engine; they are closed in bounded time."""
    sessions: list[Session] = []

    def make(
        *queues: Queue,
        reclaims: Sequence[float | None] = (),
        notice_seconds: float = 2.0,
        capacity: tuple[tuple[float, int | None], ...] = (),
        startup: float | None = None,
    ) -> Session:
        market = ScriptedMarket(reclaims=reclaims, notice_seconds=notice_seconds, capacity=capacity)
        places = 8 if engine == "remote" else 0  # it has a process for each attempt
        pools = [
            Pool("spot", medium="spot", engine=engine, market=market, startup=startup, grace=2.0, capacity=places),
            Pool("on-demand", engine=engine, startup=startup, grace=2.0, capacity=places),
        ]
        secrets = {"conformance-secret": "hunter2"}
        engines = {"remote": lambda: RemoteEngine(tmp_path / "remote")}
        session = Session(
            queues or [Queue("default")], pools, home=tmp_path / "home", secrets=secrets, engines=engines
        ).open()
        sessions.append(session)
        return session

    yield make
    began = time.monotonic()
    for session in sessions:
        session.close()
    assert time.monotonic() - began < 10, "closing took too long"


@pytest.fixture
def session(opened: Open) -> Session:
    return opened()


def ends(run: Any, task: str = "") -> list[End | None]:
    """How the attempts of the root, or of the only action of that task, ended."""
    actions = [each for each in run.actions() if each.profile.task == f"conformance.{task}"] if task else None
    action = actions[0] if actions else run.record().root_action
    return [attempt.end for attempt in action.attempts]


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.005)


# -- values ----------------------------------------------------------------------------------------------------


def test_results_come_back(session: Session) -> None:
    """Of ``async def`` and ``def`` tasks, with arguments by position, by name and by default."""
    assert session.run(tasks.add, 2).result(PATIENCE) == 3
    assert session.run(tasks.add, x=2, y=5).result(PATIENCE) == 7
    assert session.run(tasks.sub, 2).result(PATIENCE) == 1


def test_large_values_travel(session: Session) -> None:
    """Both ways, for roots and children."""
    assert session.run(tasks.sizes, data=b"y" * 700_000, size=900_000).result(PATIENCE) == (700_000, 900_000)


def test_an_attempt_knows_itself(session: Session) -> None:
    """Number, generation, queue, pool, medium."""
    expected = (1, 1, "default", "on-demand", "on-demand", True)
    assert session.run(tasks.about_me).result(PATIENCE) == expected


def test_environment_variables_and_secrets_are_the_attempts_own(session: Session) -> None:
    """Set inside, absent in the next attempt and in the host."""
    import os

    assert session.run(tasks.variables).result(PATIENCE) == ("inside", None)
    assert session.run(tasks.variables_sync).result(PATIENCE) == ("inside", 7)
    assert session.run(tasks.about_me).result(PATIENCE)[0] == 1
    assert "CONFORMANCE_SCOPED" not in os.environ
    assert "CONFORMANCE_SECRET" not in os.environ


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [tasks.refuses, tasks.refuses_sync], ids=["async", "def"])
def test_exceptions_keep_type_arguments_cause_notes_and_traceback(session: Session, task: Any) -> None:
    """Whether they crossed a process or not."""
    run = session.run(task)
    with pytest.raises(tasks.OrderRefusedError) as caught:
        run.result(PATIENCE)
    error = caught.value
    assert error.args == (7, "no stock")
    assert error.number == 7
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.args == ("the cause",)
    notes = "\n".join(error.__notes__)
    assert "seen at the till" in notes
    assert "attempt" in notes
    assert ends(run) == [End.USER_ERROR]


def test_exception_groups_come_out_as_groups(session: Session) -> None:
    """With members of their own types."""
    with pytest.raises(ExceptionGroup) as caught:
        session.run(tasks.several).result(PATIENCE)
    assert [type(each) for each in caught.value.exceptions] == [ValueError, TypeError]


def test_retries_are_counted(session: Session) -> None:
    """Up to ``retries``, and no further."""
    run = session.run(tasks.flaky, needed=3)
    assert run.result(PATIENCE) == 3
    assert ends(run) == [End.USER_ERROR, End.USER_ERROR, End.SUCCEEDED]
    with pytest.raises(ConnectionError, match="attempt 3"):
        session.run(tasks.flaky, needed=4).result(PATIENCE)


def test_non_recoverable_errors_are_final(session: Session, tmp_path: Path) -> None:
    """Whatever retries are left."""
    with pytest.raises(errors.NonRecoverableError, match="never"):
        session.run(tasks.hopeless, folder=str(tmp_path)).result(PATIENCE)
    assert tasks.marked(str(tmp_path), "hopeless") == 1


@pytest.mark.parametrize("task", [tasks.leaves, tasks.leaves_sync], ids=["async", "def"])
def test_nothing_that_a_task_raises_hangs_or_takes_anything_down(session: Session, task: Any) -> None:
    """Each run fails with an exception, and the same session goes on."""
    for kind in ("exit", "interrupt", "stop", "cancelled", "generator", "group"):
        run = session.run(task, kind=kind)
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the subject of other tests
            run.result(PATIENCE)
        assert run.phase == "failed", kind
    assert session.run(tasks.add, 1).result(PATIENCE) == 2


def test_a_parent_can_catch_whatever_its_child_raised(session: Session) -> None:
    """As an ordinary exception."""
    runs = [session.run(tasks.survives, kind=kind) for kind in ("exit", "interrupt", "stop", "cancelled")]
    assert "nothing" not in [run.result(PATIENCE) for run in runs]
    assert session.run(tasks.catches).result(PATIENCE) == ["OrderRefusedError", "OrderRefusedError", "int"]


def test_an_unserialisable_result_fails_at_once(session: Session) -> None:
    """Naming the task and the type."""
    with pytest.raises(errors.SerializationError, match=r"gives_a_lock.*lock"):
        session.run(tasks.gives_a_lock).result(PATIENCE)


@pytest.mark.parametrize("engine", OWN_PROCESS, indirect=True)
def test_a_task_that_ends_its_process_ends_nothing_else(session: Session) -> None:
    """Only where it has a process of its own: exit code 0 is "before returning", any other a crash."""
    with pytest.raises(errors.ExitedBeforeReturningError):
        session.run(tasks.dies, code=0).result(PATIENCE)
    with pytest.raises(errors.WorkerCrashedError, match="7"):
        session.run(tasks.dies, code=7).result(PATIENCE)
    assert session.run(tasks.add, 1).result(PATIENCE) == 2


# -- time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [tasks.overruns, tasks.overruns_sync], ids=["async", "def"])
def test_max_runtime_ends_an_attempt_and_pays_from_retries(session: Session, tmp_path: Path, task: Any) -> None:
    """A ``def`` task that can't be killed is given up all the same."""
    run = session.run(task, folder=str(tmp_path))
    with pytest.raises(errors.TaskTimeoutError, match="max_runtime="):
        run.result(PATIENCE)
    tasks.mark(str(tmp_path), "leave")
    assert ends(run) == [End.MAX_RUNTIME] * 2
    assert tasks.marked(str(tmp_path), "began") == 2


def test_the_deadline_ends_everything(session: Session) -> None:
    """Whatever retries are left."""
    began = time.monotonic()
    with pytest.raises(errors.ActionTimedOutError, match="deadline"):
        session.run(tasks.misses_its_deadline).result(PATIENCE)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("task", [tasks.endless, tasks.endless_sync], ids=["async", "def"])
def test_abort_ends_a_run(session: Session, tmp_path: Path, task: Any) -> None:
    """An ``async def`` task cleans up first."""
    run = session.run(task, folder=str(tmp_path))
    wait_for(lambda: tasks.marked(str(tmp_path), "began"), "the beginning")
    run.abort("had enough")
    with pytest.raises(errors.ActionAbortedError, match="had enough"):
        run.result(PATIENCE)
    tasks.mark(str(tmp_path), "leave")
    assert tasks.marked(str(tmp_path), "cleaned") == (1 if task is tasks.endless else 0)


@pytest.mark.parametrize("task", [tasks.endless, tasks.endless_sync], ids=["async", "def"])
def test_closing_leaves_what_ran_to_be_resumed(opened: Open, tmp_path: Path, task: Any) -> None:
    """In bounded time, and charged to nobody."""
    session = opened()
    run = session.run(task, folder=str(tmp_path))
    wait_for(lambda: tasks.marked(str(tmp_path), "began"), "the beginning")
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 8
    with pytest.raises(errors.SessionClosedError, match=run.name):
        run.result(PATIENCE)
    again = opened().resume(run.name, task)
    wait_for(lambda: tasks.marked(str(tmp_path), "began") == 2, "the second beginning")
    again.abort()
    again.wait(PATIENCE)
    tasks.mark(str(tmp_path), "leave")
    assert ends(again)[0] is End.ABANDONED


# -- families ----------------------------------------------------------------------------------------------------


def test_tasks_call_tasks(session: Session) -> None:
    """``async def`` and ``def``, both ways, in one another."""
    assert session.run(tasks.sums, n=20).result(PATIENCE) == sum(range(1, 21))
    assert session.run(tasks.sums_sync, n=5).result(PATIENCE) == 5
    assert session.run(tasks.mixed, n=3).result(PATIENCE) == 3 + 0


def test_parents_and_children_in_a_queue_of_one_finish(opened: Open) -> None:
    """Nested, by ``await`` and by plain calls: while it only waits, a parent does not count."""
    assert opened(Queue("default", action_concurrency=1)).run(tasks.top).result(PATIENCE) == tasks.TOP


def test_a_chain_deeper_than_any_pool_of_threads_or_processes_ends(session: Session) -> None:
    """Each waiting caller frees its place."""
    assert session.run(tasks.down, n=8).result(PATIENCE) == 8


def test_cancelling_an_awaited_call_cancels_its_action(session: Session, tmp_path: Path) -> None:
    """And the child has cleaned up when the cancellation arrives."""
    run = session.run(tasks.impatient, folder=str(tmp_path))
    assert run.result(PATIENCE) == "cleaned 1"
    assert ends(run, "endless") == [End.CANCELLED]


def test_traced_helpers_are_not_called_again(session: Session, tmp_path: Path) -> None:
    """The second attempt gets the first one's value."""
    assert session.run(tasks.traced, folder=str(tmp_path)).result(PATIENCE) == 8
    assert tasks.marked(str(tmp_path), "helped") == 1


def test_many_attempts_at_once(session: Session, engine: str) -> None:
    """All end, each with its own result."""
    count = 40 if engine == "remote" else 200
    runs = [session.run(tasks.add if n % 2 else tasks.sub, x=n) for n in range(count)]
    assert [run.result(PATIENCE) for run in runs] == [n + 1 if n % 2 else n - 1 for n in range(count)]


# -- spot ----------------------------------------------------------------------------------------------------


@pytest.fixture
def spot(opened: Open, engine: str) -> Open:
    """Opens a session that has run something: its market's clock must not run out while a first worker starts."""
    # Where every attempt has a process of its own, each of them has to start first.
    start = 2.0 if engine == "remote" else 0.0

    def make(*reclaims: float, notice_seconds: float) -> Session:
        session = opened(reclaims=[start + seconds for seconds in reclaims], notice_seconds=notice_seconds)
        assert session.run(tasks.add, 1).result(PATIENCE) == 2  # on-demand, by the same engine
        return session

    return make


@pytest.mark.parametrize("task", [tasks.trains, tasks.trains_sync], ids=["async", "def"])
def test_a_reclaimed_attempt_saves_and_the_next_goes_on(spot: Open, tmp_path: Path, task: Any) -> None:
    """Notice, checkpoint, end, restore: in the same user attempt, and uncharged."""
    session = spot(0.1, notice_seconds=1.0)
    run = session.run(task, folder=str(tmp_path))
    assert run.result(PATIENCE) == (5, 1, 2)
    tasks.mark(str(tmp_path), "leave")
    assert tasks.marked(str(tmp_path), "saved") == 1
    assert ends(run) == [End.PREEMPTED, End.SUCCEEDED]
    first, second = run.record().root_action.attempts
    assert (first.medium, second.medium) == ("spot", "spot")
    assert first.notice == "terminate"
    assert first.charged != "retries"


def test_a_result_within_the_grace_counts(spot: Open) -> None:
    """The machine goes, the result stays."""
    run = spot(0.1, notice_seconds=5.0).run(tasks.hurries)
    assert run.result(PATIENCE) == "generation 1 on spot"
    assert ends(run) == [End.SUCCEEDED]


def test_an_error_after_the_notice_counts_as_preempted(spot: Open) -> None:
    """It is the machine's doing: not charged to the user's budget."""
    run = spot(0.1, notice_seconds=5.0).run(tasks.panics)
    assert run.result(PATIENCE) == (1, 2)
    assert ends(run) == [End.PREEMPTED, End.SUCCEEDED]


def test_preemptions_without_progress_lead_on_demand(spot: Open) -> None:
    """After so many in a row without a checkpoint, in the same user attempt."""
    run = spot(*[0.05] * 10, notice_seconds=0.05).run(tasks.never_saves)
    assert run.result(PATIENCE) == ("on-demand", 1, 3)
    assert ends(run) == [End.PREEMPTED, End.PREEMPTED, End.SUCCEEDED]


# -- deadlines -----------------------------------------------------------------------------------------------------


def test_work_with_a_deadline_goes_back_to_spot_by_a_planned_move(opened: Open) -> None:
    """No spot at first: it runs on-demand. When spot comes it is noticed, saves, and goes on there; nobody pays."""
    session = opened(capacity=((0.0, 0), (0.5, None)), startup=0.05)
    run = session.run(tasks.paced, 40)
    media = run.result(PATIENCE)
    first, second = run.record().root_action.attempts
    assert (first.medium, first.end, first.charged, first.notice) == ("on-demand", End.RELOCATED, "", "relocate")
    assert (second.medium, second.end) == ("spot", End.SUCCEEDED)
    assert media == sorted(media)  # first on-demand, then spot: no step was lost, none was done twice
    assert set(media) == {"on-demand", "spot"}
    assert run.record().root_action.preemptions == 0
    assert "was moved (to spot" in run.why()


def test_work_without_slack_stays_on_demand(opened: Open) -> None:
    """However much spot there is: R < C + 2d from the first moment on."""
    session = opened(startup=0.05)
    run = session.run(tasks.paced.override(timeout=Timeout(deadline=4.0), interruptible=SpotPolicy(work=3.95)), 5)
    assert set(run.result(PATIENCE)) == {"on-demand"}
    assert run.record().root_action.attempts[0].rule == "deadline-safety"
