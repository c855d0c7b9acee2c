"""Work that must not be done on an event loop: on few threads, and begun in the order in which it was put.

Not the loop's executor, which may be busy with a program's own work. Must not know what the work is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

BACKLOG_BYTES: Final = 256 * 1024**2
"""What may wait at a time. Who puts more waits in the put: an event loop that stands is better than no memory."""


class WorkLine:
    """A line of work, with threads that live as long as there is any. Thread-safe.

    Args:
        name: of the threads.
        threads: how many there are at most; with one, each piece is done before the next begins.
        backlog: bytes that may wait; a single piece of work may have more.
    """

    __slots__ = ("_alive", "_backlog", "_changed", "_name", "_threads", "_waiting", "_work")

    def __init__(self, name: str, threads: int = 1, backlog: int = BACKLOG_BYTES) -> None:
        self._name = name
        self._threads = threads
        self._backlog = backlog
        self._waiting = 0
        """Bytes of all work that is not done."""
        self._alive = 0
        """Threads."""
        self._work: deque[tuple[Future[Any], Context, Callable[[], Any], int]] = deque()
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"WorkLine({self._name!r}, {len(self._work)} waiting, {self._waiting} bytes)"

    def put(self, work: Callable[[], T], size: int) -> Future[T]:
        """Have ``work`` done when all that was put before has begun, with this thread's context variables.

        ``size`` is how many bytes it holds until it is done. Cancelling the future does not call the work off.
        """
        from concurrent.futures import Future  # here, since most programs never need it

        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            while self._waiting and self._waiting + size > self._backlog:
                self._changed.wait()
            self._waiting += size
            self._work.append((future, copy_context(), work, size))
            if self._alive < self._threads:
                self._alive += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._work:
                    self._alive -= 1
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
