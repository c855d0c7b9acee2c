"""What the controller does with each kind of fact: mostly, it tells the core, and remembers who waits for the answer.

Must not decide: what follows is the core's to say, and it comes back as orders in the burst. Must not know how facts
get here, nor how bursts become durable.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import msgspec

from flyteish._controller.callers import Caller, Callers, Waiting
from flyteish._controller.core_driver import CoreDriver
from flyteish._controller.facts import (
    Asked,
    CallCancelled,
    CallLeft,
    CallMade,
    Fact,
    Happened,
    LookedUp,
    OrderMade,
    Reported,
    RunFoundEnded,
    RunStarted,
)
from flyteish._controller.look_ups import LookUps
from flyteish._controller.outcomes import row_of, type_name
from flyteish._controller.performer import Performer
from flyteish._controller.result_cache import ResultCache
from flyteish._controller.tokens import digest_of
from flyteish._core import lifecycle
from flyteish._core.model.effects import Deliver, Refuse
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    AttemptOrdered,
    AttemptPlaced,
    AttemptRunning,
    CancelRequested,
    Evidence,
    TaskDeclared,
)
from flyteish._core.model.ids import ROOT_ACTION, ActionKey, AttemptKey
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, End, Phase
from flyteish._core.model.values import Payload
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish.interfaces import Call, Clock, OnJournalled, Outcome
from flyteish.markets.followed import Markets


class FactHandlers:
    """One for each controller; used on its thread only."""

    def __init__(
        self,
        *,
        core: CoreDriver,
        callers: Callers,
        performer: Performer,
        cache: ResultCache,
        markets: Markets,
        lifetimes: Lifetimes,
        clock: Clock,
        post: Callable[[Fact], None],
    ) -> None:
        self._core = core
        self._callers = callers
        self._performer = performer
        self._cache = cache
        self._markets = markets
        self._lifetimes = lifetimes
        self._clock = clock
        self._look_ups = LookUps(cache, post)
        self._calling: dict[AttemptKey, Caller] = {}
        """Attempts that have called something."""
        self._unconfirmed: set[_Confirmation] = set()

    def table(self) -> Mapping[type[Fact], Callable[[Any], None]]:
        """What is done with each kind."""
        return {
            RunStarted: self._run_started,
            RunFoundEnded: self._run_found_ended,
            CallMade: self._call_made,
            CallCancelled: self._call_cancelled,
            CallLeft: self._call_left,
            OrderMade: self._order_made,
            Reported: self._reported,
            Happened: self._happened,
            Asked: self._asked,
            LookedUp: self._looked_up,
        }

    # -- runs --------------------------------------------------------------------------------------------------------

    def _run_started(self, fact: RunStarted) -> None:
        if not self._look_ups.hold(fact.event.run, fact, fact.call):
            self._start_run(fact, None)

    def _start_run(self, fact: RunStarted, cached: Payload | None) -> None:
        event, waiting = fact.event, fact.waiting
        refusal = self._core.apply(event)
        if refusal is None:
            refusal = self._submit(event.run, None, 0, fact.call, waiting, cached)
        if refusal is not None:
            self._core.burst.forget(event.run)
            waiting.tell(Outcome.refused(event.run, ROOT_ACTION, f"flyteish.errors.{refusal.error}", refusal.message))
            return
        self._core.glance(event.run)

    def _run_found_ended(self, fact: RunFoundEnded) -> None:
        if fact.record.id not in self._core.state.runs:
            self._core.burst.rows[fact.record.id] = row_of(fact.record)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _call_made(self, fact: CallMade) -> None:
        call, look_ups = fact.call, self._look_ups
        cacheable = call.profile.cache_version is not None or look_ups.waiting
        if not cacheable or not look_ups.hold(fact.caller.key, fact, call):
            self._make_call(fact, None)

    def _make_call(self, fact: CallMade, cached: Payload | None) -> None:
        caller, waiting, call = fact.caller, fact.waiting, fact.call
        key = caller.key
        if key.run not in self._core.state.runs:
            waiting.tell(Outcome.refused(key.run, "", "flyteish.errors.StaleAttemptError", f"run {key.run} is over"))
            return
        waiting.action = lifecycle.child_identity(
            self._core.state, key.run, key.action, call.profile.task, call.digest, call.occurrence
        )
        refusal = self._submit(key.run, key.action, key.generation, call, waiting, cached)
        if refusal is not None:
            waiting.tell(Outcome.refused(key.run, waiting.action, f"flyteish.errors.{refusal.error}", refusal.message))
        else:
            self._calling.setdefault(key, caller)

    def _submit(
        self, run: str, parent: str | None, generation: int, call: Call, waiting: Waiting, cached: Payload | None
    ) -> Refuse | None:
        profile, action = call.profile, waiting.action
        if profile.key not in self._core.state.runs[run].profiles:
            self._core.apply(TaskDeclared(run, profile))
        if profile.cache_version is not None:
            self._cache.wanted[run, action] = call.cache_digest or call.digest
        # The caller must be known before the core answers, which it may do in the same burst.
        self._callers.wait(run, waiting)
        event = ActionSubmitted(
            run, action, parent, generation, profile.key, call.inputs, call.digest, call.occurrence, call.group, cached
        )
        refusal = self._core.apply(event)
        if refusal is not None:
            self._callers.withdraw(run, waiting)
            self._cache.wanted.pop((run, action), None)
        return refusal

    def _call_cancelled(self, fact: CallCancelled) -> None:
        if self._look_ups.waiting and self._withdrawn(fact.caller, fact.number, fact.reason):
            return
        caller = fact.caller
        waiting = caller.calls.get(fact.number) if caller.calls is not None else None
        if waiting is not None:
            key = caller.key
            self._core.apply(CancelRequested(key.run, waiting.action, fact.reason, by=str(key)))

    def _call_left(self, fact: CallLeft) -> None:
        if self._look_ups.waiting and self._withdrawn(fact.caller, fact.number, fact.reason):
            return
        caller = fact.caller
        waiting = caller.calls.pop(fact.number, None) if caller.calls is not None else None
        if waiting is not None:
            why = f"the event loop of its program ends: {fact.reason}"
            waiting.tell(Outcome.refused(caller.key.run, waiting.action, "flyteish.errors.StaleAttemptError", why))

    def _withdrawn(self, caller: Caller, number: int, why: str) -> bool:
        """Whether the call was still waiting for the cache: then it was never made."""
        call = self._look_ups.withdraw(caller.key, number)
        if call is None:
            return False
        call.waiting.tell(Outcome.refused(caller.key.run, "", "flyteish.errors.StaleAttemptError", why))
        self._take_ready(caller.key)
        return True

    def _looked_up(self, fact: LookedUp) -> None:
        self._take_ready(fact.who)

    def _take_ready(self, who: Hashable) -> None:
        for held, cached in self._look_ups.ready(who):
            if isinstance(held, RunStarted):
                self._start_run(held, cached)
            elif isinstance(held, CallMade):
                self._make_call(held, cached)
            elif isinstance(held, Happened):
                self._tell(held)

    # -- attempts ----------------------------------------------------------------------------------------------------

    def _order_made(self, fact: OrderMade) -> None:
        order = fact.order
        key = order.key
        action = self._core.state.action(ActionKey(key.run, key.action))
        attempt = action.attempts[-1] if action is not None and action.attempts else None
        if action is None or attempt is None or action.generation != key.generation:
            return
        if attempt.stop or attempt.moving or action.phase not in WITH_ATTEMPT:
            # It was told to end before its engine knew it, so that the engine will never speak of it.
            why = Evidence(reclaimed="moved before it began") if attempt.moving else Evidence(stopped=True)
            self._ended(AttemptEnded(*key, why))
            return
        self._core.apply(AttemptOrdered(*key, digest_of(order.token)))
        self._core.burst.orders.append(order)

    def _reported(self, fact: Reported) -> None:
        event = fact.event
        if type(event) is AttemptEnded:
            self._ended(event)
        elif type(event) is AttemptPlaced or type(event) is AttemptRunning:
            self._begins(event)
        else:
            self._core.apply(event)
        if fact.done is not None:
            self._when_durable(fact.done)

    def _begins(self, event: AttemptPlaced | AttemptRunning) -> None:
        action = self._core.state.action(ActionKey(event.run, event.action))
        waited = action is not None and action.parent is None and action.waits_for_machine
        self._core.apply(event)
        if waited and action is not None and not action.waits_for_machine:
            self._core.glance(event.run)  # it was sent ahead, and is not queued any more

    def _ended(self, event: AttemptEnded) -> None:
        key = AttemptKey(event.run, event.action, event.generation)
        self._markets.ended(key)
        if key in self._calling:
            self._hang_up(self._calling.pop(key))
        action = self._core.state.action(ActionKey(event.run, event.action))
        if action is None:
            self._callers.spare(key)
            return
        attempt = action.attempts[-1] if action.attempts else None
        if event.evidence.result is None:  # what failed may have to wait, and what failed together not as long
            event = msgspec.structs.replace(event, chance=self._clock.chance())
        self._core.apply(event)
        if attempt is not None and attempt.generation == event.generation and attempt.placed_at:
            over = attempt.ended_at or self._clock.now()
            self._lifetimes.saw(attempt.pool, over - attempt.placed_at, reclaimed=attempt.end is End.PREEMPTED)
        if action.phase is not Phase.FAILED or action.generation != event.generation:
            self._callers.spare(key)

    def _hang_up(self, caller: Caller) -> None:
        for name in self._callers.hang_up(caller):
            action = self._core.state.action(ActionKey(caller.key.run, name))
            if action is not None and action.phase in TERMINAL:
                # The core held its outcome back until the caller had its place again, which now never happens. As any
                # other it is told once it is durable: the action may have ended in this very burst.
                self._core.burst.orders.append(Deliver(action))

    # -- all else ----------------------------------------------------------------------------------------------------

    def _happened(self, fact: Happened) -> None:
        event, look_ups = fact.event, self._look_ups
        if not (look_ups.waiting and isinstance(event, CancelRequested) and look_ups.hold(event.run, fact)):
            self._tell(fact)

    def _tell(self, fact: Happened) -> None:
        refusal = self._core.apply(fact.event)
        if fact.done is None:
            return
        if refusal is not None:
            fact.done(refusal.message)
        else:
            self._when_durable(fact.done)

    def _when_durable(self, done: OnJournalled) -> None:
        self._core.burst.orders.append(_Confirmation(self._unconfirmed, done))

    def _asked(self, fact: Asked) -> None:
        try:
            found = fact.question(self._core.state, self._clock.now())
        except Exception as error:
            fact.answer(None, error)
        else:
            fact.answer(found, None)

    # -- the end -----------------------------------------------------------------------------------------------------

    def answer_everybody(self, why: BaseException) -> None:
        """The controller ends: nobody is left waiting."""
        self._look_ups.reject_all(why)
        name, error = type_name(why), str(why)
        for run, action, waiting in self._callers.everyone():
            waiting.tell(Outcome.refused(run, action, name, f"{error} (continue with: flyteish resume {run})"))
        unconfirmed = list(self._unconfirmed)
        self._unconfirmed.clear()
        for each in unconfirmed:
            each.done(error)


class _Confirmation:
    """Somebody who waits for an event to be durable: an order of the burst that has it."""

    __slots__ = ("_all", "done")

    def __init__(self, everybody: set[_Confirmation], done: OnJournalled) -> None:
        self._all = everybody
        self.done = done
        everybody.add(self)

    def __call__(self) -> None:
        self._all.discard(self)
        self.done(None)
