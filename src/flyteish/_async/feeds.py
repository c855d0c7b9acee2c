"""Carries callbacks from foreign threads to event loops: one wake-up per burst, however many callbacks.

Also turns the callback style of ``interfaces.Link`` into something to await (``through_loop``) or to block on
(``through_thread``), and runs blocking work beside a loop (``beside_loop``). Must not know what is carried.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from flyteish._async.work_line import WorkLine
from flyteish._core.wording import span

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from flyteish._async.bridge import Stepper

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Callback = Callable[..., object]
#: Told of what can't be delivered any more, because its loop is closed: the callback and its arguments.
Dropped = Callable[[Callback, tuple[Any, ...]], None]

SLICE = 64
"""Callbacks run in one go; then the loop gets its turn, so that a huge burst doesn't starve it."""


class LoopFeed:
    """The way into one event loop, from any thread.

    Invariant: if there are items and the loop is open, ``_armed`` is true and a ``_drain`` is scheduled or
    running. Two threads may both find it unarmed and both schedule one: the second finds nothing to do.
    """

    __slots__ = ("_armed", "_dropped", "_items", "_loop", "steppers")

    def __init__(self, loop: asyncio.AbstractEventLoop, dropped: Dropped | None = None) -> None:
        self._loop = loop
        self._dropped = dropped
        self._items: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self._armed = False
        self.steppers: list[Stepper] = []
        """Idle ones of this loop's thread, for ``bridge.Bridged``."""

    def __repr__(self) -> str:
        state = "closed" if self._loop.is_closed() else "awake" if self._armed else "idle"
        return f"LoopFeed({state}, {len(self._items)} waiting)"

    @property
    def closed(self) -> bool:
        """Whether the loop is closed, so that nothing can be delivered any more."""
        return self._loop.is_closed()

    def put(self, callback: Callback, *args: Any) -> None:
        """Run ``callback(*args)`` on the loop soon, in the order of the puts of each thread. Never raises."""
        self._items.append((callback, args))
        if not self._armed:
            self._armed = True
            self._wake()
        elif self._loop.is_closed():
            self.drop()

    def drop(self) -> None:
        """Hand what is waiting to ``dropped``: for a loop that was closed before it came to it."""
        while self._items:
            try:
                callback, args = self._items.popleft()
            except IndexError:  # another thread was faster
                return
            if self._dropped is not None:
                self._dropped(callback, args)

    def _wake(self) -> None:
        try:
            # An empty context: that of whoever came first must not leak into the others' callbacks.
            self._loop.call_soon_threadsafe(self._drain, context=Context())
        except RuntimeError:  # the loop is closed; asked by trying, since it may close at any moment
            self.drop()

    def _drain(self) -> None:
        try:
            self._run_slice()
        except BaseException:
            self._loop.call_soon(self._drain)  # what leaves through the loop must not take the rest along
            raise

    def _run_slice(self) -> None:
        for _ in range(SLICE):
            try:
                callback, args = self._items.popleft()
            except IndexError:
                self._armed = False
                # A put that saw "armed" did not wake us, but appended before the line above: it is seen here.
                if not self._items:
                    return
                self._armed = True
                continue
            try:
                callback(*args)
            except Exception as error:
                self._loop.call_exception_handler({"message": f"Callback {callback!r} failed", "exception": error})
        self._loop.call_soon(self._drain)


