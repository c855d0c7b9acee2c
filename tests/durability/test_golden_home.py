"""A home that an earlier flyteish wrote, before its modules were moved, still opens, explains, answers and resumes.

``golden/write.py`` says how it was written. What is asserted here is what was recorded, seen from outside only: by the
public names, the command line and the store's tables. A home that this can no longer read is a user's lost work.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import flyteish
from flyteish import Resources, Run, Session, errors
from flyteish.cli import main
from tests.durability.golden import failures, script, tasks
from tests.durability.golden.pickles import AWAITED, CALLS, pickles, told
from tests.durability.golden.values import Colour, Layer, Model, Opaque, Pair, Track, every_value, same

GOLDEN = Path(__file__).parent / "golden"
PATIENCE = 30.0
YEAR = 365 * 86400.0
TAGS = {
    "ActionSubmitted", "AttemptAdmitted", "AttemptEnded", "AttemptNoticed", "AttemptRunning", "CancelRequested",
    "CheckpointCommitted", "CheckpointSkipped", "ControllerRestarted", "LimitReached", "RelocationOrdered",
    "RunSubmitted", "TaskDeclared", "ValueTraced",
}  # fmt: skip
"""Every kind of entry that a journal could hold when the home was written, as it is called on disk."""
RUNS = 52
WITHOUT_ATTEMPTS = {"cached-again", "cached-again-by-source", "stopped-in-line"}
WRITTEN_BY = (3, 11)
"""Python reads pickled code in the minor version that wrote it, and in no other."""

pytestmark = pytest.mark.filterwarnings("ignore:.*travels by cloudpickle")
carries_code = pytest.mark.skipif(sys.version_info[:2] != WRITTEN_BY, reason="the pickled code is another Python's")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, unpacked, and named by the environment with its configuration."""
    with tarfile.open(GOLDEN / "home.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    found = tmp_path / "unpacked" / "home"
    monkeypatch.setenv("FLYTEISH_HOME", str(found))
    monkeypatch.setenv("FLYTEISH_CONFIG", str(GOLDEN / "flyteish.toml"))
    monkeypatch.setenv("GOLDEN_MARKS", str(tmp_path / "marks"))
    return found


@pytest.fixture
def session(home: Path) -> Iterator[Session]:
    with Session() as opened:
        yield opened


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], home: Path) -> Any:
    """What a command prints; it has to succeed."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main([*words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def marks(tmp_path: Path) -> list[str]:
    """What was executed since the home was unpacked."""
    file = tmp_path / "marks"
    return file.read_text().splitlines() if file.exists() else []


def result(session: Session, run: str) -> Any:
    return session.resume(run).result(PATIENCE)


# -- what is in it ---------------------------------------------------------------------------------------------------


def test_every_kind_of_entry_is_in_it(home: Path) -> None:
    """Otherwise the other tests would prove less than they say."""
    with closing(sqlite3.connect(home / "flyteish.db")) as db:
        segments = [data for (data,) in db.execute("SELECT data FROM segments")]
        notes = {name for (name,) in db.execute("SELECT name FROM notes")}
    found = {entry[1][0] for data in segments for entry in msgspec.msgpack.decode(data)}
    assert found >= TAGS
    assert notes >= {"learned", "forecasts", "comparisons", "queue-states", "picture"}


def test_every_entry_of_every_run_can_be_read(session: Session, said: Any) -> None:
    """And each is told in words."""

    async def kinds(run: str) -> set[str]:
        return {event.kind async for event in session.resume(run, task_of(run)).events() if event.text}

    ended = [row["run"] for row in json.loads(said("get", "runs", "--json", "--limit", "99")) if row["ended_at"]]
    assert len(ended) == RUNS - len(tasks.UNFINISHED) - 2
    found: set[str] = set()
    for run in ended:
        found |= asyncio.run(kinds(run))
    assert found >= TAGS


def task_of(run: str) -> Any:
    """A script's run is recorded with the path of the script, which is another one here."""
    return script.answer if run == "script" else None


# -- the command line ------------------------------------------------------------------------------------------------


def test_runs_are_listed_and_each_action_is_explained(said: Any) -> None:
    """``get`` and ``why`` of all that there is."""
    rows = json.loads(said("get", "runs", "--json", "--limit", "99"))
    assert len(rows) == RUNS
    phases = {row["run"]: row["phase"] for row in rows}
    assert {run for run, phase in phases.items() if phase == "interrupted"} == {
        *tasks.UNFINISHED, "stopped", "stopped-in-line",
    }  # fmt: skip
    assert phases["fails-aborted"] == "aborted"
    assert phases["fails-deadline"] == "timed_out"
    for run in phases:
        for action in json.loads(said("get", "actions", run, "--json")):
            assert action["task"] in said("why", run, action["action"])
        assert bool(said("get", "attempts", run)) is (run not in WITHOUT_ATTEMPTS), run


