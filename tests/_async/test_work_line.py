"""Work beside event loops is done in the order in which it was put, by one thread, within bounds."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar

import pytest

from flyteish._async.feeds import Feeds, done_on, result_of
from flyteish._async.work_line import WorkLine

PATIENCE = 10.0
said: ContextVar[str] = ContextVar("said", default="nothing")


def _wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "a line":
            thread.join(PATIENCE)


def test_work_is_done_in_order_with_the_context_of_who_put_it() -> None:
    """Results and errors come by the futures; the thread ends when there is nothing more to do."""
    line, done = WorkLine("a line"), []
    said.set("this")
    futures = [line.put(lambda n=n: done.append((n, said.get())), 1) for n in range(100)]  # type: ignore[misc]
    failed = line.put(lambda: 1 // 0, 1)
    said.set("that")
    with pytest.raises(ZeroDivisionError):
        failed.result(PATIENCE)
    assert done == [(n, "this") for n in range(100)]
    assert all(future.done() for future in futures)
    _wait_for_threads()
    assert line.put(lambda: "again", 1).result(PATIENCE) == "again"


def test_who_puts_too_much_waits() -> None:
    """One piece of work may be larger than the bound; two may not wait together."""
    line, gate = WorkLine("a line", backlog=10), threading.Event()
    first = line.put(gate.wait, 100)
    second = threading.Thread(target=lambda: line.put(gate.is_set, 5).result())
    second.start()
    second.join(0.05)
    assert second.is_alive()
    gate.set()
    second.join(PATIENCE)
    assert not second.is_alive()
    assert first.done()


def test_results_are_awaited() -> None:
    """Also one that is there already; a cancelled wait calls nothing off."""
    line, gate, feeds = WorkLine("a line"), threading.Event(), Feeds()

    async def wait() -> str:
        future = line.put(lambda: (gate.wait(PATIENCE) and "done") or "late", 1)
        waiting = asyncio.ensure_future(result_of(future, feeds))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        first = await result_of(future, feeds)
        return first + await result_of(future, feeds)

    assert asyncio.run(wait()) == "donedone"


def test_a_result_goes_when_nobody_has_it_any_more() -> None:
    """Without waiting for the garbage collector: results are large."""

    class Result:
        """Something that can be referred to weakly."""

    line, feeds = WorkLine("a line"), Feeds()

    async def use() -> weakref.ref[Result]:
        return weakref.ref(await done_on(line, Result, feeds))

    gc.disable()
    try:
        left = asyncio.run(use())
        _wait_for_threads()
        assert left() is None
    finally:
        gc.enable()
