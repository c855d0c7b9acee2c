"""Takes up runs of earlier controllers: asks the engines which of their attempts still live, and tells the core.

**How it works.** What is on record of a run says which attempts were going on. Those of engines whose attempts can
outlive a controller are shown to them; the answer may take a while. Until it is there, and the core has been told,
nothing that is said of the run may be taken in: an attempt that has already found the way back would be taken for one
of a run that nobody knows. Such facts are held, in their order, and taken in right after. Where no engine can have
kept anything, which is so for all engines on this machine, a run is taken up at once.

Must not decide what becomes of the dead, nor of the living: that is the core's rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flyteish._controller.callers import Callers
from flyteish._controller.core_driver import CoreDriver
from flyteish._controller.engines import Engines
from flyteish._controller.facts import Fact, RunAdopted, RunTakenUp
from flyteish._controller.look_ups import BesideLoop
from flyteish._controller.order_factory import OrderFactory
from flyteish._core.model.effects import Deliver
from flyteish._core.model.events import RunLoaded, RunRecovered
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import TERMINAL, Action, End, RunRecord
from flyteish.interfaces import Clock, Engine, Unfinished
from flyteish.markets.followed import Markets

_log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between the questions to an engine that cannot answer: as long as it is not known what lives, nothing may start."""

Table = Mapping[type[Fact], Callable[[Any], None]]


class TakingUp:
    """One for each controller; lives on its loop.

    Args:
        post: the way back into the controller, once the engines have answered.
        table: what is done with each kind of fact.
    """

    def __init__(
        self,
        *,
        core: CoreDriver,
        engines: Engines,
        orders: OrderFactory,
        callers: Callers,
        markets: Markets,
        clock: Clock,
        post: Callable[[Fact], None],
        table: Table,
    ) -> None:
        self._core = core
        self._engines = engines
        self._orders = orders
        self._callers = callers
        self._markets = markets
        self._clock = clock
        self._post = post
        self._plain: Table = {**table, RunTakenUp: self._begin, RunAdopted: self._finish}
        self._guarded: Table = {kind: partial(self._unless_held, take) for kind, take in self._plain.items()}
        self.table = dict(self._plain)
        """What is to be done with each kind of fact; changes while runs are on their way in."""
        self._held: dict[str, list[Fact]] = {}
        """By run that is on its way in: what was said of it meanwhile."""
        self._beside = BesideLoop()

    def _unless_held(self, take: Callable[[Any], None], fact: Fact) -> None:
        held = self._held.get(fact.run)
        if held is None:
            take(fact)
        else:
            held.append(fact)

    def _begin(self, fact: RunTakenUp) -> None:
        record, run = fact.record, fact.record.id
        if fact.waiting is not None:
            self._callers.wait(run, fact.waiting)
        if run in self._core.state.runs:  # somebody was faster
            root = self._core.state.runs[run].root_action
            if root.phase in TERMINAL:
                self._core.burst.orders.append(Deliver(root))
            return
        asked = self._to_ask(record, fact.last_at)
        if not asked:
            self._recover(record, (), fact.last_at)
            return
        self._held[run] = []
        self.table.update(self._guarded)
        self._beside.start(self._ask(record, asked, fact.last_at), f"flyteish takes up {run}")

    def _to_ask(self, record: RunRecord, last_at: float) -> dict[Engine, list[Unfinished]]:
        """The attempts that may live, by the engine that knows."""
        asked: dict[Engine, list[Unfinished]] = {}
        if not self._engines.any_outlives:
            return asked
        for action in record.actions.values():
            attempt = action.attempts[-1] if action.attempts and _may_live(action) else None
            engine = self._engines.find(attempt.pool) if attempt is not None else None
            if attempt is not None and engine is not None and engine.outlives:
                facts = attempt.engine_facts
                digest = facts.token_digest if facts is not None else b""
                order = self._orders.order(action, attempt, "")
                each = Unfinished(order, digest, attempt.running_at, attempt.notice, last_at)
                asked.setdefault(engine, []).append(each)
        return asked

    async def _ask(self, record: RunRecord, asked: Mapping[Engine, list[Unfinished]], last_at: float) -> None:
        living: set[AttemptKey] = set()
        for engine, unfinished in asked.items():
            living |= await self._ask_until_it_answers(record.id, engine, unfinished)
        self._post(RunAdopted(record, tuple(sorted((key.action, key.generation) for key in living)), last_at))

    async def _ask_until_it_answers(
        self, run: str, engine: Engine, unfinished: list[Unfinished]
    ) -> frozenset[AttemptKey]:
        number = 0
        while True:
            try:
                return await engine.adopt(unfinished)
            except Exception as error:
                seconds = AGAIN_SECONDS[min(number, len(AGAIN_SECONDS) - 1)]
                _log.warning("%r cannot say what lives of run %s, asked again in %g s: %s", engine, run, seconds, error)
            number += 1
            await asyncio.sleep(seconds)

    def _finish(self, fact: RunAdopted) -> None:
        self._recover(fact.record, fact.living, fact.last_at)
        held = self._held.pop(fact.record.id)
        if not self._held:
            self.table.update(self._plain)
        for each in held:
            self._plain[type(each)](each)

    def _recover(self, record: RunRecord, living: tuple[tuple[str, int], ...], last_at: float) -> None:
        for action, generation in living:
            pool = record.actions[action].attempts[-1].pool
            self._markets.started(pool, AttemptKey(record.id, action, generation), self._clock.now())
        self._core.apply(RunLoaded(record))
        self._core.apply(RunRecovered(record.id, living, last_at))
        self._core.glance(record.id)

    def close(self, why: BaseException) -> None:
        """The controller ends: nothing more is taken up, and what was held is rejected."""
        self._beside.cancel()
        held, self._held = self._held, {}
        for facts in held.values():
            for fact in facts:
                fact.reject(why)

    def __repr__(self) -> str:
        return f"<TakingUp {len(self._held)} runs>"


def _may_live(action: Action) -> bool:
    """Whether its last attempt may go on, as far as is on record: a deadline ends the action before its attempt."""
    attempt = action.attempts[-1]
    return not attempt.ended_at if action.phase not in TERMINAL else attempt.end is End.DEADLINE
