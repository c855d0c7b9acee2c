"""The records that the core keeps: runs, actions and their attempts, as facts.

Only the rooms behind ``lifecycle`` (and, for places in line, ``admission``) change them; everybody else reads.
What can be derived from facts is derived here, never stored beside them. (Lists and dicts that most actions
never need start as None or (): a run may hold a million actions.)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile


class Phase(StrEnum):
    """Where an action stands. The table of moves is ``transitions/phases.MOVES``."""

    ENTERING = "entering"
    """Submitted; stays so only outside a full queue (``on_full="wait"``)."""
    QUEUED = "queued"
    BACKING_OFF = "backing_off"
    RUNNING = "running"
    PARKED = "parked"
    """Its attempt waits for children; it counts in no limit."""
    RETURNING = "returning"
    """Its children are done; first in line for a place to go on in."""
    DORMANT = "dormant"
    """Unfinished when its controller died; runs when its resumed parent asks for it again."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    TIMED_OUT = "timed_out"


# The members by name: to read one off its class costs as much as a call, and these are read for every action.
QUEUED: Final = Phase.QUEUED
RUNNING: Final = Phase.RUNNING
PARKED: Final = Phase.PARKED
RETURNING: Final = Phase.RETURNING
SUCCEEDED: Final = Phase.SUCCEEDED
CHAIN_KEPT: Final = 16
TERMINAL: Final = frozenset((Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT))
WITH_ATTEMPT: Final = frozenset((Phase.RUNNING, Phase.PARKED, Phase.RETURNING))


class End(StrEnum):
    """The classes of end of an attempt; who pays for each is the table in ``retries``."""

    SUCCEEDED = "succeeded"
    USER_ERROR = "user error"
    MAX_RUNTIME = "max_runtime exceeded"
    QUEUE_TIMEOUT = "max_queued_time exceeded"
    OUT_OF_MEMORY = "out of memory"
    FINAL_ERROR = "non-recoverable"
    PREEMPTED = "preempted"
    INFRASTRUCTURE = "infrastructure failure"
    UNMENDABLE = "infrastructure that no retry can mend"
    CANCELLED = "cancelled"
    DEADLINE = "deadline exceeded"
    NO_CAPACITY = "no capacity"
    REJECTED = "rejected by the machine"
    RELOCATED = "moved"
    ABANDONED = "controller stopped"


class EngineFacts(msgspec.Struct, gc=False):
    """What an engine has told of an attempt beside its beginning and end; most attempts never have any."""

    node: str = ""
    zone: str = ""
    instance_type: str = ""
    price_per_hour: float | None = None
    """$ of this very machine; None: its pool's price holds."""
    taken_up_at: float = 0.0
    """When the latest controller found it alive; 0: it has had only one."""
    pending: str = ""
    """Why it has no machine yet, if its engine said so."""
    notices: dict[str, str] = {}
    """By source: the kind of interruption notice that stands."""
    token_digest: bytes = b""
    """SHA-256 of the token that the attempt proves itself with."""


class AttemptRecord(msgspec.Struct, gc=False):
    """One execution of an action; times are seconds since the epoch."""

    generation: int
    user_attempt: int
    pool: str
    """Empty for one that waited longer than ``max_queued_time`` and never started."""
    medium: str
    rule: str
    why: str
    price_per_hour: float
    """At its admission; once it is over, the mean of its life."""
    admitted_at: float
    queued_at: float
    placed_at: float = 0.0
    """When it got its machine, which costs from then on; 0: it was sent ahead and waits for one, or never got one."""
    running_at: float = 0.0
    ended_at: float = 0.0
    end: End | None = None
    cause: str = ""
    charged: str = ""
    """Which budget paid for its end: ``retries``, ``system_retries``, ``preemptions`` or nothing."""
    notice: str = ""
    """Kind of the interruption notice it got, if any."""
    stop: str = ""
    """Why the core told it to end, if it did."""
    last_checkpoint_at: float = 0.0
    moving: str = ""
    """Where placement moves it to while it runs: ``spot`` or ``on-demand``."""
    moving_why: str = ""
    on_demand_price: float = 0.0
    """$ per hour of the on-demand machine that the queue would have used; 0: not known."""
    engine_facts: EngineFacts | None = None

    @property
    def may_outlive(self) -> bool:
        """Whether its engine can keep it going without a controller: only then a token is on record."""
        return self.engine_facts is not None and self.engine_facts.token_digest != b""

    def not_before(self, at: float) -> float:
        """``at``, but not before anything that is on record of it: another controller's clock may have been ahead."""
        return max(at, self.admitted_at, self.placed_at, self.running_at, self.last_checkpoint_at)


