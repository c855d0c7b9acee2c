"""Worker processes: how attempts run and end in them. Real processes, real signals, real time."""

# Files are how the tests and the tasks in other processes meet.
# ruff: noqa: ASYNC110, ASYNC220, ASYNC240

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flyteish._authoring.values.errors import rebuild
from flyteish._core.model.events import AttemptEnded, AttemptPlaced
from flyteish._core.model.queues import Pool
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, merge
from flyteish._core.model.values import TaskReference
from flyteish.blobs import open_blobs
from flyteish.engines.processes.engine import ProcessesEngine
from flyteish.errors import ConfigurationError, SessionClosedError
from flyteish.interfaces import Limits, Notice, OnJournalled, Opening, Outcome
from flyteish.logs.files import FileLogs
from flyteish.logs.nowhere import NoLogs
from tests.engines.processes import jobs
from tests.engines.processes.recording import Orders, Recorder, success, value


class Bench:
    """One engine with a recorder, and the orders for it."""

    def __init__(self, folder: Path, engine: ProcessesEngine, max_result: int = 1 << 30) -> None:
        self.folder = folder
        self.engine = engine
        self.recorder = Recorder()
        self.orders = Orders()
        self.blobs = open_blobs((folder / "blobs").as_uri())
        self.logs = FileLogs(folder / "logs")
        pools = {"local": Pool("local")}
        self.opening = Opening(pools, self.recorder, self.blobs, Limits(1 << 18, max_result), self.logs)

    async def result(self, task: Any, *args: Any, **more: Any) -> Any:
        order = self.orders(task, *args, **more)
        self.engine.start([order])
        return value(task, await self.recorder.end(order))

    async def end(self, task: Any, *args: Any, **more: Any) -> Any:
        order = self.orders(task, *args, **more)
        self.engine.start([order])
        return await self.recorder.end(order)

    def done(self, count: int) -> bool:
        return len(self.recorder.ended()) >= count

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.engine._workers]

    async def exists(self, path: str) -> None:
        async with asyncio.timeout(20):
            while not os.path.exists(path):
                await asyncio.sleep(0.002)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An open engine with two places."""
    made = Bench(tmp_path, ProcessesEngine(max_workers=2))
    await made.engine.open(made.opening)
    yield made
    await made.engine.close()
    assert not made.pids()
    assert no_children()


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Bench]:
    """An open engine with one place."""
    made = Bench(tmp_path, ProcessesEngine(max_workers=1))
    await made.engine.open(made.opening)
    yield made
    await made.engine.close()
    assert no_children()


def no_children() -> bool:
    """Neither running nor unreaped ones."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


# -- results ---------------------------------------------------------------------------------------------------


async def test_a_def_task_runs_on_the_main_thread_of_another_process(bench: Bench) -> None:
    """The worker is another process with the same working directory, and signals reach the task's thread."""
    pid, on_main_thread, folder = await bench.result(jobs.where)
    assert pid != os.getpid()
    assert on_main_thread
    assert folder == os.getcwd()


async def test_an_async_task_runs_on_a_loop_in_the_worker(bench: Bench) -> None:
    """`async def` tasks work there too, one after the other."""
    assert [await bench.result(jobs.adouble, n) for n in range(3)] == [0, 2, 4]


async def test_a_thousand_attempts_each_end_once_and_on_both_workers(bench: Bench) -> None:
    """Every attempt of a burst is reported ended exactly once, with its own result."""
    orders = [bench.orders(jobs.double, n) for n in range(1000)]
    bench.engine.start(orders)
    await bench.recorder.until(lambda: len(bench.recorder.ended()) == 1000)
    assert [value(jobs.double, await bench.recorder.end(order)) for order in orders] == [2 * n for n in range(1000)]
    assert sum(isinstance(event, AttemptEnded) for event in bench.recorder.events) == 1000


