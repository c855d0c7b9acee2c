"""Worker processes have as many places as there are workers: what is sent ahead to one waits, and everybody says so."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

import flyteish
from flyteish import Pool, Queue, Session
from flyteish._assembly import sized
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
    """24 tasks on two workers are billed about their own time, and two of them run at a time.

    How long a task takes is the machine's to say; two workers can't be paid for more than twice the time that passes.
    """
    pools = [Pool("here"), Pool("workers", engine="processes", price_per_hour=3600.0)]
    queues = [Queue("here", pools=["here"]), Queue("workers", pools=["workers"])]
    config = load_config(queues=queues, pools=pools, home=tmp_path / "home", max_workers=WORKERS)
    most = 0
    with Session(config=config) as session:
        began = time.monotonic()
        run = session.run(naps)
        while not run.done():  # looks on meanwhile
            with suppress(RunNotFoundError):  # it has only just begun
                phases = [str(action.shown_phase) for action in run.actions() if action.profile.task == "places.nap"]
                most = max(most, phases.count("running"))
            time.sleep(0.01)
        assert run.result() == list(range(TASKS))
        took = time.monotonic() - began
        billed = run.cost().dollars
    assert most <= WORKERS
    assert 0.8 * TASKS * SECONDS <= billed <= WORKERS * took


@pytest.mark.parametrize("asked, capacity, ahead", [(0, 2, 126), (10, 2, 8), (2, 2, 0), (1, 1, 0)])
def test_a_pool_holds_no_more_than_there_are_workers(tmp_path: Path, asked: int, capacity: int, ahead: int) -> None:
    """Whatever more it may hold is sent ahead; a pool of another engine is as it was made."""
    pools = [Pool("here", capacity=asked), Pool("workers", engine="processes", capacity=asked)]
    config = load_config(pools=pools, home=tmp_path / "home", max_workers=WORKERS)
    here, workers = sized(config)
    assert (here.capacity, here.ahead) == (asked, 0)
    assert (workers.capacity, workers.ahead) == (capacity, ahead)
