"""The world of a simulated history: the core's ``World`` with a longer memory, crashes at any instruction, and a log.

It keeps the promises that need a memory (no checkpoint is lost, a zombie changes nothing, nobody waits without a
reason and a timer), and counts what really happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec

from flyteish._core.lifecycle import apply, replay
from flyteish._core.model.effects import (
    Deliver,
    Effect,
    QueueDrained,
    Record,
    Refuse,
    RelocateAttempt,
    RunEnded,
    StartAttempt,
    StopAttempt,
)
from flyteish._core.model.events import (
    AttemptEnded,
    CheckpointCommitted,
    Configured,
    Entry,
    Event,
    LimitReached,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    TimePassed,
    ValueTraced,
)
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.records import CHAIN_KEPT, TERMINAL, WITH_ATTEMPT, Action, End, Phase
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish._core.state import ReplayState, State
from flyteish._core.story import why
from tests.core.world import World, facts_of
from tests.histories import ends, promises

_WAITS = (Phase.ENTERING, Phase.QUEUED, Phase.BACKING_OFF, Phase.PARKED, Phase.RETURNING)
_ENCODE, _DECODE = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Entry)


_FEW_TIMERS = 6
"""So that the core tidies its timers up in small histories too."""


class Crashed(Exception):  # noqa: N818 - no error: the controller was killed, as the history says
    """The controller died inside an event: the event is neither recorded nor carried out."""


class Told:
    """A line of the log: when, what the core was told, what it ordered, and what an attempt's end counted as."""

    def __init__(self, at: float, event: Event) -> None:
        self.at, self.event = at, event
        self.effects: list[Effect] = []
        self.outcome = ""


