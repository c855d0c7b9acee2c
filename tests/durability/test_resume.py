"""What a resumed run is: the same run, going on. Each controller that dies here is closed in the middle, as a crash
looks to the journal; real crashes are the subject of ``test_kill_nine``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import Queue, Session, SpotPolicy, TaskEnvironment, Timeout, ctx, errors
from flyteish._controller.clock import HandClock
from flyteish._core.model.events import RunRecovered
from flyteish._core.model.records import End, Phase
from flyteish.stores.sqlite import SqliteStore

env = TaskEnvironment(name="resume")

PATIENCE = 20.0
ran: list[str] = []
gates: dict[str, threading.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    gates.clear()
    gates.update(reached=threading.Event(), open=threading.Event())


async def at_the_gate() -> None:
    """Says that it is here, and waits: for ever, unless the gate is open."""
    gates["reached"].set()
    while not gates["open"].is_set():  # noqa: ASYNC110 - opened by another thread
        await asyncio.sleep(0.002)


@env.task
async def child(x: int) -> int:
    ran.append(f"child {x}")
    return x * 10


@env.task
async def root(x: int) -> int:
    ran.append("root")
    value = await child(x)
    await at_the_gate()
    return value + await child(x + 1)


@env.task
async def fails() -> None:
    raise ValueError("told", 7)


@env.task
async def trivial() -> int:
    return 1


def died(home: Path, start: Callable[[Session], Any], *queues: Queue) -> str:
    """Start a run, let its controller go when the gate is reached, and return the run's name."""
    with Session(queues or [Queue("default")], home=home) as session:
        run = start(session)
        assert gates["reached"].wait(PATIENCE)
    with pytest.raises(errors.SessionClosedError, match=f"flyteish resume {run.name}"):
        run.result(PATIENCE)
    gates["reached"].clear()
    gates["open"].set()
    name: str = run.name
    return name


def only(run: Any, task: str) -> Any:
    (action,) = [each for each in run.actions() if each.profile.task == task]
    return action


def test_the_root_runs_again_and_finished_children_do_not(tmp_path: Path) -> None:
    """The recorded result of the first child reaches the root's second attempt; what was not called yet is called."""
    name = died(tmp_path, lambda session: session.run(root, x=1))
    with Session(home=tmp_path) as session:
        run = session.resume(name, root)
        assert run.name == name
        assert run.result(PATIENCE) == 30
    assert ran == ["root", "child 1", "root", "child 2"]
    top = run.record().root_action
    assert [attempt.end for attempt in top.attempts] == [End.ABANDONED, End.SUCCEEDED]
    assert [attempt.charged for attempt in top.attempts] == ["", ""]
    assert (top.user_attempt, top.generation, top.system_used) == (1, 2, 0)


def test_a_finished_run_returns_its_recorded_outcome(tmp_path: Path) -> None:
    """Nothing runs again, however often it is resumed, and its record does not grow."""
    gates["open"].set()
    with Session(home=tmp_path) as session:
        run = session.run(root, x=1)
        assert run.result(PATIENCE) == 30
    before, entries = list(ran), list(run.journal())
    for _ in range(2):
        with Session(home=tmp_path) as session:
            again = session.resume(run.name, root)
            assert again.done()
            assert (again.phase, again.result(PATIENCE)) == ("succeeded", 30)
            assert again.cost().on_demand_seconds >= 0
    assert ran == before
    assert list(again.journal()) == entries


def test_a_failed_run_raises_its_recorded_error(tmp_path: Path) -> None:
    """With type, arguments and the story of the attempts."""
    with Session(home=tmp_path) as session:
        run = session.run(fails)
        with pytest.raises(ValueError, match="told"):
            run.result(PATIENCE)
    with Session(home=tmp_path) as session:
        again = session.resume(run.name, fails)
        assert again.phase == "failed"
        with pytest.raises(ValueError, match="told") as caught:
            again.result(PATIENCE)
    assert caught.value.args == ("told", 7)
    assert any("attempt" in line for line in caught.value.__notes__)


