"""What happened: the facts that the core is told, each of them plain data that the journal can hold.

Past tense, no decisions: an event says what was observed, ``lifecycle`` says what follows. Fields are only
ever appended, with defaults, so that older journals stay readable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import msgspec

from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.settings import SILENT, Opinions
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile

if TYPE_CHECKING:  # a worker has no use for the records
    from flyteish._core.model.records import RunRecord


class _Fact(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    pass


class RunSubmitted(_Fact, frozen=True):
    """Somebody asked for a run; its root action is submitted next."""

    run: str
    task: str
    queue: str
    command: str = ""
    """For people: how it was started (``flyteish run ...``), so that ``resume`` can say so."""
    entry: str = ""
    """``FILE:TASK`` or ``module:TASK`` from which a later process can load the root task."""
    opinions: Opinions = SILENT
    """What ``with_runcontext`` says, for this run and its resumption."""


class TaskDeclared(_Fact, frozen=True):
    """A task with its settings is first used in a run."""

    run: str
    profile: Profile


class ActionSubmitted(_Fact, frozen=True):
    """A task was called."""

    run: str
    action: str
    parent: str | None
    parent_generation: int
    """Generation of the calling attempt; a call by an attempt that was given up is refused."""
    profile: str
    inputs: Payload
    digest: bytes
    occurrence: int = 0
    group: str | None = None
    cached: Payload | None = None
    """A recorded result for equal inputs was found: nothing needs to run."""


class AttemptAdmitted(_Fact, frozen=True):
    """Admission gave an attempt its place. Made by the core itself; recorded like any other fact."""

    run: str
    action: str
    generation: int
    user_attempt: int
    pool: str
    medium: str
    rule: str
    why: str
    price_per_hour: float = 0.0
    queued_at: float = 0.0
    """Since when it waited for this, seconds since the epoch."""
    on_demand_price: float = 0.0
    """$ per hour of the on-demand machine that the queue would have used; 0: not known."""
    ahead: bool = False
    """It was handed to an engine that has a machine for it later, and says when."""


class AttemptOrdered(_Fact, frozen=True):
    """An attempt that may outlive its controller, or comes over a network, is about to be ordered."""

    run: str
    action: str
    generation: int
    token_digest: bytes
    """SHA-256 of the token that it proves itself with, also to the next controller."""


class AttemptPending(_Fact, frozen=True):
    """Why an attempt has no machine yet, as its engine sees it; recorded when that changes."""

    run: str
    action: str
    generation: int
    reason: str
    """The engine's word for it: ``Unschedulable``, ``ImagePullBackOff``, ..."""
    message: str = ""


class AttemptPlaced(_Fact, frozen=True):
    """An attempt has its machine; what is not known of it is empty."""

    run: str
    action: str
    generation: int
    node: str = ""
    zone: str = ""
    instance_type: str = ""
    price_per_hour: float | None = None
    """$ of this very machine; None: what its pool costs."""


class AttemptRunning(_Fact, frozen=True):
    """User code began: start-up (process, image, download) is over."""

    run: str
    action: str
    generation: int


class AttemptNoticed(_Fact, frozen=True):
    """The attempt was told that its machine goes away in ``seconds``."""

    run: str
    action: str
    generation: int
    kind: str
    """``rebalance``, ``terminate``, ``drain``, ``shutdown`` or ``relocate``."""
    seconds: float
    source: str
    """Who said so: ``market``, ``sigterm``, ``metadata``, ``node``, ..."""


class NoticeWithdrawn(_Fact, frozen=True):
    """The machine stays after all: what this source has announced is void."""

    run: str
    action: str
    generation: int
    source: str
    """As in the notice."""
    why: str


class AttemptEnded(_Fact, frozen=True):
    """An attempt is over; ``evidence`` is what was seen, unjudged."""

    run: str
    action: str
    generation: int
    evidence: Evidence
    chance: float = 0.0
    """The random number, in [0, 1), that a back-off may need: an argument, so that replay agrees."""
    running_at: float = 0.0
    """When user code began, seconds since the epoch; 0 where it never did."""
    price_per_hour: float | None = None
    """The mean price of its life, where the price has changed since its admission; the core adds it."""
    placed_at: float = 0  # an int, which takes one byte in the journal, not nine
    """When it got its machine, where its engine has not said so before; 0: it has, or it never did."""
    ended_at: float = 0  # as above
    """When it ended, where its engine learned of it later, since no controller lived; 0: now."""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an engine saw of an attempt's end. ``attempt_ends.classify`` judges it, first match wins."""

    result: Payload | None = None
    """A result was committed for this generation."""
    error: ErrorDocument | None = None
    """User code raised this."""
    exit_code: int | None = None
    """The worker ended by itself with this code; negative: by that signal."""
    reclaimed: str | None = None
    """The machine was taken away; the words say by whom."""
    vanished: str | None = None
    """Infrastructure failed: worker or node lost without a word; the words say what was seen."""
    unmendable: str | None = None
    """Infrastructure that no retry can mend; the words name the cure."""
    denied: str | None = None
    """The pool had no capacity: the attempt never started."""
    stopped: bool = False
    """The engine ended it because the core said so."""
    out_of_memory: bool = False
    rejected: str | None = None
    """A machine refused it before any user code began: nobody pays, another machine is tried."""