class Feeds:
    """One ``LoopFeed`` per event loop, made when first asked for; forgets closed loops. Thread-safe.

    Args:
        dropped: told of callbacks whose loop closed before they could run; default: they are forgotten, since
            nobody can be waiting for them on a closed loop.
    """

    __slots__ = ("_dropped", "_feeds", "_lock", "values")

    def __init__(self, dropped: Dropped | None = None) -> None:
        self._dropped = dropped
        self._feeds: dict[asyncio.AbstractEventLoop, LoopFeed] = {}
        self._lock = threading.Lock()
        self.values: Final = WorkLine("flyteish: values", threads=2)
        """Where large values are packed and read beside these loops: few at a time, for each takes its memory."""

    def __repr__(self) -> str:
        return f"Feeds({len(self._feeds)} loops)"

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopFeed:
        """The feed of this loop."""
        feed = self._feeds.get(loop)
        return feed if feed is not None else self._add(loop)

    def _add(self, loop: asyncio.AbstractEventLoop) -> LoopFeed:
        with self._lock:
            over = [self._feeds.pop(known) for known in list(self._feeds) if known.is_closed()]
            feed = self._feeds.setdefault(loop, LoopFeed(loop, self._dropped))
        for old in over:
            old.drop()
        return feed


async def through_loop(
    feeds: Feeds,
    start: Callable[[Callable[[*Ts], None]], T],
    abandoned: Callable[[T], object] | None = None,
) -> tuple[*Ts]:
    """Await what ``start`` announces through the callback it is given; returns the callback's arguments.

    ``start(done)`` is called at once on this thread; ``done`` may be called from any thread, also before
    ``start`` returns, and counts once. If the wait is cancelled, ``abandoned`` gets what ``start`` returned
    (a number to cancel by, say) and the cancellation goes on.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    feed = feeds.of(loop)
    future: asyncio.Future[tuple[*Ts]] = loop.create_future()

    def done(*args: *Ts) -> None:
        feed.put(_settle, future, args)

    started = start(done)
    try:
        return await future
    except asyncio.CancelledError:
        if abandoned is not None:
            abandoned(started)
        raise


def through_thread(
    start: Callable[[Callable[[*Ts], None]], T],
    abandoned: Callable[[T], object] | None = None,
    timeout: float | None = None,
) -> tuple[*Ts]:
    """Block this thread until ``start`` announces its end; returns the callback's arguments.

    The twin of ``through_loop`` for code without a loop. ``abandoned`` is called when the wait is broken off:
    by Ctrl-C, or by ``timeout`` seconds (default: no limit), which raises ``TimeoutError``.
    """
    gate = threading.Event()
    answers: list[tuple[*Ts]] = []

    def done(*args: *Ts) -> None:
        answers.append(args)
        gate.set()

    started = start(done)
    try:
        if not gate.wait(timeout):
            raise TimeoutError(f"no answer within {span(timeout)}")
    except BaseException:
        if abandoned is not None:
            abandoned(started)
        raise
    return answers[0]


async def beside_loop(feeds: Feeds, work: Callable[[], T], name: str) -> T:
    """Run blocking ``work`` on a short-lived thread called ``name`` and await its result or its exception.

    Not the loop's executor: a program that keeps that busy must not delay a save within a grace window.
    A cancelled wait leaves ``work`` to finish by itself.
    """

    def start(done: Callable[[T | None, BaseException | None], None]) -> None:
        context = copy_context()
        threading.Thread(target=context.run, args=(_answer, work, done), name=name, daemon=True).start()

    result, error = await through_loop(feeds, start)
    if error is not None:
        try:
            raise error
        finally:
            del error  # or the exception and this frame would keep each other alive
    return result  # type: ignore[return-value]  # None only where `work` returned it


async def done_on(line: WorkLine, work: Callable[[], T], feeds: Feeds, size: int = 0) -> T:
    """Await ``work`` that is put on a line. A cancelled wait leaves it there."""
    return await result_of(line.put(work, size), feeds)


async def result_of(future: Future[T], feeds: Feeds) -> T:
    """Await what is done on a line; also on a loop that may be closed meanwhile."""

    def start(done: Callable[[None], None]) -> None:
        # Without the future, which would hold itself, and a large result, until somebody collects garbage.
        future.add_done_callback(lambda _: done(None))

    if not future.done():
        await through_loop(feeds, start)
    return future.result()


def _answer(work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
    try:
        result = work()
    except BaseException as error:
        done(None, error)
    else:
        done(result, None)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
