"""What an engine of worker processes keeps of each attempt and of each worker.

Records, the line of what waits, how far to work ahead, and the reading of a worker's exit; who acts on them is
``processes``' business. Must not touch a process or a socket.
"""

from __future__ import annotations

import asyncio
import signal
from collections import OrderedDict
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from flyteish._core.model.events import Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish.interfaces import Link, Order

if TYPE_CHECKING:
    from flyteish.engines.processes.worker_process import WorkerProcess


class Attempt:
    """One attempt between ``start`` and its one report of the end."""

    __slots__ = (
        "calls", "doomed", "ends_at", "fate", "grace", "key", "link", "log", "member", "noticed", "order",
        "running_at", "timer",
    )  # fmt: skip

    def __init__(self, order: Order, link: Link, log: str | None) -> None:
        self.order = order
        self.key: AttemptKey = order.key
        self.link = link
        self.log = log
        self.member: Member | None = None
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
        where = "waiting" if self.member is None else f"on {self.member}"
        return f"Attempt({self.key} {self.order.task}, {where})"

    def cancel_timer(self) -> None:
        """What was planned for it is not needed any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def terminate(self, loop: asyncio.AbstractEventLoop, gap: float) -> None:
        """Send its worker SIGTERM, and SIGKILL after ``gap`` seconds."""
        if self.member is None:
            return
        self.fate = self.doomed
        self.member.process.terminate()
        self.timer = loop.call_later(gap, self.kill)

    def kill(self) -> None:
        """Kill its worker, unless that has said meanwhile that the attempt is over."""
        member = self.member
        if member is None:
            return
        member.process.drain()
        if member.current is self:
            self.fate = self.doomed
            member.process.kill()


class Member:
    """One worker of the pool.

    Invariant: ``current`` is in ``attempts``; whatever else is in there has not begun, as far as was heard.
    """

    __slots__ = ("attempts", "current", "leaving", "log", "process", "ready", "recalled", "start_timer")

    def __init__(self) -> None:
        self.process: WorkerProcess
        self.attempts: dict[AttemptKey, Attempt] = {}
        self.current: Attempt | None = None
        self.log: str | None = None
        """Where the last attempt's output went: beside it lies the worker's spool."""
        self.recalled: set[AttemptKey] = set()
        """Asked back, not yet answered."""
        self.ready = False
        self.leaving = False
        self.start_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "leaving" if self.leaving else "ready" if self.ready else "starting"
        return f"Member({self.process.pid}, {state}, {len(self.attempts)} attempts)"

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


class Line:
    """Attempts that no worker has yet, in order; every operation costs the same however many there are."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[AttemptKey, Attempt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._attempts)

    def __repr__(self) -> str:
        return f"Line({len(self._attempts)} attempts)"

    def append(self, attempt: Attempt) -> None:
        """A new one, at the end."""
        self._attempts[attempt.key] = attempt

    def put_back(self, attempt: Attempt) -> None:
        """One that a worker gave back, at the head."""
        self._attempts[attempt.key] = attempt
        self._attempts.move_to_end(attempt.key, last=False)

    def take(self, count: int) -> list[Attempt]:
        """The first ones, at most ``count``."""
        return [self._attempts.popitem(last=False)[1] for _ in range(min(count, len(self._attempts)))]

    def remove(self, attempt: Attempt) -> None:
        """It needs no worker any more. One that is not in the line is left alone."""
        self._attempts.pop(attempt.key, None)


class Pace:
    """How long attempts take here, and so how many a worker may have: as many as it does in ``AHEAD`` seconds.

    At first one at a time, since nothing is known.
    """

    #: Seconds: hides a round trip, and hardly disturbs the order.
    AHEAD = 0.005

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds = self.AHEAD

    def __repr__(self) -> str:
        return f"Pace({self._seconds * 1000:.3f} ms, {self.ahead} ahead)"

    def took(self, seconds: float) -> None:
        """Another attempt's time; recent ones count most."""
        self._seconds = 0.75 * self._seconds + 0.25 * max(seconds, 1e-5)

    @property
    def ahead(self) -> int:
        """Attempts that a worker may have, the current one included."""
        return max(1, min(self._most, int(self.AHEAD / self._seconds)))


def read_exit(code: int) -> Evidence:
    """What a worker's exit by itself says about the attempt that it was at."""
    if code == -signal.SIGKILL:
        return Evidence(
            vanished="its worker was killed by SIGKILL from outside (the kernel does so when memory runs out)"
        )
    return Evidence(exit_code=code)


async def within(waiting: Coroutine[Any, Any, object], seconds: float) -> None:
    """Wait, but no longer than this: what is left then is ended without mercy."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        pass
