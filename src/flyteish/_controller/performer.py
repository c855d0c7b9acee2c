"""Carries out the core's orders once their records are durable: attempts start and stop, callers hear of ends.

In the order in which the core gave them. Must not decide anything, nor touch the core's state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from flyteish._controller.burst import Burst
from flyteish._controller.callers import Callers
from flyteish._controller.engines import Engines
from flyteish._controller.facts import Fact, OrderMade, Reported
from flyteish._controller.look_ups import BesideLoop
from flyteish._controller.order_factory import OrderFactory
from flyteish._controller.outcomes import outcome_of
from flyteish._controller.result_cache import ResultCache
from flyteish._controller.tokens import new_token
from flyteish._core.model.effects import Deliver, QueueDrained, RelocateAttempt, RunEnded, StartAttempt, StopAttempt
from flyteish._core.model.events import AttemptEnded, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import Action, Phase
from flyteish._core.model.settings import Secret
from flyteish.errors import SecretMissingError
from flyteish.interfaces import Clock, Engine, Notice, Order
from flyteish.markets.followed import Markets


class Performer:
    """The hands of one controller; lives on its loop.

    Args:
        post: takes facts about attempts that are ordered, or cannot be.
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
        post: Callable[[Fact], None],
        on_change: Callable[[str], None],
        on_ended: Callable[[str], None],
        on_drained: Callable[[str], None],
    ) -> None:
        self._engines = engines
        self._markets = markets
        self._callers = callers
        self._orders = orders
        self._cache = cache
        self._beside = BesideLoop()
        self._clock = clock
        self._stop_grace = stop_grace
        self._post = post
        self._on_change = on_change
        self._on_ended = on_ended
        self._on_drained = on_drained

    def carry_out(self, burst: Burst) -> None:
        """All orders of a durable burst."""
        starts = _Starts()
        for order in burst.orders:
            kind = type(order)
            if kind is StartAttempt:
                self._prepare(order, starts)
            elif kind is Deliver:
                self.deliver(order.action)
            elif kind is Order:
                self._begin(order, starts)
            elif kind is StopAttempt:
                if not self._withdrawn(order.key, starts):
                    self._engines.of(order.pool).stop(order.key, order.reason, self._stop_grace)
            elif kind is RelocateAttempt:
                starts.hand_over()
                notice = Notice(kind="relocate", seconds=order.seconds, source="placement")
                self.reclaim(order.pool, order.key, notice)
            elif kind is RunEnded:
                self._on_ended(order.run)
            elif kind is QueueDrained:
                self._on_drained(order.queue)
            else:
                order()
        starts.hand_over()
        for run in burst.runs():
            self._on_change(run)

    def _withdrawn(self, key: AttemptKey, starts: _Starts) -> bool:
        """An attempt that is stopped before it was handed over never begins: an engine can't stop what it lacks, and
        a quick task would be over before a stop that follows its start.
        """
        if not starts.withdraw(key):
            return False
        self._post(Reported(AttemptEnded(*key, Evidence(stopped=True)), None))
        return True

    def _prepare(self, start: StartAttempt, starts: _Starts) -> None:
        action = start.action
        attempt = action.attempts[-1] if action.attempts else None
        if attempt is None or attempt.generation != start.generation:
            return
        wanted = action.profile.settings.secrets
        if wanted and not self._can_be_had(wanted, start.key):
            return
        engine = self._engines.of(start.pool)
        order = self._orders.order(action, attempt, new_token() if engine.connects else "")
        if engine.outlives:
            self._post(OrderMade(order))
        else:
            self._begin(order, starts)

    def _can_be_had(self, wanted: Sequence[Secret], key: AttemptKey) -> bool:
        try:
            self._orders.secrets(wanted)
        except SecretMissingError as error:
            self._post(Reported(AttemptEnded(*key, Evidence(unmendable=str(error))), None))
            return False
        return True

    def _begin(self, order: Order, starts: _Starts) -> None:
        self._markets.started(order.pool, order.key, self._clock.now())
        starts.add(self._engines.of(order.pool), order)

    def deliver(self, action: Action) -> None:
        """The action is over: who waits for it hears of it, and a cached result is kept."""
        wanted = self._cache.wanted
        digest = wanted.pop((action.run, action.id), None) if wanted else None
        if action.checkpoints and action.phase is Phase.SUCCEEDED:  # nobody restores them any more
            asyncio.get_running_loop().run_in_executor(None, self._orders.forget_checkpoints, action)
        if digest is not None and action.phase is Phase.SUCCEEDED and not action.cached:
            # Beside the loop, for the store may be far away; the caller hears of it once a second call would hit.
            self._beside.start(self._remember(action, digest), f"flyteish cache {action.key}")
            return
        self._callers.answer(outcome_of(action), action.generation)

    async def _remember(self, action: Action, digest: bytes) -> None:
        try:
            await self._cache.remember(action, digest)
        finally:
            self._callers.answer(outcome_of(action), action.generation)

    def reclaim(self, pool: str, key: AttemptKey, notice: Notice) -> None:
        """The pool's market takes the machine under an attempt away."""
        self._engines.of(pool).reclaim(key, notice)


class _Starts:
    """Attempts to be handed over, gathered: many at once, for engines send them on in one go."""

    __slots__ = ("_by_key", "_orders", "_withdrawn")

    def __init__(self) -> None:
        self._orders: dict[Engine, list[Order]] = {}
        self._by_key: set[AttemptKey] | None = None
        """Of all of them, from the first time that one was to be withdrawn."""
        self._withdrawn: set[AttemptKey] = set()

    def add(self, engine: Engine, order: Order) -> None:
        """One more."""
        self._orders.setdefault(engine, []).append(order)
        if self._by_key is not None:
            self._by_key.add(order.key)

    def withdraw(self, key: AttemptKey) -> bool:
        """Whether it was among them; then it is not any more."""
        if not self._orders:
            return False
        if self._by_key is None:
            self._by_key = {order.key for orders in self._orders.values() for order in orders}
        if key not in self._by_key:
            return False
        self._by_key.remove(key)
        self._withdrawn.add(key)
        return True

    def hand_over(self) -> None:
        """To their engines, those that were not withdrawn."""
        for engine, orders in self._orders.items():
            left = [each for each in orders if each.key not in self._withdrawn] if self._withdrawn else orders
            if left:
                engine.start(left)
        self._orders, self._by_key = {}, None
