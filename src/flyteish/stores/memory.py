"""The store of a session that is not meant to outlive its process: plain dictionaries.

Keeps the contract of the durable one, and so can stand in for it in tests and simulations. Must not know
threads beyond one lock, nor files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from flyteish._core.model.events import Entry
from flyteish.errors import StoreError, StoreLockedError
from flyteish.interfaces import Batch, Command, RunRow
from flyteish.stores.rules import check_after, check_limit, may_not_delete


class MemoryStore:
    """A RunStore and a Mailbox that last as long as the object; closing and opening again forgets nothing.

    Batches are committed within ``append``, and ``done`` is called before it returns, on the caller's
    thread: so in order, and an ``append`` made in a ``done`` is answered before the outer one returns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._journals: dict[str, list[Entry]] = {}
        self._rows: dict[str, RunRow] = {}
        self._commands: list[Command] = []
        self._notes: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"MemoryStore({'closed' if self._owner is None else 'open'}, {len(self._journals)} journals)"

    def open(self) -> None:
        """Raises: StoreLockedError where it is open already."""
        with self._lock:
            if self._owner is not None:
                raise StoreLockedError(f"this store in memory is in use by process {self._owner}: share its session")
            self._owner = os.getpid()

    def append(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        """Commit, then call ``done`` (with a StoreError where the store is not open), then return."""
        with self._lock:
            is_open = self._owner is not None
            if is_open:
                for run, entry in batch.entries:
                    self._journals.setdefault(run, []).append(entry)
                for row in batch.rows:
                    self._rows[row.run] = row
        done(None if is_open else StoreError("this store in memory is not open; nothing is written to it"))

    def read(self, run: str, after: int = 0) -> Iterator[tuple[int, Entry]]:
        """Entries in order, those that are there by the time the last one is reached."""
        check_after(after)
        return self._read(run, after)

    def _read(self, run: str, after: int) -> Iterator[tuple[int, Entry]]:
        journal = self._journals.get(run, [])
        # A list that only grows needs no lock.
        while after < len(journal):
            after += 1
            yield after, journal[after - 1]

    def runs(self, limit: int = 100, active_only: bool = False) -> list[RunRow]:
        """Newest first; ``active_only``: those that have not ended."""
        check_limit(limit)
        with self._lock:
            rows = [row for row in self._rows.values() if not active_only or row.ended_at is None]
        return sorted(rows, key=lambda row: (row.submitted_at, row.run), reverse=True)[:limit]

    def run(self, run: str) -> RunRow | None:
        """One of them, or None."""
        return self._rows.get(run)

    def delete(self, run: str) -> None:
        """Raises: RunNotFoundError, StoreError where the run is still active."""
        with self._lock:
            row, has_journal = self._rows.get(run), run in self._journals
            refusal = may_not_delete(run, row, has_journal, self._owner is not None, lambda: list(self._rows))
            if refusal is not None:
                raise refusal
            self._rows.pop(run, None)
            self._journals.pop(run, None)

    def close(self) -> None:
        """Let go of the store; nothing is ever waiting."""
        with self._lock:
            self._owner = None

    def post(self, command: Command) -> None:
        """Leave a command."""
        with self._lock:
            self._commands.append(command)

    def take(self) -> list[Command]:
        """New commands, oldest first. Raises: StoreError where the store is not open."""
        with self._lock:
            if self._owner is None:
                raise StoreError("this store in memory is not open: only its controller takes commands")
            taken, self._commands = self._commands, []
            return taken

    def put_note(self, name: str, value: bytes) -> None:
        """Keep a note."""
        with self._lock:
            self._notes[name] = value

    def get_note(self, name: str) -> bytes | None:
        """What was kept, or None."""
        return self._notes.get(name)

    def owner(self) -> int | None:
        """This process, where the store is open."""
        return self._owner
