"""Who may start now, and where: queues, pools, and a typed reason for everyone who must wait.

Keeps the books (who stands in which line, who holds a place in which pool) and decides from them and the time
alone. Must not know attempts' histories: which *medium* an action wants was settled by ``placement`` before it
lined up (spec: queues).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from flyteish._core.actions import Action
from flyteish._core.lines import Line
from flyteish._core.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.resources import NO_AMOUNTS, Amounts


class Reason(StrEnum):
    """Why a head does not start; ``flyteish why`` shows it."""

    HELD = "HELD"
    QUEUE_CONCURRENCY = "QUEUE_CONCURRENCY"
    RUN_CONCURRENCY = "RUN_CONCURRENCY"
    OVERLAP = "OVERLAP"
    DEPTH = "DEPTH"
    RESOURCES = "RESOURCES"
    SPEND_LIMIT = "SPEND_LIMIT"
    SPOT_SHARE = "SPOT_SHARE"
    POOL_FULL = "POOL_FULL"
    POOL_COOLING = "POOL_COOLING"
    NO_CAPACITY = "NO_CAPACITY"
    RETURNING_FIRST = "RETURNING_FIRST"
    BEHIND_OTHERS = "BEHIND_OTHERS"
    BACKING_OFF = "BACKING_OFF"
    CHILDREN = "CHILDREN"


class Start(NamedTuple):
    """Admission's word: this action starts (or goes on) in this pool."""

    action: Action
    pool: PoolBook
    returning: bool


class PoolBook:
    """A pool's configuration and what is in it now."""

    __slots__ = (
        "available", "config", "cooling_until", "feeders", "limit", "no_capacity_since", "returners", "running", "used",
    )  # fmt: skip

    def __init__(self, config: Pool) -> None:
        self.config = config
        self.limit = config.amounts
        self.running = 0
        self.used = NO_AMOUNTS
        self.available: int | None = None
        self.cooling_until = 0.0
        self.no_capacity_since: float | None = None
        self.feeders: list[QueueBook] = []
        """Queues that feed it, by priority; those of equal priority take turns."""
        self.returners = 0
        """Parents that wait for their place back here."""

    def refusal(self, amounts: Amounts, now: float) -> Reason | None:
        """Why an attempt of this size can't start here now; None: it can."""
        if self.available is not None and self.running >= self.available:
            return Reason.NO_CAPACITY
        if now < self.cooling_until:
            return Reason.POOL_COOLING
        return self.full(amounts)

    def full(self, amounts: Amounts) -> Reason | None:
        """The limits of its size alone; stock-outs and cooling do not concern a machine that is still there."""
        if self.config.capacity and self.running >= self.config.capacity:
            return Reason.POOL_FULL
        if self.limit is not NO_AMOUNTS and not self.used.plus(amounts).within(self.limit):
            return Reason.RESOURCES
        return None

    def served(self, book: QueueBook) -> None:
        """``book`` had its turn: queues of the same priority come before it now."""
        if len(self.feeders) > 1:
            self.feeders.remove(book)
            after = [other.config.priority < book.config.priority for other in self.feeders]
            self.feeders.insert(after.index(True) if True in after else len(self.feeders), book)

    def __repr__(self) -> str:
        return f"<PoolBook {self.config.name} {self.config.medium} running={self.running}/{self.config.capacity or '∞'}>"