class Watched(World):
    """A world that remembers more."""

    def __init__(self, config: Configured) -> None:
        super().__init__(config.queues, config.pools)
        self.counts: Counter[str] = Counter()
        self.log: list[Told] | None = None
        self.dies_inside = False
        self.behind = 0.0
        """By how much clocks of later controllers were behind those before them, all together."""
        self.every = 0
        """Which attempts outlive that: see ``outliving``."""
        self.how = self.where = ""
        """The name of the way in which an attempt is ending, and its pool, while it is told."""
        self.earliest: dict[ActionKey, float] = {}
        """Until when an action backs off."""
        self.cooling: dict[str, float] = {}
        self.had_capacity: dict[str, float] = {}
        """When a pool's market last said that it has some."""
        self.chains: dict[ActionKey, list[CheckpointRecord]] = {}
        self.traces: dict[ActionKey, dict[str, Payload]] = {}
        self.orders: dict[str, str] = {}
        """Queue states that operators have set: kept outside the core, and told again to the next controller."""
        self.available: dict[str, int | None] = {}
        self.prices: dict[str, float] = {}
        self._read: list[Entry] = []
        """The journal, as far as it was written and read back."""

    # -- telling the core --------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> list[Effect]:
        if self.dies_inside and type(event) is not TimePassed:
            self.dies_inside = False
            apply(self.state, event, self.now)
            if self.log is not None:
                self.log.append(Told(self.now, event))
                self.log[-1].outcome = "but the controller died before it was recorded"
            raise Crashed
        if self.log is not None:
            self.log.append(Told(self.now, event))
        self.state._compact_at = _FEW_TIMERS
        before = promises.look(self.state, event, self.now)
        spoken_for = self._spoken_for(event)
        effects = super().tell(event)
        promises.check(self, event, before, effects)
        self._after(event, before, spoken_for, effects)
        self._check_waiting()
        self._count(event, effects)
        return effects

    def _carry_out(self, effect: Effect) -> None:
        if self.log:
            self.log[-1].effects.append(effect)
        super()._carry_out(effect)

    def _spoken_for(self, event: Event) -> tuple[Action, Any] | None:
        """The action that an attempt speaks for, and its facts if the attempt was given up, or never was."""
        generation = getattr(event, "generation", 0)
        if not generation:
            return None
        action = self.state.action(ActionKey(event.run, event.action))  # type: ignore[union-attr]
        if action is None:
            return None
        current = action.phase in WITH_ATTEMPT and action.generation == generation
        due = self.state.next_due()
        fresh = due is None or due > self.now
        return action, None if current or not fresh else facts_of(action)

    def _after(
        self, event: Event, before: promises.Before, spoken_for: tuple[Action, Any] | None, effects: list[Effect]
    ) -> None:
        for each in effects if type(event) is TimePassed else ():
            fact = each.event if type(each) is Record else None
            if type(fact) is LimitReached and fact.limit == "max_spot_wait":
                promises.check_stock_out(self, fact)
        if spoken_for is not None and spoken_for[1] is not None:
            self._check_zombie(event, *spoken_for, effects)
            self.counts["zombies"] += 1
        elif spoken_for is not None and any(type(each) is Record and each.event is event for each in effects):
            action = spoken_for[0]
            if type(event) is AttemptEnded and self.how:
                self._judge(action, event, before)
            elif type(event) is CheckpointCommitted:
                self.chains.setdefault(action.key, []).append(event.record)
            elif type(event) is ValueTraced:
                self.traces.setdefault(action.key, {})[event.key] = event.result

    def _check_zombie(self, event: Event, action: Action, facts: Any, effects: list[Effect]) -> None:
        """It may free a place, in which somebody starts; about its action nothing changes."""
        recorded = [each.event for each in effects if type(each) is Record and each.event is event]
        assert not recorded, f"what attempt {action.key}#{event.generation} said counted, though it was given up"  # type: ignore[union-attr]
        started = any(type(each) is StartAttempt and each.action is action for each in effects)
        assert started or facts_of(action) == facts, "an attempt that was given up changed its action"

    def _judge(self, action: Action, event: AttemptEnded, before: promises.Before) -> None:
        """Who pays, by the specification's table; and what is owed until the next try."""
        index = next((n for n, each in enumerate(action.attempts) if each.generation == event.generation), None)
        if index is None:
            assert ends.ENDS[self.how].evidence.denied is not None, "an attempt is gone from the record"
            self.cooling[self.where] = self.now + self.state.capacity.pools[self.where].config.cooldown
            self.counts["end no capacity"] += 1
            self._say("it never started, and nobody pays")
            expired = action.generation > event.generation  # and began another wait, in the same moment
            assert action.queued_at == before.queued_at or expired, "a vain try begins the wait anew"
            return
        attempt = action.attempts[index]
        self._say(f"{attempt.end}, charged to {attempt.charged or 'nobody'}")
        stop = attempt.stop if attempt.stop != "deadline" else ""
        if stop == "max_queued_time" and attempt.placed_at and not event.evidence.stopped:
            stop = ""  # it had its machine in time, which was not known yet
        end = ends.expected(self.how, attempt.notice, stop, attempt.moving)
        error = event.evidence.error if end in (End.USER_ERROR, End.OUT_OF_MEMORY) else None
        follows = promises.check_payment(action, attempt, end, error.bases if error is not None else (), before)
        if follows == "at the head":
            promises.check_head(self, action)
        elif follows == "delayed":
            self.earliest[action.key] = self.now + promises.delay_of(action, end, before, event.chance)
        self.counts[f"end {end}"] += 1

    def _say(self, outcome: str) -> None:
        if self.log:
            self.log[-1].outcome = outcome

    # -- what must hold all the time ---------------------------------------------------------------------------------

    def _check_waiting(self) -> None:
        """Nobody waits without a reason, a limit in time without its timer, or anything longer than it may."""
        promises.check_lines(self)
        timers: promises.Timers = {}
        for timer in sorted(self.state.timers, reverse=True):
            timers[timer.kind, timer.key, timer.guard] = timer.at  # the earliest of each
        for run in self.state.runs.values():
            for action in run.actions.values():
                if action.phase not in TERMINAL:
                    self._check_limits(action, timers)
                    if action.phase in _WAITS or action.waits_for_machine:
                        reason = self.state.admission.reason(action, self.now)
                        assert reason is not None, f"{action!r} waits without a reason"
                        self.counts[f"reason {reason[0]}"] += 1
                        if action.stands == "line":
                            self.counts[f"rule {action.rule}"] += 1
                    elif action.phase is Phase.DORMANT:
                        assert action.parent is not None, f"{action!r}: a root sleeps"
                        caller = run.actions[action.parent]
                        lives = caller.phase in WITH_ATTEMPT and caller.generation == action.awaited_by
                        assert not lives, f"{action!r} sleeps, and its caller waits for it"
                chain = self.chains.get(action.key)
                assert list(action.checkpoints) == (chain or [])[-CHAIN_KEPT:], f"{action!r}: a checkpoint was lost"
                traced = self.traces.get(action.key, {})
                assert (action.traced or {}) == traced, f"{action!r}: a traced value was lost"

    def _check_limits(self, action: Action, timers: promises.Timers) -> None:
        limits, key = action.profile.settings.timeout, action.key
        promises.check_medium_of_wait(self, action, timers)
        if action.phase is Phase.BACKING_OFF:
            assert ("backoff", key, action.wait) in timers, f"{action!r} backs off for ever"
        if limits.deadline is not None:
            assert any(kind == "deadline" and other == key for kind, other, _ in timers), f"{action!r}: no deadline"
        if limits.max_queued_time is not None and action.phase in (Phase.ENTERING, Phase.QUEUED):
            ends_at = action.queued_at + float(limits.max_queued_time)  # type: ignore[arg-type]
            assert self.now < ends_at, f"{action!r} waits longer than max_queued_time"
            assert ("max_queued_time", key, action.wait) in timers, f"{action!r}: nobody watches its max_queued_time"
        attempt = action.current
        if limits.max_queued_time is not None and action.waits_for_machine and attempt is not None and not attempt.stop:
            ends_at = attempt.queued_at + float(limits.max_queued_time)  # type: ignore[arg-type]
            assert self.now < ends_at, f"{action!r} waits for a machine longer than max_queued_time"
            assert ("max_queued_time", key, action.wait) in timers, f"{action!r}: nobody watches its max_queued_time"
        if limits.max_runtime is not None and attempt is not None and attempt.running_at and not attempt.stop:
            ends_at = attempt.running_at + float(limits.max_runtime)  # type: ignore[arg-type]
            assert self.now < ends_at, f"{action!r} runs longer than max_runtime"

    def _count(self, event: Event, effects: list[Effect]) -> None:
        counts = self.counts
        counts[f"event {type(event).__name__}"] += 1
        for effect in effects:
            if type(effect) is Record:
                counts[f"record {type(effect.event).__name__}"] += 1
                limit = getattr(effect.event, "limit", "")
                if limit:
                    counts[f"limit {limit}"] += 1
            elif type(effect) is StartAttempt:
                counts[f"rule {effect.action.attempts[-1].rule}"] += 1
                counts[f"medium {effect.medium}"] += 1
            elif type(effect) is RelocateAttempt:
                counts["moves ordered"] += 1
            elif type(effect) is StopAttempt:
                counts[f"stop {effect.reason}"] += 1
            elif type(effect) is Refuse:
                counts[f"refusal {effect.error}"] += 1
            elif type(effect) is Deliver:
                counts[f"outcome {effect.action.phase}"] += 1
            elif type(effect) is RunEnded:
                counts[f"run {effect.phase}"] += 1
            elif type(effect) is QueueDrained:
                counts["queue drained"] += 1

    # -- what may happen ---------------------------------------------------------------------------------------------

    def end_as(self, key: AttemptKey, how: str, chance: float) -> None:
        """A live attempt ends in one of the ways of ``ends.ENDS``."""
        self.how, self.where = how, self.live[key].pool
        try:
            self.end(key, ends.ENDS[how].evidence, chance)
        finally:
            self.how = self.where = ""

    def set_queue(self, queue: str, state: str) -> None:
        if queue in self.state.capacity.queues:
            self.orders[queue] = state
        self.tell(QueueStateSet(queue, state))

    def set_capacity(self, pool: str, available: int | None) -> None:
        self.available[pool] = available
        if available != 0:
            self.had_capacity[pool] = self.now
        self.tell(PoolCapacityChanged(pool, available))

    def set_price(self, pool: str, dollars: float) -> None:
        """Its source says another price; what runs may cost more than a ``spend_limit`` from then on."""
        self.prices[pool] = dollars
        self.tell(PoolPriceChanged(pool, dollars))

    def sleep(self, seconds: float) -> None:
        """The controller's machine stands still: what was due meanwhile is taken in late, all at once."""
        self.now += seconds
        overdue = [a for run in self.state.runs.values() for a in run.actions.values() if a.phase not in TERMINAL]
        self.late |= {a.key for a in overdue if a.deadline_at is not None and a.deadline_at <= self.now}
        self.tell(TimePassed())

    def restart(self, survivors: Collection[AttemptKey] = (), inside: bool = False) -> None:
        """The controller dies, between two events or ``inside`` one, and another one takes over."""
        if not inside:
            self.check_replay()
        self.earliest.clear()
        self.cooling.clear()
        self.counts["attempts that outlived a controller"] += len(survivors)
        super().restart(survivors)

    def outliving(self, every: int) -> list[AttemptKey]:
        """Each so manyth of the live attempts; 0: none."""
        return [key for n, key in enumerate(self.live, start=1) if every and n % every == 0]

    def take_orders(self) -> None:
        for queue, state in self.orders.items():
            self.tell(QueueStateSet(queue, state))
        for pool, available in self.available.items():
            self.tell(PoolCapacityChanged(pool, available))
        for pool, dollars in self.prices.items():
            self.tell(PoolPriceChanged(pool, dollars))

    def fold(self) -> State:
        """The journal, read back as it was written."""
        for at, event in self.journal[len(self._read) :]:
            self._read.append(_DECODE.decode(_ENCODE.encode(Entry(at, event))))
        state = ReplayState()
        for entry in self._read:
            state = replay(state, entry.event, entry.at)
        return state

    def settle(self) -> None:
        for pool in self.config.pools:  # what has become too dear waits until it is not
            if pool.name in self.prices:
                self.tell(PoolPriceChanged(pool.name, pool.fixed_price or 0.0))
        super().settle()
        for run in self.state.runs.values():
            assert run.id in self.over or not run.root, f"run {run.id} was never said to be over"
            assert not run.root or run.ended_at, f"run {run.id} does not end"
            for action in run.actions.values():
                assert why(action, self.now), "a story without a line"
