"""A session that has done its work holds nothing of it: controllers live for months, with millions of actions.

Looks inside on purpose: what is left behind does not show otherwise until the memory is full.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from flyteish import Pool, Queue, Run, Session, TaskEnvironment, Timeout, errors
from flyteish.engines.inline.threads import Threads
from flyteish.testing import ScriptedMarket

PATIENCE = 20.0
env = TaskEnvironment(name="left")


@env.task
async def add(x: int) -> int:
    return x + 1


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task(cache="auto")
async def cached(x: int) -> int:
    return x


@env.task(retries=1)
async def fails(x: int) -> None:
    raise ValueError(x)


@env.task
async def slow() -> None:
    await asyncio.sleep(600)


@env.task(timeout=Timeout(deadline=0.02))
async def late() -> None:
    await asyncio.sleep(600)


@env.task(interruptible=True, retries=1)
async def reclaimed() -> None:
    await asyncio.sleep(0.05)


@env.task
async def busy(n: int) -> int:
    calls = [add(n), double.aio(n), cached(n % 2), fails(n), late(), reclaimed()]
    await asyncio.gather(*calls, return_exceptions=True)
    left_alone = asyncio.ensure_future(slow())
    try:
        async with asyncio.timeout(0.01):
            await slow()
    except TimeoutError:
        pass
    assert not left_alone.done()
    return double(n)


def holdings(session: Session) -> dict[str, int]:
    """What a session has in hand, by the place where it is."""
    machinery = session._machinery
    assert machinery is not None
    controller, inline = machinery.controller, machinery._inline
    capacity = controller.state.capacity
    places: dict[str, Any] = {
        "handles": session._runs._handles,
        "scopes": session._runs._scopes,
        "callers": controller._callers._waiting,
        "links": controller._handlers._calling,
        "exceptions": controller._callers._raised,
        "look-ups": controller._handlers._look_ups.waiting,
        "digests": controller._handlers._cache.wanted,
        "checkpoints": controller._handlers._unconfirmed,
        "unwritten": controller._unwritten,
        "runs": controller.state.runs,
        "attempts": inline._attempts,
        "jobs": inline._threads._jobs,
        "entering": [action for queue in capacity.queues.values() for action in queue.door],
    }
    return {name: len(place) for name, place in places.items() if len(place)}


def settle(session: Session) -> None:
    deadline = time.monotonic() + PATIENCE
    while holdings(session):
        assert time.monotonic() < deadline, f"left behind: {holdings(session)}"
        time.sleep(0.005)


@pytest.mark.parametrize("durability", ["memory", "process"])
def test_ended_runs_leave_nothing_behind(tmp_path: Path, durability: str) -> None:
    """Results, failures, retries, cached results, deadlines, preemptions, cancelled and abandoned calls, aborts."""
    market = ScriptedMarket(reclaims=(0.01, None, 0.01, None, 0.01), notice_seconds=0.01)
    pools = [Pool("spot", medium="spot", market=market), Pool("on-demand")]
    queue = Queue("default", action_concurrency=16)  # the calls that are left alone keep ten places
    with Session([queue], pools, home=tmp_path, durability=durability) as session:
        runs = [session.run(busy, n=n) for n in range(5)]
        aborted = session.run(slow)
        refused = session.run(add.override(queue="nowhere"), x=1)
        assert [run.result(PATIENCE) for run in runs] == [2 * n for n in range(5)]
        aborted.abort()
        with pytest.raises(errors.ActionAbortedError):
            aborted.result(PATIENCE)
        with pytest.raises(errors.UnknownQueueError):
            refused.result(PATIENCE)
        settle(session)


def test_a_run_that_nobody_waits_for_is_forgotten(tmp_path: Path) -> None:
    """Its handle can be collected, with its result and the exception that it ended with."""
    with Session(home=tmp_path) as session:
        handles: list[Run[Any]] = [session.run(add, x=1), session.run(fails, x=1)]
        for handle in handles:
            handle.wait(PATIENCE)
        gone = [weakref.ref(handle) for handle in handles]
        settle(session)
        del handle, handles
        gc.collect()
        assert [ref() for ref in gone] == [None, None]


def test_late_words_of_a_given_up_attempt_leave_nothing(tmp_path: Path) -> None:
    """A ``def`` task that goes on after its end can call, save and return what it wants: refused, and forgotten."""
    leave, said = threading.Event(), []

    @env.task(timeout=0.02)
    def stuck() -> int:
        leave.wait(PATIENCE)
        try:
            double(1)
        except errors.FlyteishError as error:
            said.append(type(error).__name__)
        return 1

    with Session(home=tmp_path) as session:
        with pytest.raises(errors.TaskTimeoutError):
            session.run(stuck).result(PATIENCE)
        leave.set()
        deadline = time.monotonic() + PATIENCE
        while not said:
            assert time.monotonic() < deadline, "the late call was never answered"
            time.sleep(0.005)
        settle(session)
    assert said == ["StaleAttemptError"]


# -- threads -----------------------------------------------------------------------------------------------------


def test_surplus_threads_end_and_jobs_go_on() -> None:
    """When parked jobs go on, more threads are busy than the limit: the surplus ends, and what waits still runs."""
    threads = Threads(2, "test")
    release, done = threading.Event(), threading.Semaphore(0)

    def parks() -> None:
        threads.parked(+1)
        release.wait(PATIENCE)
        threads.parked(-1)
        done.release()

    def quick() -> None:
        done.release()

    for _ in range(6):
        threads.put(parks)
    deadline = time.monotonic() + PATIENCE
    while threads._parked < 6:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    release.set()
    for _ in range(50):
        threads.put(quick)
    for _ in range(56):
        assert done.acquire(timeout=PATIENCE / 4), f"a job was left lying: {threads!r}"
    threads.close()


def test_jobs_put_together_run_together() -> None:
    """One idle thread does not keep the second job waiting for the first."""
    threads = Threads(4, "test")
    first = threading.Event()
    threads.put(first.set)
    assert first.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not threads._idle:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    both = threading.Barrier(2, timeout=PATIENCE / 4)
    met = threading.Semaphore(0)

    def meets() -> None:
        both.wait()
        met.release()

    threads.put(meets)
    threads.put(meets)
    assert met.acquire(timeout=PATIENCE)
    assert met.acquire(timeout=PATIENCE)
    threads.close()


def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next job runs."""
    threads = Threads(1, "test")
    after = threading.Event()

    def fails_badly() -> None:
        raise SystemExit(3)

    threads.put(fails_badly)
    threads.put(after.set)
    assert after.wait(PATIENCE)
    threads.close()
    assert "a job of the threads test failed" in caplog.text
