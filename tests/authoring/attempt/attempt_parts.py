"""What a test needs for an attempt without an engine: an order, a link that records, a hand-moved clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from flyteish._async.feeds import Feeds
from flyteish._authoring.attempt.context import AttemptContext
from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, Payload, TaskReference
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.interfaces import BlobStore, Call, Limits, OnJournalled, OnOutcome, Order


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RecordingLink:
    """Commits checkpoints from a thread of its own, as a controller does, and keeps what it was told.

    ``refuse`` is the reason to refuse them by, if any; ``gate`` holds the answers back until it is set.
    """

    def __init__(self) -> None:
        self.committed: list[CheckpointRecord] = []
        self.skipped: list[CheckpointSkipped] = []
        self.refuse: str | None = None
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        raise AssertionError("no child is called in these tests")

    def cancel(self, number: int, reason: str) -> None:
        raise AssertionError("no child is called in these tests")

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        def answer() -> None:
            self.asked.set()
            self.gate.wait(30)
            if self.refuse is None:
                self.committed.append(record)
            done(self.refuse)

        threading.Thread(target=answer).start()

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self.skipped.append(event)

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        raise AssertionError("nothing is traced in these tests")


ORDER = Order(
    key=AttemptKey("r1", "a0", 4),
    task="train.fit",
    reference=TaskReference(module="train", name="fit"),
    is_async=True,
    inputs=Payload(),
    settings=Settings(),
    pool="cheap",
    queue="default",
    medium="spot",
    user_attempt=2,
    max_attempts=3,
)


def attempt(
    scratch: Path,
    link: RecordingLink | None = None,
    blobs: BlobStore | None = None,
    clock: Callable[[], float] | None = None,
    wall: Callable[[], float] | None = None,
    **changes: Any,
) -> AttemptContext:
    """An attempt; ``changes`` are fields of its order."""
    clocks = {name: given for name, given in (("clock", clock), ("wall", wall)) if given is not None}
    return AttemptContext(
        msgspec.structs.replace(ORDER, **changes),
        link or RecordingLink(),
        MemoryBlobStore() if blobs is None else blobs,
        Feeds(),
        Limits(),
        scratch=scratch,
        **clocks,
    )