def test_an_aborted_run_stays_aborted(tmp_path: Path) -> None:
    """A person's decision outlives the controller that carried it out."""
    with Session(home=tmp_path) as session:
        run = session.run(root, x=1)
        assert gates["reached"].wait(PATIENCE)
        run.abort("had enough")
        run.wait(PATIENCE)
    with Session(home=tmp_path) as session, pytest.raises(errors.ActionAbortedError, match="had enough"):
        session.resume(run.name, root).result(PATIENCE)


def test_an_unknown_run_is_an_error_with_near_names(tmp_path: Path) -> None:
    """And so is one of another home."""
    with Session(home=tmp_path) as session:
        run = session.with_runcontext(name="monday-training").run(trivial)
        run.wait(PATIENCE)
        with pytest.raises(errors.RunNotFoundError, match=r"'mondey-training'.*did you mean monday-training"):
            session.resume("mondey-training", trivial)
        with pytest.raises(errors.RunNotFoundError, match="no run 'x'"):
            session.resume("x")
    with Session(home=tmp_path / "other") as session, pytest.raises(errors.RunNotFoundError):
        session.resume(run.name, trivial)


def test_another_task_than_the_runs_is_refused(tmp_path: Path) -> None:
    """A run is of one task; resuming it with another would be a different program."""
    name = died(tmp_path, lambda session: session.run(root, x=1))
    with Session(home=tmp_path) as session:
        with pytest.raises(errors.ConfigurationError, match=r"task=resume\.child.*run of resume\.root"):
            session.resume(name, child)
        assert session.resume(name, root).result(PATIENCE) == 30


def test_the_root_task_is_found_by_itself(tmp_path: Path) -> None:
    """From the module that the run recorded."""
    name = died(tmp_path, lambda session: session.run(root, x=1))
    with Session(home=tmp_path) as session:
        assert session.resume(name).result(PATIENCE) == 30


def test_a_local_task_cannot_be_found_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    """Given the task, the run goes on."""
    local = TaskEnvironment(name="local")

    @local.task
    async def inner() -> int:
        await at_the_gate()
        return 5

    name = died(tmp_path, lambda session: session.run(inner))
    with Session(home=tmp_path) as session:
        with pytest.raises(errors.TaskNotImportableError, match=r"give the task to Session\.resume"):
            session.resume(name)
        assert session.resume(name, inner).result(PATIENCE) == 5


def test_resuming_a_run_that_is_active_here_gives_its_handle(tmp_path: Path) -> None:
    """Whether it was started or resumed in this session: nothing is started twice."""
    with Session(home=tmp_path) as session:
        run = session.run(root, x=1)
        assert gates["reached"].wait(PATIENCE)
        assert session.resume(run.name, root) is run
        gates["open"].set()
        assert run.result(PATIENCE) == 30
        assert session.resume(run.name, root).result(PATIENCE) == 30
    assert ran.count("root") == 1


def test_a_run_may_die_and_be_resumed_again_and_again(tmp_path: Path) -> None:
    """Each death abandons one attempt of the root, and charges nobody: more of them than any budget has."""
    name = died(tmp_path, lambda session: session.run(root, x=1))
    for _ in range(5):
        gates["open"].clear()
        assert died(tmp_path, lambda session: session.resume(name, root)) == name
    with Session(home=tmp_path) as session:
        run = session.resume(name, root)
        assert run.result(PATIENCE) == 30
    top = run.record().root_action
    assert [attempt.end for attempt in top.attempts] == [End.ABANDONED] * 6 + [End.SUCCEEDED]
    assert (top.user_attempt, top.generation, top.abandoned) == (1, 7, 6)
    assert ran.count("child 1") == 1


def test_a_child_that_is_called_with_other_inputs_now_is_another_child(tmp_path: Path) -> None:
    """The code was changed in between: what was called before and is not called any more does not keep the run open."""
    factor = [1]

    @env.task
    async def slow(x: int) -> int:
        ran.append(f"slow {x}")
        await at_the_gate()
        return x

    @env.task
    async def changed() -> int:
        return await slow(factor[0])

    name = died(tmp_path, lambda session: session.run(changed))
    factor[0] = 2
    with Session(home=tmp_path) as session:
        run = session.resume(name, changed)
        assert run.result(PATIENCE) == 2
    assert ran == ["slow 1", "slow 2"]
    phases = {action.phase for action in run.actions() if action.profile.task == "resume.slow"}
    assert phases == {Phase.SUCCEEDED, Phase.ABORTED}
    row = SqliteStore(tmp_path / "flyteish.db").run(name)
    assert row is not None
    assert row.ended_at is not None


