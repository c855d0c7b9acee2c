"""What travels between a controller and an attempt: orders, notices, calls and their outcomes.

Plain data. Must not know how it travels, nor who is at either end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.images import Image
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Scope, Secret, Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile, TaskReference


class Runtime(msgspec.Struct, frozen=True, gc=False):
    """What an attempt has to find where it runs, for engines that make that place."""

    image: Image | None
    """None: whatever runs the engine's workers."""
    code: str | None
    """Address of the bundle with the program's code; None: it is there already."""
    env_vars: dict[str, str]
    resources: Resources

    def __repr__(self) -> str:
        # Names only: values of environment variables may be secrets.
        return f"Runtime({self.image!r}, code={self.code!r}, env_vars={sorted(self.env_vars)}, {self.resources!r})"


class Limits(NamedTuple):
    """Bytes: how large values may be. Invariant: ``inline`` is at most ``value``, so nothing inline is too large."""

    inline: int = 256 * 1024
    """Larger ones go by the blob store, smaller ones within messages and the journal."""
    value: int = 1024**3
    """Larger ones are refused."""


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
    code: str | None = None
    """Address of the bundle with the program's code; None: it is where the attempt runs."""

    @property
    def runtime(self) -> Runtime:
        """What it has to find where it runs."""
        settings = self.settings
        return Runtime(settings.image, self.code, settings.env_vars, settings.resources)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """By name only: values are asked for by whoever runs it (``Reports.secrets``), and are never in an order."""
        return self.settings.secrets

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

    @classmethod
    def refused(cls, run: str, action: str, error: str, message: str) -> Outcome:
        """Of a call that is not accepted; ``error`` is the qualified name of the error that the caller gets."""
        return cls(run, action, "refused", error=ErrorDocument(type=error, message=message, bases=(error,)))


#: Receives an action's outcome, and the exception object itself where it was raised in this very process.
OnOutcome = Callable[[Outcome, BaseException | None], None]
#: Told None once something is journalled, else why it was refused, or never will be.
OnJournalled = Callable[[str | None], None]
