"""Worker processes have as many places as there are workers: what is sent ahead to one waits, and everybody says so."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import flyteish
from flyteish import Pool, Queue, Session
from flyteish.config import load_config
from flyteish.errors import RunNotFoundError

env = flyteish.TaskEnvironment(name="places")
TASKS, SECONDS, WORKERS = 24, 0.1, 2


@env.task(queue="workers")
def nap(number: int) -> int:
    time.sleep(SECONDS)
    return number


@env.task(queue="here")
async def naps() -> list[int]:
    return list(await asyncio.gather(*[nap.aio(number) for number in range(TASKS)]))


def test_what_waits_for_a_worker_is_queued_and_not_billed(tmp_path: Path) -> None:
    """24 tasks on two workers are billed about their own time, and two of them run at a time."""
    pools = [Pool("here"), Pool("workers", engine="processes", price_per_hour=3600.0)]
    queues = [Queue("here", pools=["here"]), Queue("workers", pools=["workers"])]
    config = load_config(queues=queues, pools=pools, home=tmp_path / "home", max_workers=WORKERS)
    most = 0
    with Session(config=config) as session:
        run = session.run(naps)
        while not run.done():  # looks on meanwhile
            with suppress(RunNotFoundError):  # it has only just begun
                phases = [str(action.shown_phase) for action in run.actions() if action.profile.task == "places.nap"]
                most = max(most, phases.count("running"))
            time.sleep(0.01)
        assert run.result() == list(range(TASKS))
        billed = run.cost().dollars
    assert most <= WORKERS
    own = TASKS * SECONDS
    assert 0.8 * own <= billed <= 1.5 * own
