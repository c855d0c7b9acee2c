"""`flyteish abort`, `queue`, `resume` and `gc`: with a live controller, and where none lives."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyteish import Cache, Pool, Queue, Run, Session, TaskEnvironment, ctx, io
from flyteish.blobs import open_blobs
from flyteish.blobs.addresses import content_address
from flyteish.errors import BlobMissingError, RunNotFoundError
from tests.cli.conftest import Cli
from tests.controller.puppet import Machines, PuppetEngine

env = TaskEnvironment(name="worked")


@env.task
async def forever() -> None:
    await asyncio.Event().wait()


@env.task
async def parent() -> str:
    try:
        await forever()
    except Exception as error:
        return type(error).__name__
    return "nothing"


@env.task
async def blob(size: int) -> bytes:
    return b"x" * size


@env.task
async def stored(text: str) -> io.File:
    file: io.File = io.File.new_remote("text")
    async with file.open("wb") as handle:
        await handle.write(text.encode())
    return file


@env.task
async def saves(name: str) -> bytes | None:
    before = await ctx().checkpoint.load_bytes(key=name)
    await ctx().checkpoint.save(b"saved", key=name)
    return before


@env.task
async def saves_and_waits() -> bytes:
    saved = await ctx().checkpoint.load_bytes()
    if saved is None:
        await ctx().checkpoint.save(b"so far")
        await asyncio.Event().wait()
    assert saved is not None
    return saved


@env.task(cache=Cache())
async def kept(size: int) -> bytes:
    return b"y" * size


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(queues=[Queue("default"), Queue("other")]) as opened:
        yield opened


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask until it does; a run is not in the store at the very moment at which it is started."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except RunNotFoundError:
            continue
    raise AssertionError("it never did")


def child_of(run: Run[Any]) -> str:
    wait_until(lambda: len(run.actions()) == 2)
    return run.actions()[1].id


# -- abort -----------------------------------------------------------------------------------------------------------


def test_abort_ends_a_live_run(cli: Cli, session: Session) -> None:
    """It waits until the run is over, and says so; the reason is kept."""
    run = session.run(forever)
    wait_until(lambda: bool(run.actions()))
    said = cli("abort", run.name, "--reason", "wrong data")
    assert (said.code, said.out) == (0, f"{run.name} aborted\n")
    assert run.wait(20).phase == "aborted"
    assert "wrong data" in cli("why", run.name).out
    assert cli("abort", run.name).out == f"{run.name} is over already: aborted\n"


def test_abort_ends_one_action_of_a_live_run(cli: Cli, session: Session) -> None:
    """Its parent hears of it and may go on."""
    run = session.run(parent)
    child = child_of(run)
    document = json.loads(cli("abort", f"{run.name}/{child[:6]}", "--json").out)
    assert document["outcome"] == "aborted"
    assert run.result(20) == "ActionAbortedError"


def test_abort_of_an_interrupted_run_is_journalled(cli: Cli, flyteish_home: Path) -> None:
    """Nobody works on it, so it is over at once, also for whoever opens the store next."""
    with Session() as session:
        run = session.run(parent).name
    said = cli("abort", run)
    assert (said.code, said.out) == (0, f"run {run} was interrupted; it is marked as aborted now\n")
    assert f"{run}  aborted" in cli("get", "runs").out
    with Session() as session:
        assert session.resume(run, parent).wait(20).phase == "aborted"


def test_abort_of_a_run_whose_attempts_outlived_their_session_is_left_to_the_next(cli: Cli) -> None:
    """It cannot stop them itself, nor say that they are over: the session that takes the run up stops them."""
    machines = Machines()

    def session() -> Session:
        engine = PuppetEngine(machines, outlives=True)
        pools = [Pool("far", engine="puppet", on_close="detach")]
        return Session([Queue("default")], pools, engines={"puppet": lambda: engine})

    with session() as opened:
        run = opened.run(forever).name
        (order,) = machines.started(1)
    said = cli("abort", run)
    assert said.code == 5
    assert "are stopped, and it is over, once a session takes it up that has their engine" in said.out
    assert f"{run}  interrupted" in cli("get", "runs").out
    with session() as opened:
        assert opened.resume(run, forever).wait(20).phase == "aborted"
    assert machines.heard("stop") == [order.key]


def test_one_action_of_an_interrupted_run_cannot_be_aborted(cli: Cli) -> None:
    """It would be called again; the message says what to do."""
    with Session() as session:
        handle = session.run(parent)
        child = child_of(handle)
    said = cli("abort", f"{handle.name}/{child}")
    assert said.code == 2
    assert f"flyteish resume {handle.name}" in said.err


def test_abort_that_is_not_heard_is_code_5(cli: Cli) -> None:
    """The controller that lives does not work on that run."""
    with Session() as session:
        run = session.run(forever).name
    with Session():
        said = cli("abort", run, "--wait", "0.3")
    assert said.code == 5
    assert f"asked process {os.getpid()} to abort {run}" in said.out


# -- queues ----------------------------------------------------------------------------------------------------------


def test_a_live_queue_is_held_and_activated(cli: Cli, session: Session) -> None:
    """The controller answers: what is held starts nothing, and goes on when it is activated."""
    assert cli("queue", "hold", "default").out == "queue default is held\n"
    run = session.run(blob, size=1)
    wait_until(lambda: "HELD" in run.why())
    assert cli("queue", "activate", "default").out == "queue default is active\n"
    assert run.result(20) == b"x"


def test_a_queue_is_held_for_the_next_session(cli: Cli) -> None:
    """Where no controller lives, the word is kept."""
    assert cli("queue", "hold", "default").out == "queue default will be held when a session opens\n"
    with Session() as session:
        run = session.run(blob, size=1)
        wait_until(lambda: "HELD" in run.why())
        assert cli("queue", "activate", "default").code == 0
        assert run.result(20) == b"x"


def test_an_unknown_queue_is_refused_with_near_names(cli: Cli, session: Session) -> None:
    """Of the live controller's queues."""
    wait_until(lambda: "other" in cli("get", "queues").out)
    said = cli("queue", "drain", "othr")
    assert said.code == 2
    assert "there is no queue 'othr'; did you mean other?; known: default, other" in said.err


