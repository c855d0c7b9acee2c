"""An engine whose attempts do what the test says, and that remembers what it was told.

Several sessions may use the same ``Machines``, as attempts that outlive their controller need: what runs is theirs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from flyteish._core.model.events import AttemptEnded, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import Payload
from flyteish.interfaces import Link, Notice, OnJournalled, Opening, Order, Report, Unfinished

PATIENCE = 20.0


class Machines:
    """What runs, whichever controller began it; and what engines were told, in order. Thread-safe."""

    def __init__(self) -> None:
        self.running: dict[AttemptKey, Order] = {}
        self.told: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()

    def tell(self, *what: Any) -> None:
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def heard(self, kind: str) -> list[Any]:
        """Everything of this kind that engines were told."""
        with self._changed:
            return [what[1] for what in self.told if what[0] == kind]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until it holds; looks whenever an engine is told something."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), self.told
            return condition()

    def started(self, count: int = 1) -> list[Order]:
        """Wait for so many orders."""
        return self.until(lambda: len(found := self.heard("start")) >= count and found)


class PuppetEngine:
    """``interfaces.Engine`` over ``Machines``. ``on_start``: what attempts do at once, on the controller's thread."""

    def __init__(
        self,
        machines: Machines,
        *,
        connects: bool = True,
        outlives: bool = False,
        on_start: Callable[[PuppetEngine, Order], None] | None = None,
    ) -> None:
        self.machines = machines
        self.connects = connects
        self.outlives = outlives
        self._on_start = on_start
        self.opening: Opening
        self.adopting: asyncio.Event | None = None
        """Where set, adopting waits for it."""
        self.fails_to_adopt = 0
        """So many times it cannot say what lives."""

    async def open(self, opening: Opening) -> None:
        self.opening = opening
        self.machines.tell("open", opening)

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        living = frozenset(each.order.key for each in unfinished if each.order.key in self.machines.running)
        self.machines.tell("adopt", list(unfinished))
        if self.fails_to_adopt:
            self.fails_to_adopt -= 1
            raise ConnectionError("the cluster does not answer")
        if self.adopting is not None:
            await self.adopting.wait()
        return living

    def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.machines.running[order.key] = order
            self.machines.tell("start", order)
            if self._on_start is not None:
                self._on_start(self, order)

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        self.machines.tell("stop", key)
        if key in self.machines.running:
            self.end(key, Evidence(stopped=True))

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        self.machines.tell("reclaim", key)
        if key in self.machines.running:
            self.end(key, Evidence(reclaimed=f"reclaimed by the {notice.source}"))

    async def close(self) -> None:
        for key, order in list(self.machines.running.items()):
            pool = self.opening.pools.get(order.pool)
            if pool is not None and pool.on_close == "stop":
                self.end(key, Evidence(stopped=True))
        self.machines.tell("close", None)

    # -- for tests; any thread

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        self.opening.reports.report(event, done)

    def end(self, key: AttemptKey, evidence: Evidence, done: OnJournalled | None = None) -> None:
        self.machines.running.pop(key, None)
        self.report(AttemptEnded(*key, evidence), done)

    def link(self, key: AttemptKey) -> Link:
        return self.opening.reports.link(key)


def returns(task: Any, value: object) -> Evidence:
    """The end of an attempt that returned."""
    data = task.signature.encode_result(value)
    return Evidence(result=Payload(data, None, len(data)))
