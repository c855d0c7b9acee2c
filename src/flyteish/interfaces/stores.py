"""The journal of runs, and the mailbox of processes that share it.

Contracts only; tests/contracts runs over every implementation. Must not know what an event means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from flyteish._core.model.events import Entry


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
