"""What one turn of the main loop produced: records to journal, then orders to carry out.

The orders wait until the records are durable, so no effect is visible before its cause is on disk. Must not know
what the orders mean.
"""

from __future__ import annotations

from typing import Any

from flyteish._core.model.effects import Record
from flyteish.interfaces import Batch, RunRow


class Burst:
    """Filled during a turn, written, and carried out once it is durable."""

    __slots__ = ("durable", "entries", "orders", "rows")

    def __init__(self) -> None:
        self.entries: list[Record] = []
        self.rows: dict[str, RunRow] = {}
        self.orders: list[Any] = []
        self.durable = False

    def __bool__(self) -> bool:
        return bool(self.entries or self.orders or self.rows)

    def batch(self) -> Batch:
        """What the store is given."""
        entries = [(record.event.run, record) for record in self.entries]
        return Batch(entries, tuple(self.rows.values()))

    def forget(self, run: str) -> None:
        """The run was refused at the door: nothing of it is recorded."""
        self.entries = [record for record in self.entries if record.event.run != run]
        self.rows.pop(run, None)

    def runs(self) -> list[str]:
        """Runs that it says something of."""
        return list(dict.fromkeys(record.event.run for record in self.entries))

    def __repr__(self) -> str:
        return f"<Burst {len(self.entries)} records, {len(self.orders)} orders, durable={self.durable}>"
