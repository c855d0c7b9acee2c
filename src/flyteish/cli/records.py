"""What commands read: the configuration, the store beside whoever writes it, and the live controller's picture.

Finds runs by what people type. Reads only; must not know what is shown, nor start a controller.
"""

from __future__ import annotations

import time
from argparse import Namespace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from flyteish._core.wording import did_you_mean
from flyteish._engine_kinds import ANY
from flyteish.config import Config, load_config
from flyteish.errors import ConfigurationError, RunNotFoundError
from flyteish.interfaces import RunRow
from flyteish.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from flyteish._controller.snapshot import Snapshot
    from flyteish._core.model.records import Action, RunRecord

_NAMES = 10_000
"""Runs among which a name that is not exact is looked for."""

_FIRST_PICTURE = 1.0
"""Seconds that a controller may take to say something of itself for the first time."""


class Records:
    """One home, looked at from outside."""

    def __init__(self, args: Namespace) -> None:
        self.config: Config = load_config(
            home=UNSET if args.home is None else args.home,
            file=None if args.config is None else args.config,
            engines=[ANY],  # a program brings them, not this one
        )
        self.store = SqliteStore(self.config.paths.store)

    @cached_property
    def owner(self) -> int | None:
        """Process id of the live controller, or None."""
        return self.store.owner()

    def run(self, name: str) -> RunRow:
        """The run that a person means: by name, by the beginning of it, or ``last``.

        Raises:
            RunNotFoundError: none or several; names near ones.
        """
        row = self.store.run(name)
        if row is not None:
            return row
        rows = self.store.runs(limit=_NAMES)
        if name == "last" and rows:
            return rows[0]
        found = [row for row in rows if name and row.run.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(row.run for row in found[:5])
            raise RunNotFoundError(f"{len(found)} runs begin with {name!r}: {some}; give more of the name")
        where = f"no run {name!r} in {self.config.paths.store}"
        if self.config.durability == "memory":
            raise RunNotFoundError(f"{where}: durability='memory' keeps no runs")
        raise RunNotFoundError(f"{where}{did_you_mean(name, (row.run for row in rows))}")

    def record(self, run: str) -> RunRecord:
        """The journal of a run, replayed. Raises RunNotFoundError where there is none."""
        from flyteish._core.replay import record_of

        record = record_of(run, (entry for _, entry in self.store.read(run)))
        if record is None or not record.root:
            raise RunNotFoundError(f"run {run} has no journal in {self.config.paths.store}")
        return record

    def action(self, run: str, action: str | None) -> tuple[RunRecord, Action]:
        """A run and an action of it, from ``RUN ACTION`` or ``RUN/ACTION``. Default: its root."""
        from flyteish._core.replay import find_action

        run, action = split(run, action)
        record = self.record(self.run(run).run)
        return record, find_action(record, action)

    def phase(self, row: RunRow) -> str:
        """How a run stands: how it ended, ``active``, or ``interrupted`` where no controller is left."""
        if row.ended_at is not None:
            return row.phase
        return "interrupted" if self.owner is None else "active"

    def picture(self) -> Snapshot | None:
        """What the live controller last said of itself; None where there is none, or it says nothing."""
        from flyteish._controller.commands import SNAPSHOT
        from flyteish._controller.snapshot import Snapshot

        if self.owner is None:
            return None
        note, deadline = self.store.get_note(SNAPSHOT), time.monotonic() + _FIRST_PICTURE
        while note is None and time.monotonic() < deadline:  # it has just begun
            time.sleep(0.05)
            note = self.store.get_note(SNAPSHOT)
        return None if note is None else msgspec.json.decode(note, type=Snapshot)

    def queue_states(self) -> dict[str, str]:
        """The states of queues that outlive their session."""
        from flyteish._controller.commands import QUEUE_STATES

        note = self.store.get_note(QUEUE_STATES)
        return msgspec.json.decode(note, type=dict[str, str]) if note else {}

    def queue_name(self, name: str) -> str:
        """The queue, if there is one of that name. Raises ConfigurationError with near names."""
        picture = self.picture()
        known: list[Any] = [queue.name for queue in (picture.queues if picture else self.config.queues)]
        if name not in known:
            raise ConfigurationError(
                f"there is no queue {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
            )
        return name


def split(run: str, action: str | None) -> tuple[str, str | None]:
    """``RUN/ACTION`` as two; an action given apart wins."""
    name, slash, inside = run.partition("/")
    return name, action if action is not None or not slash else inside
