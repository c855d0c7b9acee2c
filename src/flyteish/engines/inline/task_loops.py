"""Event loops that the session owns, for ``async def`` tasks whose caller has no loop of its own.

One loop on one thread serves, started at the first use; if user code blocks it so that new attempts are not picked
up, another is started beside it, so that work never waits for a loop that waits for that work. Must not know what
runs on them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

PATIENCE = 0.25
"""Seconds that something waits for the newest loop before another is started."""


class TaskLoops:
    """``put`` work from the controller's thread; it runs on a loop of ours soon."""

    def __init__(self, controller: asyncio.AbstractEventLoop) -> None:
        self._controller = controller
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []
        self._watch: asyncio.TimerHandle | None = None

    def put(self, begin: Callable[[], None]) -> None:
        """Call ``begin()`` on one of the loops."""
        self._waiting.append((time.monotonic(), begin))
        if not self._loops:
            self._add()
        self._poke()

    def _poke(self) -> None:
        for loop, _ in self._loops:
            loop.call_soon_threadsafe(self._serve)
        if self._watch is None:
            self._watch = self._controller.call_later(PATIENCE, self._look)

    def _serve(self) -> None:
        while self._waiting:
            try:
                _, begin = self._waiting.popleft()
            except IndexError:  # another loop was faster
                return
            begin()

    def _look(self) -> None:
        self._watch = None
        if self._waiting and time.monotonic() - self._waiting[0][0] >= PATIENCE:
            self._add()
            self._poke()
        elif self._waiting:
            self._watch = self._controller.call_later(PATIENCE, self._look)

    def _add(self) -> None:
        loop = asyncio.new_event_loop()
        name = f"flyteish-tasks-{len(self._loops) + 1}"
        thread = threading.Thread(target=_run, args=(loop,), name=name, daemon=True)
        self._loops.append((loop, thread))
        thread.start()

    async def close(self, seconds: float) -> None:
        """Stop the loops; one that user code blocks is left behind after ``seconds``."""
        if self._watch is not None:
            self._watch.cancel()
        self._waiting.clear()
        for loop, _ in self._loops:
            loop.call_soon_threadsafe(loop.stop)
        deadline = time.monotonic() + seconds
        for _, thread in self._loops:
            while thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 - a thread can't be awaited
                await asyncio.sleep(0.002)
        self._loops.clear()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
