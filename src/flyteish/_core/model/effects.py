"""What to do: the orders that the core gives, carried out by whichever shell is driving it.

Orders are plain data; a shell carries them out in the order given, and only after the records before them
are journalled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from flyteish._core.model.events import Entry
from flyteish._core.model.ids import ActionKey, AttemptKey

if TYPE_CHECKING:
    from flyteish._core.model.records import Action


Record: TypeAlias = Entry
"""Journal this fact of the run, at this time: the order is the journal's line itself."""


class StartAttempt(msgspec.Struct, frozen=True, gc=False):
    """Start this attempt in this pool."""

    action: Action
    generation: int
    pool: str
    medium: str

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.action.run, self.action.id, self.generation)


class StopAttempt(msgspec.Struct, frozen=True, gc=False):
    """End this attempt: ``cancelled``, ``max_runtime``, ``max_queued_time`` or ``deadline``. It may take the grace."""

    key: AttemptKey
    pool: str
    reason: str


class RelocateAttempt(msgspec.Struct, frozen=True, gc=False):
    """Move this attempt elsewhere: a ``relocate`` notice, ``seconds`` in which it may save, then its end."""

    key: AttemptKey
    pool: str
    seconds: float


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """The action has its final outcome and its caller may go on with it."""

    action: Action


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """The submission was not accepted; nothing was recorded."""

    key: ActionKey
    error: str
    """Name of the class in ``flyteish.errors``."""
    message: str


class RunEnded(msgspec.Struct, frozen=True, gc=False):
    """Every action of the run has ended; ``phase`` is the root's."""

    run: str
    phase: str


class QueueDrained(msgspec.Struct, frozen=True, gc=False):
    """A draining queue has no work left."""

    queue: str


Effect = Record | StartAttempt | StopAttempt | RelocateAttempt | Deliver | Refuse | RunEnded | QueueDrained
