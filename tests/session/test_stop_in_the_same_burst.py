"""An attempt that is told to stop in the very burst that starts it ends, and never begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyteish import Pool, Session, TaskEnvironment
from flyteish._controller.facts import Asked
from flyteish.errors import ActionAbortedError

env = TaskEnvironment(name="burst")


@env.task
async def forever() -> None:
    await asyncio.Event().wait()


@env.task
def forever_in_a_worker() -> None:
    threading.Event().wait()


@env.task
def marks(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("durability", ["memory", "process"])
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_that_is_aborted_at_once_ends(engine: str, durability: str, tmp_path: Path) -> None:
    """Submission and abort arrive together; the attempt that starts because of the one ends because of the other."""
    with Session(pools=[Pool("only", engine=engine)], home=tmp_path, durability=durability) as session:
        with one_burst(session):
            run = session.run(forever if engine == "inline" else forever_in_a_worker)
            run.abort("at once")
        with pytest.raises(ActionAbortedError, match="at once"):
            run.result(20)
        assert run.phase == "aborted"


def test_a_task_of_a_run_that_is_aborted_at_once_never_begins(tmp_path: Path) -> None:
    """However quick it is: nothing of it can be done by then."""
    with Session(pools=[Pool("only")], home=tmp_path / "home") as session:
        for number in range(20):
            with one_burst(session):
                run = session.run(marks, path=str(tmp_path / str(number)))
                run.abort()
            with pytest.raises(ActionAbortedError):
                run.result(20)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@contextmanager
def one_burst(session: Session) -> Iterator[None]:
    """The controller stands still meanwhile: what it is told within the block, it takes in one turn."""
    held, go = threading.Event(), threading.Event()

    def hold(state: object, now: float) -> None:
        held.set()
        assert go.wait(30)

    session.open()
    assert session._machinery is not None
    controller = session._machinery.controller
    controller.post(Asked(hold, lambda answer, error: None))
    assert held.wait(30)
    try:
        yield
    finally:
        go.set()
