"""Crossings between threads and loops: nothing lost, order kept, one wake-up per burst."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from flyteish._async.feeds import SLICE, Feeds, LoopFeed, beside_loop, through_loop, through_thread


def in_threads(count: int, work: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


class CountingLoop:
    """A loop that counts how often it is woken, and otherwise is the real one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wakes = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.wakes += 1
        return self._loop.call_soon_threadsafe(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def test_nothing_is_lost_and_each_thread_keeps_its_order() -> None:
    """Eight threads put thousands of callbacks while the loop drains: all run, in each thread's order."""
    per_thread, seen, over = 5 * SLICE, [[] for _ in range(8)], asyncio.Event()  # type: ignore[var-annotated]
    feed = Feeds().of(asyncio.get_running_loop())

    def receive(number: int, value: int) -> None:
        seen[number].append(value)
        if sum(map(len, seen)) == 8 * per_thread:
            over.set()

    def produce(number: int) -> None:
        for value in range(per_thread):
            feed.put(receive, number, value)

    threads = in_threads(8, produce)
    await asyncio.wait_for(over.wait(), 60)
    for thread in threads:
        thread.join()
    assert seen == [list(range(per_thread))] * 8


async def test_a_burst_wakes_the_loop_once() -> None:
    """However many callbacks are put before the loop gets to run, it is woken once."""
    loop = CountingLoop(asyncio.get_running_loop())
    feed, seen = LoopFeed(loop), []  # type: ignore[arg-type, var-annotated]

    def burst(_: int) -> None:
        for value in range(SLICE - 1):
            feed.put(seen.append, value)

    (thread,) = in_threads(1, burst)
    thread.join()
    await asyncio.sleep(0)
    assert (seen, loop.wakes) == (list(range(SLICE - 1)), 1)
    feed.put(seen.append, "next burst")
    await asyncio.sleep(0)
    assert (seen[-1], loop.wakes) == ("next burst", 2)


async def test_a_huge_burst_lets_others_run() -> None:
    """Between slices of a burst, other callbacks of the loop get their turn."""
    loop, seen = asyncio.get_running_loop(), []  # type: ignore[var-annotated]
    feed = Feeds().of(loop)
    for value in range(2 * SLICE + 1):
        feed.put(seen.append, value)
    await asyncio.sleep(0)
    assert len(seen) == SLICE
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(seen) == 2 * SLICE + 1


async def test_a_failing_callback_costs_only_itself() -> None:
    """Its exception goes to the loop's handler; those behind it run."""
    loop, reported, seen = asyncio.get_running_loop(), [], []  # type: ignore[var-annotated]
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    feed = Feeds().of(loop)
    feed.put(int, "no number")
    feed.put(seen.append, 1)
    await asyncio.sleep(0)
    assert ([type(error) for error in reported], seen) == ([ValueError], [1])


def test_an_exit_costs_only_itself() -> None:
    """A callback that ends the loop (Ctrl-C) does not take those behind it along."""
    loop, seen = asyncio.new_event_loop(), []  # type: ignore[var-annotated]
    feed = Feeds().of(loop)

    def interrupt() -> None:
        raise KeyboardInterrupt

    feed.put(interrupt)
    feed.put(seen.append, 1)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert seen == [1]


def test_a_closed_loop_drops() -> None:
    """What can't be delivered is handed to ``dropped``: put after the close, or before it and not drained."""
    dropped: list[Any] = []
    feeds = Feeds(dropped=lambda callback, args: dropped.append(args))
    loop = asyncio.new_event_loop()
    feed = feeds.of(loop)
    feed.put(print, "before")
    loop.close()
    assert dropped == []
    feed.put(print, "after")
    feed.put(print, "later")
    assert dropped == [("before",), ("after",), ("later",)]
    assert feed.closed
    assert repr(feed) == "LoopFeed(closed, 0 waiting)"


def test_closed_loops_are_forgotten() -> None:
    """A new loop's feed makes room: feeds of closed loops go, with what was left in them dropped."""
    dropped: list[Any] = []
    feeds = Feeds(dropped=lambda callback, args: dropped.append(args))
    old, new = asyncio.new_event_loop(), asyncio.new_event_loop()
    feeds.of(old).put(print, "left")
    old.close()
    assert feeds.of(new) is feeds.of(new)
    assert (dropped, repr(feeds)) == ([("left",)], "Feeds(1 loops)")
    new.close()


def test_dropping_without_a_handler_is_silent() -> None:
    """Nobody waits on a closed loop, so by default what was for it is forgotten."""
    loop = asyncio.new_event_loop()
    feed = Feeds().of(loop)
    loop.close()
    feed.put(print, "nobody")
    assert repr(feed) == "LoopFeed(closed, 0 waiting)"


async def test_callbacks_see_no_ones_context() -> None:
    """Context variables of the thread that happened to put first do not leak into callbacks."""
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen: list[str] = []
    feed = Feeds().of(asyncio.get_running_loop())
    variable.set("mine")
    feed.put(lambda: seen.append(variable.get()))
    await asyncio.sleep(0)
    assert seen == ["none"]


async def test_through_loop_returns_the_answer() -> None:
    """The callback's arguments are what is awaited, from another thread or before ``start`` returns."""
    feeds = Feeds()

    def from_thread(done: Callable[[int, str], None]) -> None:
        in_threads(1, lambda _: done(1, "a"))

    def at_once(done: Callable[[int], None]) -> None:
        done(1)
        done(2)  # does not count

    assert await through_loop(feeds, from_thread) == (1, "a")
    assert await through_loop(feeds, at_once) == (1,)


async def test_a_cancelled_wait_is_told() -> None:
    """``abandoned`` gets what ``start`` returned; a late answer changes nothing."""
    answers: list[Callable[[int], None]] = []
    abandoned: list[int] = []

    def start(done: Callable[[int], None]) -> int:
        answers.append(done)
        return 7

    waiting = asyncio.create_task(through_loop(Feeds(), start, abandoned.append), name="waiting")
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert abandoned == [7]
    answers[0](1)
    await asyncio.sleep(0)


def test_through_thread_blocks_until_the_answer() -> None:
    """A thread without a loop waits for the callback; the first answer counts."""

    def start(done: Callable[[int], None]) -> None:
        in_threads(1, lambda _: done(5))

    assert through_thread(start) == (5,)


def test_through_thread_gives_up_in_time() -> None:
    """After ``timeout`` it raises TimeoutError, having told ``abandoned``."""
    abandoned: list[str] = []
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        through_thread(lambda done: "number", abandoned.append, timeout=0.01)
    assert abandoned == ["number"]


async def test_beside_loop_carries_results_and_errors() -> None:
    """Work on its own thread, with the caller's context; its exception arrives as it was raised."""
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")

    def work() -> tuple[str, str]:
        return threading.current_thread().name, variable.get()

    assert await beside_loop(Feeds(), work, "the name") == ("the name", "mine")
    assert await beside_loop(Feeds(), partial({1: 2}.get, 3), "nothing") is None
    with pytest.raises(ValueError, match="no number") as caught:
        await beside_loop(Feeds(), lambda: int("no number"), "failing")
    assert [entry.name for entry in caught.traceback][-1] == "<lambda>"
