"""Carries out the core's orders once their records are durable: attempts start and stop, callers hear of ends.

In the order in which the core gave them. Must not decide anything, nor touch the core's state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flyteish._controller.burst import Burst
from flyteish._controller.callers import Callers
from flyteish._controller.engines import Engines
from flyteish._controller.order_factory import OrderFactory
from flyteish._controller.outcomes import outcome_of
from flyteish._controller.result_cache import ResultCache
from flyteish._core.model.effects import Deliver, QueueDrained, RelocateAttempt, RunEnded, StartAttempt, StopAttempt
from flyteish._core.model.events import AttemptEnded
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import Action, Phase
from flyteish.interfaces import Clock, Engine, Notice, Order
from flyteish.markets.followed import Markets

_Starts = dict[Engine, list[Order]]


class Performer:
    """The hands of one controller; lives on its loop.

    Args:
        report: takes the end of an attempt that could not even be ordered.
        on_change: told which runs' journals have grown.
        on_ended: told which runs are over, descendants included.
        on_drained: told which queues are drained.
    """

    def __init__(
        self,
        *,
        engines: Engines,
        markets: Markets,
        callers: Callers,
        orders: OrderFactory,
        cache: ResultCache,
        clock: Clock,
        stop_grace: float,
        report: Callable[[AttemptEnded], None],
        on_change: Callable[[str], None],
        on_ended: Callable[[str], None],
        on_drained: Callable[[str], None],
    ) -> None:
        self._engines = engines
        self._markets = markets
        self._callers = callers
        self._orders = orders
        self._cache = cache
        self._clock = clock
        self._stop_grace = stop_grace
        self._report = report
        self._on_change = on_change
        self._on_ended = on_ended
        self._on_drained = on_drained

    def carry_out(self, burst: Burst) -> None:
        """All orders of a durable burst."""
        starts: _Starts = {}
        for order in burst.orders:
            kind = type(order)
            if kind is StartAttempt:
                self._prepare(order, starts)
            elif kind is Deliver:
                self.deliver(order.action)
            elif kind is StopAttempt:
                self._start(starts)  # an engine takes no notice of a stop of what it does not know yet
                self._engines.of(order.pool).stop(order.key, order.reason, self._stop_grace)
            elif kind is RelocateAttempt:
                self._start(starts)
                notice = Notice(kind="relocate", seconds=order.seconds, source="placement")
                self.reclaim(order.pool, order.key, notice)
            elif kind is RunEnded:
                self._on_ended(order.run)
            elif kind is QueueDrained:
                self._on_drained(order.queue)
            else:
                order()
        self._start(starts)
        for run in burst.runs():
            self._on_change(run)

    def _start(self, starts: _Starts) -> None:
        """Hand over what was gathered: many at once, for engines send them on in one go."""
        for engine, orders in starts.items():
            engine.start(orders)
        starts.clear()

    def _prepare(self, start: StartAttempt, starts: _Starts) -> None:
        action = start.action
        attempt = action.attempts[-1] if action.attempts else None
        if attempt is None or attempt.generation != start.generation:
            return
        engine = self._engines.of(start.pool)
        order = self._orders.order(action, attempt, with_token=engine.connects)
        if isinstance(order, AttemptEnded):
            self._report(order)
            return
        self._markets.started(start.pool, order.key, self._clock.now())
        starts.setdefault(engine, []).append(order)

    def deliver(self, action: Action) -> None:
        """The action is over: who waits for it hears of it, and a cached result is kept."""
        wanted = self._cache.wanted
        digest = wanted.pop((action.run, action.id), None) if wanted else None
        if action.checkpoints and action.phase is Phase.SUCCEEDED:  # nobody restores them any more
            asyncio.get_running_loop().run_in_executor(None, self._orders.forget_checkpoints, action)
        if digest is not None and action.phase is Phase.SUCCEEDED and not action.cached:
            # Beside the loop, for the store may be far away; the caller hears of it once a second call would hit.
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._cache.remember, action, digest).add_done_callback(
                lambda _: self._callers.answer(outcome_of(action), action.generation)
            )
            return
        self._callers.answer(outcome_of(action), action.generation)

    def reclaim(self, pool: str, key: AttemptKey, notice: Notice) -> None:
        """The pool's market takes the machine under an attempt away."""
        self._engines.of(pool).reclaim(key, notice)