# -- gc --------------------------------------------------------------------------------------------------------------


def test_gc_removes_old_runs_their_logs_and_values_that_nobody_needs(cli: Cli, flyteish_home: Path) -> None:
    """What a kept run, a file in its result, or the cache refers to stays and can still be read."""
    with Session() as session:
        large, ended = 400_000, session.run(blob, size=400_000).wait(20).name
        file_run = session.run(stored, text="hello")
        file_run.wait(20)
        assert session.run(kept, size=large).result(20)
        waiting = session.run(forever).name
    logs = flyteish_home / "logs" / ended
    logs.mkdir(parents=True)
    (logs / "a0.1.log").write_text("z" * 500)
    before = blobs_in(flyteish_home)

    said = json.loads(cli("gc", "--dry-run", "--older-than", "0", "--json").out)
    assert (said["dry_run"], said["log_bytes"]) == (True, 500)
    would = said["blobs"], said["blob_bytes"]
    assert blobs_in(flyteish_home) == before
    assert logs.exists()

    said = json.loads(cli("gc", "--older-than", "0", "--json").out)
    assert set(said["runs"]) >= {ended, file_run.name}
    assert waiting not in said["runs"]
    assert said["blobs"] == 2
    assert said["blob_bytes"] > 400_000
    assert would == (said["blobs"], said["blob_bytes"])
    assert not logs.exists()
    assert [row["run"] for row in json.loads(cli("get", "runs", "--json").out)] == [waiting]
    with Session() as session:
        again = session.run(kept, size=large)
        assert again.result(20) == b"y" * large
        assert again.actions()[0].cached


def test_gc_keeps_checkpoints_of_runs_that_may_go_on(cli: Cli, flyteish_home: Path) -> None:
    """Those of ended runs go; so do keys and cached results, but only where that was asked for."""
    with Session() as session:
        session.run(saves, name="model").result(20)
        assert session.run(kept, size=10).result(20)
        run = session.run(saves_and_waits)
        wait_until(lambda: bool(run.actions()[0].checkpoints))
        waiting = run.name
    assert cli("gc", "--older-than", "0").code == 0
    with Session() as session:
        assert session.run(saves, name="model").result(20) == b"saved"
        assert session.run(kept, size=10).wait(20).actions()[0].cached
        assert session.resume(waiting, saves_and_waits).result(20) == b"so far"
    assert cli("gc", "--older-than", "0", "--forget-unused", "0").code == 0
    with Session() as session:
        assert session.run(saves, name="model").result(20) is None
        assert not session.run(kept, size=10).wait(20).actions()[0].cached
    assert "--forget-unused 'x' is not accepted" in cli("gc", "--forget-unused", "x").err


def test_gc_forgets_claims_of_runs_that_are_over(cli: Cli, flyteish_home: Path) -> None:
    """A result that an attempt claimed is kept while its run may go on, however old, and however unused."""
    with Session() as session:
        over, waiting = session.run(blob, size=1).wait(20).name, session.run(forever).name
    blobs = open_blobs((flyteish_home / "blobs").as_uri()).blocking
    claims = [f"claims/{run}/a0/1" for run in (over, waiting)] + ["claims/" + "0" * 40]
    for name in claims:
        inside = blobs.put(f"what the result of {name} names".encode())
        blobs.set_ref(name, blobs.put(f"{name} {inside}".encode()).encode())
    assert cli("gc", "--older-than", "1h").code == 0
    assert {each.name for each in blobs.references()} >= set(claims)
    assert cli("gc", "--older-than", "0", "--forget-unused", "0").code == 0
    assert sorted(each.name for each in blobs.references()) == sorted(claims[1:])
    for name in claims[1:]:
        assert blobs.get(content_address(f"what the result of {name} names".encode()))
    with pytest.raises(BlobMissingError):
        blobs.get(content_address(f"what the result of {claims[0]} names".encode()))


def test_gc_keeps_what_kept_runs_refer_to(cli: Cli, flyteish_home: Path) -> None:
    """A value, and the file that a value names."""
    with Session() as session:
        large = session.run(blob, size=400_000)
        file = session.run(stored, text="hello")
        assert large.result(20)
        file.result(20)
        before = blobs_in(flyteish_home)
    assert "removed 0 runs" in cli("gc", "--older-than", "1h").out
    assert blobs_in(flyteish_home) == before


def test_gc_beside_a_live_controller_removes_only_what_is_safe(cli: Cli, session: Session) -> None:
    """A day or older; less is refused and says why."""
    session.run(blob, size=1).result(20)
    said = cli("gc", "--older-than", "1h")
    assert said.code == 5
    assert "only what is older than a day is removed" in said.err
    assert cli("gc", "--older-than", "1d").code == 0
    assert "removed 0 runs" in cli("gc").out


def test_gc_refuses_what_is_no_time(cli: Cli) -> None:
    """And says what is accepted; an empty home is clean already."""
    said = cli("gc", "--older-than", "long")
    assert said.code == 2
    assert "--older-than 'long' is not accepted: expected seconds" in said.err
    assert cli("gc").out.splitlines()[0].startswith("removed 0 runs that ended more than 30 days ago")


def blobs_in(home: Path) -> set[str]:
    folder = home / "blobs"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "refs" not in path.parts}
