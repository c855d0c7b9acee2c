"""What the controller asks of an engine, and what engines and running attempts ask of the controller.

Contracts only; tests/conformance runs over every engine. Must not know any implementation.

An engine is opened with the pools that it runs, told to start attempts, and reports of each what happens to it; of
every attempt that it was given, or adopted, exactly one end. Attempts reach the controller through a ``Link``, in their
own process or through whatever connection the engine has to them. Who shares the controller's process gets more: its
caller's loop, the task object, exceptions as they were raised. That is ``InlineReports`` and ``InlineLink``, and no
engine needs them to pass the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptPending,
    AttemptPlaced,
    AttemptRunning,
    CheckpointSkipped,
    NoticeWithdrawn,
    PoolCapacityChanged,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool
from flyteish._core.model.settings import Secret
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces.blobs import BlobStore
from flyteish.interfaces.logs import LogStore
from flyteish.interfaces.orders import Call, Limits, Notice, OnJournalled, OnOutcome, Order, Outcome

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


# -- for attempts ------------------------------------------------------------------------------------------------------


class _Requests(Protocol):
    """What every attempt may ask. Callable from any thread; never blocks.

    Callbacks run on a thread of the controller's (or of the worker's connection) and must be quick. What an attempt is
    told was journalled before.
    """

    def cancel(self, number: int, reason: str) -> None:
        """The caller no longer waits: its action is cancelled. ``done`` is still called."""

    def commit_checkpoint(self, record: CheckpointRecord, done: OnJournalled) -> None:
        """Add to the chain; ``done(None)`` once it is journalled, ``done(why)`` if it was refused."""

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        """Restore passed over a torn or corrupt checkpoint."""

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        """Remember a traced helper's value for later attempts; ``done`` as for a checkpoint."""


class Link(_Requests, Protocol):
    """The way of one attempt to the controller, for the engine that speaks for it."""

    def call(self, call: Call, done: Callable[[Outcome], None]) -> int:
        """Submit a child; returns a number to cancel it by. ``done`` is called exactly once."""


class InlineLink(_Requests, Protocol):
    """The same for an attempt's own code, in its own process."""

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        """Submit a child; returns a number to cancel it by. ``done`` is called exactly once.

        ``task`` is the object that was called, for a controller in this process; in a worker it is of no use.
        """


# -- for engines -------------------------------------------------------------------------------------------------------

Report: TypeAlias = (
    AttemptPending
    | AttemptPlaced
    | AttemptRunning
    | AttemptNoticed
    | NoticeWithdrawn
    | AttemptEnded
    | PoolCapacityChanged
)


class Reports(Protocol):
    """What an engine tells the controller. Callable from any thread; never blocks."""

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        """An attempt went on, or a pool changed.

        ``done(None)`` is called once that is on record, or nobody wants to know it any more since the attempt is over
        for the session; ``done(why)`` if the session ends first, so that the next one may have to hear it. Who must not
        forget an end before then waits for it.
        """

    def link(self, key: AttemptKey) -> Link:
        """The connection for this attempt; requests through it are fenced by the attempt's generation."""

    def secrets(self, wanted: Sequence[Secret]) -> Mapping[str, str]:
        """The values of an order's secrets, by the environment variables that the attempt is to see. They are for the
        attempt alone: nobody keeps, logs or shows them.

        Raises:
            SecretMissingError: nobody has one of them. The attempt ends as unmendable, in these words.
        """


class CallSite(NamedTuple):
    """Where in this process a task was called: attempts that run inline go back there."""

    loop: AbstractEventLoop | None
    """The caller's event loop; None where the call came from a thread without one, or from elsewhere."""
    context: Context
    """The caller's context variables, as they were at the call."""
    task: object | None = None
    """The task object that was called: closures and notebook functions are run as they are."""


class InlineReports(Protocol):
    """What an engine that shares the controller's process needs besides."""

    def origin(self, key: AttemptKey) -> CallSite | None:
        """Where the action was called; None if that was in another process. Asked on the controller's thread."""

    def raised(self, key: AttemptKey, error: BaseException) -> None:
        """The exception with which the attempt ends, for callers in this process. Before its end is reported."""

    def inline_link(self, key: AttemptKey) -> InlineLink:
        """The connection for this attempt, as ``Reports.link``."""


class Opening(NamedTuple):
    """What an engine gets to know when it is opened."""

    pools: Mapping[str, Pool]
    """Those that it runs, by name: there is an engine for each kind and cluster."""
    reports: Reports
    blobs: BlobStore
    limits: Limits
    logs: LogStore
    """Where the output of attempts goes."""
    scratch: Path | None = None
    """Below it attempts have their private files, as long as the session is open; None, as for all engines whose
    attempts outlive it: wherever the system has a place for such."""


class Unfinished(NamedTuple):
    """An attempt that is on record as going on, of a controller that is no more."""

    order: Order
    """As it would be given today. Its token is not known any more, only that token's digest."""
    token_digest: bytes
    """SHA-256 of its token; empty where none is on record, so that nobody can speak for it."""
    running_at: float = 0.0
    """When its user code began, seconds since the epoch; 0: not as far as is on record."""
    notice: str = ""
    """Kind of the interruption notice that it got, if any."""
    last_at: float = 0.0
    """The last moment on record of its run: an attempt that is gone ended then, as far as nothing better is known."""


class Engine(Protocol):
    """Runs attempts. All methods are called on the controller's thread, and those that are not async return at once.

    Every attempt that was started or adopted is reported ended exactly once, whatever becomes of it. ``stop`` and
    ``reclaim`` of an attempt that is already over do nothing.
    """

    @property
    def connects(self) -> bool:
        """Whether its attempts speak from other processes, and so need a token each to be known by."""

    @property
    def outlives(self) -> bool:
        """Whether its attempts can go on without this controller, for a later one to adopt."""

    async def open(self, opening: Opening) -> None:
        """Get ready. Starts nothing that ``close`` does not end."""

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        """Take over, from an earlier controller, those of these attempts that still live or whose end is still to be
        told. Returns them; what is not returned never speaks again.
        """

    def start(self, orders: Sequence[Order]) -> None:
        """Begin these attempts, in order."""

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        """End an attempt because the core says so; after ``grace`` seconds without mercy. Ends as ``stopped``."""

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        """Take the machine away: notice, ``notice.seconds`` of grace, then the end. Ends as ``reclaimed``."""

    async def close(self) -> None:
        """End the attempts of pools with ``on_close="stop"``, let those of the others go on without us, and free
        everything that is ours; bounded in time. Nothing is reported of what goes on, and nothing that comes for it
        from here on is passed on: its calls are answered by the controller that adopts it.
        """


EngineFactory: TypeAlias = Callable[[], Engine]