def test_a_child_in_flight_is_run_again_under_its_own_name(tmp_path: Path) -> None:
    """It is the same action, one generation later, in the same user attempt."""

    @env.task(retries=1)
    async def waits() -> tuple[int, int]:
        await at_the_gate()
        return ctx().attempt, ctx().generation

    @env.task
    async def family() -> tuple[int, int]:
        return await waits()

    name = died(tmp_path, lambda session: session.run(family))
    with Session(home=tmp_path) as session:
        run = session.resume(name, family)
        assert run.result(PATIENCE) == (1, 2)
        assert [attempt.end for attempt in only(run, "resume.waits").attempts] == [End.ABANDONED, End.SUCCEEDED]


def test_user_attempts_that_were_used_stay_used(tmp_path: Path) -> None:
    """A failure before the crash counts, the crash does not."""

    @env.task(retries=2)
    async def unlucky() -> None:
        ran.append(f"attempt {ctx().attempt}")
        if ctx().attempt == 2:
            await at_the_gate()
        raise ConnectionError("again")

    name = died(tmp_path, lambda session: session.run(unlucky))
    with Session(home=tmp_path) as session, pytest.raises(ConnectionError) as caught:
        session.resume(name, unlucky).result(PATIENCE)
    assert ran == ["attempt 1", "attempt 2", "attempt 2", "attempt 3"]
    assert "controller stopped" in "".join(caught.value.__notes__)


def test_checkpoints_and_traced_values_are_there_after_the_crash(tmp_path: Path) -> None:
    """The chain belongs to the action; a helper that returned is not called again."""

    @flyteish.trace
    async def helper() -> int:
        ran.append("helper")
        return 3

    @env.task
    async def trains() -> int:
        begin = int(await ctx().checkpoint.load_bytes() or b"0")
        ran.append(f"from {begin}")
        value = await helper()
        if begin == 0:
            await ctx().checkpoint.save(b"4", progress=0.5)
            await at_the_gate()
        latest = ctx().checkpoint.latest()
        assert latest is not None
        assert (latest.sequence, latest.generation, latest.progress) == (1, 1, 0.5)
        return begin + value

    name = died(tmp_path, lambda session: session.run(trains))
    with Session(home=tmp_path) as session:
        assert session.resume(name, trains).result(PATIENCE) == 7
    assert ran == ["from 0", "helper", "from 4"]


def test_the_deadline_goes_on_counting_while_nobody_runs(tmp_path: Path) -> None:
    """It counts from the first submission: a run whose deadline passed while it lay there ends as timed out."""

    @env.task(timeout=Timeout(deadline=100.0), retries=5)
    async def dated() -> float | None:
        await at_the_gate()
        return ctx().seconds_to_deadline

    began = time.time()
    with Session(home=tmp_path, clock=HandClock(began)) as session:
        run = session.run(dated)
        assert gates["reached"].wait(PATIENCE)
    gates["open"].set()
    with Session(home=tmp_path, clock=HandClock(began + 40.0)) as session:
        left = session.resume(run.name, dated).result(PATIENCE)
        assert left is not None
        assert 0 < left <= 100.0
    gates["open"].clear()
    gates["reached"].clear()
    with Session(home=tmp_path, clock=HandClock(began)) as session:
        late = session.run(dated)
        assert gates["reached"].wait(PATIENCE)
    timed_out = pytest.raises(errors.ActionTimedOutError, match="deadline of 100 s")
    with Session(home=tmp_path, clock=HandClock(began + 101.0)) as session, timed_out:
        session.resume(late.name, dated).result(PATIENCE)