async def test_a_short_attempt_says_at_its_end_when_it_got_its_place(tmp_path: Path) -> None:
    """Where more is sent ahead than there are places; elsewhere whoever is ordered has one."""
    for ahead in (0, 8):
        bench = Bench(tmp_path, ProcessesEngine(max_workers=1))
        pools = {"local": Pool("local", capacity=1, ahead=ahead)}
        await bench.engine.open(bench.opening._replace(pools=pools))
        before = time.time()
        order = bench.orders(jobs.double, 1)
        bench.engine.start([order])
        await bench.recorder.end(order)
        (ended,) = bench.recorder.ends(order.key)
        assert before <= ended.placed_at <= ended.running_at if ahead else ended.placed_at == 0
        await bench.engine.close()


async def test_an_attempt_whose_import_takes_long_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said while the module is still being imported: user code runs later, the worker is taken now."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\ndef f():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bench = Bench(tmp_path, ProcessesEngine(max_workers=1))
    pools = {"local": Pool("local", capacity=1, ahead=8)}
    await bench.engine.open(bench.opening._replace(pools=pools))
    order = bench.orders(jobs.mute, order={"reference": TaskReference("slow_to_import", "f")})
    bench.engine.start([order])
    assert (await bench.recorder.end(order)).result
    placed, ended = bench.recorder.events
    assert isinstance(placed, AttemptPlaced)
    assert isinstance(ended, AttemptEnded)
    assert (ended.placed_at, ended.running_at > 0) == (0, True)
    await bench.engine.close()


async def test_a_large_result_goes_through_the_blob_store(bench: Bench) -> None:
    """What is too large for a message is stored; the evidence carries its address and size."""
    evidence = await bench.end(jobs.big, 1_000_000)
    assert evidence.result.data is None
    assert evidence.result.size == len(await bench.blobs.get(evidence.result.blob)) > 1_000_000


async def test_a_result_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """The error names the task, the size and the limit, and is final."""
    bench = Bench(tmp_path, ProcessesEngine(max_workers=1), max_result=2048)
    await bench.engine.open(bench.opening)
    evidence = await bench.end(jobs.big, 5000)
    await bench.engine.close()
    assert "jobs.big(): result of 4.9 KiB, more than the 2.0 KiB accepted" in evidence.error.message
    assert evidence.error.final


async def test_a_task_is_found_under_another_name_than_its_functions(bench: Bench) -> None:
    """`t = env.task(f)` leaves `f` a plain function in its module; the worker finds the task."""
    assert await bench.result(jobs.renamed, 3) == 3


# -- errors ------------------------------------------------------------------------------------------------------


async def test_an_exception_arrives_with_cause_notes_and_traceback(bench: Bench) -> None:
    """Type, arguments, attributes, cause and notes are those of the original, and the traceback is a note."""
    evidence = await bench.end(jobs.fail)
    error = rebuild(evidence.error)
    assert type(error) is jobs.BadOrderError
    assert error.args == (7, "too late")
    assert error.number == 7
    assert isinstance(error.__cause__, KeyError)
    assert error.__notes__[0] == "while shipping"
    assert "in fail\n    raise failure from error" in error.__notes__[1]
    assert "_worker" not in evidence.error.traceback
    assert not evidence.error.final


async def test_a_non_recoverable_error_is_final(bench: Bench) -> None:
    """The document says that no retry can mend it."""
    evidence = await bench.end(jobs.give_up)
    assert evidence.error.final
    assert evidence.error.type == "flyteish.errors.NonRecoverableError"


@pytest.mark.parametrize("task, kind", [(jobs.leave, "SystemExit"), (jobs.interrupt, "KeyboardInterrupt")])
async def test_leaving_is_an_error_like_any_other(bench: Bench, task: Any, kind: str) -> None:
    """`sys.exit()` and KeyboardInterrupt end the attempt, not the worker."""
    evidence = await bench.end(task, *([3] if task is jobs.leave else []))
    assert evidence.error.type == f"builtins.{kind}"
    assert len(bench.pids()) == 1


