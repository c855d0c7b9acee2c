"""Who may start now, and where: queues, pools, and a typed reason for everyone who must wait.

**Before this.** Every waiting action stands in exactly one line of its queue: that for the *medium* which
``placement`` chose for its next attempt (and, where smaller work may pass, for its size). ``waiting_lines`` keeps the
order in a line: priority, then the preempted, then runs in turn. ``capacity`` keeps what is taken. So this needs to
look at heads only.

**What starts a decision.** Looking at all lines after each event would cost as much as there are queues and waiting
work. Instead whoever changes something marks it: a queue is *dirty* when somebody lined up or it has more room, a
pool is *freed* when a place in it is. ``starts`` works the marks off until there are none. With nobody waiting
anywhere (``eager`` is 0) the marks are thrown away: that is every end in a system with room for all.

* A freed pool is offered around: first to parents that want back in there, then to the queues that it feeds, by their
  priority, those of equal priority in turn, one action each, until it is full or nobody wants it.
* A dirty queue starts what it can, and several dirty queues do so in order of priority, equals in turn, one each.

**One start** passes two doors. The queue's own limits (``action_concurrency``, ``max_resources``, held by an
operator, ...) are asked first, since they hold wherever it would run. Then the pools of its medium are tried in the
queue's order of preference, those with a bad record last (``pool_health``); each may be full, cooling after a
stock-out, or too dear. The first that takes it gets it. What is named as a start has left its line and holds its
place before the next one is looked at, so no limit is ever overrun by a batch.

**Nobody passes.** If the queue itself refuses a head, whoever comes after it in that queue must not start either, or
a large action would wait for ever: ``strict_fifo``. Under ``greedy_capacity`` each size has a line of its own, and
sizes that fit may go on. A head that only its pools refuse does not hold back the other lines: those are for other
media.

**Parents go first.** A parent whose children are done needs a place to go on, in the very pool where its attempt is.
It is tried before any new start, in its queue and in its pool: new work that could take its place *stands back* for
it (``RETURNING_FIRST``), unless something else than the pool keeps the parent out. Where nothing else runs, a parent
always goes on, whatever the limits have been tightened to meanwhile: it can wait for nobody. With ``parked`` parents
holding no place, this is why waiting never deadlocks.

**Questions change nothing.** ``reason`` runs the same checks for one action and says which of them fails, for ``why``
and the snapshot; what ``starts`` writes, it writes itself. The cost of a decision is that of the heads of a queue's
lines and of its pools: a million who wait behind them cost nothing but the logarithm in their line.

Must not know attempts' histories: which medium an action wants was settled before it lined up (spec: queues).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import msgspec

from flyteish._core.model.events import RunSubmitted
from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import Action, Phase
from flyteish._core.model.resources import NO_AMOUNTS
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.pool_health import PoolMemory, passed_over
from flyteish._core.scheduling.queue_state import PoolState, QueueState, Reason
from flyteish._core.scheduling.submission_checks import Refusal, check_run, check_submission
from flyteish._core.scheduling.waiting_lines import WaitingLine


class Start(msgspec.Struct, frozen=True, gc=False):
    """Admission's word: this action starts (or goes on) in this pool."""

    action: Action
    pool: PoolState
    returning: bool
    why: str = ""
    """Why not in a pool that comes before it in the queue's order of preference and has room, where there is one."""


