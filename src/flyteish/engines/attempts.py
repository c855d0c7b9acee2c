"""What an engine of worker processes keeps of each attempt and of each worker.

Records only, and the reading of a worker's exit; who acts on them is ``processes``' business. Must not
touch a process or a socket.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from flyteish._core.events import Evidence
from flyteish._core.ids import AttemptKey
from flyteish.interfaces import Link, Order

if TYPE_CHECKING:
    from flyteish.engines.worker_process import WorkerProcess


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


class Member:
    """One worker of the pool.

    Invariant: ``current`` is in ``attempts``; whatever else is in there has not begun, as far as was heard.
    """

    __slots__ = ("attempts", "current", "leaving", "process", "ready", "recalled", "start_timer")

    def __init__(self) -> None:
        self.process: WorkerProcess
        self.attempts: dict[AttemptKey, Attempt] = {}
        self.current: Attempt | None = None
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

    def unbegun(self) -> list[AttemptKey]:
        """What it could give back, in order."""
        return [
            key for key, attempt in self.attempts.items() if attempt is not self.current and key not in self.recalled
        ]


def read_exit(code: int) -> Evidence:
    """What a worker's exit by itself says about the attempt that it was at."""
    if code == -signal.SIGKILL:
        return Evidence(
            vanished="its worker was killed by SIGKILL from outside (the kernel does so when memory runs out)"
        )
    return Evidence(exit_code=code)