async def test_user_code_that_cancels_itself_failed(bench: Bench) -> None:
    """A CancelledError that nobody asked for is an error, not a stop."""
    evidence = await bench.end(jobs.cancels_itself)
    assert evidence.error.type == "asyncio.exceptions.CancelledError"
    assert not evidence.stopped


async def test_an_unserialisable_result_is_a_final_error(bench: Bench) -> None:
    """A result that cannot be encoded fails the attempt, and names the task."""
    evidence = await bench.end(jobs.unserialisable)
    assert evidence.error.type == "flyteish.errors.SerializationError"
    assert "jobs.unserialisable" in evidence.error.message
    assert evidence.error.final


async def test_an_unimportable_task_says_why_and_what_to_do(bench: Bench) -> None:
    """A module that the worker cannot import is a final error that names it."""
    reference = TaskReference(module="no_such_module_anywhere", name="f")
    evidence = await bench.end(jobs.mute, order={"reference": reference, "task": "jobs.other"})
    assert evidence.error.type == "flyteish.errors.TaskNotImportableError"
    assert evidence.error.final
    for word in ("jobs.other", "no_such_module_anywhere", "ModuleNotFoundError", "define it at module level"):
        assert word in evidence.error.message


# -- ends of processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3])
async def test_a_task_that_exits_its_process_leaves_its_exit_code(bench: Bench, code: int) -> None:
    """`os._exit(code)` is evidence of that code, whether 0 or not, and the worker is replaced."""
    assert (await bench.end(jobs.drop_dead, code)).exit_code == code
    assert await bench.result(jobs.double, 1) == 2


async def test_a_crash_signal_is_a_negative_exit_code(bench: Bench) -> None:
    """A worker that dies of SIGABRT by itself is reported with the signal's number."""
    assert (await bench.end(jobs.kill_myself, int(signal.SIGABRT))).exit_code == -signal.SIGABRT


async def test_a_worker_killed_from_outside_vanished(bench: Bench) -> None:
    """SIGKILL from somebody else is infrastructure, not the task's doing."""
    started = bench.path("started")
    order = bench.orders(jobs.touch_and_hang, started)
    bench.engine.start([order])
    await bench.exists(started)
    os.kill(bench.pids()[0], signal.SIGKILL)
    evidence = await bench.recorder.end(order)
    assert "SIGKILL" in str(evidence.vanished)


async def test_what_waits_behind_a_worker_that_dies_runs_elsewhere(narrow: Bench) -> None:
    """Attempts that a dead worker had not begun are given to its successor; the dead one's own is reported."""
    await asyncio.gather(*[narrow.result(jobs.double, n) for n in range(50)])
    orders = [narrow.orders(jobs.drop_dead, 3), *[narrow.orders(jobs.double, n) for n in range(20)]]
    narrow.engine.start(orders)
    ends = [await narrow.recorder.end(order) for order in orders]
    assert ends[0].exit_code == 3
    assert [value(jobs.double, evidence) for evidence in ends[1:]] == [2 * n for n in range(20)]


async def test_a_worker_that_cannot_start_is_explained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a few failed starts the waiting attempts end, with what the process said last."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    evidence = await bench.end(jobs.mute)
    assert "exit code 7: no such library" in evidence.unmendable
    monkeypatch.undo()
    assert await bench.result(jobs.double, 1) == 2