def test_the_settings_of_with_runcontext_survive(tmp_path: Path) -> None:
    """Children that are first called after the crash have them too."""

    @env.task(interruptible=True, retries=1)
    async def looks() -> tuple[str, str, str]:
        import os

        return ctx().queue, ctx().medium, os.environ["RESUME_SAYS"]

    @env.task
    async def asks() -> tuple[str, str, str]:
        await at_the_gate()
        return await looks()

    def start(session: Session) -> Any:
        context = session.with_runcontext(
            queue="special", env_vars={"RESUME_SAYS": "hello"}, interruptible=False, name="with-settings"
        )
        return context.run(asks)

    queues = (Queue("default"), Queue("special"))
    assert died(tmp_path, start, *queues) == "with-settings"
    with Session(queues, home=tmp_path) as session:
        run = session.resume("with-settings", asks)
        assert run.result(PATIENCE) == ("special", "on-demand", "hello")


def test_a_queue_that_is_not_configured_any_more_is_named_before_anything_happens(tmp_path: Path) -> None:
    """The run is untouched, and goes on once the queue is back."""
    name = died(
        tmp_path,
        lambda session: session.with_runcontext(queue="gpu").run(root, x=1),
        Queue("default"),
        Queue("gpu"),
    )
    with Session(home=tmp_path) as session:
        with pytest.raises(errors.UnknownQueueError, match=r"'gpu'.*known queues: default"):
            session.resume(name, root)
        assert session.run(trivial).result(PATIENCE) == 1, "the session is not harmed"
    with Session([Queue("default"), Queue("gpu")], home=tmp_path) as session:
        assert session.resume(name, root).result(PATIENCE) == 30


def test_the_medium_follows_the_same_rules_after_the_crash(tmp_path: Path) -> None:
    """An abandoned spot attempt is none of the preemptions that lead on-demand."""

    @env.task(interruptible=SpotPolicy(preemptions_without_progress=1), retries=1)
    async def cheap() -> str:
        await at_the_gate()
        return ctx().medium

    name = died(tmp_path, lambda session: session.run(cheap))
    with Session(home=tmp_path) as session:
        assert session.resume(name, cheap).result(PATIENCE) == "spot"


@pytest.mark.parametrize("state", ["held", "draining"])
def test_queue_states_survive_a_restart(tmp_path: Path, state: str) -> None:
    """A held queue starts nothing in the next session either; a draining one refuses, until it is active again."""
    with Session(home=tmp_path) as session:
        session.set_queue_state("default", state)
    with Session(home=tmp_path) as session:
        run = session.run(trivial)
        if state == "held":
            with pytest.raises(TimeoutError):
                run.result(0.1)
            assert "held" in run.why().lower()
        else:
            with pytest.raises(errors.ResourceExhaustedError, match="drain"):
                run.result(PATIENCE)
        session.set_queue_state("default", "active")
        waiting = run if state == "held" else session.run(trivial)
        assert waiting.result(PATIENCE) == 1
    with Session(home=tmp_path) as session:
        assert session.run(trivial).result(PATIENCE) == 1, "active survives too"


def test_each_resumption_is_on_record(tmp_path: Path) -> None:
    """For ``why`` and for people."""
    name = died(tmp_path, lambda session: session.run(root, x=1))
    with Session(home=tmp_path) as session:
        run = session.resume(name, root)
        run.wait(PATIENCE)
        assert sum(isinstance(entry.event, RunRecovered) for _, entry in run.journal()) == 1
        assert "controller stopped" in run.why()


def test_a_run_whose_controller_died_right_after_its_end_is_listed_as_ended(tmp_path: Path) -> None:
    """Descendants that were still letting go do not keep it in the list of active runs."""
    stubborn = threading.Event()

    @env.task
    async def clings() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            while not stubborn.is_set():  # noqa: ASYNC110 - a clean-up that takes its time
                await asyncio.sleep(0.002)

    @env.task
    async def leaves() -> str:
        task = asyncio.ensure_future(clings())
        await asyncio.sleep(0.05)
        assert not task.done()
        return "left"

    with Session(home=tmp_path) as session:
        run = session.run(leaves)
        assert run.result(PATIENCE) == "left"
        assert session.resume(run.name, leaves).result(PATIENCE) == "left"
        stubborn.set()
    store = SqliteStore(tmp_path / "flyteish.db")
    assert store.runs(active_only=True) == []
    with Session(home=tmp_path) as session:
        assert session.resume(run.name, leaves).result(PATIENCE) == "left"
