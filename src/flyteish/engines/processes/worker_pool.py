"""What an engine of worker processes keeps of each attempt and of each worker.

Records only; who acts on them is ``engine``'s business. Must not touch a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from flyteish._core.model.events import Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish.interfaces import Link, Order

if TYPE_CHECKING:
    from flyteish.engines.processes.worker_process import WorkerProcess


class PooledAttempt:
    """One attempt between ``start`` and its one report of the end."""

    __slots__ = (
        "calls", "doomed", "ends_at", "fate", "grace", "key", "link", "log", "noticed", "order", "running_at", "timer",
        "worker",
    )  # fmt: skip

    def __init__(self, order: Order, link: Link, log: str | None) -> None:
        self.order = order
        self.key: AttemptKey = order.key
        self.link = link
        self.log = log
        self.worker: PooledWorker | None = None
        """The worker that has it, begun or not; None while it waits in the engine."""
        self.running_at = 0.0
        """Seconds since the epoch; 0 until user code began."""
        self.calls: dict[int, int] = {}
        """Child calls without an answer: the worker's number -> the link's."""
        self.doomed: Evidence | None = None
        """How it ends if it has not begun yet; from when it is known that it has to end."""
        self.grace = 0.0
        """Seconds that a stop leaves it once it runs."""
        self.fate: Evidence | None = None
        """How it ends if its worker dies now: set when we first sent that worker a deadly signal."""
        self.noticed = False
        self.ends_at = 0.0
        """When a reclaim's grace is over, on the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        where = "waiting" if self.worker is None else f"on {self.worker}"
        return f"PooledAttempt({self.key} {self.order.task}, {where})"

    def cancel_timer(self) -> None:
        """What was planned for it is not needed any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def terminate(self, loop: asyncio.AbstractEventLoop, gap: float) -> None:
        """Send its worker SIGTERM, and SIGKILL after ``gap`` seconds."""
        if self.worker is None:
            return
        self.fate = self.doomed
        self.worker.process.terminate()
        self.timer = loop.call_later(gap, self.kill)

    def kill(self) -> None:
        """Kill its worker, unless that has said meanwhile that the attempt is over."""
        worker = self.worker
        if worker is None:
            return
        worker.process.drain()
        if worker.current is self:
            self.fate = self.doomed
            worker.process.kill()


class PooledWorker:
    """One worker of the pool.

    Invariant: ``current`` is in ``attempts``; whatever else is in there has not begun, as far as was heard.
    """

    __slots__ = ("attempts", "current", "leaving", "log", "process", "ready", "recalled", "start_timer")

    def __init__(self) -> None:
        self.process: WorkerProcess
        self.attempts: dict[AttemptKey, PooledAttempt] = {}
        self.current: PooledAttempt | None = None
        self.log: str | None = None
        """Where the last attempt's output went: beside it lies the worker's spool."""
        self.recalled: set[AttemptKey] = set()
        """Asked back, not yet answered."""
        self.ready = False
        self.leaving = False
        self.start_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "leaving" if self.leaving else "ready" if self.ready else "starting"
        return f"PooledWorker({self.process.pid}, {state}, {len(self.attempts)} attempts)"

    def send(self, message: m.ToWorker) -> None:
        """Tell it."""
        self.process.send(message)

    @property
    def blocked(self) -> bool:
        """Whether its attempt waits for child calls, so that another worker may use the core."""
        return self.current is not None and bool(self.current.calls)

    @property
    def closed(self) -> bool:
        """Whether it should get nothing more until its attempt is over."""
        current = self.current
        return current is not None and (current.doomed is not None or bool(current.calls))

    @property
    def serving(self) -> bool:
        """Whether it can be counted on to take more work, sooner or later."""
        return not self.leaving and not self.blocked

    def unbegun(self) -> list[AttemptKey]:
        """What it could give back, in order."""
        return [
            key for key, attempt in self.attempts.items() if attempt is not self.current and key not in self.recalled
        ]


async def within(waiting: Coroutine[Any, Any, object], seconds: float) -> None:
    """Wait, but no longer than this: what is left then is ended without mercy."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        pass
