"""What an engine of worker processes keeps of each attempt and of each worker.

What follows from what a worker says is ``engine``'s business. Must not touch a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.events import Evidence, WorkerEvidence
from flyteish._core.model.settings import Secret
from flyteish._worker import messages as m
from flyteish.engines.workers.peer import Peer
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.engines.workers.stream import SocketStream
from flyteish.interfaces import Link, Notice, Order

if TYPE_CHECKING:
    from flyteish.engines.processes.worker_process import WorkerProcess


class PooledAttempt(PeerAttempt):
    """One attempt between ``start`` and its one report of the end."""

    __slots__ = (
        "ends_at", "fate", "grace", "log", "placed_at", "running_at", "timer", "told", "worker",
    )  # fmt: skip

    def __init__(self, order: Order, link: Link, log: str | None) -> None:
        super().__init__(order, link)
        self.log = log
        self.worker: PooledWorker | None = None
        """The worker that has it, begun or not; None while it waits in the engine."""
        self.placed_at = 0.0
        """Seconds since the epoch; 0 until a worker turned to it."""
        self.running_at = 0.0
        """Seconds since the epoch; 0 until user code began."""
        self.told = False
        """Whether it was reported that it has its place."""
        self.grace = 0.0
        """Seconds that a stop leaves it once it runs."""
        self.fate: Evidence | None = None
        """How it ends if its worker dies now: set when we first sent that worker a deadly signal."""
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


class Hooks(NamedTuple):
    """What the engine does when a worker says something."""

    started: Callable[[PooledWorker], None]
    began: Callable[[PooledWorker, PooledAttempt], None]
    ended: Callable[[PooledWorker, PooledAttempt, WorkerEvidence, float], None]
    given_back: Callable[[PooledWorker, list[PooledAttempt]], None]
    signalled: Callable[[PooledAttempt, Notice], None]
    waits: Callable[[PooledWorker], None]
    secrets: Callable[[Sequence[Secret]], Mapping[str, str]]


class PooledWorker(Peer[PooledAttempt]):
    """One worker of the pool."""

    __slots__ = ("_began_at", "_hooks", "_look", "leaving", "log", "process", "start_timer")

    def __init__(self, feed: LoopFeed, welcome: m.Welcome, hooks: Hooks) -> None:
        super().__init__(feed, welcome, resumes=False)
        self._hooks = hooks
        self._began_at = 0.0
        self._look: asyncio.TimerHandle | None = None
        self.process: WorkerProcess
        self.log: str | None = None
        """Where the last attempt's output went: beside it lies the worker's spool."""
        self.leaving = False
        self.start_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "leaving" if self.leaving else "ready" if self.ready else "starting"
        return f"PooledWorker({self.process.pid}, {state}, {len(self.attempts)} attempts)"

    def look_again(
        self, loop: asyncio.AbstractEventLoop, seconds: float, look: Callable[[PooledAttempt, bool], None]
    ) -> None:
        """Its attempt went on; where that is all that it does for ``seconds``, have a look at it.

        One timer for many attempts, most of which are over before it is due.
        """
        self._began_at = loop.time()
        if self._look is None:
            self._look = loop.call_later(seconds, self._looked, loop, seconds, look)

    def _looked(
        self, loop: asyncio.AbstractEventLoop, seconds: float, look: Callable[[PooledAttempt, bool], None]
    ) -> None:
        self._look = None
        attempt = self.current
        left = self._began_at + seconds - loop.time()
        if attempt is None:
            return
        if left > 0:
            self._look = loop.call_later(left, self._looked, loop, seconds, look)
        else:
            look(attempt, attempt.user_code)

    def admit(self, hello: m.Hello, stream: SocketStream) -> m.Rejected | None:
        """Its process has said hello."""
        return self.attach(stream, hello)

    def on_ready(self) -> None:
        self._hooks.started(self)

    def on_began(self, attempt: PooledAttempt) -> None:
        self._hooks.began(self, attempt)

    def on_ended(self, attempt: PooledAttempt, said: WorkerEvidence, seconds: float, number: int) -> None:
        self._hooks.ended(self, attempt, said, seconds)

    def on_given_back(self, attempts: list[PooledAttempt]) -> None:
        self._hooks.given_back(self, attempts)

    def on_signal(self, attempt: PooledAttempt, notice: Notice, number: int) -> None:
        self._hooks.signalled(attempt, notice)

    def on_waiting(self) -> None:
        self._hooks.waits(self)

    def secrets(self, attempt: PooledAttempt) -> Mapping[str, str]:
        return self._hooks.secrets(attempt.order.secrets)

    def on_nonsense(self, why: str) -> None:
        # Where it is at nothing, it is the next one's turn to find that out: so it is bounded how often that happens.
        attempt = self.current or next(iter(self.attempts.values()), None)
        if attempt is not None:
            self.current = attempt
            if attempt.fate is None:
                attempt.fate = Evidence(vanished=why)
        self.process.kill()

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


async def within(waiting: Coroutine[Any, Any, object], seconds: float) -> None:
    """Wait, but no longer than this: what is left then is ended without mercy."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        pass
