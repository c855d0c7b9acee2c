"""Attempts that outlive their session: left alone when it closes, found by the next one, ended when they have to be.

That the session is killed is the subject of tests/adoption; here it closes.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pytest

from flyteish import Pool, Queue, Session, __version__, errors
from flyteish._core.model.events import AttemptPending
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import End
from flyteish._worker import claims
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST, FrameReader, greeting
from flyteish.cli import main
from flyteish.interfaces import BlobStore, OnJournalled, Opening, Reference, Report, Reports
from flyteish.testing import RemoteEngine, ScriptedMarket
from flyteish.testing.lasting_processes import LastingProcesses
from tests.adoption.proxy import Proxy
from tests.testing import far_tasks as tasks

PATIENCE = 30.0
T = TypeVar("T")

Open = Callable[..., Session]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens sessions over one home; whatever lives at the end is ended."""
    monkeypatch.setenv("FLYTEISH_STOP_GRACE", "0.5")
    sessions: list[Session] = []

    def make(
        *,
        on_close: Literal["stop", "detach"] = "detach",
        recover: Literal["none", "all"] = "all",
        market: ScriptedMarket | None = None,
        engine: type[RemoteEngine] = RemoteEngine,
        **options: Any,
    ) -> Session:
        pools = [
            Pool("spot", medium="spot", engine="remote", on_close=on_close, grace=2.0, market=market),
            Pool("on-demand", engine="remote", on_close=on_close, grace=2.0),
        ]
        session = Session(
            [Queue("default")],
            pools,
            home=tmp_path / "home",
            engines={"remote": lambda: engine(tmp_path / "far", **options)},
            secrets={"far-secret": "hunter2"},
            recover=recover,
        ).open()
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()
    processes = LastingProcesses(tmp_path / "far" / "attempts")
    for name in list(processes.names()):
        process = processes.find(name)
        if process is not None:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    made = tmp_path / "files"
    made.mkdir()
    return str(made)


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.003)


def ends(run: Any) -> list[End | None]:
    return [attempt.end for attempt in run.record().root_action.attempts]


