"""A single attempt without a session: what ``ctx()`` is within ``with attempt(...)``, and what the task did with it.

Keeps what the task says and answers at once. Must not know sessions, engines, nor the controller's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flyteish._async.feeds import Feeds
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, Payload, TaskReference
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.errors import StaleAttemptError
from flyteish.interfaces import BlobStore, Call, Limits, Notice, OnJournalled, OnOutcome, Order

__all__ = ["Attempt", "attempt"]


class Attempt:
    """One attempt without a session: what ``ctx()`` is within ``with attempt(...)``, and what the task did with it.

    ``checkpoints`` are those committed so far, ``skipped`` the warnings of restores, ``traced`` the remembered values.
    """

    def __init__(self, order: Order, blobs: BlobStore) -> None:
        self._link = _Link(self)
        self.checkpoints: list[CheckpointRecord] = list(order.checkpoints)
        self.skipped: list[CheckpointSkipped] = []
        self.traced: dict[str, Payload] = {}
        self.fenced = False
        """Set it to have every further checkpoint refused, as for an attempt that was given up."""
        self.blobs = blobs
        self.context = AttemptContext(order, self._link, blobs, Feeds(), Limits())

    def notice(self, seconds: float = 120.0, kind: str = "terminate") -> None:
        """Give the interruption notice: the machine goes away in ``seconds``."""
        self.context.interruption.notify(Notice(kind, seconds, "test"))

    def __repr__(self) -> str:
        return f"<Attempt {self.context.attempt}/{self.context.max_attempts}, {len(self.checkpoints)} checkpoints>"


@contextmanager
def attempt(
    task: str = "test.task",
    *,
    number: int = 1,
    retries: int = 0,
    medium: str = "spot",
    checkpoints: Attempt | None = None,
) -> Iterator[Attempt]:
    """Within the block, ``ctx()`` is a running attempt; call the task's plain function with ``task.forward(...)``.

    Args:
        task: its name, for messages.
        number: which user attempt, from 1. retries: of the task. medium: where it seems to run.
        checkpoints: an earlier ``Attempt`` whose checkpoints this one finds.
    """
    order = Order(
        key=AttemptKey("test-run", "test-action", number),
        task=task,
        reference=TaskReference("test", "task"),
        is_async=True,
        inputs=Payload(b""),
        settings=Settings(),
        pool=medium,
        queue="default",
        medium=medium,
        user_attempt=number,
        max_attempts=retries + 1,
        checkpoints=tuple(checkpoints.checkpoints) if checkpoints is not None else (),
    )
    made = Attempt(order, checkpoints.blobs if checkpoints is not None else MemoryBlobStore())
    tokens = CURRENT.set(made.context), current_blobs.set(made.blobs.blocking)
    try:
        yield made
    finally:
        current_blobs.reset(tokens[1])
        CURRENT.reset(tokens[0])
        made.context.close()


class _Link:
    """``interfaces.InlineLink`` without a controller: keeps what it is given, and runs no children."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        raise StaleAttemptError(
            f"{call.profile.task} was called within testing.attempt(), which runs no children: "
            "call its .forward(...), or use testing.spot_session()"
        )

    def cancel(self, number: int, reason: str) -> None:
        """There is nothing to cancel."""

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        if self._attempt.fenced:
            done("the attempt was given up")
            return
        self._attempt.checkpoints.append(record)
        done(None)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._attempt.skipped.append(event)

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        if self._attempt.fenced:
            done("the attempt was given up")
            return
        self._attempt.traced[key] = result
        done(None)
