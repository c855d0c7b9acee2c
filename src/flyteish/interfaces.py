"""What the controller asks of the outside, and what an attempt asks of the controller.

Contracts only, eight methods at most each; every implementation passes the contract suite of its interface
in ``tests/contracts``. Must not know any implementation.

    Engine      runs attempts                      inline, processes, (kubernetes)
    Reports     what an engine tells the controller, from any thread
    Link        what a running attempt asks of the controller: child calls, checkpoints
    RunStore    the journal                        memory, sqlite
    Mailbox     commands and notes between processes that share a store
    BlobStore   values, checkpoints, files         memory, files
    Market      when a spot pool has capacity and when it takes it back
    PriceSource what a pool's machines cost, where that changes
    Clock       time and chance, so that tests can hold them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from flyteish._core.model.events import AttemptEnded, AttemptNoticed, AttemptRunning, CheckpointSkipped, Entry
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Scope, Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile, TaskReference

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# -- attempts ---------------------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Everything that an engine, and the worker it uses, needs to run one attempt."""

    key: AttemptKey
    task: str
    reference: TaskReference
    is_async: bool
    inputs: Payload
    settings: Settings
    scope: Scope = Scope()
    pool: str
    queue: str
    medium: str
    user_attempt: int
    """1-based."""
    max_attempts: int
    """User attempts at most: retries + 1."""
    system_retries_left: int = 0
    preemptions: int = 0
    """Preemptions of this action so far."""
    deadline: float | None = None
    """Seconds since the epoch."""
    checkpoints: tuple[CheckpointRecord, ...] = ()
    """The chain, oldest first."""
    pool_lifetime: float = 7200.0
    """Seconds that a spot machine of this pool is expected to last, for ``checkpoint.due()``."""
    traced: dict[str, Payload] = {}
    """Values of traced helpers from earlier attempts."""
    group: str | None = None
    token: str = ""
    """Good for this action and generation only."""
    secrets: dict[str, str] = {}
    """Environment variables with values that must never be shown."""

    def __repr__(self) -> str:
        return f"Order({self.key} {self.task} on {self.pool}, user attempt {self.user_attempt}/{self.max_attempts})"


class Notice(msgspec.Struct, frozen=True):
    """The machine under an attempt goes away."""

    kind: str
    """``rebalance``, ``terminate``, ``drain``, ``shutdown`` or ``relocate``."""
    seconds: float
    """Time left, from when the notice was given."""
    source: str = "market"


class Call(msgspec.Struct, frozen=True, gc=False):
    """A task called by a running attempt (or, as a root, by a program)."""

    profile: Profile
    inputs: Payload
    digest: bytes
    occurrence: int = 0
    group: str | None = None
    cache_digest: bytes | None = None
    """Of the inputs that count in the cache's key; None where all do, or the task is not cached."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How an action ended, for whoever awaits it."""

    run: str
    action: str
    phase: str
    """``succeeded``, ``failed``, ``aborted``, ``timed_out`` or ``refused``."""
    result: Payload | None = None
    error: ErrorDocument | None = None
    story: tuple[str, ...] = ()
    """The attempts, a line each, for the error that is raised when the budgets are spent."""


#: Receives an action's outcome, and the exception object itself where it was raised in this very process.
OnOutcome = Callable[[Outcome, BaseException | None], None]


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


# -- storage ----------------------------------------------------------------------------------------------------


class RunRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run at a glance, kept beside the journal so that listing runs reads no journal."""

    run: str
    task: str
    queue: str
    phase: str
    submitted_at: float
    ended_at: float | None = None
    actions: int = 0
    command: str = ""
    entry: str = ""
    costs: bytes = b""
    """What an ended run cost, encoded (``outcomes.costs_in``); empty: read its journal."""


class Batch(msgspec.Struct, frozen=True):
    """One burst for the journal: committed whole or not at all."""

    entries: Sequence[tuple[str, Entry]]
    """Run and entry, in the order in which they happened."""
    rows: Sequence[RunRow] = ()
    """Runs whose glance changed."""


class RunStore(Protocol):
    """The journal: append-only per run, readable by other processes while it is written."""

    def open(self) -> None:
        """Claim it for one controller, migrating an older one forward.

        Raises: StoreLockedError, StoreVersionError, StoreCorruptError, StoreError.
        """

    def append(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        """Commit now or soon, together with what else is waiting; batches are committed in order.

        ``done`` is called on the writer's thread, or within ``append`` where that is quicker: with None when durable,
        else with the StoreError. After an error nothing more is committed: later batches get the same error.
        """

    def read(self, run: str, after: int = 0) -> Iterator[tuple[int, Entry]]:
        """The run's entries numbered from 1, those after ``after``. Works without ``open``, while another writes."""

    def runs(self, limit: int = 100, active_only: bool = False) -> list[RunRow]:
        """Newest first."""

    def run(self, run: str) -> RunRow | None:
        """One of them."""

    def delete(self, run: str) -> None:
        """Forget an ended run."""

    def close(self) -> None:
        """Commit what is waiting and let go of the store."""


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """What another process (the CLI) asks of the controller that owns the store."""

    kind: str
    """``abort``, ``hold``, ``activate`` or ``drain``."""
    target: str
    """A run, ``run/action``, or a queue."""
    reason: str = ""


