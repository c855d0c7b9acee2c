"""Work that must not be done on an event loop, one piece after the other, in the order in which it was put.

Must not know what the work is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flyteish._async.feeds import through_loop

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds

T = TypeVar("T")

BACKLOG_BYTES: Final = 256 * 1024**2
"""What may wait at a time. Who puts more waits in the put: an event loop that stands is better than no memory."""


class InOrder:
    """A line of work with a thread that lives as long as there is any. Thread-safe.

    Args:
        name: of the thread.
        backlog: bytes that may wait; a single piece of work may have more.
    """

    __slots__ = ("_alive", "_backlog", "_changed", "_name", "_waiting", "_work")

    def __init__(self, name: str, backlog: int = BACKLOG_BYTES) -> None:
        self._name = name
        self._backlog = backlog
        self._waiting = 0
        """Bytes of all work that is not done."""
        self._alive = False
        self._work: deque[tuple[Future[Any], Context, Callable[[], Any], int]] = deque()
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"InOrder({self._name!r}, {len(self._work)} waiting, {self._waiting} bytes)"

    def put(self, work: Callable[[], T], size: int) -> Future[T]:
        """Have ``work`` done after all that was put before, with this thread's context variables.

        ``size`` is how many bytes it holds until it is done. Cancelling the future does not call the work off.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            while self._waiting and self._waiting + size > self._backlog:
                self._changed.wait()
            self._waiting += size
            self._work.append((future, copy_context(), work, size))
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._work:
                    self._alive = False
                    return
                future, context, work, size = self._work.popleft()
            try:
                result = context.run(work)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del future, context, work
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()


async def result_of(future: Future[T], feeds: Feeds) -> T:
    """Await what is done in order; also on a loop that may be closed meanwhile."""
    if not future.done():
        await through_loop(feeds, future.add_done_callback)
    return future.result()