def alive(pid: str) -> bool:
    """A process that only waits to be reaped is dead."""
    try:
        os.kill(int(pid), 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.parent.parent.joinpath("self").exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# -- closing and adopting --------------------------------------------------------------------------------------------


def test_an_attempt_that_is_left_alone_goes_on_and_is_taken_over(opened: Open, folder: str) -> None:
    """Same process, same generation; its result is that of the run."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    with pytest.raises(errors.SessionClosedError):
        run.result(PATIENCE)
    (pid,) = tasks.marks(folder, "began")
    assert alive(pid)
    again: Any = opened().resume(run.name)
    tasks.mark(folder, "gate")
    assert again.result(PATIENCE) == 7
    assert tasks.marks(folder, "began") == [pid]
    assert ends(again) == [End.SUCCEEDED]
    wait_for(lambda: not alive(pid), "the end of its process")


def test_an_end_while_nobody_listened_is_found(opened: Open, folder: str, tmp_path: Path) -> None:
    """It was claimed in the blob store, and counts once; then nothing is left of it."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    tasks.mark(folder, "gate")
    wait_for(lambda: not alive(pid), "its end")
    session = opened()
    again: Any = session.resume(run.name)
    assert again.result(PATIENCE) == 7
    assert tasks.marks(folder, "began") == [pid]
    assert ends(again) == [End.SUCCEEDED]
    wait_for(lambda: not list((tmp_path / "far" / "attempts").iterdir()), "the end of its record")


def ended_unheard(opened: Open, folder: str, task: Any, how: Callable[[int], None]) -> tuple[Any, str]:
    """A run whose one attempt ended while no session was open; how it is to be ended gets its process id."""
    session = opened()
    run = session.run(task, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    how(int(pid))
    wait_for(lambda: not alive(pid), "its end")
    return run, pid


@pytest.mark.parametrize("killed", [False, True])
def test_what_ended_while_nobody_listened_costs_until_then(
    opened: Open, folder: str, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Not until somebody is there again to hear of it, an hour later."""

    def end(pid: int) -> None:
        os.kill(pid, signal.SIGKILL) if killed else tasks.mark(folder, "gate")

    run, _ = ended_unheard(opened, folder, tasks.waits, end)
    tasks.mark(folder, "gate")
    later = time.time
    monkeypatch.setattr(time, "time", lambda: later() + 3600)
    again: Any = opened().resume(run.name)
    assert again.result(PATIENCE) == 7
    first = again.record().root_action.attempts[0]
    assert first.end is (End.INFRASTRUCTURE if killed else End.SUCCEEDED)
    assert 0 < first.ended_at - first.placed_at < 600


def test_a_signal_that_nobody_heard_of_is_a_preemption_all_the_same(opened: Open, folder: str) -> None:
    """Its notice is in its claim: nobody's retries pay for a machine that was taken away."""

    def end(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        tasks.mark(folder, "gate")

    run, _ = ended_unheard(opened, folder, tasks.leaves, end)
    again: Any = opened().resume(run.name)
    assert again.result(PATIENCE) == (1, 2)
    assert ends(again) == [End.PREEMPTED, End.SUCCEEDED]


def test_what_was_told_to_end_is_not_left_alone(opened: Open, folder: str) -> None:
    """Its run is over, so that no later session would end it."""
    session = opened()
    run = session.run(tasks.hears_nothing, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    run.abort("enough")
    wait_for(lambda: tasks.marks(folder, "asked"), "that it was asked to end")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    assert not alive(pid)


def test_parents_and_children_go_on_together(opened: Open, folder: str) -> None:
    """A parent that waits hears of children that ended under another controller."""
    session = opened()
    run = session.run(tasks.parent, folder=folder)
    wait_for(lambda: len(tasks.marks(folder, "began")) == 2, "the beginning of the children")
    session.close()
    tasks.mark(folder, "gate")
    again: Any = opened().resume(run.name)
    assert again.result(PATIENCE) == 3
    assert (len(tasks.marks(folder, "parent")), len(tasks.marks(folder, "began"))) == (1, 2)


def test_closing_ends_what_is_not_to_be_left_alone(opened: Open, folder: str) -> None:
    """``on_close="stop"``: given up, uncharged, and run again by whoever resumes the run."""
    session = opened(on_close="stop")
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 8
    (pid,) = tasks.marks(folder, "began")
    wait_for(lambda: not alive(pid), "its end")
    tasks.mark(folder, "gate")
    again: Any = opened(on_close="stop").resume(run.name)
    assert again.result(PATIENCE) == 7
    assert ends(again) == [End.ABANDONED, End.SUCCEEDED]
    assert again.record().root_action.system_used == 0


class Late:
    """Reports whose answers take their time."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reports, name)

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        def late(why: str | None) -> None:
            assert done is not None
            threading.Timer(0.3, done, (why,)).start()

        self._reports.report(event, None if done is None else late)


class HearsLate(RemoteEngine):
    async def open(self, opening: Opening) -> None:
        await super().open(opening._replace(reports=Late(opening.reports)))


def test_nothing_is_left_of_an_end_that_is_on_record(opened: Open, tmp_path: Path) -> None:
    """Also where the session closes as soon as it has the result, and before its engine hears that it is on record."""
    session = opened(engine=HearsLate)
    assert session.run(tasks.add, 1).result(PATIENCE) == 2
    session.close()
    assert list((tmp_path / "far" / "attempts").iterdir()) == []
    assert [path for path in (tmp_path / "home").rglob("claims/**/*") if path.is_file()] == []


class FailingBlobs:
    """A blob store that can't read references for a while."""

    def __init__(self, blobs: BlobStore, times: float) -> None:
        self._blobs = blobs
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def get_ref(self, name: str) -> Reference | None:
        self._times -= 1
        if self._times >= 0:
            raise errors.BlobError("the store is away")
        return await self._blobs.get_ref(name)


class OnFailingBlobs(RemoteEngine):
    times = 6.0

    async def open(self, opening: Opening) -> None:
        await super().open(opening._replace(blobs=FailingBlobs(opening.blobs, self.times)))


class OnBrokenBlobs(OnFailingBlobs):
    times = math.inf


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "AGAIN", (0.01, 0.02))


@pytest.mark.usefixtures("impatient")
def test_no_claim_is_lost_to_a_store_that_fails_for_a_while(
    opened: Open, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read again and again: what has ended with a result is not run again, and the log says what went wrong."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    tasks.mark(folder, "gate")
    wait_for(lambda: not alive(pid), "its end")
    again: Any = opened(engine=OnFailingBlobs).resume(run.name)
    assert again.result(PATIENCE) == 7
    assert tasks.marks(folder, "began") == [pid]
    assert ends(again) == [End.SUCCEEDED]
    assert f"the claim of {run.name}/a0#1 can't be read, tried again: the store is away" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_store_that_never_comes_back_holds_up_neither_aborting_nor_closing(opened: Open, folder: str) -> None:
    """The attempt ends as stopped once it is to be; the claims of others are there for the next session."""
    session = opened()
    runs = [session.run(tasks.waits, folder=folder) for _ in range(2)]
    wait_for(lambda: len(tasks.marks(folder, "began")) == 2, "the beginning")
    session.close()
    pids = tasks.marks(folder, "began")
    tasks.mark(folder, "gate")
    wait_for(lambda: not any(map(alive, pids)), "their ends")
    session = opened(engine=OnBrokenBlobs)
    again: Any = session.resume(runs[0].name)
    again.abort("had enough")
    with pytest.raises(errors.ActionAbortedError):
        again.result(PATIENCE)
    session.close()
    assert opened(recover="none").resume(runs[1].name).result(PATIENCE) == 7
    assert len(tasks.marks(folder, "began")) == 2


def test_one_that_was_lost_meanwhile_is_a_failure_of_the_infrastructure(opened: Open, folder: str) -> None:
    """It had begun, and its process died without a word: the system's budget pays, and it is run again."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    os.killpg(int(pid), signal.SIGKILL)
    wait_for(lambda: not alive(pid), "its end")
    tasks.mark(folder, "gate")
    again: Any = opened().resume(run.name)
    assert again.result(PATIENCE) == 7
    assert ends(again) == [End.INFRASTRUCTURE, End.SUCCEEDED]


def test_a_session_that_recovers_nothing_leaves_them_alone(opened: Open, folder: str) -> None:
    """They wait for one that does."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    between = opened(recover="none")
    assert between.run(tasks.add, 1).result(PATIENCE) == 2
    between.close()
    (pid,) = tasks.marks(folder, "began")
    assert alive(pid)
    tasks.mark(folder, "gate")
    assert opened(recover="none").resume(run.name).result(PATIENCE) == 7
    assert tasks.marks(folder, "began") == [pid]


def test_a_session_without_their_engine_does_not_run_them_twice(opened: Open, folder: str, tmp_path: Path) -> None:
    """Nobody there could know whether they live, though it has pools of the same names."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    refused = pytest.raises(errors.ConfigurationError, match="pool 'on-demand' may have outlived their controller")
    with Session(home=tmp_path / "home", recover="all") as without, refused:
        without.resume(run.name)
    tasks.mark(folder, "gate")
    assert opened().resume(run.name).result(PATIENCE) == 7
    assert len(tasks.marks(folder, "began")) == 1


# -- ending ----------------------------------------------------------------------------------------------------------


def test_one_that_hears_nothing_is_killed(opened: Open, folder: str) -> None:
    """After the grace, by its process id."""
    run = opened().run(tasks.hears_nothing, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    run.abort("had enough")
    with pytest.raises(errors.ActionAbortedError):
        run.result(PATIENCE)
    (pid,) = tasks.marks(folder, "began")
    wait_for(lambda: not alive(pid), "its end")


def test_one_that_cannot_be_reached_is_killed(opened: Open, folder: str) -> None:
    """It was adopted, but its process is stopped and never connects."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    (pid,) = tasks.marks(folder, "began")
    os.kill(int(pid), signal.SIGSTOP)
    session.close()
    again: Any = opened().resume(run.name)
    again.abort("had enough")
    with pytest.raises(errors.ActionAbortedError):
        again.result(PATIENCE)
    wait_for(lambda: not alive(pid), "its end")


def test_why_an_attempt_has_no_machine_is_told_and_then_where_it_runs(
    opened: Open, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where it takes long until its process connects; one that is quick adds nothing."""
    reachable = threading.Event()

    def address() -> tuple[str, int] | None:
        if not reachable.is_set():
            return None
        host, _, port = (tmp_path / "far" / "address").read_text().removeprefix("tcp://").rpartition(":")
        return host, int(port)

    with closing(Proxy(address, random.Random(seed))) as proxy:
        run = opened(via=f"tcp://127.0.0.1:{proxy.port}").run(tasks.add, 1)
        wait_for(lambda: of_kind(run, AttemptPending), "the reason")
        (event,) = of_kind(run, AttemptPending)
        assert event.reason == "Starting"
        assert f"(has no machine yet: Starting: {event.message})" in run.why()
        (shown,) = attempts_shown(run, tmp_path, capsys)
        assert (shown["pending"], shown["node"]) == (f"Starting: {event.message}", None)
        reachable.set()
        assert run.result(PATIENCE) == 2
    assert "has no machine" not in run.why()
    assert f"node {socket.gethostname()}" in run.why()
    (shown,) = attempts_shown(run, tmp_path, capsys)
    assert (shown["pending"], shown["node"]) == (None, socket.gethostname())
    assert len(of_kind(run, AttemptPending)) == 1


def of_kind(run: Any, kind: type[T]) -> list[T]:
    return [entry.event for _, entry in run.journal() if isinstance(entry.event, kind)]


def attempts_shown(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["get", "attempts", run.name, "--home", str(tmp_path / "home"), "--json"]) == 0
    shown: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return shown


def test_max_runtime_counts_from_the_beginning_under_whichever_controller(opened: Open, folder: str) -> None:
    """It is charged like any other, and the attempt does not begin anew."""
    session = opened()
    run = session.run(tasks.overruns, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    again: Any = opened().resume(run.name)
    with pytest.raises(errors.TaskTimeoutError, match="max_runtime="):
        again.result(PATIENCE)
    assert ends(again) == [End.MAX_RUNTIME]
    (pid,) = tasks.marks(folder, "began")
    wait_for(lambda: not alive(pid), "its end")


def test_aborting_a_run_that_was_taken_over_ends_all_of_it(opened: Open, folder: str) -> None:
    """Parent and children, each in its own process, none of which knew this controller when it began."""
    session = opened()
    run = session.run(tasks.parent, folder=folder)
    wait_for(lambda: len(tasks.marks(folder, "began")) == 2, "the beginning of the children")
    session.close()
    again: Any = opened().resume(run.name)
    again.abort("had enough")
    with pytest.raises(errors.ActionAbortedError):
        again.result(PATIENCE)
    pids = [*tasks.marks(folder, "parent"), *tasks.marks(folder, "began")]
    wait_for(lambda: not any(map(alive, pids)), "the end of all three")


def test_one_that_reaches_nobody_gives_up(opened: Open, folder: str) -> None:
    """No process is left for ever."""
    session = opened(reconnect_seconds=0.3)
    session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    wait_for(lambda: not alive(pid), "its end")


def test_a_notice_outlives_the_session_that_gave_it(opened: Open, folder: str) -> None:
    """Whoever leaves after it has been preempted, also where nobody listened; nobody pays."""
    market = ScriptedMarket(reclaims=[1.5], notice_seconds=60.0)
    session = opened(market=market)
    run = session.run(tasks.leaves, folder=folder)
    wait_for(lambda: tasks.marks(folder, "noticed"), "the notice")
    session.close()
    (pid,) = tasks.marks(folder, "began")
    tasks.mark(folder, "gate")
    wait_for(lambda: not alive(pid), "its end")
    again: Any = opened().resume(run.name)
    assert again.result(PATIENCE) == (1, 2)
    assert ends(again) == [End.PREEMPTED, End.SUCCEEDED]


def test_the_market_takes_machines_of_attempts_that_were_taken_over(opened: Open, folder: str) -> None:
    """They are on it again from when they were, as if they had started then."""
    session = opened()
    run = session.run(tasks.leaves, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    tasks.mark(folder, "gate")
    again: Any = opened(market=ScriptedMarket(reclaims=[0.1], notice_seconds=60.0)).resume(run.name)
    assert again.result(PATIENCE) == (1, 2)
    assert tasks.marks(folder, "noticed") == ["terminate"]
    assert ends(again) == [End.PREEMPTED, End.SUCCEEDED]


# -- what it keeps to itself -----------------------------------------------------------------------------------------


def test_secrets_and_tokens_are_in_no_command_line(opened: Open, folder: str) -> None:
    """A secret is asked for when the attempt begins, and is seen in its variables only."""
    assert opened().run(tasks.whispers, folder=folder).result(PATIENCE) == (7, False)


def test_output_goes_to_the_log_under_every_controller(opened: Open, folder: str, tmp_path: Path) -> None:
    """What was printed before and after the change is in one file."""
    session = opened()
    run = session.run(tasks.waits, folder=folder)
    wait_for(lambda: tasks.marks(folder, "began"), "the beginning")
    session.close()
    again: Any = opened().resume(run.name)
    tasks.mark(folder, "gate")
    again.result(PATIENCE)
    (log,) = (tmp_path / "home" / "logs" / run.name).glob("*.log")
    wait_for(lambda: "behind" in log.read_text(), "its output")
    assert log.read_text() == "before the gate\nbehind the gate\n"


def test_whoever_names_an_attempt_that_is_none_is_turned_away(opened: Open, tmp_path: Path) -> None:
    """Whatever the name: it is not taken for a path."""
    opened()
    (tmp_path / "far" / "attempts" / "x.a0.1").touch()
    host, _, port = (tmp_path / "far" / "address").read_text().removeprefix("tcp://").rpartition(":")
    for run in ("../attempts/x", "x", "n\0ul", "x" * 5000, ""):
        hello = m.Hello(m.PROTOCOL, __version__, "guessed", AttemptKey(run, "a0", 1))
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
            sock.sendall(greeting(m.encode(hello)))
            (frame,) = FrameReader(LONGEST).feed(sock.recv(1 << 16), 1)
        answer = msgspec.msgpack.decode(frame[2], type=m.Welcome | m.Rejected)
        assert isinstance(answer, m.Rejected), run
        assert not answer.again, run


def test_a_folder_is_one_engines_at_a_time(opened: Open, tmp_path: Path) -> None:
    """A second session with the same folder is refused while the first one lives, and named."""
    opened()
    pools = [Pool("far", engine="remote")]
    engines = {"remote": lambda: RemoteEngine(tmp_path / "far")}
    with (
        pytest.raises(errors.ConfigurationError, match="another engine"),
        Session([Queue("default")], pools, home=tmp_path / "other", engines=engines),
    ):
        pass


@pytest.mark.parametrize(
    "wrong", [{"via": "nowhere"}, {"via": "host:port"}, {"reconnect_seconds": -1}, {"reconnect_seconds": float("nan")}]
)
def test_what_is_not_accepted_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The parameter, the value, and what is accepted."""
    ((name, value),) = wrong.items()
    with pytest.raises(errors.ConfigurationError, match=name):
        RemoteEngine(tmp_path, **{name: value})
