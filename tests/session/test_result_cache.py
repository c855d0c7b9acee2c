"""The cache of results, over a store that takes its time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from flyteish import Pool, Queue, Session, TaskEnvironment, errors
from flyteish.blobs.memory import BlockingMemoryBlobs
from flyteish.blobs.threaded import ThreadedBlobs
from flyteish.interfaces import Reference

env = TaskEnvironment("cached")
ran: list[str] = []
left: list[asyncio.Future[int]] = []


class SlowBlobs(BlockingMemoryBlobs):
    """Reading a reference takes until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.reads = 0

    def get_ref(self, name: str) -> Reference | None:
        self.reads += 1
        self.asked.set()
        assert self.gate.wait(30)
        return super().get_ref(name)


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> SlowBlobs:
    store = SlowBlobs()
    monkeypatch.setattr("flyteish._assembly._blobs", lambda config: ThreadedBlobs(store))
    return store


@pytest.fixture
def session(blobs: SlowBlobs) -> Iterator[Session]:
    ran.clear()
    left.clear()
    with Session([Queue("default")], [Pool("on-demand")], durability="memory") as opened:
        yield opened
        blobs.gate.set()


@env.task(cache="auto")
async def cached(x: int) -> int:
    ran.append(f"cached {x}")
    return x


@env.task
async def plain(x: int) -> int:
    ran.append(f"plain {x}")
    return x


@env.task
async def calls_both() -> list[int]:
    return list(await asyncio.gather(cached(1), plain(2), cached(3), plain(4)))


@env.task
async def gives_up(started: str) -> str:
    try:
        async with asyncio.timeout(0.05):
            await cached(1)
    except TimeoutError:
        return "gave up"
    return "got it"


@env.task
async def leaves_a_call_behind() -> str:
    left.append(asyncio.ensure_future(cached(1)))
    await asyncio.sleep(0)
    return "gone"


def test_a_slow_store_holds_up_only_who_asks_it(session: Session, blobs: SlowBlobs) -> None:
    """While the cache is asked for one run, others start and end."""
    blobs.gate.clear()
    slow = session.run(cached, x=1)
    assert blobs.asked.wait(30)
    assert session.run(plain, x=2).result(20) == 2
    assert (slow.done(), slow.phase) == (False, "queued")
    blobs.gate.set()
    assert slow.result(20) == 1
    assert session.run(cached, x=1).wait(20).actions()[0].cached
    assert ran == ["plain 2", "cached 1"]


def test_calls_are_taken_in_the_order_in_which_they_were_made(session: Session, blobs: SlowBlobs) -> None:
    """Also where the cache has to be asked for some of them, in whatever order it answers."""
    run = session.run(calls_both)
    assert run.result(20) == [1, 2, 3, 4]
    assert [action.profile.task for action in run.actions()[1:]] == ["cached.cached", "cached.plain"] * 2
    assert blobs.reads == 2  # what is not cached asks for nothing


def test_a_call_that_is_given_up_while_the_cache_is_asked_never_runs(session: Session, blobs: SlowBlobs) -> None:
    """It is as if it had not been made; the caller goes on at once."""
    blobs.gate.clear()
    run = session.run(gives_up, started="")
    assert run.result(20) == "gave up"
    blobs.gate.set()
    assert session.run(plain, x=1).result(20) == 1
    assert ran == ["plain 1"]


def test_a_call_whose_caller_ends_while_the_cache_is_asked_never_runs(session: Session, blobs: SlowBlobs) -> None:
    """Its attempt is over, as if it had called too late."""
    blobs.gate.clear()
    assert session.run(leaves_a_call_behind).result(20) == "gone"
    blobs.gate.set()
    assert session.run(plain, x=1).result(20) == 1
    assert ran == ["plain 1"]
    session.close()
    assert [task.cancelled() for task in left] == [True]


def test_a_run_can_be_aborted_while_the_cache_is_asked(session: Session, blobs: SlowBlobs) -> None:
    """It ends as aborted, and its task never runs."""
    blobs.gate.clear()
    run = session.run(cached, x=1)
    assert blobs.asked.wait(30)
    run.abort()
    blobs.gate.set()
    with pytest.raises(errors.ActionAbortedError):
        run.result(20)
    assert ran == []


def test_a_session_can_be_closed_while_the_cache_is_asked(blobs: SlowBlobs) -> None:
    """Who waits is told, and closing does not wait for the store."""
    session = Session([Queue("default")], [Pool("on-demand")], durability="memory").open()
    blobs.gate.clear()
    run = session.run(cached, x=1)
    assert blobs.asked.wait(30)
    session.close()
    blobs.gate.set()
    with pytest.raises(errors.SessionClosedError):
        run.result(20)


def test_a_result_that_is_used_does_not_grow_old(session: Session, blobs: SlowBlobs) -> None:
    """Its reference counts as written when it was used, at most once an hour."""
    session.run(cached, x=1).result(20)
    (name,) = (each.name for each in blobs.references())
    written_at = blobs._refs[name].written_at
    assert session.run(cached, x=1).wait(20).actions()[0].cached
    assert blobs._refs[name].written_at == written_at
    blobs._refs[name] = blobs._refs[name]._replace(written_at=time.time() - 4000)
    assert session.run(cached, x=1).wait(20).actions()[0].cached
    assert time.time() - blobs._refs[name].written_at < 60


def test_a_result_that_is_swept_while_it_is_found_is_computed_anew(
    session: Session, blobs: SlowBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it refers to may have gone with it."""
    session.run(cached, x=1).result(20)
    (name,) = (each.name for each in blobs.references())
    blobs._refs[name] = blobs._refs[name]._replace(written_at=1000.0)
    replace = blobs.replace_ref

    def swept(name: str, data: bytes, version: str) -> bool:
        blobs.delete_ref(name, 2000.0)
        return replace(name, data, version)

    monkeypatch.setattr(blobs, "replace_ref", swept)
    assert session.run(cached, x=1).result(20) == 1
    assert ran == ["cached 1", "cached 1"]


def test_an_unreadable_result_is_computed_anew(session: Session, blobs: SlowBlobs) -> None:
    """And replaced by the new one."""
    session.run(cached, x=1).result(20)
    (name,) = (each.name for each in blobs.references())
    blobs.set_ref(name, b"\xc1")
    assert session.run(cached, x=1).result(20) == 1
    assert session.run(cached, x=1).wait(20).actions()[0].cached
    assert ran == ["cached 1", "cached 1"]