class Action(msgspec.Struct, gc=False):
    """One call of a task in a run, over all its attempts."""

    run: str
    id: str
    parent: str | None
    profile: Profile
    inputs: Payload
    submitted_at: float
    occurrence: int = 0
    group: str | None = None

    phase: Phase = Phase.ENTERING
    attempts: list[AttemptRecord] = []
    generation: int = 0
    user_attempt: int = 1
    system_used: int = 0
    """Infrastructure failures within this user attempt."""
    preemptions_in_row: int = 0
    """Preemptions within this user attempt since the last committed checkpoint."""
    preemptions: int = 0
    """All of them."""
    denials: int = 0
    """Starts that a pool without capacity turned away."""
    rejections: int = 0
    """Machines in a row that refused an attempt of it, since its code last began."""
    abandoned: int = 0
    """Attempts that died with their controller."""
    work: float = 0.0
    """Seconds that it takes on an undisturbed machine, where the deadline rule asked for it; 0: not known."""
    kept: float = 0.0
    """Running time that committed checkpoints have kept, seconds; what reading them back took is not in it."""
    hurried: int = 0
    """Moves off spot because a sudden loss would have missed its deadline."""
    skipped: tuple[int, ...] = ()
    """Sequences of checkpoints that could not be restored."""

    result: Payload | None = None
    error: ErrorDocument | None = None
    ended_at: float = 0.0
    cached: bool = False

    checkpoints: tuple[CheckpointRecord, ...] = ()
    """The newest ``CHAIN_KEPT``, oldest first; the journal has them all."""
    traced: dict[str, Payload] | None = None
    """Values of traced helpers. It grows in place: whoever hands it to another thread hands over a copy."""
    warnings: tuple[str, ...] = ()

    # -- waiting ----------------------------------------------------------------------------------------------
    wanted: str = "on-demand"
    """Medium that placement chose for the next attempt."""
    rule: str = ""
    why: str = ""
    queued_at: float = 0.0
    review_at: float = 0.0
    """When the deadline rule looks at its running attempt again."""
    wait: int = 0
    """Grows with every wait; timers of an earlier one are void."""
    ticket: int = 0
    """Its valid place where it stands; 0: it stands nowhere."""
    stands: str = ""
    """Where its ticket counts: ``door`` (the queue is full), ``hold`` and ``overlap`` (a root whose run may not
    begin yet), ``line``, ``return`` (a parent that waits for its place back)."""
    enlisted: bool = False
    """Its queue knows it."""
    counted: bool = False
    """Counts to its queue's ``depth``."""
    occupies: str = ""
    """Pool in which it holds a place, which may outlast the action until its attempt is really over."""
    place_medium: str = ""

    # -- children ---------------------------------------------------------------------------------------------
    awaited_by: int = 0
    """Generation of the parent's attempt that waits for it; 0: nobody does."""
    outstanding: int = 0
    """Children that its current attempt waits for."""
    children: set[str] | None = None
    """Those not ended yet."""
    held: tuple[str, ...] = ()
    """Ended children whose outcome waits until this action has a place again."""
    cancel_reason: str = ""

    @property
    def key(self) -> ActionKey:
        return ActionKey(self.run, self.id)

    @property
    def current(self) -> AttemptRecord | None:
        """The attempt that is not over yet, if there is one."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].ended_at else None

    @property
    def waits_for_machine(self) -> bool:
        """Whether it has a place, but was sent ahead to an engine whose machines are busy."""
        return self.phase is RUNNING and not self.attempts[-1].placed_at

    @property
    def shown_phase(self) -> Phase:
        """Its phase for people: what waits for a machine is queued, wherever it waits."""
        return QUEUED if self.phase is RUNNING and not self.attempts[-1].placed_at else self.phase

    @property
    def max_attempts(self) -> int:
        return self.profile.settings.retries.count + 1

    @property
    def is_final_user_attempt(self) -> bool:
        return self.user_attempt >= self.max_attempts

    @property
    def deadline_at(self) -> float | None:
        limit = self.profile.settings.timeout.deadline
        return None if limit is None else self.submitted_at + float(limit)  # type: ignore[arg-type]

    def attempt_key(self) -> AttemptKey:
        return AttemptKey(self.run, self.id, self.generation)

    def __repr__(self) -> str:
        return (
            f"<Action {self.run}/{self.id} {self.profile.task} {self.phase} "
            f"user attempt {self.user_attempt}/{self.max_attempts}, generation {self.generation}>"
        )


class RunRecord(msgspec.Struct, gc=False):
    """One run: its root and everything below it."""

    id: str
    task: str
    queue: str
    submitted_at: float
    command: str = ""
    entry: str = ""
    root: str = ""
    actions: dict[str, Action] = {}
    profiles: dict[str, Profile] = {}
    open: int = 0
    """Actions not ended yet."""
    ended_at: float = 0.0
    active: bool = False
    """Holds one of its queue's run places."""
    unrecorded: tuple[Any, ...] = ()
    """What is journalled with the root's submission, so that a refused run leaves nothing behind."""
    zombies: int = 0
    """Ended actions whose attempt is still alive and holds a place."""
    forgotten: bool = False
    """Is dropped as soon as the last zombie is gone."""

    @property
    def phase(self) -> str:
        """The root's phase, in the words of a run: ``queued``, ``running``, or how it ended."""
        root = self.actions.get(self.root)
        phase = root.shown_phase if root is not None else Phase.QUEUED
        if phase in TERMINAL:
            return phase.value
        return (Phase.RUNNING if phase in WITH_ATTEMPT else Phase.QUEUED).value

    @property
    def root_action(self) -> Action:
        return self.actions[self.root]
