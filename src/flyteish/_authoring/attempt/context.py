"""What user code sees of its running attempt: ``ctx()`` and the object it returns.

Checkpoints and notices are made when they are first asked for: most attempts need neither. Must not know which engine
runs the attempt, nor decide anything about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from flyteish._authoring.attempt.signals import OutsideTaskError
from flyteish._authoring.attempt.state import AttemptState

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from flyteish._async.feeds import Feeds
    from flyteish._authoring.attempt.checkpoint import Checkpoint
    from flyteish._authoring.attempt.interruption import Interruption
    from flyteish.interfaces import BlobStore, InlineLink, Limits, Order


class AttemptContext(AttemptState):
    """The running attempt, as its code sees it (``ctx()``).

    Args:
        order: what is to be run.
        link: the connection to the controller.
        blobs: where values and checkpoints are.
        feeds: the ways into event loops; one per session or worker.
        limits: how large values may be.
        clock: seconds that never go back, for durations. Default: ``time.monotonic``.
        wall: seconds since the epoch, for dates. Default: ``time.time``.
        scratch: folder below which the attempt's private one is made. Default: the system's.

    The engine calls ``close`` when the attempt is over. Thread-safe.
    """

    __slots__ = ("_checkpoint", "_interruption")

    def __init__(
        self,
        order: Order,
        link: InlineLink,
        blobs: BlobStore,
        feeds: Feeds,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(order, link, blobs, feeds, limits, clock=clock, wall=wall, scratch=scratch)
        self._checkpoint: Checkpoint | None = None
        self._interruption: Interruption | None = None

    def __bool__(self) -> bool:
        """True: what ``ctx()`` returns outside a task is false."""
        return True

    def __repr__(self) -> str:
        over = "" if self.active else ", over"
        return (
            f"AttemptContext({self.order.key} {self.task} on {self.pool} ({self.medium}), "
            f"attempt {self.attempt}/{self.max_attempts}{over})"
        )

    # -- who am I -----------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.order.key.run

    @property
    def action(self) -> str:
        """Name of the action: this call of the task, the same in all its attempts."""
        return self.order.key.action

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.order.task

    @property
    def attempt(self) -> int:
        """Which user attempt this is, from 1. Preemptions and infrastructure failures do not count."""
        return self.order.user_attempt

    @property
    def generation(self) -> int:
        """Which attempt this is, counting every one, preempted ones too."""
        return self.order.key.generation

    @property
    def group(self) -> str | None:
        """The group that the action was called in, if any."""
        return self.order.group

    # -- where am I ---------------------------------------------------------------------------------

    @property
    def medium(self) -> str:
        """``spot`` or ``on-demand``."""
        return self.order.medium

    @property
    def queue(self) -> str:
        """Name of the queue that the action waited in."""
        return self.order.queue

    @property
    def pool(self) -> str:
        """Name of the pool that the attempt runs in."""
        return self.order.pool

    # -- what is left -------------------------------------------------------------------------------

    @property
    def max_attempts(self) -> int:
        """User attempts at most: retries + 1."""
        return self.order.max_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure now is final."""
        return self.order.user_attempt >= self.order.max_attempts

    @property
    def retries_left(self) -> int:
        """User attempts after this one."""
        return max(0, self.order.max_attempts - self.order.user_attempt)

    @property
    def system_retries_left(self) -> int:
        """How many infrastructure failures this user attempt still survives."""
        return self.order.system_retries_left

    @property
    def preemptions(self) -> int:
        """How often the action has been preempted so far."""
        return self.order.preemptions

    @property
    def deadline(self) -> datetime | None:
        """When the action must be done, in UTC; None without a deadline."""
        from datetime import UTC, datetime

        at = self.order.deadline
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def seconds_to_deadline(self) -> float | None:
        """Seconds until the deadline, below 0 once it passed; None without a deadline."""
        at = self.order.deadline
        return None if at is None else at - self.wall()

    # -- what can I use -----------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Checkpoint:
        """Saves and restores the action's progress."""
        if self._checkpoint is None:
            from flyteish._authoring.attempt.checkpoint import Checkpoint

            interruption = self.interruption
            with self._lock:
                self._checkpoint = self._checkpoint or Checkpoint(self, interruption)
        return self._checkpoint

    @property
    def interruption(self) -> Interruption:
        """Tells when the machine goes away."""
        if self._interruption is None:
            from flyteish._authoring.attempt.interruption import Interruption

            with self._lock:
                self._interruption = self._interruption or Interruption(self)
                if not self.active:
                    self._interruption.close()
        return self._interruption

    # -- internal: for the project's own modules ----------------------------------------------------

    def close(self) -> None:
        """The attempt is over: release who waits for a notice, remove the private folder. May be repeated."""
        super().close()
        interruption = self._interruption  # one that is made from now on is closed by whoever makes it
        if interruption is not None:
            interruption.close()


class _Outside:
    """What ``ctx()`` returns where no attempt runs: false, and every use says why it can't be."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "<no task is running here>"

    def __getattr__(self, name: str) -> Any:
        raise OutsideTaskError(
            f"ctx().{name} is only available inside a running task; `if ctx():` tells whether one runs here",
            name=name,
        )


CURRENT: Final[ContextVar[AttemptContext]] = ContextVar("flyteish_attempt")
"""Set by whoever runs an attempt, in the context in which it calls the task's function."""
_OUTSIDE: Final = cast("AttemptContext", _Outside())


def ctx() -> AttemptContext:
    """The running attempt. Outside a task: something false, whose attributes raise a clear error.

    ``if ctx(): ...`` tells whether a task is running here. A thread that a task starts by itself sees the
    attempt only if it was started with a copy of the context (``asyncio.to_thread`` does that).
    """
    return CURRENT.get(_OUTSIDE)


def current_attempt() -> AttemptContext | None:
    """The running attempt, or None: for the project's own modules."""
    return CURRENT.get(None)