class QueueBook:
    """A queue's configuration, its lines and its counts."""

    __slots__ = (
        "active_runs", "active_tasks", "config", "counted", "entering", "held_roots", "limit", "lines", "on_demand",
        "pools", "rate", "returning", "running", "spot", "spot_running", "state", "used", "waiting",
    )  # fmt: skip

    def __init__(self, config: Queue) -> None:
        self.config = config
        self.state: str = config.state
        self.limit = config.max_resources.amounts()
        self.pools: list[PoolBook] = []
        self.spot: list[PoolBook] = []
        self.on_demand: list[PoolBook] = []
        self.lines: dict[object, Line] = {}
        self.entering: deque[Action] = deque()
        self.returning: deque[Action] = deque()
        self.held_roots: deque[Action] = deque()
        self.active_runs = 0
        self.active_tasks: dict[str, int] = {}
        self.running = 0
        self.spot_running = 0
        self.used = NO_AMOUNTS
        self.rate = 0.0
        self.waiting = 0
        self.counted = 0
        """Waiting and running actions, as ``depth`` counts them."""

    def wire(self, pools: list[PoolBook]) -> None:
        self.pools = pools
        self.spot = [pool for pool in pools if pool.config.medium == SPOT]
        self.on_demand = [pool for pool in pools if pool.config.medium == ON_DEMAND]

    def refusal(self, action: Action) -> Reason | None:
        """Why this queue starts nothing of this size now, wherever; None: it would."""
        if self.state == "held":
            return Reason.HELD
        return self.full(action)

    def full(self, action: Action) -> Reason | None:
        """The limits alone, as they bind a parent that goes on in a held queue, too."""
        if self.config.action_concurrency and self.running >= self.config.action_concurrency:
            return Reason.QUEUE_CONCURRENCY
        if self.limit != NO_AMOUNTS and not self.used.plus(action.profile.settings.amounts).within(
            self.limit
        ):
            return Reason.RESOURCES
        return None

    def spot_share_reached(self) -> bool:
        """Whether one more spot attempt would exceed ``spot_share`` of the queue's capacity."""
        share = self.config.spot_share
        if share >= 1.0:
            return False
        capacity = self.config.action_concurrency or sum(pool.config.capacity for pool in self.pools)
        if (
            not capacity
            or any(not pool.config.capacity for pool in self.pools)
            and not self.config.action_concurrency
        ):
            capacity = self.running + 1  # unlimited: a share of what runs
        return self.spot_running + 1 > share * capacity

    def __repr__(self) -> str:
        return f"<QueueBook {self.config.name} {self.state} running={self.running} waiting={self.waiting}>"