class Mailbox(Protocol):
    """How processes that share a store reach each other, without a socket."""

    def post(self, command: Command) -> None:
        """Leave a command for the controller. Works without ``open``."""

    def take(self) -> list[Command]:
        """The commands left since the last call; the controller's own."""

    def put_note(self, name: str, value: bytes) -> None:
        """Keep a small fact under a name, replacing the one before (queue states, a live picture)."""

    def get_note(self, name: str) -> bytes | None:
        """What was kept, or None. Works without ``open``."""

    def owner(self) -> int | None:
        """Process id of the live controller that owns the store, or None."""


class BlobStore(Protocol):
    """Content by address (``sha256:<hex>``; ``tree:<hex>`` for directories), and small named references.

    Synchronous and thread-safe: callers on a loop use a thread. Reads verify the checksum.
    Raises BlobMissingError, BlobCorruptError, BlobError.
    """

    def put(self, data: bytes) -> str:
        """Store bytes, atomically and durably; returns their address."""

    def put_path(self, path: Path) -> str:
        """Store a file or a directory tree."""

    def get(self, address: str) -> bytes:
        """The bytes at an address."""

    def fetch(self, address: str, target: Path) -> Path:
        """Write the file or directory tree to ``target`` (which must not exist), whole or not at all."""

    def set_ref(self, name: str, data: bytes) -> None:
        """Keep a small value under a name, atomically replacing the one before."""

    def get_ref(self, name: str) -> bytes | None:
        """The value, or None where there is none. An unreadable one is an error, never None."""

    def space(self, name: str) -> BlobStore:
        """A store within this one that shares no content with the rest, so that its owner may sweep it alone.

        ``name`` is one for a reference; nothing is made before something is put there. Not nested.
        """

    def sweep(self, keep: Callable[[str], bool], older_than: float, unused_since: float = 0.0) -> int:
        """Remove content last written before ``older_than`` (epoch) that ``keep`` does not want; bytes freed.

        Spaces are swept along: for their content ``keep`` is asked by the space's name, ``/`` and the address.
        What a reference of the swept store mentions is kept; references that were neither read nor written since
        ``unused_since`` (epoch; an hour more or less) go first.
        """

    @property
    def url(self) -> str:
        """From which another process can open the same store."""


# -- the rest of the world ----------------------------------------------------------------------------------------


class Market(Protocol):
    """A spot market as a schedule: the same for real and virtual time. ``at`` is seconds since it opened."""

    def lifetime(self, at: float, number: int) -> float | None:
        """Seconds until the notice for the ``number``-th attempt (from 0) started at ``at``; None: none is planned."""

    def capacity(self, at: float) -> int | None:
        """How many attempts the pool can hold; None: as many as configured."""

    def next_change(self, at: float) -> float | None:
        """When ``capacity`` next changes after ``at``; None: never."""

    @property
    def notice_seconds(self) -> float:
        """Seconds between notice and reclaim."""


class PriceSource(Protocol):
    """What one attempt's hour costs in a pool, over time. ``at`` is seconds since the session (or simulation) opened.

    Asked on the controller's thread, so both answer at once: a source that asks somebody else does so elsewhere.
    """

    def price(self, at: float) -> float | None:
        """$ per hour; None: not known, the last one stays (0 before the first)."""

    def next_change(self, at: float) -> float | None:
        """When to ask again, after ``at``; None: never."""


class Clock(Protocol):
    """Time and chance."""

    def now(self) -> float:
        """Seconds since the epoch; never goes back."""

    def chance(self) -> float:
        """A number in [0, 1)."""