class Admission:
    """Lets actions start or go on, one place at a time, as far as the limits of queues and pools allow."""

    __slots__ = ("_stood_back", "capacity")

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._stood_back: dict[str, None] = {}
        """Queues in which somebody may have stood back for another queue's returning parent."""

    # -- what is refused at the door ----------------------------------------------------------------------------

    def refuses_run(self, event: RunSubmitted) -> Refusal | None:
        """Why a run may not begin; None: it may."""
        return check_run(self.capacity, event)

    def refuses(self, action: Action) -> Refusal | None:
        """Why an action may not enter its queue; None: it may."""
        return check_submission(self.capacity, action)

    # -- who starts ---------------------------------------------------------------------------------------------

    def starts(self, now: float) -> list[Start]:
        """Everyone who may start now, in order; each is out of its line and holds its place when it is named."""
        found: list[Start] = []
        capacity = self.capacity
        while capacity.freed or capacity.dirty:
            freed, dirty = capacity.freed, capacity.dirty
            capacity.freed, capacity.dirty = {}, {}
            if capacity.eager:
                before = len(found)
                self._one_round(freed, dirty, now, found)
                if self._stood_back and len(found) > before:
                    # Whoever stood back for a returning parent may find that it has gone on, or can't.
                    capacity.dirty.update(self._stood_back)
                    self._stood_back = {}
        return found

    def _one_round(self, freed: dict[str, None], dirty: dict[str, None], now: float, found: list[Start]) -> None:
        known, pools = self.capacity.queues, self.capacity.pools
        for name in freed:
            self._into_pool(pools[name], now, found)
        queues = [each for name in dirty if (each := known.get(name)) and (each.waiting or each.returners)]
        if len(queues) == 1:
            queue = queues[0]
            while (queue.waiting or queue.returners) and self._start_one(queue, now, found):
                pass
        elif queues:
            queues.sort(key=lambda queue: -queue.config.priority)
            for _, equals in groupby(queues, key=lambda queue: queue.config.priority):
                turn = list(equals)
                while turn:
                    turn = [queue for queue in turn if self._start_one(queue, now, found)]

    def _into_pool(self, pool: PoolState, now: float, found: list[Start]) -> None:
        """Give freed places away: to returning parents first, then by the queues' priority, equals in turn."""
        if pool.returners:
            for queue in self.capacity.queues.values():
                while queue.returners and self._return_one(queue, found):
                    pass
        going = True
        while going and pool.refusal(NO_AMOUNTS, now) is None:
            going = False
            for place, queue in enumerate(pool.feeders):
                if queue.waiting and self._start_one(queue, now, found):
                    pool.served(place)
                    if queue.config.spot_share < 1:
                        self.capacity.touch(queue.config.name)  # its share is used up now, which opens other pools
                    going = True
                    break

    def _start_one(self, queue: QueueState, now: float, found: list[Start]) -> bool:
        """Let one action of this queue start or go on; False: none may."""
        if queue.returners and self._return_one(queue, found):
            return True
        if not queue.waiting:
            return False
        for line, action in queue.heads():
            refused = queue.refusal(action)
            if refused is None:
                last = _to_be_tried_last(queue, action, now) if len(queue.spot) > 1 else ()
                pool = self._pool_for(queue, action, now, last)
                if type(pool) is PoolState:
                    why = ""
                    if len(queue.spot) > 1 and action.wanted == SPOT:
                        queue.passed_over = last
                        if last:
                            why = self._why_not_before(queue, pool, action, now)
                    line.pop()
                    self.capacity.admit(action, queue, pool)
                    found.append(Start(action, pool, False, why))
                    return True
                for each in queue.pools:
                    if each.returners:
                        self._stood_back[queue.config.name] = None
                        break
                refused = Reason.SPEND_LIMIT if pool is Reason.SPEND_LIMIT else None
            # The queue itself refuses this head: whoever comes after it would pass it.
            if refused is not None:
                strict = queue.config.scheduling == "strict_fifo"
                if strict or refused not in (Reason.RESOURCES, Reason.SPEND_LIMIT):
                    return False
        return False

    def _return_one(self, queue: QueueState, found: list[Start]) -> bool:
        for name in queue.returning:
            action = queue.next_back(name)
            pool = self.capacity.pools[name]
            if action is None or queue.no_way_back(action, pool):
                continue
            if pool.no_way_back(action.profile.settings.amounts):
                continue
            self.capacity.leave_returning(action, queue, pool)
            self.capacity.occupy(action, pool)
            found.append(Start(action, pool, True))
            return True
        return False

    # -- where: questions, which change nothing -----------------------------------------------------------------

    def _pool_for(
        self, queue: QueueState, action: Action, now: float, last: Sequence[PoolMemory]
    ) -> PoolState | Reason:
        """The first pool that takes it, in the queue's order but ``last`` at the end, or why none does."""
        pools: Sequence[PoolState] = queue.on_demand
        if action.wanted == SPOT:
            pools = queue.spot
            if queue.config.spot_share < 1:
                policy = action.profile.settings.interruptible
                only_spot = policy is not None and policy.fallback == "never"
                if queue.spot_share_reached(only_spot):
                    if only_spot or not queue.on_demand:
                        return Reason.SPOT_SHARE
                    pools = queue.on_demand
        if queue.config.spend_limit and pools:
            pools = [pool for pool in pools if not queue.too_dear(pool)]
            if not pools:
                return Reason.SPEND_LIMIT
        if last:
            pools = _in_turn(pools, last)
        amounts = action.profile.settings.amounts
        refused: Reason | None = None
        for pool in pools:
            reason = pool.refusal(amounts, now)
            if reason is None and pool.returners and self._is_claimed(pool):
                reason = Reason.RETURNING_FIRST
            if reason is None:
                return pool
            refused = refused or reason
        return refused or Reason.NO_CAPACITY

    def _why_not_before(self, queue: QueueState, chosen: PoolState, action: Action, now: float) -> str:
        """Which pool comes before ``chosen``, could have taken the action and was passed over, and what for."""
        if chosen not in queue.spot:
            return ""
        for pool in queue.spot[: queue.spot.index(chosen)]:
            if pool.memory in queue.passed_over and not queue.too_dear(pool):
                free = pool.refusal(action.profile.settings.amounts, now) is None
                if free and not (pool.returners and self._is_claimed(pool)):
                    return f"pool {chosen.config.name} before {pool.config.name}: {pool.memory.words(now)}"
        return ""

    def _is_claimed(self, pool: PoolState) -> bool:
        """Whether a parent waits for its place back in this pool, and nothing but the pool keeps it."""
        queues = (queue for queue in self.capacity.queues.values() if queue.returners)
        firsts = ((queue, queue.first_back(pool.config.name)) for queue in queues)
        return any(first is not None and not queue.no_way_back(first, pool) for queue, first in firsts)

    def reason(self, action: Action, now: float) -> tuple[Reason, int] | None:
        """Why an action does not run, and its place among those who wait with it (from 1; 0: it has none)."""
        if action.phase in _BY_PHASE:
            return _BY_PHASE[action.phase], 0
        if action.waits_for_machine:
            return Reason.SENT_AHEAD, 0
        queue = self.capacity.queues.get(action.profile.settings.queue)
        if queue is None or not action.ticket:
            return None
        match action.stands:
            case "door":
                return Reason.DEPTH, _place(action, queue.door)
            case "hold":
                limit = queue.config.run_concurrency
                over = Reason.RUN_CONCURRENCY if limit and queue.active_runs >= limit else Reason.DEPTH
                return over, _place(action, queue.hold)
            case "overlap":
                return Reason.OVERLAP, 0
            case "return":
                pool = self.capacity.pools[action.attempts[-1].pool]
                refused = queue.no_way_back(action, pool) or pool.no_way_back(action.profile.settings.amounts)
                waiting = [other for ticket, other in queue.returning[pool.config.name] if other.ticket == ticket]
                return refused or Reason.RETURNING_FIRST, waiting.index(action) + 1
        last = _to_be_tried_last(queue, action, now)
        verdict = queue.refusal(action) or self._pool_for(queue, action, now, last)
        blocked = verdict if isinstance(verdict, Reason) else Reason.BEHIND_OTHERS
        return blocked, _place(action, queue.lines[queue.line_key(action)])


def _to_be_tried_last(queue: QueueState, action: Action, now: float) -> Sequence[PoolMemory]:
    """Of the queue's spot pools, those with a bad record."""
    if len(queue.spot) > 1 and action.wanted == SPOT:
        return passed_over(queue.memories, queue.passed_over, now)
    return ()


def _in_turn(pools: Sequence[PoolState], last: Sequence[PoolMemory]) -> Sequence[PoolState]:
    """The queue's order of preference, but those that are passed over come last."""
    return [pool for pool in pools if pool.memory not in last] + sorted(
        (pool for pool in pools if pool.memory in last), key=lambda pool: last.index(pool.memory)
    )


_BY_PHASE: Final = {Phase.BACKING_OFF: Reason.BACKING_OFF, Phase.PARKED: Reason.CHILDREN}


def _place(action: Action, line: WaitingLine) -> int:
    return next((place for place, other in enumerate(line, start=1) if other is action), 0)
