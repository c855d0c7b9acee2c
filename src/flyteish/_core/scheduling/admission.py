"""Who may start now, and where: queues, pools, and a typed reason for everyone who must wait.

Decides from the books (who stands in which line, who holds a place in which pool) and the time alone. Must not know
attempts' histories: which *medium* an action wants was settled by ``placement`` before it lined up (spec: queues).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import msgspec

from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import Action, Phase
from flyteish._core.model.resources import NO_AMOUNTS
from flyteish._core.scheduling.capacity import Ledger
from flyteish._core.scheduling.pool_health import PoolMemory, passed_over
from flyteish._core.scheduling.queue_state import PoolBook, QueueBook, Reason
from flyteish._core.scheduling.waiting_lines import Line
from flyteish.errors import ConfigurationError

__all__ = ["Books", "PoolBook", "QueueBook", "Reason", "Start"]


class Start(msgspec.Struct, frozen=True, gc=False):
    """Admission's word: this action starts (or goes on) in this pool."""

    action: Action
    pool: PoolBook
    returning: bool
    why: str = ""
    """Why not in a pool that comes before it in the queue's order of preference and has room, where there is one."""


class Books(Ledger):
    """All queues and pools, and the decisions. Changes of configuration apply at once and kill nothing that runs."""

    __slots__ = ()

    def __init__(self, queues: tuple[Queue, ...], pools: tuple[Pool, ...]) -> None:
        super().__init__()
        self.configure(queues, pools)

    # -- configuration ------------------------------------------------------------------------------------------

    def configure(self, queues: tuple[Queue, ...], pools: tuple[Pool, ...], now: float = 0.0) -> None:
        """Take on new limits; a queue or pool that still has work stays until it has none.

        Raises:
            ConfigurationError: a queue names a pool that is not there; nothing is changed.
        """
        names = {pool.name for pool in pools}
        for queue in queues:
            missing = [name for name in queue.pools if name not in names]
            if missing:
                expected = f"expected names of pools: {', '.join(sorted(names)) or 'there are none'}"
                raise ConfigurationError(f"Queue({queue.name!r}): pools={missing!r} is not accepted: {expected}")
        for pool_book in self.pools.values():
            pool_book.removed = pool_book.config.name not in names
        for pool in pools:
            if pool.name in self.pools:
                self.pools[pool.name].configure(pool, now)
            else:
                self.pools[pool.name] = PoolBook(pool)
        shapes = {name: _shape(book) for name, book in self.queues.items()}
        self._configure_queues(queues)
        self._wire()
        for name, book in self.queues.items():
            if name in shapes and shapes[name] != _shape(book):
                self._line_up_anew(book)
            self.dirty[name] = None

    def _configure_queues(self, queues: tuple[Queue, ...]) -> None:
        for queue in queues:
            if queue.name in self.queues:
                self.queues[queue.name].configure(queue)
            else:
                self.queues[queue.name] = QueueBook(queue)
        for name in self.queues.keys() - {queue.name for queue in queues}:
            book = self.queues[name]
            if book.is_idle:
                del self.queues[name]
            else:
                book.state, book.removed = "draining", True

    def _wire(self) -> None:
        configured = [pool for pool in self.pools.values() if not pool.removed]
        for book in self.queues.values():
            named = [self.pools[name] for name in book.config.pools if not self.pools[name].removed]
            # A removed queue whose pools went with it finishes its work wherever there is room.
            book.wire(named or configured)
        for pool in self.pools.values():
            pool.feeders = [book for book in self.queues.values() if pool in book.pools]
            pool.feeders.sort(key=lambda book: -book.config.priority)
        self.reprice()

    def reprice(self) -> None:
        """Prices are others than before: look again at queues with a limit on them."""
        dear = [pool for pool in self.pools.values() if pool.config.medium == ON_DEMAND and not pool.removed]
        for book in self.queues.values():
            own = [pool.prices.latest for pool in book.on_demand if pool.prices.latest]
            anybodys = (pool.prices.latest for pool in dear if pool.prices.latest)
            book.on_demand_price = min(own, default=0.0) or min(anybodys, default=0.0)
            if book.config.spend_limit:
                self.dirty[book.config.name] = None

    def _line_up_anew(self, book: QueueBook) -> None:
        waiting = [action for line in book.lines.values() for action in line]
        waiting.sort(key=lambda action: action.ticket)
        book.lines = {}
        for action in waiting:
            book.line_for(action).add(action.ticket, action, at_head=action.ticket < 0)
        outside, book.door = list(book.door), Line(fair=book.config.fairness == "round_robin")
        for action in outside:
            book.door.add(action.ticket, action, at_head=False)

    def adopt(self, queue: str) -> QueueBook:
        """The book of a queue that unfinished work is in, though it may not be configured any more."""
        book = self.queues.get(queue)
        if book is None:
            book = self.queues[queue] = QueueBook(Queue(queue))
            book.state, book.removed = "draining", True
            self._wire()
        return book

    def adopt_pool(self, pool: str, medium: str) -> PoolBook:
        """The book of a pool that a living attempt is in, though it may not be configured any more."""
        book = self.pools.get(pool)
        if book is None:
            book = self.pools[pool] = PoolBook(Pool(pool, medium=SPOT if medium == SPOT else ON_DEMAND))
            book.removed = True
            self._wire()
        return book

    def drop(self, book: QueueBook) -> None:
        """Its last work is done, and it is not configured any more."""
        del self.queues[book.config.name]
        self._wire()

    def known(self) -> list[str]:
        """Names of the configured queues."""
        return sorted(name for name, book in self.queues.items() if not book.removed)

    # -- admission ----------------------------------------------------------------------------------------------

    def starts(self, now: float) -> list[Start]:
        """Everyone who may start now, in order; each is out of its line and holds its place when it is named."""
        found: list[Start] = []
        while self.freed or self.dirty:
            freed, dirty = self.freed, self.dirty
            self.freed, self.dirty = {}, {}
            if self.eager:
                before = len(found)
                self._one_round(freed, dirty, now, found)
                if self._polite and len(found) > before:
                    # Whoever stood back for a returning parent may find that it has gone on, or can't.
                    self.dirty.update(self._polite)
                    self._polite = {}
        return found

    def _one_round(self, freed: dict[str, None], dirty: dict[str, None], now: float, found: list[Start]) -> None:
        for name in freed:
            self._into_pool(self.pools[name], now, found)
        books = [book for name in dirty if (book := self.queues.get(name)) and (book.waiting or book.returners)]
        if len(books) == 1:
            book = books[0]
            while (book.waiting or book.returners) and self._start_one(book, now, found):
                pass
        elif books:
            books.sort(key=lambda book: -book.config.priority)
            for _, equals in groupby(books, key=lambda book: book.config.priority):
                turn = list(equals)
                while turn:
                    turn = [book for book in turn if self._start_one(book, now, found)]

    def _into_pool(self, pool: PoolBook, now: float, found: list[Start]) -> None:
        """Give freed places away: to returning parents first, then by the queues' priority, equals in turn."""
        if pool.returners:
            for book in self.queues.values():
                while book.returners and self._return_one(book, found):
                    pass
        going = True
        while going and pool.refusal(NO_AMOUNTS, now) is None:
            going = False
            for place, book in enumerate(pool.feeders):
                if book.waiting and self._start_one(book, now, found):
                    pool.served(place)
                    if book.config.spot_share < 1:
                        self.dirty[book.config.name] = None  # its share is used up now, which opens other pools
                    going = True
                    break

    def _start_one(self, book: QueueBook, now: float, found: list[Start]) -> bool:
        """Let one action of this queue start or go on; False: none may."""
        if book.returners and self._return_one(book, found):
            return True
        if not book.waiting:
            return False
        for line, action in book.heads():
            refused = book.refusal(action)
            if refused is None:
                pool = self._pool_for(book, action, now)
                if isinstance(pool, PoolBook):
                    why = ""
                    if len(book.spot) > 1 and action.wanted == SPOT:
                        book.passed_over = book.to_pass_over
                        if book.passed_over:
                            why = self._why_not_before(book, pool, action, now)
                    line.pop()
                    action.ticket, action.stands = 0, ""
                    book.waiting -= 1
                    self.eager -= 1
                    self.occupy(action, pool)
                    found.append(Start(action, pool, False, why))
                    return True
                refused = pool if pool is Reason.SPEND_LIMIT else None
            # The queue itself refuses this head: whoever comes after it would pass it.
            if refused is not None:
                strict = book.config.scheduling == "strict_fifo"
                if strict or refused not in (Reason.RESOURCES, Reason.SPEND_LIMIT):
                    return False
        return False

    def _return_one(self, book: QueueBook, found: list[Start]) -> bool:
        for name in book.returning:
            action = book.next_back(name)
            pool = self.pools[name]
            if action is None or book.no_way_back(action, pool):
                continue
            if pool.no_way_back(action.profile.settings.amounts):
                continue
            book.returning[name].popleft()
            action.ticket, action.stands = 0, ""
            book.returners -= 1
            pool.returners -= 1
            self.eager -= 1
            self.occupy(action, pool)
            self.dirty[book.config.name] = None  # it held others of its queue back
            found.append(Start(action, pool, True))
            return True
        return False

    def _pool_for(self, book: QueueBook, action: Action, now: float) -> PoolBook | Reason:
        """The first pool that takes it, in the queue's order but those with a bad record last, or why none does."""
        pools: Sequence[PoolBook] = book.on_demand
        if action.wanted == SPOT:
            pools = book.spot
            if book.config.spot_share < 1:
                policy = action.profile.settings.interruptible
                only_spot = policy is not None and policy.fallback == "never"
                if book.spot_share_reached(only_spot):
                    if only_spot or not book.on_demand:
                        return Reason.SPOT_SHARE
                    pools = book.on_demand
        if book.config.spend_limit and pools:
            pools = [pool for pool in pools if not book.too_dear(pool)]
            if not pools:
                return Reason.SPEND_LIMIT
        if len(book.spot) > 1 and action.wanted == SPOT:
            book.to_pass_over = last = passed_over(book.memories, book.passed_over, now)
            if last:
                pools = _in_turn(pools, last)
        amounts = action.profile.settings.amounts
        refused: Reason | None = None
        for pool in pools:
            reason = pool.refusal(amounts, now)
            if reason is None and pool.returners and self._is_claimed(pool):
                reason = Reason.RETURNING_FIRST
                self._polite[book.config.name] = None
            if reason is None:
                return pool
            refused = refused or reason
        return refused or Reason.NO_CAPACITY

    def _why_not_before(self, book: QueueBook, chosen: PoolBook, action: Action, now: float) -> str:
        """Which pool comes before ``chosen``, could have taken the action and was passed over, and what for."""
        if chosen not in book.spot:
            return ""
        for pool in book.spot[: book.spot.index(chosen)]:
            if pool.memory in book.passed_over and not book.too_dear(pool):
                free = pool.refusal(action.profile.settings.amounts, now) is None
                if free and not (pool.returners and self._is_claimed(pool)):
                    return f"pool {chosen.config.name} before {pool.config.name}: {pool.memory.words(now)}"
        return ""

    def _is_claimed(self, pool: PoolBook) -> bool:
        """Whether a parent waits for its place back in this pool, and nothing but the pool keeps it."""
        heads = ((book, book.next_back(pool.config.name)) for book in self.queues.values() if book.returners)
        return any(head is not None and not book.no_way_back(head, pool) for book, head in heads)

    # -- for people ---------------------------------------------------------------------------------------------

    def reason(self, action: Action, now: float) -> tuple[Reason, int] | None:
        """Why an action does not run, and its place among those who wait with it (from 1; 0: it has none)."""
        if action.phase in _BY_PHASE:
            return _BY_PHASE[action.phase], 0
        if action.waits_for_machine:
            return Reason.SENT_AHEAD, 0
        book = self.queues.get(action.profile.settings.queue)
        if book is None or not action.ticket:
            return None
        match action.stands:
            case "door":
                return Reason.DEPTH, _place(action, book.door)
            case "hold":
                limit = book.config.run_concurrency
                over = Reason.RUN_CONCURRENCY if limit and book.active_runs >= limit else Reason.DEPTH
                return over, _place(action, book.hold)
            case "overlap":
                return Reason.OVERLAP, 0
            case "return":
                pool = self.pools[action.attempts[-1].pool]
                refused = book.no_way_back(action, pool) or pool.no_way_back(action.profile.settings.amounts)
                waiting = [other for ticket, other in book.returning[pool.config.name] if other.ticket == ticket]
                return refused or Reason.RETURNING_FIRST, waiting.index(action) + 1
        verdict = book.refusal(action) or self._pool_for(book, action, now)
        blocked = verdict if isinstance(verdict, Reason) else Reason.BEHIND_OTHERS
        return blocked, _place(action, book.line_for(action))


def _in_turn(pools: Sequence[PoolBook], last: Sequence[PoolMemory]) -> Sequence[PoolBook]:
    """The queue's order of preference, but those that are passed over come last."""
    return [pool for pool in pools if pool.memory not in last] + sorted(
        (pool for pool in pools if pool.memory in last), key=lambda pool: last.index(pool.memory)
    )


_BY_PHASE: Final = {Phase.BACKING_OFF: Reason.BACKING_OFF, Phase.PARKED: Reason.CHILDREN}


def _place(action: Action, line: Line) -> int:
    return next((place for place, other in enumerate(line, start=1) if other is action), 0)


def _shape(book: QueueBook) -> tuple[str, str]:
    return book.config.scheduling, book.config.fairness