class Books:
    """All queues and pools. Changes of configuration apply at once and kill nothing that runs."""

    __slots__ = ("_dirty", "_freed", "_tickets", "pools", "queues")

    def __init__(self, queues: tuple[Queue, ...], pools: tuple[Pool, ...]) -> None:
        self.queues: dict[str, QueueBook] = {}
        self.pools: dict[str, PoolBook] = {}
        self._tickets = 0
        self._dirty: dict[str, None] = {}
        self._freed: dict[str, None] = {}
        self.configure(queues, pools)

    def configure(self, queues: tuple[Queue, ...], pools: tuple[Pool, ...]) -> None:
        """Take on new limits; a queue or pool that still has work stays until it has none."""
        for pool in pools:
            pool_book = self.pools.get(pool.name)
            if pool_book is None:
                self.pools[pool.name] = PoolBook(pool)
            else:
                pool_book.config, pool_book.limit = pool, pool.amounts
        for queue in queues:
            book = self.queues.get(queue.name)
            if book is None:
                book = self.queues[queue.name] = QueueBook(queue)
            else:
                self._reconfigure(book, queue)
            book.wire([self.pools[name] for name in queue.pools or [pool.name for pool in pools]])
        for name in set(self.queues) - {queue.name for queue in queues}:
            self.queues[name].state = "draining"
        for pool_book in self.pools.values():
            feeders = [book for book in self.queues.values() if pool_book in book.pools]
            pool_book.feeders = sorted(feeders, key=lambda book: -book.config.priority)
        for name in self.queues:
            self._dirty[name] = None

    def _reconfigure(self, book: QueueBook, queue: Queue) -> None:
        old, book.config, book.limit = book.config, queue, queue.max_resources.amounts()
        if old.state != queue.state:
            book.state = queue.state
        if (old.scheduling, old.fairness) != (queue.scheduling, queue.fairness):
            waiting = [action for line in book.lines.values() for action in line]
            waiting.sort(key=lambda action: action.ticket)
            book.lines, book.waiting = {}, 0
            for action in waiting:
                self.line_up(action, at_head=False)

    # -- lines --------------------------------------------------------------------------------------------------

    def line_up(self, action: Action, at_head: bool) -> None:
        """Give an action a place in its queue's line for the medium it wants."""
        book = self.queues[action.profile.settings.queue]
        self._tickets += 1
        key: object = action.wanted
        if book.config.scheduling == "greedy_capacity":
            key = (action.wanted, action.profile.settings.amounts)
        line = book.lines.get(key)
        if line is None:
            line = book.lines[key] = Line(fair=book.config.fairness == "round_robin")
        line.add(self._tickets, action, at_head)
        book.waiting += 1
        self._dirty[book.config.name] = None

    def withdraw(self, action: Action) -> None:
        """Leave the line; the place is dropped when it comes to the head."""
        if action.ticket:
            action.ticket = 0
            book = self.queues[action.profile.settings.queue]
            book.waiting -= 1
            self._dirty[book.config.name] = None

    def ask_to_return(self, action: Action) -> None:
        """A parent whose children are done wants its place back, before anybody else."""
        book = self.queues[action.profile.settings.queue]
        book.returning.append(action)
        self.pools[action.attempts[-1].pool].returners += 1
        self._dirty[book.config.name] = None

    def give_up_return(self, action: Action) -> None:
        """It ended while it waited for its place back."""
        book = self.queues[action.profile.settings.queue]
        book.returning.remove(action)
        self.pools[action.attempts[-1].pool].returners -= 1
        self._dirty[book.config.name] = None

    def touch(self, queue: str) -> None:
        """Look at this queue again: a limit of it changed."""
        self._dirty[queue] = None

    def touch_pool(self, pool: str) -> None:
        """Look at this pool again: its capacity changed."""
        self._freed[pool] = None

    # -- places -------------------------------------------------------------------------------------------------

    def occupy(self, action: Action, pool: PoolBook) -> None:
        """Count one attempt in its queue and pool."""
        book = self.queues[action.profile.settings.queue]
        action.occupies = pool.config.name
        action.place_medium = pool.config.medium
        action.place_price = pool.config.price_per_hour
        book.running += 1
        pool.running += 1
        book.rate += action.place_price
        if action.place_medium == SPOT:
            book.spot_running += 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            book.used = book.used.plus(amounts)
            pool.used = pool.used.plus(amounts)

    def vacate(self, action: Action) -> None:
        """Give the place back, if it holds one; counts exactly what ``occupy`` counted."""
        if not action.occupies:
            return
        book = self.queues[action.profile.settings.queue]
        pool = self.pools[action.occupies]
        action.occupies = ""
        book.running -= 1
        pool.running -= 1
        # Rounded because a sum of prices drifts: a million attempts later 0.1 + ... - 0.1 must be 0.
        book.rate = round(book.rate - action.place_price, 9) if book.running else 0.0
        if action.place_medium == SPOT:
            book.spot_running -= 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            book.used = book.used.minus(amounts)
            pool.used = pool.used.minus(amounts)
        if book.waiting or book.returning:
            self._dirty[book.config.name] = None
        self._freed[pool.config.name] = None

    # -- admission ----------------------------------------------------------------------------------------------

    def starts(self, now: float) -> Iterator[Start]:
        """Everyone who may start now, in order; each is out of its line and holds its place when it is named."""
        while self._dirty or self._freed:
            freed, self._freed = self._freed, {}
            for name in freed:
                yield from self._into_pool(self.pools[name], now)
            dirty, self._dirty = self._dirty, {}
            books = [self.queues[name] for name in dirty]
            if len(books) > 1:
                books.sort(key=lambda book: -book.config.priority)
            for book in books:
                yield from self._from_queue(book, now)

    def _into_pool(self, pool: PoolBook, now: float) -> Iterator[Start]:
        """Give freed places away: to returning parents first, then by the queues' priority, equals in turn."""
        if pool.returners:
            for book in list(pool.feeders):
                yield from self._returning(book)
        for book in list(pool.feeders):
            if not book.waiting:
                continue
            if pool.refusal(NO_AMOUNTS, now) is not None:
                return
            served = False
            for start in self._from_queue(book, now):
                served = True
                yield start
            if served:
                pool.served(book)

    def _returning(self, book: QueueBook) -> Iterator[Start]:
        while book.returning:
            action = book.returning[0]
            pool = self.pools[action.attempts[-1].pool]
            if book.full(action) or pool.full(action.profile.settings.amounts):
                return
            book.returning.popleft()
            pool.returners -= 1
            self.occupy(action, pool)
            yield Start(action, pool, returning=True)

    def _from_queue(self, book: QueueBook, now: float) -> Iterator[Start]:
        if book.returning:
            yield from self._returning(book)
            if book.returning:
                return  # nobody of this queue goes before it
        while book.waiting:
            start = self._next(book, now)
            if start is None:
                return
            yield start

    def _next(self, book: QueueBook, now: float) -> Start | None:
        heads = [(line, head) for line in book.lines.values() if (head := line.head()) is not None]
        if len(heads) > 1:
            heads.sort(key=lambda pair: (-pair[1].profile.settings.priority, pair[1].ticket))
        for line, action in heads:
            pool = self._pool_for(book, action, now)
            if isinstance(pool, PoolBook):
                line.pop()
                action.ticket = 0
                book.waiting -= 1
                self.occupy(action, pool)
                return Start(action, pool, returning=False)
        return None

    def _pool_for(self, book: QueueBook, action: Action, now: float) -> PoolBook | Reason:
        """The decision itself: the first pool of preference that takes it, or the reason why none does."""
        refused = book.refusal(action)
        if refused is not None:
            return refused
        pools = book.spot if action.wanted == SPOT else book.on_demand
        if action.wanted == SPOT and book.spot_share_reached():
            if not book.on_demand:
                return Reason.SPOT_SHARE
            pools = book.on_demand
        amounts = action.profile.settings.amounts
        limit = book.config.spend_limit
        for pool in pools:
            if pool.returners and self._someone_returns(pool, book):
                refused = refused or Reason.RETURNING_FIRST
                continue
            reason = pool.refusal(amounts, now)
            if reason is None and limit and book.rate + pool.config.price_per_hour > limit:
                reason = Reason.SPEND_LIMIT
            if reason is None:
                return pool
            refused = refused or reason
        return refused or Reason.NO_CAPACITY

    @staticmethod
    def _someone_returns(pool: PoolBook, book: QueueBook) -> bool:
        """Whether another queue has a parent waiting for its place back in this pool."""
        return any(
            other is not book
            and other.returning
            and other.returning[0].attempts[-1].pool == pool.config.name
            and other.full(other.returning[0]) is None
            for other in pool.feeders
        )

    # -- for people ---------------------------------------------------------------------------------------------

    def reason(self, action: Action, now: float) -> tuple[Reason, int] | None:
        """Why a queued action has not started, and its place in line (from 1)."""
        book = self.queues.get(action.profile.settings.queue)
        if book is None or not action.ticket:
            return None
        for line in book.lines.values():
            for place, waiting in enumerate(line, start=1):
                if waiting is action:
                    verdict = self._pool_for(book, action, now)
                    blocked = verdict if isinstance(verdict, Reason) else Reason.BEHIND_OTHERS
                    return blocked, place
        return None

    def has_capacity(self, pools: list[PoolBook], now: float) -> bool:
        """Whether any of them is not out of capacity (it may be full)."""
        return any(pool.no_capacity_since is None and now >= pool.cooling_until for pool in pools)
