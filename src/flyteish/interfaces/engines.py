"""What the controller asks of an engine, and what engines and running attempts ask of the controller.

Contracts only; tests/conformance runs over every engine. Must not know any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flyteish._core.model.events import AttemptEnded, AttemptNoticed, AttemptRunning, CheckpointSkipped
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces.blobs import BlobStore
from flyteish.interfaces.orders import Call, Notice, OnOutcome, Order

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Link(Protocol):
    """What a running attempt asks of the controller. Callable from any thread; never blocks.

    Callbacks run on a thread of the controller's (or of the worker's connection) and must be quick.
    """

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        """Submit a child; returns a number to cancel it by. ``done`` is called exactly once.

        ``task`` is the object that was called, for a controller in this process; a remote link ignores it.
        """

    def cancel(self, number: int, reason: str) -> None:
        """The caller no longer waits: its action is cancelled. ``done`` is still called."""

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        """Add to the chain; ``done(None)`` once it is journalled, ``done(why)`` if it was refused."""

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        """Restore passed over a torn or corrupt checkpoint."""

    def traced(self, key: str, result: Payload) -> None:
        """Remember a traced helper's value for later attempts."""


class Origin(NamedTuple):
    """Where in this process a task was called: attempts that run inline go back there."""

    loop: AbstractEventLoop | None
    """The caller's event loop; None where the call came from a thread without one, or from elsewhere."""
    context: Context
    """The caller's context variables, as they were at the call."""
    task: object | None = None
    """The task object that was called: closures and notebook functions are run as they are."""


class Reports(Protocol):
    """What an engine tells the controller. Callable from any thread; never blocks."""

    def report(self, event: AttemptRunning | AttemptNoticed | AttemptEnded, live: BaseException | None = None) -> None:
        """An attempt went on. ``live`` is the exception object where the attempt ran in this process."""

    def link(self, order: Order) -> Link:
        """The connection for this attempt; requests through it are fenced by the attempt's generation."""

    def origin(self, key: AttemptKey) -> Origin | None:
        """Where the action was called; None if that was in another process. Asked on the controller's thread."""

    def log_path(self, key: AttemptKey) -> Path | None:
        """Where the attempt's output belongs; None where logs are not kept."""


class Engine(Protocol):
    """Runs attempts. All methods are called on the controller's thread and return at once.

    Every started attempt is reported ended exactly once, whatever becomes of it. ``stop`` and ``reclaim`` of
    an attempt that is already over do nothing.
    """

    async def open(self, reports: Reports, blobs: BlobStore) -> None:
        """Get ready. Starts nothing that ``close`` does not end."""

    def start(self, orders: Sequence[Order]) -> None:
        """Begin these attempts, in order."""

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        """End an attempt because the core says so; after ``grace`` seconds without mercy. Ends as ``stopped``."""

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        """Take the machine away: notice, ``notice.seconds`` of grace, then the end. Ends as ``reclaimed``."""

    async def close(self) -> None:
        """End every attempt and free everything; bounded in time."""