class WorkerEvidence(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an attempt's own process says of its end; ``attempt_ends.from_worker`` makes evidence of it.

    Whether its machine was taken away, was full or refused it, is for its engine to say.
    """

    result: Payload | None = None
    error: ErrorDocument | None = None
    left: str | None = None
    """It left by itself after an interruption notice; the words say which."""
    stopped: bool = False
    """It ended because it was told to."""
    store_failed: str | None = None
    """The blob store failed it, so that there is neither a result nor an error; the words say how."""


class RelocationOrdered(_Fact, frozen=True):
    """The deadline rule moves a running attempt: it is noticed, may save, and is started again elsewhere."""

    run: str
    action: str
    generation: int
    to: str
    """``spot`` or ``on-demand``; what is right when it has ended is decided anew."""
    rule: str
    why: str


class CheckpointCommitted(_Fact, frozen=True):
    """A checkpoint is in the blob store and becomes part of the action's chain."""

    run: str
    action: str
    generation: int
    record: CheckpointRecord


class CheckpointSkipped(_Fact, frozen=True):
    """Restore found a torn or corrupt checkpoint and took the one before: a warning."""

    run: str
    action: str
    generation: int
    sequence: int
    why: str


class CancelRequested(_Fact, frozen=True):
    """Somebody, or an ended parent, wants the action ended; its descendants go with it."""

    run: str
    action: str
    reason: str
    by: str = "user"


class LimitReached(_Fact, frozen=True):
    """A limit in time passed: ``deadline``, ``max_runtime``, ``max_queued_time`` or ``max_spot_wait``."""

    run: str
    action: str
    generation: int
    limit: str
    medium: str = ""
    """The medium that it waited for, where the limit is one on waiting."""
    queued_at: float = 0.0
    """Since when it waited, where the limit is one on waiting; seconds since the epoch."""
    price_per_hour: float | None = None
    """As for ``AttemptEnded``, where the limit ends an attempt."""
    chance: float = 0.0
    """As for ``AttemptEnded``, where a wait for too long may be followed by a back-off; the core adds it."""


class ControllerRestarted(_Fact, frozen=True):
    """A new controller took the run over; attempts of the old one are dead. Earlier versions recorded this."""

    run: str


class RunRecovered(_Fact, frozen=True):
    """A new controller took the run up: the attempts that still live go on, the others are dead."""

    run: str
    living: tuple[tuple[str, int], ...] = ()
    """Action and generation of those that an engine still has."""
    last_at: float = 0
    """The last moment on record of the run, at which the others ended: what came after is not billed."""


class ValueTraced(_Fact, frozen=True):
    """A traced helper inside an attempt returned; a later attempt gets this value back."""

    run: str
    action: str
    generation: int
    key: str
    result: Payload


class PoolCapacityChanged(_Fact, frozen=True):
    """A pool's market says how many attempts it can hold now; None: as many as configured."""

    pool: str
    available: int | None
    why: str = ""


class PoolPriceChanged(_Fact, frozen=True):
    """What a pool's machines cost from now on; what runs there costs it, too. Never stored."""

    pool: str
    price_per_hour: float


class QueueStateSet(_Fact, frozen=True):
    """An operator made a queue ``active``, ``held`` or ``draining``."""

    queue: str
    state: str


class RunLoaded(msgspec.Struct, frozen=True):
    """A run that another controller left unfinished, read back from its journal; never stored."""

    record: RunRecord


class TimePassed(msgspec.Struct, frozen=True):
    """Nothing but time happened; never stored. Limits that are due become facts of their own."""


class Configured(msgspec.Struct, frozen=True):
    """Queues and pools as they are from now on; never stored."""

    queues: tuple[Queue, ...]
    pools: tuple[Pool, ...]


RunEvent = Union[  # noqa: UP007 - msgspec reads the union at run time, and it is clearer spelt out
    RunSubmitted,
    TaskDeclared,
    ActionSubmitted,
    AttemptAdmitted,
    AttemptRunning,
    AttemptNoticed,
    AttemptEnded,
    CheckpointCommitted,
    CheckpointSkipped,
    CancelRequested,
    LimitReached,
    ControllerRestarted,
    ValueTraced,
    RelocationOrdered,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    NoticeWithdrawn,
    RunRecovered,
]
SessionEvent = PoolCapacityChanged | PoolPriceChanged | QueueStateSet | Configured | RunLoaded | TimePassed
Event = RunEvent | SessionEvent


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a run's journal: when (seconds since the epoch), and what."""

    at: float
    event: RunEvent