async def test_children_of_waiting_parents_do_not_hang_when_no_worker_starts(
    narrow: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every worker waiting and none to be had, what waits for one ends as infrastructure."""
    order = narrow.orders(jobs.parent, 1)
    narrow.engine.start([order])
    await narrow.recorder.until(lambda: narrow.recorder.links[order.key].calls)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "no worker process could be started" in (await narrow.end(jobs.double, 1)).vanished
    narrow.recorder.links[order.key].finish(0, success(jobs.double, 1))
    assert (await narrow.recorder.end(order)).result


# -- stop ----------------------------------------------------------------------------------------------------------


async def test_a_stopped_def_task_unwinds_within_its_grace(bench: Bench) -> None:
    """A `def` task that sleeps is interrupted and its `finally` runs; the worker lives on."""
    tidied = bench.path("tidied")
    order = bench.orders(jobs.tidy, bench.path("entered"), tidied)
    bench.engine.start([order])
    await bench.exists(bench.path("entered"))
    pids = bench.pids()
    bench.engine.stop(order.key, "cancelled", 30.0)
    assert (await bench.recorder.end(order)).stopped
    assert os.path.exists(tidied)
    assert await bench.result(jobs.double, 1) == 2
    assert bench.pids() == pids


async def test_a_stopped_async_task_is_cancelled(bench: Bench) -> None:
    """An `async def` task gets a CancelledError, and its `finally` runs."""
    tidied = bench.path("tidied")
    order = bench.orders(jobs.asleep, bench.path("entered"), tidied)
    bench.engine.start([order])
    await bench.exists(bench.path("entered"))
    bench.engine.stop(order.key, "cancelled", 30.0)
    assert (await bench.recorder.end(order)).stopped
    assert os.path.exists(tidied)


@pytest.mark.parametrize("grace", [0.0, 0.05])
async def test_a_stop_that_is_ignored_ends_in_a_kill(bench: Bench, grace: float) -> None:
    """After the grace the worker is killed, and the attempt is reported stopped, once."""
    order = bench.orders(jobs.stubborn, bench.path("entered"))
    bench.engine.start([order])
    await bench.exists(bench.path("entered"))
    bench.engine.stop(order.key, "max_runtime", grace)
    evidence = await bench.recorder.end(order)
    assert evidence.stopped
    assert evidence.error is None


async def test_a_result_returned_under_cancellation_is_reported(bench: Bench) -> None:
    """What the task returns within the grace is in the evidence; whether it counts is the core's to say."""
    order = bench.orders(jobs.returns_when_cancelled, bench.path("entered"))
    bench.engine.start([order])
    await bench.exists(bench.path("entered"))
    bench.engine.stop(order.key, "cancelled", 30.0)
    evidence = await bench.recorder.end(order)
    assert value(jobs.returns_when_cancelled, evidence) == "partial"


async def test_attempts_that_never_began_are_stopped_at_once(narrow: Bench) -> None:
    """A stop of what waits behind a running attempt needs no grace and leaves the running one alone."""
    gate = narrow.path("gate")
    running, behind = narrow.orders(jobs.wait_for, gate), narrow.orders(jobs.mute)
    narrow.engine.start([running, behind])
    await narrow.recorder.running(running)
    narrow.engine.stop(behind.key, "cancelled", 60.0)
    assert (await narrow.recorder.end(behind)).stopped
    Path(gate).touch()
    assert (await narrow.recorder.end(running)).result


async def test_stop_and_reclaim_of_what_is_over_do_nothing(bench: Bench) -> None:
    """An attempt that ended is reported once, whatever is asked for later."""
    order = bench.orders(jobs.double, 1)
    bench.engine.start([order])
    await bench.recorder.end(order)
    bench.engine.stop(order.key, "cancelled", 0.0)
    bench.engine.reclaim(order.key, Notice("terminate", 0.0))
    assert await bench.result(jobs.double, 2) == 4
    assert len(bench.recorder.ends(order.key)) == 1


# -- reclaim -----------------------------------------------------------------------------------------------------


async def test_a_reclaimed_attempt_may_save_in_its_grace(bench: Bench) -> None:
    """The task hears the notice and its checkpoint is committed; then the machine goes away."""
    order = bench.orders(jobs.saves_on_notice)
    bench.engine.start([order])
    await bench.recorder.running(order)
    bench.engine.reclaim(order.key, Notice("terminate", 0.5))
    evidence = await bench.recorder.end(order)
    assert "reclaimed by the market" in str(evidence.reclaimed)
    assert [record.progress for record in bench.recorder.links[order.key].checkpoints] == [0.5]
    assert [(n.kind, n.source) for n in bench.recorder.notices(order)] == [("terminate", "market")]


async def test_a_result_within_the_grace_counts(bench: Bench) -> None:
    """A task that returns before the machine goes away is reported with its result."""
    order = bench.orders(jobs.returns_on_notice)
    bench.engine.start([order])
    await bench.recorder.running(order)
    bench.engine.reclaim(order.key, Notice("drain", 30.0))
    assert value(jobs.returns_on_notice, await bench.recorder.end(order)) == "drain by market"


async def test_a_reclaim_without_notice_is_a_kill(bench: Bench) -> None:
    """Zero seconds of notice leave no grace."""
    order = bench.orders(jobs.stubborn, bench.path("entered"))
    bench.engine.start([order])
    await bench.exists(bench.path("entered"))
    bench.engine.reclaim(order.key, Notice("terminate", 0.0))
    assert (await bench.recorder.end(order)).reclaimed


async def test_sigterm_from_outside_is_a_notice(bench: Bench) -> None:
    """SIGTERM to a worker does not end it: its attempt is told, and the controller too."""
    order = bench.orders(jobs.returns_on_notice)
    bench.engine.start([order])
    await bench.recorder.running(order)
    os.kill(bench.pids()[0], signal.SIGTERM)
    assert value(jobs.returns_on_notice, await bench.recorder.end(order)) == "shutdown by sigterm"
    assert [n.kind for n in bench.recorder.notices(order)] == ["shutdown"]


# -- surroundings ------------------------------------------------------------------------------------------------


async def test_variables_and_secrets_last_as_long_as_the_attempt(narrow: Bench) -> None:
    """`env_vars` and secrets are set for their attempt only, in a worker that serves others after it."""
    settings = merge(
        [(Level.TASK, opinions(Level.TASK, "a test", {"env_vars": {"COLOUR": "green"}, "secrets": "token"}))]
    )
    more = {"settings": settings}
    assert await narrow.result(jobs.variable, "COLOUR", order=more) == "green"
    assert await narrow.result(jobs.variable, "TOKEN", order=more) == "value of token"
    assert await narrow.result(jobs.variable, "COLOUR") is None
    assert await narrow.result(jobs.variable, "TOKEN") is None


async def test_a_changed_directory_is_changed_back(narrow: Bench) -> None:
    """The next attempt in the same worker starts where the host is."""
    await narrow.result(jobs.go_to, str(narrow.folder))
    assert (await narrow.result(jobs.where))[2] == os.getcwd()


async def test_each_attempt_has_its_own_log(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """Prints, logging, bare writes and children's output are in the attempt's file, none on the terminal."""
    order, silent = bench.orders(jobs.speak, "hello"), bench.orders(jobs.mute)
    bench.engine.start([order, silent])
    assert (await bench.recorder.end(order)).result
    assert (await bench.recorder.end(silent)).result
    path = bench.logs.path(order.key)
    text = path.read_text()
    for words in ("hello\n", "hello in part", "logged hello", "written\n", "by a child\n"):
        assert words in text
    await bench.engine.close()  # a log without a word in it is gone by the end at the latest
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


# -- child calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [jobs.parent, jobs.aparent])
async def test_a_child_call_goes_to_the_controller_and_comes_back(bench: Bench, task: Any) -> None:
    """A task called inside a task is a call on the attempt's link; its outcome is the call's value."""
    bench.recorder.answer = lambda link, number, call: link.finish(number, success(jobs.double, 42))
    order = bench.orders(task, 5)
    bench.engine.start([order])
    assert value(task, await bench.recorder.end(order)) == 43
    (call,) = bench.recorder.links[order.key].calls
    assert call.profile.task == "jobs.double"


async def test_a_waiting_parent_gives_its_place_to_its_child(narrow: Bench) -> None:
    """With one place, parents that wait for children in the same engine do not starve them."""

    def run_it(link: Any, number: int, call: Any) -> None:
        child = narrow.orders(jobs.double, 0, order={"inputs": call.inputs})
        narrow.engine.start([child])

        async def forward() -> None:
            evidence = await narrow.recorder.end(child)
            link.finish(number, Outcome("r1", "child", "succeeded", result=evidence.result))

        waiting.append(asyncio.create_task(forward(), name="child"))

    waiting: list[asyncio.Task[None]] = []
    narrow.recorder.answer = run_it
    assert await asyncio.gather(*[narrow.result(jobs.parent, n) for n in range(3)]) == [1, 3, 5]
    await asyncio.gather(*waiting)


async def test_a_call_that_is_no_longer_awaited_is_cancelled(bench: Bench) -> None:
    """A time-out inside the task cancels the child through the link."""
    order = bench.orders(jobs.impatient, 1)
    bench.engine.start([order])
    assert value(jobs.impatient, await bench.recorder.end(order)) == "gave up"
    assert [number for number, _ in bench.recorder.links[order.key].cancelled] == [0]


async def test_an_order_behind_a_long_attempt_moves_to_a_free_worker(bench: Bench) -> None:
    """Orders that were sent ahead are taken back from behind an attempt that takes long."""
    await asyncio.gather(*[bench.result(jobs.double, n) for n in range(200)])  # a pace at which orders go ahead
    gates = [bench.path("gate0"), bench.path("gate1")]
    long = [bench.orders(jobs.wait_for, gate) for gate in gates]
    short = [bench.orders(jobs.double, n) for n in range(40)]
    bench.engine.start([long[0], *short[:20], long[1], *short[20:]])
    await bench.recorder.running(long[0])
    await bench.recorder.running(long[1])
    Path(gates[1]).touch()
    for order in short:
        assert (await bench.recorder.end(order)).result
    assert not bench.recorder.ends(long[0].key)
    Path(gates[0]).touch()
    await bench.recorder.end(long[0])


@pytest.mark.parametrize(
    "forged",
    [
        "another's checkpoint", "another's end", "no number", "ready again", "what was not asked", "garbage",
        "a huge frame", "an unknown message",
    ],
)  # fmt: skip
async def test_a_worker_that_speaks_nonsense_is_ended(narrow: Bench, forged: str) -> None:
    """Its attempt failed by no fault of anybody's code that is known, and says so; the pool goes on."""
    evidence = await narrow.end(jobs.forge, forged)
    assert "its worker spoke nonsense: " in evidence.vanished
    assert await narrow.result(jobs.double, 2) == 4


@pytest.mark.parametrize("job", [jobs.draws, jobs.draws_async])
async def test_a_traced_value_is_seen_once_it_is_on_record(bench: Bench, job: Any) -> None:
    """A worker's helper returns when the controller has said that its value is journalled, not before."""
    confirmed_at: list[float] = []
    loop = asyncio.get_running_loop()

    def confirm(done: OnJournalled) -> None:
        confirmed_at.append(time.monotonic())
        done(None)

    bench.recorder.confirm = lambda done: loop.call_later(0.05, confirm, done)
    order = bench.orders(job)
    bench.engine.start([order])
    began, _, seen = value(job, await bench.recorder.end(order))
    assert began < confirmed_at[0] <= seen


async def test_a_refused_value_ends_a_helper_of_a_worker(bench: Bench) -> None:
    """What the controller refuses is an error in the task, as of a checkpoint."""
    bench.recorder.confirm = lambda done: done("a newer attempt runs")
    order = bench.orders(jobs.draws)
    bench.engine.start([order])
    error = (await bench.recorder.end(order)).error
    assert error is not None
    assert (error.type, "refused: a newer attempt runs" in error.message) == ("flyteish.errors.StaleAttemptError", True)


async def test_every_attempt_ends_once_whatever_kills_its_worker(bench: Bench, seed: int) -> None:
    """While workers are killed at random, each attempt is reported ended exactly once."""
    chance = random.Random(seed)
    orders = [bench.orders(jobs.double, n) for n in range(2000)]
    bench.engine.start(orders)
    for kill_after in (1, 60, 120, 180):
        await bench.recorder.until(partial(bench.done, kill_after + chance.randrange(40)))
        os.kill(chance.choice(bench.pids()), signal.SIGKILL)
    await bench.recorder.until(partial(bench.done, len(orders)))
    for order in orders:
        (ended,) = bench.recorder.ends(order.key)
        assert ended.evidence.vanished or ended.evidence.result


# -- the end -----------------------------------------------------------------------------------------------------


async def test_close_ends_every_attempt_in_bounded_time(tmp_path: Path) -> None:
    """Running, ignoring and waiting attempts are all reported stopped, and no process, thread or file is left."""
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    bench = Bench(tmp_path, ProcessesEngine(max_workers=2))
    await bench.engine.open(bench.opening)
    running = [
        bench.orders(jobs.stubborn, bench.path("a")),
        bench.orders(jobs.asleep, bench.path("b"), bench.path("tidied")),
    ]
    waiting = [bench.orders(jobs.mute) for _ in range(5)]
    bench.engine.start([*running, *waiting])
    await bench.exists(bench.path("a"))
    await bench.exists(bench.path("b"))
    async with asyncio.timeout(6):
        await bench.engine.close()
    for order in (*running, *waiting):
        assert (await bench.recorder.end(order)).stopped
        assert len(bench.recorder.ends(order.key)) == 1
    assert no_children()
    assert [t.name for t in threading.enumerate() if "wait for worker" in t.name] == []
    if before:
        assert set(os.listdir("/proc/self/fd")) - before == set()


async def test_a_closed_engine_refuses_orders(bench: Bench) -> None:
    """Orders for a closed engine are an error, not lost."""
    await bench.engine.close()
    with pytest.raises(SessionClosedError):
        bench.engine.start([bench.orders(jobs.mute)])


async def test_no_worker_and_no_grandchild_outlives_a_killed_controller(tmp_path: Path) -> None:
    """When the controller dies by SIGKILL, its workers end, and with them what their tasks started."""
    told = tmp_path / "pids"
    program = f"""
        import asyncio
        from pathlib import Path
        from flyteish.blobs import open_blobs
        from flyteish._core.model.queues import Pool
        from flyteish.engines.processes.engine import ProcessesEngine
        from flyteish.interfaces import Limits, Opening
        from flyteish.logs.nowhere import NoLogs
        from tests.engines.processes import jobs
        from tests.engines.processes.recording import Orders, Recorder

        async def main():
            engine = ProcessesEngine(max_workers=1)
            blobs = open_blobs({(tmp_path / "blobs").as_uri()!r})
            pools, limits = {{"local": Pool("local")}}, Limits(1 << 18, 1 << 30)
            await engine.open(Opening(pools, Recorder(), blobs, limits, NoLogs()))
            engine.start([Orders()(jobs.start_child, {str(told)!r})])
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    controller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        async with asyncio.timeout(20):
            while not told.exists():
                await asyncio.sleep(0.005)
    finally:
        controller.kill()
        controller.wait()
    pids = [int(pid) for pid in told.read_text().split()]
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped by somebody else does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["max_workers", "batch"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_bad_numbers_are_refused_by_name(name: str, bad: Any) -> None:
    """The error names the parameter, the value and what is accepted."""
    with pytest.raises(ConfigurationError, match=re.escape(f"{name}={bad!r}) is not accepted: expected an int")):
        ProcessesEngine(**{name: bad})


async def test_blobs_that_only_this_process_has_are_refused() -> None:
    """Values could not travel: the error says what to use instead."""
    opening = Opening({}, Recorder(), open_blobs("memory:"), Limits(1 << 18, 1 << 30), NoLogs())
    with pytest.raises(ConfigurationError, match="keep blobs in files"):
        await ProcessesEngine().open(opening)
