"""The controller's main loop: facts in from everywhere, through the core, and its orders out again.

One turn: take the inbox, take what time has made due, journal the burst, and once that is durable carry out
the orders. Runs on a thread and event loop of its own, so that user code that blocks its loop stalls nothing.
Must not decide: retries, media and order are the core's; how attempts run is the engines'.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from flyteish._controller.burst import Burst
from flyteish._controller.desk import AttemptLink, Desk, Waiting
from flyteish._controller.orders import OrderDesk
from flyteish._controller.outcomes import outcome_of, refused
from flyteish._controller.reclaimer import Reclaimer
from flyteish._core import lifecycle
from flyteish._core.actions import Action, Phase
from flyteish._core.effects import Deliver, QueueDrained, Record, Refuse, RunEnded, StartAttempt, StopAttempt
from flyteish._core.events import (
    ActionSubmitted,
    AttemptEnded,
    AttemptNoticed,
    AttemptRunning,
    CancelRequested,
    CheckpointCommitted,
    Configured,
    ControllerRestarted,
    Event,
    PoolCapacityChanged,
    QueueStateSet,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
    ValueTraced,
)
from flyteish._core.ids import ROOT_ACTION, ActionKey, AttemptKey
from flyteish._core.state import State
from flyteish._core.values import CheckpointRecord, Payload
from flyteish.errors import SessionClosedError
from flyteish.interfaces import (
    BlobStore,
    Call,
    Clock,
    Engine,
    Notice,
    OnOutcome,
    Order,
    Origin,
    RunRow,
    RunStore,
)

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


class Controller:
    """Drives the core in real time. ``post`` may be called from any thread; all else runs on its own."""

    def __init__(
        self,
        *,
        configured: Configured,
        engines: Mapping[str, Engine],
        reclaimers: Mapping[str, Reclaimer],
        store: RunStore,
        blobs: BlobStore,
        clock: Clock,
        orders: OrderDesk,
        stop_grace: float,
        log_path: Callable[[AttemptKey], Path | None],
        on_change: Callable[[str], None],
        on_drained: Callable[[str], None],
    ) -> None:
        self.clock = clock
        self.numbers = itertools.count(1)
        """Of calls; taken by any thread."""
        self.state = State.configured(configured.queues, configured.pools)
        self._pools = {pool.name: pool for pool in configured.pools}
        self._engines = engines
        self._reclaimers = reclaimers
        self._store = store
        self._blobs = blobs
        self._orders = orders
        self._stop_grace = stop_grace
        self._log_path = log_path
        self._on_change = on_change
        self._on_drained = on_drained
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._awake = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._desk = Desk()
        self._links: dict[AttemptKey, AttemptLink] = {}
        self._live: dict[tuple[str, str], BaseException] = {}
        self._to_remember: dict[tuple[str, str], bytes] = {}
        self._burst = Burst()
        self._unwritten: deque[Burst] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self._over: BaseException | None = None
        self._closing: list[asyncio.Future[None]] = []

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open engines and markets. Called once, on the controller's loop."""
        self._loop = asyncio.get_running_loop()
        for engine in self._engines.values():
            await engine.open(self, self._blobs)
        now = self.clock.now()
        for name, reclaimer in self._reclaimers.items():
            reclaimer.opened(now)
            self._follow_capacity(name, reclaimer, now)
        self._wake()

    async def close(self, reason: BaseException | None = None) -> None:
        """Stop everything and answer everybody. What was running goes on with ``flyteish resume``.

        What the engines report from here on is not recorded: to the journal, the running attempts end the way they
        do when the machine fails, so that a resumed run takes them up again.
        """
        self._over = self._over or reason or SessionClosedError("the session was closed while this was pending")
        if self._alarm is not None:
            self._alarm.cancel()
        await asyncio.gather(*self._closing)
        for engine in self._engines.values():
            await engine.close()
        self._answer_everybody(self._over)

    def _answer_everybody(self, error: BaseException) -> None:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        for run, action, done in self._desk.everyone():
            done(refused(run, action, name, f"{error} (continue with: flyteish resume {run})"), None)

    @property
    def over(self) -> BaseException | None:
        """Why the controller no longer works, or None."""
        return self._over

    def knows_queue(self, queue: str) -> bool:
        """Whether a queue of that name is configured."""
        return self.state.books is not None and queue in self.state.books.queues

    def caller_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the calling thread, unless it is the controller's own."""
        loop = asyncio._get_running_loop()
        return None if loop is self._loop else loop

    # -- the inbox ----------------------------------------------------------------------------------------------

    def post(self, take: Callable[..., None], *facts: Any) -> None:
        """Have ``take(*facts)`` run in the next turn; one wake-up per burst. Never blocks, never raises."""
        self._inbox.append((take, facts))
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is None:
            return  # not open yet: `open` wakes it
        self._awake = True
        try:
            loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # its loop is closed: nobody will ever take the inbox
            self._refuse_inbox()

    def _refuse_inbox(self) -> None:
        """After the end: whoever waits for an answer gets one, everything else is too late."""
        while self._inbox:
            take, facts = self._inbox.popleft()
            if take in (self.take_call, self.take_run, self.take_resume):
                facts[-1](refused("", "", "flyteish.errors.SessionClosedError", str(self._over)), None)
            elif take == self.take_checkpoint:
                facts[-1](str(self._over))
            elif take == self.take_question:
                facts[-1](None, SessionClosedError(str(self._over)))

    # -- the main loop: its steps are its table of contents -----------------------------------------------------

    def _turn(self) -> None:
        self._awake = False
        if self._over is not None:
            self._refuse_inbox()
            return
        try:
            self._take_inbox()
            self._take_due()
            self._journal()
            self._set_alarm()
        except Exception as error:  # a defect of ours: stop with the story rather than go on with a broken state
            self._fail(error)

    def _take_inbox(self) -> None:
        inbox = self._inbox
        # Bounded by what was there when the turn began: a busy sender must not keep time from passing.
        for _ in range(len(inbox)):
            take, facts = inbox.popleft()
            take(*facts)
        if inbox and not self._awake:
            self._wake()

    def _take_due(self) -> None:
        now = self.clock.now()
        due = self.state.next_due()
        if due is not None and due <= now:
            self._apply(TimePassed(), now)
        for name, reclaimer in self._reclaimers.items():
            due = reclaimer.next_due()
            if due is not None and due <= now:
                for key, notice in reclaimer.due(now):
                    self._reclaim(key, notice)
                self._follow_capacity(name, reclaimer, now)

    def _journal(self) -> None:
        burst = self._burst
        if not burst:
            return
        self._burst = Burst()
        self._unwritten.append(burst)
        if burst.entries or burst.rows:
            self._store.append(burst.batch(), lambda error: self.post(self._written, burst, error))
        else:
            self._written(burst, None)

    def _set_alarm(self) -> None:
        times = [self.state.next_due(), *(reclaimer.next_due() for reclaimer in self._reclaimers.values())]
        at = min((time for time in times if time is not None), default=None)
        if self._alarm is not None and at != self._alarm_at:
            self._alarm.cancel()
            self._alarm = None
        if at is not None and self._alarm is None and self._loop is not None:
            self._alarm_at = at
            self._alarm = self._loop.call_later(max(0.0, at - self.clock.now()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._turn()

    def _written(self, burst: Burst, error: BaseException | None) -> None:
        """The burst is durable: its effects may be seen, in the order of the bursts."""
        if error is not None:
            self._fail(error)
            return
        burst.durable = True
        while self._unwritten and self._unwritten[0].durable:
            self._carry_out(self._unwritten.popleft())

    def _fail(self, error: BaseException) -> None:
        """Nothing can be recorded (or trusted) any more: stop, and say so to everybody who waits."""
        if self._over is None:
            self._over = error
            self._unwritten.clear()
            self._answer_everybody(error)
            self._closing = [asyncio.ensure_future(engine.close()) for engine in self._engines.values()]

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
                    self._row(effect.run)  # type: ignore[union-attr]
        return refusal  # type: ignore[return-value]

    def _row(self, run: str) -> None:
        record = self.state.runs[run]
        self._burst.rows[run] = RunRow(
            run=run,
            task=record.task,
            queue=record.queue,
            phase=record.phase,
            submitted_at=record.submitted_at,
            ended_at=record.ended_at or None,
            actions=len(record.actions),
            command=record.command,
            entry=record.entry,
        )

    # -- facts ---------------------------------------------------------------------------------------------------

    def take_run(self, event: RunSubmitted, call: Call, origin: Origin | None, done: OnOutcome) -> None:
        """A program starts a run."""
        if self._over is not None:
            done(refused(event.run, ROOT_ACTION, "flyteish.errors.SessionClosedError", str(self._over)), None)
            return
        refusal = self._apply(event)
        if refusal is None:
            refusal = self._submit(event.run, None, 0, call, Waiting(None, 0, ROOT_ACTION, done, origin))
        if refusal is not None:
            self._burst.forget(event.run)
            done(refused(event.run, ROOT_ACTION, f"flyteish.errors.{refusal.error}", refusal.message), None)
            return
        self._row(event.run)

    def take_resume(self, state: State, run: str, origin: Origin | None, done: OnOutcome) -> None:
        """Take over a run whose controller died: ``state`` is its journal, replayed."""
        if self._over is not None:
            done(refused(run, ROOT_ACTION, "flyteish.errors.SessionClosedError", str(self._over)), None)
            return
        self.state.runs[run] = state.runs[run]
        self._desk.wait(run, Waiting(None, 0, ROOT_ACTION, done, origin))
        self._apply(ControllerRestarted(run))
        self._row(run)

    def take_call(self, link: AttemptLink, number: int, call: Call, origin: Origin, done: OnOutcome) -> None:
        """A running attempt calls a task."""
        key = link.key
        run = self.state.runs.get(key.run)
        if self._over is not None or run is None:
            error = self._over or f"run {key.run} is over"
            done(refused(key.run, "", "flyteish.errors.SessionClosedError", str(error)), None)
            return
        self._links.setdefault(key, link)
        action = lifecycle.child_identity(
            self.state, key.run, key.action, call.profile.task, call.digest, call.occurrence
        )
        waiting = Waiting(link, number, action, done, origin)
        refusal = self._submit(key.run, key.action, key.generation, call, waiting)
        if refusal is not None:
            done(refused(key.run, action, f"flyteish.errors.{refusal.error}", refusal.message), None)

    def _submit(
        self, run: str, parent: str | None, generation: int, call: Call, waiting: Waiting
    ) -> Refuse | None:
        profile, action = call.profile, waiting.action
        if profile.key not in self.state.runs[run].profiles:
            self._apply(TaskDeclared(run, profile))
        cached = None
        if profile.cache_version is not None:
            digest = call.cache_digest or call.digest
            cached = self._orders.cached(profile, digest)
            self._to_remember[run, action] = digest
        # The caller must be known before the core answers, which it may do in the same burst.
        self._desk.wait(run, waiting)
        event = ActionSubmitted(
            run, action, parent, generation, profile.key, call.inputs, call.digest, call.occurrence, call.group, cached
        )
        refusal = self._apply(event)
        if refusal is not None:
            self._desk.withdraw(run, waiting)
        return refusal

    def take_cancel(self, link: AttemptLink, number: int, reason: str) -> None:
        """A caller no longer waits."""
        waiting = link.calls.get(number) if link.calls is not None else None
        if waiting is not None:
            self._apply(CancelRequested(link.key.run, waiting.action, reason, by=str(link.key)))

    def take_abort(self, run: str, action: str, reason: str) -> None:
        """A person wants an action, or a run, ended."""
        self._apply(CancelRequested(run, action, reason))

    def take_report(self, event: AttemptRunning | AttemptNoticed | AttemptEnded, live: BaseException | None) -> None:
        """An engine tells how an attempt goes."""
        if type(event) is not AttemptEnded:
            self._apply(event)
            return
        key = AttemptKey(event.run, event.action, event.generation)
        link = self._links.pop(key, None)
        if link is not None:
            self._desk.hang_up(link)
        action = self.state.action(ActionKey(event.run, event.action))
        if action is None:
            return
        pool = action.attempts[-1].pool if action.attempts else ""
        if pool in self._reclaimers:
            self._reclaimers[pool].attempt_ended(key)
        self._apply(event)
        if live is not None and action.phase is Phase.FAILED and action.generation == event.generation:
            self._live[event.run, event.action] = live

    def take_checkpoint(self, key: AttemptKey, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        """A checkpoint is stored; it counts once it is journalled."""
        refusal = self._apply(CheckpointCommitted(key.run, key.action, key.generation, record))
        if refusal is not None:
            done(refusal.message)
        else:
            self._burst.orders.append(lambda: done(None))

    def take_traced(self, key: AttemptKey, name: str, result: Payload) -> None:
        """A traced helper returned."""
        self._apply(ValueTraced(key.run, key.action, key.generation, name, result))

    def take_fact(self, event: Event) -> None:
        """Any other fact, as it is."""
        self._apply(event)

    def take_queue_state(self, queue: str, state: str) -> None:
        """An operator holds, drains or activates a queue."""
        self._apply(QueueStateSet(queue, state))

    def take_question(
        self, ask: Callable[[State, float], T], answer: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Somebody wants to know something of the state as it is now."""
        try:
            answer(ask(self.state, self.clock.now()), None)
        except Exception as error:
            answer(None, error)

    # -- Reports, for the engines --------------------------------------------------------------------------------

    def report(self, event: AttemptRunning | AttemptNoticed | AttemptEnded, live: BaseException | None = None) -> None:
        self.post(self.take_report, event, live)

    def link(self, order: Order) -> AttemptLink:
        return AttemptLink(self, order.key)

    def origin(self, key: AttemptKey) -> Origin | None:
        return self._desk.origin(key.run, key.action)

    def log_path(self, key: AttemptKey) -> Path | None:
        return self._log_path(key)

    # -- orders --------------------------------------------------------------------------------------------------

    def _carry_out(self, burst: Burst) -> None:
        starts: dict[str, list[Order]] = {}
        for order in burst.orders:
            kind = type(order)
            if kind is StartAttempt:
                self._prepare(order, starts)
            elif kind is Deliver:
                self._deliver(order.action)
            elif kind is StopAttempt:
                self._engine(order.pool).stop(order.key, order.reason, self._stop_grace)
            elif kind is RunEnded:
                self.state.forget(order.run)
            elif kind is QueueDrained:
                self._on_drained(order.queue)
            else:
                order()
        for engine, orders in starts.items():
            self._engines[engine].start(orders)
        for run in burst.runs():
            self._on_change(run)

    def _prepare(self, start: StartAttempt, starts: dict[str, list[Order]]) -> None:
        action = start.action
        attempt = action.attempts[-1] if action.attempts else None
        if attempt is None or attempt.generation != start.generation:
            return
        engine = self._pools[start.pool].engine
        order = self._orders.order(action, attempt, trusted=engine == "inline")
        if isinstance(order, AttemptEnded):
            self.post(self.take_report, order, None)
            return
        if start.pool in self._reclaimers:
            self._reclaimers[start.pool].attempt_started(self.clock.now(), order.key)
        starts.setdefault(engine, []).append(order)

    def _deliver(self, action: Action) -> None:
        digest = self._to_remember.pop((action.run, action.id), None) if self._to_remember else None
        if digest is not None and action.phase is Phase.SUCCEEDED and not action.cached:
            # Beside the loop, for the store may be far away; the caller hears of it once a second call would hit.
            assert self._loop is not None
            self._loop.run_in_executor(None, self._orders.remember, action, digest).add_done_callback(
                lambda _: self._desk.answer(outcome_of(action), None)
            )
            return
        live = self._live.pop((action.run, action.id), None) if self._live else None
        self._desk.answer(outcome_of(action), live)

    def _engine(self, pool: str) -> Engine:
        return self._engines[self._pools[pool].engine]

    def _reclaim(self, key: AttemptKey, notice: Notice) -> None:
        action = self.state.action(ActionKey(key.run, key.action))
        if action is not None and action.attempts and action.attempts[-1].generation == key.generation:
            self._engine(action.attempts[-1].pool).reclaim(key, notice)

    def _follow_capacity(self, pool: str, reclaimer: Reclaimer, now: float) -> None:
        assert self.state.books is not None
        available = reclaimer.capacity(now)
        if available != self.state.books.pools[pool].available:
            self._apply(PoolCapacityChanged(pool, available, "the pool's market"), now)
