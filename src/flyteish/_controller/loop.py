"""The controller's main loop: facts in from everywhere, through the core, and its orders out again.

One turn: take the inbox, take what time has made due, journal the burst, and once that is durable carry out
the orders. Runs on a thread and event loop of its own, so that user code that blocks its loop stalls nothing.
Must not decide: retries, media and order are the core's; how attempts run is the engines'.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flyteish._controller.burst import Burst
from flyteish._controller.callers import AttemptLink, Desk, RemoteLink, Waiting
from flyteish._controller.clock import Alarm
from flyteish._controller.engines import Engines
from flyteish._controller.inbox import Inbox
from flyteish._controller.order_factory import OrderDesk
from flyteish._controller.outcomes import row_of, type_name
from flyteish._controller.performer import Performer
from flyteish._core import lifecycle
from flyteish._core.model.effects import Deliver, Record, Refuse, RunEnded, StartAttempt
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    CancelRequested,
    Configured,
    ControllerRestarted,
    Event,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
)
from flyteish._core.model.ids import ROOT_ACTION, ActionKey, AttemptKey
from flyteish._core.model.records import TERMINAL, End, Phase, RunRecord
from flyteish._core.state import State
from flyteish._learning.recorder import Keeper
from flyteish.errors import SessionClosedError
from flyteish.interfaces import Call, Clock, OnJournalled, Outcome, Report, RunStore
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
        orders: OrderDesk,
        keeper: Keeper,
        stop_grace: float,
        log_path: Callable[[AttemptKey], Path | None],
        loop_ends: Callable[[str], bool],
        on_change: Callable[[str], None],
        on_drained: Callable[[str], None],
    ) -> None:
        self.clock = clock
        self.numbers = itertools.count(1)  # of calls; taken by any thread
        self.state = State.configured(configured.queues, configured.pools)
        self._engines = engines
        self._markets = markets
        self._store = store
        self._orders = orders
        self._keeper = keeper
        self.log_path = log_path
        self.loop_ends = loop_ends  # whether the event loop that a run was started on is being shut down; any thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox = Inbox(self._turn, self._refuse)
        self.post = self._inbox.post
        self.refuse_rest = self._inbox.refuse_all  # once its loop has ended: answers what came too late to be taken
        self._desk = Desk()
        self._links: dict[AttemptKey, AttemptLink] = {}
        self._unconfirmed: set[OnJournalled] = set()  # who waits for a fact to be durable
        self.origin, self.raised = self._desk.origin, self._desk.raised  # InlineReports
        self._performer = Performer(
            engines=engines, markets=markets, desk=self._desk, orders=orders, clock=clock, stop_grace=stop_grace,
            report=self.report, on_change=on_change, on_ended=self._run_over, on_drained=on_drained)  # fmt: skip
        self._burst = Burst()
        self._unwritten: deque[Burst] = deque()
        self._alarm = Alarm(self._turn)
        self.over: BaseException | None = None  # why it no longer works
        self._closing: list[asyncio.Future[None]] = []

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open engines and markets. Called once, on the controller's loop."""
        self._loop = asyncio.get_running_loop()
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
        self._inbox.refuse_all()
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
        self._alarm.set(None, None)
        assert self._loop is not None
        self._closing = self._engines.close()
        # After the engines' first step, so that attempts are told to end before their calls are answered: a parent
        # must not take the end of the session for a failure of its child.
        self._loop.call_soon(self._answer_everybody)

    def _answer_everybody(self) -> None:
        name, error = type_name(self.over), str(self.over)
        for run, action, waiting in self._desk.everyone():
            waiting.tell(Outcome.refused(run, action, name, f"{error} (continue with: flyteish resume {run})"))
        unconfirmed, self._unconfirmed = self._unconfirmed, set()
        for confirm in unconfirmed:
            confirm(error)

    def knows_queue(self, queue: str) -> bool:
        """Whether a queue of that name is configured."""
        return self.state.books is not None and queue in self.state.books.queues

    def caller_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the calling thread, unless it is the controller's own."""
        loop = asyncio._get_running_loop()
        return None if loop is self._loop else loop

    def _refuse(self, take: Callable[..., None], facts: tuple[Any, ...]) -> None:
        """A fact that came after the end: whoever waits for an answer gets one, everything else is too late."""
        error = self.over or SessionClosedError("the session was closed")
        if take in (self.take_run, self.take_resume, self.take_call):
            waiting = next(fact for fact in facts if isinstance(fact, Waiting))
            run = waiting.link.key.run if waiting.link is not None else ""
            waiting.tell(Outcome.refused(run, waiting.action, type_name(error), str(error)))
        elif take == self.take_to_confirm or (take == self.take_report and facts[-1] is not None):
            facts[-1](str(error))
        elif take == self.take_question:
            facts[-1](None, error)

    # -- the main loop: its steps are its table of contents -----------------------------------------------------

    def _turn(self) -> None:
        try:
            if self.over is None:
                self._inbox.take_all()
            if self.over is not None:
                self._inbox.refuse_all()
                return
            self._take_due()
            self._journal()
            self._set_alarm()
        except Exception as error:  # a defect of ours: stop with the story rather than go on with a broken state
            _log.critical("the controller stops at a defect of its own; its runs can be resumed", exc_info=error)
            self._end(error)
            self._inbox.refuse_all()

    def _take_due(self) -> None:
        now = self.clock.now()
        due = self.state.next_due()
        if due is not None and due <= now:
            self._apply(TimePassed(), now)
        for key, notice in self._markets.due(now):
            action = self.state.action(ActionKey(key.run, key.action))
            if action is not None and action.attempts and action.generation == key.generation:
                self._performer.reclaim(action.attempts[-1].pool, key, notice)
        self._follow_markets(now)

    def _follow_markets(self, now: float) -> None:
        for event in self._markets.news(now):
            self._apply(event, now)

    def _journal(self) -> None:
        burst = self._burst
        if not burst:
            return
        self._burst = Burst()
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
            self.post(self._written, burst, error)

    def _set_alarm(self) -> None:
        due = self.state.next_due()
        at = min(self._markets.times(), default=due)
        if due is not None and at is not None:
            at = min(at, due)
        self._alarm.set(None if at is None else at - self.clock.now(), at)

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

    # -- the core -----------------------------------------------------------------------------------------------

    def _apply(self, event: Event, now: float | None = None) -> Refuse | None:
        """Tell the core; its records and orders join the burst. Returns the refusal, if it was refused."""
        refusal = None
        self.state, effects = lifecycle.apply(self.state, event, self.clock.now() if now is None else now)
        burst = self._burst
        for effect in effects:
            kind = type(effect)
            if kind is Record:
                burst.entries.append(effect)  # type: ignore[arg-type]
            elif kind is Refuse:
                refusal = effect
            else:
                burst.orders.append(effect)
                if kind is RunEnded:
                    burst.rows[effect.run] = row_of(self.state.runs[effect.run])  # type: ignore[union-attr]
                elif kind is StartAttempt or kind is Deliver:
                    action = effect.action  # type: ignore[union-attr]
                    if action.parent is None:
                        burst.rows[action.run] = row_of(self.state.runs[action.run])
        return refusal  # type: ignore[return-value]

    # -- facts ---------------------------------------------------------------------------------------------------

    def take_run(self, event: RunSubmitted, call: Call, waiting: Waiting) -> None:
        """A program starts a run."""
        refusal = self._apply(event)
        if refusal is None:
            refusal = self._submit(event.run, None, 0, call, waiting)
        if refusal is not None:
            self._burst.forget(event.run)
            waiting.tell(Outcome.refused(event.run, ROOT_ACTION, f"flyteish.errors.{refusal.error}", refusal.message))
            return
        self._burst.rows[event.run] = row_of(self.state.runs[event.run])

    def take_resume(self, state: State, run: str, waiting: Waiting) -> None:
        """Take over a run whose controller died: ``state`` is its journal, replayed."""
        self.state.runs[run] = state.runs[run]
        self._desk.wait(run, waiting)
        self._apply(ControllerRestarted(run))
        self._burst.rows[run] = row_of(self.state.runs[run])

    def take_ended(self, record: RunRecord) -> None:
        """A run of another controller is over; if that one died before it could say so in the list of runs, say it."""
        if record.id not in self.state.runs:
            self._burst.rows[record.id] = row_of(record)

    def take_call(self, link: AttemptLink, waiting: Waiting, call: Call) -> None:
        """A running attempt calls a task."""
        key = link.key
        if key.run not in self.state.runs:
            waiting.tell(Outcome.refused(key.run, "", "flyteish.errors.StaleAttemptError", f"run {key.run} is over"))
            return
        waiting.action = lifecycle.child_identity(
            self.state, key.run, key.action, call.profile.task, call.digest, call.occurrence
        )
        refusal = self._submit(key.run, key.action, key.generation, call, waiting)
        if refusal is not None:
            waiting.tell(Outcome.refused(key.run, waiting.action, f"flyteish.errors.{refusal.error}", refusal.message))
        else:
            self._links.setdefault(key, link)

    def _submit(self, run: str, parent: str | None, generation: int, call: Call, waiting: Waiting) -> Refuse | None:
        profile, action = call.profile, waiting.action
        if profile.key not in self.state.runs[run].profiles:
            self._apply(TaskDeclared(run, profile))
        cached = None
        if profile.cache_version is not None:
            digest = call.cache_digest or call.digest
            cached = self._orders.cached(profile, digest)
            self._performer.to_remember[run, action] = digest
        # The caller must be known before the core answers, which it may do in the same burst.
        self._desk.wait(run, waiting)
        event = ActionSubmitted(
            run, action, parent, generation, profile.key, call.inputs, call.digest, call.occurrence, call.group, cached
        )
        refusal = self._apply(event)
        if refusal is not None:
            self._desk.withdraw(run, waiting)
            self._performer.to_remember.pop((run, action), None)
        return refusal

    def take_cancel(self, link: AttemptLink, number: int, reason: str) -> None:
        """A caller no longer waits."""
        waiting = link.calls.get(number) if link.calls is not None else None
        if waiting is not None:
            self._apply(CancelRequested(link.key.run, waiting.action, reason, by=str(link.key)))

    def take_farewell(self, link: AttemptLink, number: int, reason: str) -> None:
        """A caller no longer waits, for its program is ending: what it called is left for whoever resumes the run."""
        waiting = link.calls.pop(number, None) if link.calls is not None else None
        if waiting is not None:
            why = f"the event loop of its program ends: {reason}"
            waiting.tell(Outcome.refused(link.key.run, waiting.action, "flyteish.errors.StaleAttemptError", why))

    def take_report(self, event: Report, done: OnJournalled | None) -> None:
        """An engine tells how an attempt goes."""
        if type(event) is not AttemptEnded:
            self._apply(event)
        else:
            self._take_end(event)
        if done is not None:
            self._when_durable(done)

    def _take_end(self, event: AttemptEnded) -> None:
        key = AttemptKey(event.run, event.action, event.generation)
        self._markets.ended(key)
        if key in self._links:
            self._hang_up(self._links.pop(key))
        action = self.state.action(ActionKey(event.run, event.action))
        if action is None:
            self._desk.spare(key)
            return
        attempt = action.attempts[-1] if action.attempts else None
        self._apply(event)
        if attempt is not None and attempt.generation == event.generation:
            over = attempt.ended_at or self.clock.now()
            self._orders.lifetimes.saw(attempt.pool, over - attempt.admitted_at, reclaimed=attempt.end is End.PREEMPTED)
        if action.phase is not Phase.FAILED or action.generation != event.generation:
            self._desk.spare(key)

    def _hang_up(self, link: AttemptLink) -> None:
        for name in self._desk.hang_up(link):
            action = self.state.action(ActionKey(link.key.run, name))
            if action is not None and action.phase in TERMINAL:
                # The core held its outcome back until the caller had its place again, which now never happens.
                self._performer.deliver(action)

    def take_to_confirm(self, event: Event, done: OnJournalled) -> None:
        """A fact that counts once it is journalled, which somebody waits for: a checkpoint, a traced value."""
        refusal = self._apply(event)
        if refusal is not None:
            done(refusal.message)
        else:
            self._when_durable(done)

    def _when_durable(self, done: OnJournalled) -> None:
        self._unconfirmed.add(done)
        self._burst.orders.append(partial(self._confirm, done))

    def _confirm(self, done: OnJournalled) -> None:
        self._unconfirmed.remove(done)
        done(None)

    def _run_over(self, run: str) -> None:
        self._keeper.run_over(self.state.runs[run])
        self.state.forget(run)

    def take_fact(self, event: Event) -> None:
        """Any other fact, as it is: an order to cancel, a queue's state, a traced value."""
        self._apply(event)

    def take_question(self, ask: Callable[[State, float], Any], answer: Callable[[Any, Any], None]) -> None:
        """Somebody wants to know something of the state."""
        try:
            found = ask(self.state, self.clock.now())
        except Exception as error:
            answer(None, error)
        else:
            answer(found, None)

    # -- Reports, for the engines --------------------------------------------------------------------------------

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        self.post(self.take_report, event, done)

    def link(self, key: AttemptKey) -> RemoteLink:
        return RemoteLink(AttemptLink(self, key))

    def inline_link(self, key: AttemptKey) -> AttemptLink:
        return AttemptLink(self, key)
