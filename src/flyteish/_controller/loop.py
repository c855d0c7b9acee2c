"""The controller's main loop: facts in from everywhere, through the core, and its orders out again.

**How it works.** Everything that happens, wherever it happens, becomes a fact in the inbox: a call, an engine's report,
an operator's word, a question. The first one of a burst wakes the loop, and one turn takes them all, each to its
handler (``fact_handlers``), which mostly tells the core (``core_driver``). The core answers with records for the
journal and with orders; both are gathered in the turn's burst. At the end of the turn the burst goes to the store as
one batch, and the alarm is set to when the core, or a market, wants to look again. Once the store says that the batch
is durable, the performer carries out the orders: engines are told to start and stop, callers hear of outcomes.

**Why.** The controller has a thread and an event loop of its own, so that user code that blocks its loop stalls no
other task; no lock guards the core, for nobody else touches it. A fan-out of ten thousand calls wakes the loop a few
times, and costs a few commits, because a turn takes what is there. And nothing that anybody sees can be unhappened by
a crash: no order leaves before its cause is on disk, so that whatever an attempt was told, the next controller finds.

**What always holds.**

- Facts are taken in the order in which they were posted, and orders are carried out in the order in which they were
  given. Bursts that become durable out of order wait for their elders (``_unwritten``).
- The core is ahead of the journal, the world is behind it. Between the two an order may be overtaken by a fact: an
  attempt that is told to start may have been cancelled since. So engines may be told to stop what they do not know yet
  (the start comes first, in the same burst or an earlier one), and never report what they were not given.
- Every caller gets one answer, whatever happens: ``callers`` has all that wait, facts that come too late reject
  themselves, and whoever waits for something to be durable is told that it never will be.
- A turn takes no more than was there when it began, so that a busy sender does not keep time from passing.

**The end.** A session that closes, a store that fails and a defect of ours end it in the same way: ``over`` is set
and nothing is recorded from then on; the engines are told to close; and one step later callers are answered, so that a
parent is told to end before it can take the end of the session for a failure of its child. What is still posted, from
any thread, is rejected; also after the loop is closed (``reject_rest``). To the next controller it looks like a crash.

Must not decide: retries, media and order are the core's; how attempts run is the engines'.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial

from flyteish._controller.attempt_link import Links
from flyteish._controller.burst import Burst
from flyteish._controller.callers import Callers
from flyteish._controller.clock import Alarm
from flyteish._controller.core_driver import CoreDriver
from flyteish._controller.engines import Engines
from flyteish._controller.fact_handlers import FactHandlers
from flyteish._controller.fact_inbox import FactInbox
from flyteish._controller.facts import Reported, Written
from flyteish._controller.order_factory import OrderFactory
from flyteish._controller.performer import Performer
from flyteish._controller.result_cache import ResultCache
from flyteish._controller.taking_up import TakingUp
from flyteish._core.model.events import Configured, TimePassed
from flyteish._core.model.ids import ActionKey
from flyteish._core.state import State
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish._learning.recorder import Keeper
from flyteish.errors import SessionClosedError
from flyteish.interfaces import Clock, OnJournalled, Report, RunStore
from flyteish.markets.followed import Markets

_log = logging.getLogger(__name__)


class Controller:
    """Drives the core in real time. ``post`` may be called from any thread; all else runs on its own."""

    def __init__(
        self,
        *,
        configured: Configured,
        engines: Engines,
        markets: Markets,
        store: RunStore,
        clock: Clock,
        orders: OrderFactory,
        cache: ResultCache,
        keeper: Keeper,
        lifetimes: Lifetimes,
        stop_grace: float,
        loop_ends: Callable[[str], bool],
        on_change: Callable[[str], None],
        on_drained: Callable[[str], None],
    ) -> None:
        self.clock = clock
        self._core = CoreDriver(configured, clock)
        self._engines = engines
        self._markets = markets
        self._store = store
        self._keeper = keeper
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox = FactInbox(self._turn, lambda: self.over or SessionClosedError("the session was closed"))
        self.post = self._inbox.post
        self.reject_rest = self._inbox.reject_all  # once its loop has ended: answers what came too late to be taken
        self.links = Links(self.post, loop_ends)
        self._callers = Callers()
        self.link, self.inline_link, self.secrets = self.links.remote, self.links.inline, orders.secrets
        self.origin, self.raised = self._callers.origin, self._callers.raised
        self._performer = Performer(
            engines=engines, markets=markets, callers=self._callers, orders=orders, cache=cache, clock=clock,
            stop_grace=stop_grace, post=self.post, on_change=on_change, on_ended=self._run_over,
            on_drained=on_drained,
        )  # fmt: skip
        self._handlers = FactHandlers(
            core=self._core, callers=self._callers, performer=self._performer, cache=cache, markets=markets,
            lifetimes=lifetimes, clock=clock, post=self.post,
        )  # fmt: skip
        self._taking_up = TakingUp(
            core=self._core, engines=engines, orders=orders, callers=self._callers, markets=markets, clock=clock,
            post=self.post, table={**self._handlers.table(), Written: self._take_written},
        )  # fmt: skip
        self._unwritten: deque[Burst] = deque()
        self._alarm = Alarm(self._turn)
        self.over: BaseException | None = None  # why it no longer works
        self._closing: list[asyncio.Future[None]] = []

    @property
    def state(self) -> State:
        """Everything that its core knows; to be read on its own thread."""
        return self._core.state

    @property
    def pools_that_outlive_it(self) -> frozenset[str]:
        """Those whose engine can say what lives of an earlier controller's attempts."""
        return self._engines.outliving

    @property
    def attempts_outlive_it(self) -> bool:
        """Whether attempts of an earlier controller may still live. Any thread."""
        return self._engines.any_outlives

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open engines and markets. Called once, on the controller's loop."""
        self._loop = asyncio.get_running_loop()
        self.links.open(self._loop)
        await self._engines.open(self)
        now = self.clock.now()
        self._markets.open(now)
        self._follow_markets(now)
        self._inbox.open(self._loop)

    async def close(self) -> None:
        """Stop everything and answer everybody. What was running goes on with ``flyteish resume``: what the engines
        report from here on is not recorded, as if the machine had failed.
        """
        self._end(SessionClosedError("the session was closed while this was pending"))
        self._inbox.reject_all()
        failures = [each for each in await asyncio.gather(*self._closing, return_exceptions=True) if each is not None]
        self._answer_everybody()
        if failures:
            raise failures[0]

    def _end(self, reason: BaseException) -> None:
        """Nothing is recorded any more; the engines end their attempts."""
        if self.over is not None:
            return
        self.over = reason
        self._unwritten.clear()
        self._taking_up.close(reason)
        self._alarm.set(None, None)
        assert self._loop is not None
        self._closing = self._engines.close()
        # After the engines' first step, so that attempts are told to end before their calls are answered: a parent
        # must not take the end of the session for a failure of its child.
        self._loop.call_soon(self._answer_everybody)

    def _answer_everybody(self) -> None:
        assert self.over is not None
        self._handlers.answer_everybody(self.over)

    # -- the main loop: its steps are its table of contents -----------------------------------------------------

    def _turn(self) -> None:
        try:
            if self.over is None:
                self._inbox.take_all(self._taking_up.table)
            if self.over is not None:
                self._inbox.reject_all()
                return
            self._take_due()
            self._journal()
            self._set_alarm()
        except Exception as error:  # a defect of ours: stop with the story rather than go on with a broken state
            _log.critical("the controller stops at a defect of its own; its runs can be resumed", exc_info=error)
            self._end(error)
            self._inbox.reject_all()

    def _take_due(self) -> None:
        now = self.clock.now()
        due = self.state.next_due()
        if due is not None and due <= now:
            self._core.apply(TimePassed(), now)
        for key, notice in self._markets.due(now):
            action = self.state.action(ActionKey(key.run, key.action))
            if action is not None and action.attempts and action.generation == key.generation:
                self._performer.reclaim(action.attempts[-1].pool, key, notice)
        self._follow_markets(now)

    def _follow_markets(self, now: float) -> None:
        for event in self._markets.news(now):
            self._core.apply(event, now)

    def _journal(self) -> None:
        if not self._core.burst:
            return
        burst = self._core.cut()
        self._unwritten.append(burst)
        if burst.entries or burst.rows:
            self._store.append(burst.batch(), partial(self._recorded, burst))
        else:
            self._written(burst, None)

    def _recorded(self, burst: Burst, error: BaseException | None) -> None:
        """The store's answer, on its thread or, where it answers at once, on ours."""
        if asyncio._get_running_loop() is self._loop:
            self._written(burst, error)
        else:
            self.post(Written(burst, error))

    def _take_written(self, fact: Written) -> None:
        self._written(fact.burst, fact.error)

    def _set_alarm(self) -> None:
        due = self.state.next_due()
        at = self._markets.next_at if due is None else min(self._markets.next_at, due)
        self._alarm.set(None if at == math.inf else at - self.clock.now(), at)

    def _written(self, burst: Burst, error: BaseException | None) -> None:
        """The burst is durable: its effects may be seen, in the order of the bursts."""
        if self.over is not None:
            return
        if error is not None:
            self._end(error)
            return
        burst.durable = True
        while self._unwritten and self._unwritten[0].durable:
            self._performer.carry_out(self._unwritten.popleft())

    def _run_over(self, run: str) -> None:
        self._keeper.run_over(self.state.runs[run])
        self.state.forget(run)

    # -- for the engines -------------------------------------------------------------------------------------------

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        """For ``Reports``; the rest of it, and ``InlineReports``, is bound when the controller is made."""
        self.post(Reported(event, done))