@pytest.mark.parametrize(
    "run, attempts, words",
    [
        ("flaky", 3, ["ConnectionError: attempt 2", "1 charged to retries", "user attempt 3 of 3"]),
        ("reclaimed", 2, ["was preempted (left after its terminate notice", "1 uncharged", "checkpoint 2 by"]),
        ("moved", 2, ["was moved (to spot", "no budget pays", "rule spot-while-it-lasts", "progress 100%"]),
        ("waits-for-spot", 1, ["the spot pools had no capacity for", "rule stock-out"]),
        ("torn", 2, ["warning: checkpoint 2 was skipped on restore: BlobCorruptError"]),
        ("cached-again", 0, ["nothing ran: a recorded result for equal inputs was found in the cache"]),
        ("resumed", 2, ["its controller stopped", "succeeded"]),
        ("grouped", 1, ["interruptible=True (from with_runcontext)", "priority=100 (from with_runcontext)"]),
        ("fails-aborted", 1, ["aborted; 1 attempt", "it was wrong"]),
        ("fails-runtime", 1, ["ran longer than max_runtime=0.05 s"]),
        ("fails-queued", 1, ["never started: waited longer than max_queued_time=0.05 s"]),
        ("fails-preempted", 1, ["reclaimed by its market", "rule never-on-demand", "1 charged to retries"]),
        ("fails-vanished", 2, ["1 charged to system_retries", "SystemRetriesExhaustedError"]),
        ("killed", 1, ["no controller works on it: flyteish resume killed"]),
        ("foretold", 1, ["forecast: "]),
    ],
)
def test_why_tells_what_was_recorded(said: Any, run: str, attempts: int, words: list[str]) -> None:
    """The number of attempts, how each ended, who paid and by which rule it ran where it ran."""
    assert len(json.loads(said("get", "attempts", f"{run}/a0", "--json"))) == attempts
    text = said("why", run)
    assert [each for each in words if each not in text] == []


def test_costs_logs_queues_and_forecasts_are_kept(said: Any) -> None:
    """Prices that changed, what was printed, what an operator said of a queue, and comparisons."""
    assert "reclaimed" in said("cost")
    bills = json.loads(said("cost", "reclaimed", "--by", "attempt", "--json"))
    assert "spot" in json.dumps(bills)
    assert said("logs", "flaky", "--attempt", "2") == "attempt 2\n"
    assert "every kind of value: " in said("logs", "values")
    assert said("get", "queues").splitlines()[3].split()[:2] == ["spare", "held"]
    found = said("forecasts")
    assert "foretold-parent" in found
    assert "of 2 runs " in found
    assert "11 past runs of golden.leaf" in said(
        "plan", "--forecast", "--rounds", "2", "tests.durability.golden.tasks", "leaf"
    )


def test_resume_of_the_command_line_finds_the_task(said: Any, tmp_path: Path) -> None:
    """By its module's name, though the file that it was started from is gone."""
    assert "'gate': 'open'" in said("resume", "--quiet", "killed")
    assert said("resume", "--quiet", "stopped") == "open\n"


# -- results and errors ----------------------------------------------------------------------------------------------


def test_values_of_every_kind_come_back_equal(session: Session) -> None:
    """As arguments of annotated parameters, too, and content in files."""
    found, wanted = result(session, "values"), every_value()
    assert list(found) == list(wanted)
    assert [name for name in wanted if not same(found[name], wanted[name])] == []
    assert result(session, "typed") == (
        [Layer(1)], {"name": "n", "value": 1.0}, "x", Colour.RED, Model(name="m"), Track("t"), Pair(3), {"a": (1, 2)},
    )  # fmt: skip
    file, tree, frame = result(session, "files")
    with file.open_sync("r") as handle:
        assert handle.read() == "stored"
    assert (Path(tree.download_sync()) / "deep" / "one").read_text() == "stored"
    assert list(frame.all_sync()["a"]) == [1, 2, 3]
    assert result(session, "grouped") == 60
    assert session.resume("script", script.answer).result(PATIENCE) == script.Answer(42)


