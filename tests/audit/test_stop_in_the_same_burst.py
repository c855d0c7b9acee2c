"""An attempt that is told to stop in the very burst that starts it: the engine must hear of both, in order."""

from __future__ import annotations

import asyncio
import threading
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


@pytest.mark.parametrize("durability", ["memory", "process"])
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_that_is_aborted_at_once_ends(engine: str, durability: str, tmp_path: Path) -> None:
    """Submission and abort arrive together; the attempt that starts because of the one ends because of the other."""
    held, go = threading.Event(), threading.Event()

    def hold(state: object, now: float) -> None:
        held.set()
        assert go.wait(30)

    with Session(pools=[Pool("only", engine=engine)], home=tmp_path, durability=durability) as session:
        session.open()
        assert session._machinery is not None
        controller = session._machinery.controller
        controller.post(Asked(hold, lambda answer, error: None))
        assert held.wait(30)  # the controller stands still: what comes now is one burst
        run = session.run(forever if engine == "inline" else forever_in_a_worker)
        run.abort("at once")
        go.set()
        with pytest.raises(ActionAbortedError, match="at once"):
            run.result(20)
        assert run.phase == "aborted"