@carries_code
async def test_pickled_closures_and_local_classes_do_what_they_did(session: Session) -> None:
    """Over tasks, overrides, environments, settings, markets and errors of flyteish, wherever those lie now."""
    run: Run[dict[str, Any]] = session.resume("pickles")
    found, wanted = await run, pickles()
    assert list(found) == list(wanted)
    assert told(found) == told(wanted)
    for name, (args, value) in CALLS.items():
        assert found[name](*args) == value
    for name, call in AWAITED.items():
        assert await call(found[name]) == (2 if name == "over a task" else 15), name
    local = found["instance of a local class"]
    assert type(local).__name__ == found["local class"].__name__ == "Local"


@carries_code
def test_answers_of_sessions_come_back_as_values(session: Session) -> None:
    """Forecasts, comparisons, costs and checkpoints, which tasks took and returned."""
    *known, saved, closure = result(session, "answers")
    done: Run[int] = session.resume("foretold")
    assert known[1:] == [
        done.forecast, done.comparison, done.cost(), done.costs(), flyteish.Calibration.of(session.forecasts()),
    ]  # fmt: skip
    assert (known[0].task, saved.sequence, saved.size) == ("golden.flaky", 1, 1)
    assert closure() == known


ERRORS: dict[str, tuple[type[BaseException], tuple[Any, ...] | str]] = {
    "fails-own": (failures.LayersDifferError, (3, 4)),
    "fails-context": (KeyError, ("while handling it",)),
    "fails-os": (FileNotFoundError, (2, "No such file or directory")),
    "fails-unicode": (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid start byte")),
    "fails-local": (errors.RemoteTaskError, ("local", 4)),
    "fails-final": (failures.FinalError, ("no use",)),
    "fails-exit": (errors.RemoteTaskError, (3,)),
    "fails-memory": (MemoryError, ("host",)),
    "fails-not-plain": (ValueError, "Pair(left=1, right='r')"),
    "fails-input": (errors.InputTypeError, "expects int, got str"),
    "fails-output": (errors.OutputTypeError, "declared to return int"),
    "fails-generator": (errors.SerializationError, "make a list of it"),
    "fails-queue": (errors.UnknownQueueError, "unknown queue 'nowhere'"),
    "fails-runtime": (errors.TaskTimeoutError, "max_runtime=0.05"),
    "fails-queued": (errors.TaskTimeoutError, "max_queued_time=0.05"),
    "fails-deadline": (errors.ActionTimedOutError, "deadline of 0.1 s"),
    "fails-preempted": (errors.PreemptedError, "reclaimed by its market"),
    "fails-aborted": (errors.ActionAbortedError, "it was wrong"),
    "fails-exit-0": (errors.ExitedBeforeReturningError, "exited before returning"),
    "fails-exit-3": (errors.WorkerCrashedError, "exited with code 3"),
    "fails-signal": (errors.WorkerCrashedError, "died on signal 11"),
    "fails-vanished": (errors.SystemRetriesExhaustedError, "killed by SIGKILL"),
}
"""What each run that failed raises: the class, and its arguments, or words in them."""


def error_of(session: Session, run: str) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - each is compared with what is expected of it
        result(session, run)
    return caught.value


def test_errors_come_back_as_they_were(session: Session) -> None:
    """Of the same class, with the same arguments; the story of the attempts is a note."""
    assert {*ERRORS, "fails-group"} == set(failures.FAILURES)
    for run, (kind, wanted) in ERRORS.items():
        error = error_of(session, run)
        assert type(error) is kind, run
        assert error.args == wanted if isinstance(wanted, tuple) else wanted in str(error.args), run
        assert f"({run}/a0)" in error.__notes__[-1], run


def test_errors_keep_their_causes_members_notes_and_state(session: Session) -> None:
    """Those that flyteish itself raised on the way are of their own class, too."""
    own = error_of(session, "fails-own")
    assert isinstance(own, failures.LayersDifferError)
    assert isinstance(own.__cause__, ConnectionError)
    assert (own.wanted, own.__cause__.args, own.__notes__[0]) == (3, ("the store is away",), "in epoch 2")
    assert "failures.py" in own.__notes__[1]
    assert isinstance(error_of(session, "fails-context").__context__, failures.LayersDifferError)
    group = error_of(session, "fails-group")
    assert isinstance(group, ExceptionGroup)
    inner = group.exceptions[1]
    assert isinstance(inner, ExceptionGroup)
    assert repr(group.exceptions[0]) == "ValueError(1)"
    assert type(inner.exceptions[0]) is errors.OOMError
    missing, local = error_of(session, "fails-os"), error_of(session, "fails-local")
    assert isinstance(missing, OSError)
    assert missing.filename == "weights.bin"
    assert isinstance(local, errors.RemoteTaskError)
    assert local.remote_type.endswith("LocalError")
    assert type(error_of(session, "fails-exit").__cause__) is SystemExit
    inside = error_of(session, "fails-generator").__cause__
    assert type(inside).__name__ == "Unserialisable"


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_without_what_had_finished(session: Session, tmp_path: Path) -> None:
    """Results, traced values and checkpoints are used. Calls with flyteish's own settings are found again, too."""
    found = result(session, "killed")
    assert found.pop("measured") == {"x": 1, "colour": Colour.RED, "opaque": Opaque("traced")}
    assert found == {
        "saved": b"2", "leaf": 10, "opaque": "from a child", "taken": "given", "sized": 3, "layer": Layer(2),
        "gate": "open", "late": 20,
    }  # fmt: skip
    assert marks(tmp_path) == ["killed", "gate", "leaf 2"]
    assert [action.phase.value for action in session.resume("killed", tasks.killed).actions()] == ["succeeded"] * 7


def test_training_goes_on_from_its_checkpoint(session: Session, tmp_path: Path) -> None:
    """State that was saved comes back; epochs that were saved are not done again."""
    assert result(session, "killed-training") == [0, 1, 2, 3, 4, 5, 5]
    assert marks(tmp_path)[0] in {"epoch 1", "epoch 2", "epoch 3"}
    assert marks(tmp_path)[-1] == "epoch 5"
    assert session.run(tasks.trains, 6).result(PATIENCE) == [0, 1, 2, 3, 4, 5, 5]
    assert marks(tmp_path).count("epoch 5") == 1, "what is published under a key is where the next run begins"


def test_stopped_runs_go_on(session: Session, tmp_path: Path) -> None:
    """One that ran, and one that waits in a queue which is held still."""
    assert result(session, "stopped") == "open"
    waiting: Run[int] = session.resume("stopped-in-line")
    assert "HELD" in waiting.why()
    assert main(["queue", "activate", "spare"]) == 0
    assert waiting.result(PATIENCE) == 80
    assert marks(tmp_path) == ["gate", "leaf 8"]


@carries_code
def test_closures_of_a_killed_run_are_called(session: Session, tmp_path: Path) -> None:
    """Those that the root was given, and those that a finished child returned."""
    first, name, stood, more, scaled, names = result(session, "killed-with-closures")
    assert (first, name, stood, more, scaled) == (42, "golden.leaf", "open", 5, 15)
    assert names == sorted(pickles())
    assert marks(tmp_path) == ["killed_with_closures", "gate"]


@carries_code
def test_functions_that_travelled_by_value_are_run_by_a_worker(session: Session, tmp_path: Path) -> None:
    """As they were carried when the run was killed; the one that had finished is not run again."""
    size = Resources(cpu=4)
    told_by_worker = ["golden.leaf", size, "PreemptedError", "pickled", "by-value", 2]
    assert result(session, "killed-in-a-worker") == [size, told_by_worker, ("state.txt", "so far")]
    assert marks(tmp_path) == ["killed_in_a_worker", "unfinished 2"]


def test_the_cache_is_still_good(session: Session, tmp_path: Path) -> None:
    """For equal inputs, those of flyteish's own classes included."""
    assert session.run(tasks.cached, 7, "another hint").result(PATIENCE) == 77
    assert session.run(tasks.cached_by_source, Resources(cpu=2)).result(PATIENCE) == 2
    assert marks(tmp_path) == []


class Later:
    """A clock that is after the home was written, also on a machine whose own is not."""

    def now(self) -> float:
        return time.time() + 10 * YEAR

    def chance(self) -> float:
        return 0.5


def test_what_was_learned_is_still_known(home: Path) -> None:
    """Forecasts go by the runs of then, and runs are compared with forecasts of then."""
    with Session(clock=Later()) as session:
        compare_with_then(session)


def compare_with_then(session: Session) -> None:
    found = flyteish.forecasts()
    assert [(each.run, each.phase) for each in found] == [("foretold", "succeeded"), ("foretold-parent", "succeeded")]
    forecast = session.resume("foretold").forecast
    assert forecast is not None
    assert (forecast.task, forecast.count) == ("golden.leaf", 1)
    run = session.run(tasks.leaf, 1)
    assert run.result(PATIENCE) == 10
    assert run.forecast == forecast
    based_on = tasks.grouped.forecast(rounds=2).based_on
    assert based_on[0] == "2 past runs of golden.grouped"
