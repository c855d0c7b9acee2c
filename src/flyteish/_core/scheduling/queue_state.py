"""What is in each queue and pool now: counts, lines, and the limits they are held against.

Counts and compares, one queue or pool at a time, and names a typed reason where there is no room. Must not know
who goes next among several (``admission``) or what becomes of an action (``lifecycle``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from enum import StrEnum

from flyteish._core.billing.price_history import Prices
from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import Action
from flyteish._core.model.resources import NO_AMOUNTS, Amounts
from flyteish._core.scheduling.pool_health import PoolMemory
from flyteish._core.scheduling.waiting_lines import Place, WaitingLine

# Sums of shares and prices are off by less than this, and no price or share is as small.
_HAIR = 1e-9


class Reason(StrEnum):
    """Why somebody does not start; ``flyteish why`` shows it."""

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
    SENT_AHEAD = "SENT_AHEAD"
    BACKING_OFF = "BACKING_OFF"
    CHILDREN = "CHILDREN"


class PoolState:
    """A pool's configuration and what is in it now."""

    __slots__ = (
        "ahead", "available", "config", "cooling_until", "feeders", "limit", "memory", "no_capacity_since", "prices",
        "removed", "returners", "running", "used",
    )  # fmt: skip

    def __init__(self, config: Pool) -> None:
        self.config = config
        self.limit = config.amounts
        self.running = 0
        """Attempts that hold a place here."""
        self.ahead = 0
        """Those of them that were sent ahead and have no machine yet."""
        self.used = NO_AMOUNTS
        self.available: int | None = None
        """What its market says it can hold; None: as many as configured."""
        self.cooling_until = 0.0
        self.no_capacity_since: float | None = None
        self.feeders: list[QueueState] = []
        """Queues that feed it, by priority; those of equal priority take turns."""
        self.returners = 0
        """Parents that wait for their place back here."""
        self.memory = PoolMemory(config.half_life)
        self.prices = Prices(config.fixed_price or 0.0)
        """0 until its source, where it has one, has said a price."""
        self.removed = False
        """No longer configured: what runs here ends here, nothing new starts."""

    def configure(self, config: Pool, now: float) -> None:
        """Other limits from now on; what runs is not touched, but costs what the pool costs."""
        self.config, self.limit, self.removed = config, config.amounts, False
        if config.fixed_price is not None:
            self.prices.changed(config.fixed_price, now)
        if config.half_life != self.memory.half_life:
            self.memory = PoolMemory(config.half_life)

    def refusal(self, amounts: Amounts, now: float) -> Reason | None:
        """Why an attempt of this size can't start here now; None: it can."""
        if self.available is not None and self.running >= self.available:
            return Reason.POOL_FULL if self.available else Reason.NO_CAPACITY
        if now < self.cooling_until:
            return Reason.POOL_COOLING
        return self._over(amounts)

    def no_way_back(self, amounts: Amounts) -> Reason | None:
        """Why a parent can't go on here. Stock-outs and cooling do not concern a machine that is still there.

        An empty pool always takes it back, whatever its limits have been tightened to meanwhile.
        """
        if not self.running:
            return None
        config = self.config
        if config.ahead and config.capacity and self.running - self.ahead >= config.capacity:
            return Reason.POOL_FULL  # those sent ahead do not stand in its way, but every machine is taken
        return self._over(amounts)

    def _over(self, amounts: Amounts) -> Reason | None:
        config = self.config
        if config.capacity and self.running >= config.capacity + config.ahead:
            return Reason.POOL_FULL
        if self.limit is not NO_AMOUNTS and not self.used.plus(amounts).within(self.limit):
            return Reason.RESOURCES
        return None

    def served(self, place: int) -> None:
        """The feeder at ``place`` had its turn: queues of the same priority come before it now."""
        feeders = self.feeders
        if len(feeders) > 1:
            queue = feeders.pop(place)
            feeders.insert(bisect_right(feeders, -queue.config.priority, place, key=_descending), queue)

    def __repr__(self) -> str:
        size = self.config.capacity or "∞"
        return f"<PoolState {self.config.name} {self.config.medium} running={self.running}/{size}>"


class QueueState:
    """A queue's configuration, its lines and its counts."""

    __slots__ = (
        "active_runs", "active_tasks", "ahead", "blocked", "capacity", "config", "counted", "door", "enlisted",
        "entering", "held", "hold", "inside", "limit", "lines", "memories", "on_demand", "on_demand_price",
        "passed_over", "pools", "removed", "returners", "returning", "running", "runs_of", "spot", "spot_running",
        "state", "takes_anything", "used", "waiting",
    )  # fmt: skip

    def __init__(self, config: Queue) -> None:
        self.config = config
        self.state: str = config.state
        self.limit = _limit(config)
        self.removed = False
        """No longer configured: takes nothing new, and goes when its last work is done."""
        self.pools: list[PoolState] = []
        self.spot: list[PoolState] = []
        self.on_demand: list[PoolState] = []
        self.memories: list[PoolMemory] = []
        """Of its spot pools, in their order."""
        self.passed_over: Sequence[PoolMemory] = ()
        """Of the spot pools that were left for last, for what happened there, when it last started an action."""
        self.on_demand_price = 0.0
        """$ per hour of the on-demand machine that its work on spot is compared with; 0: none has a price."""
        self.takes_anything = False
        """Work that names no resources and may run on-demand is never too much for it."""
        self.capacity = 0
        """What ``spot_share`` is a share of; 0: no fixed number."""

        self.door = WaitingLine(fair=config.fairness == "round_robin")
        """Those outside while it is full."""
        self.hold = WaitingLine(fair=False)
        """Roots whose run may not begin yet: ``run_concurrency``."""
        self.blocked: dict[str, list[Place]] = {}
        """By task, as heaps: roots that an active run of the same task keeps from beginning (``overlap``)."""
        self.lines: dict[object, WaitingLine] = {}
        self.returning: dict[str, deque[Place]] = {}
        """By pool: parents that wait for their place back."""

        self.enlisted = 0
        """Actions that are not over."""
        self.counted = 0
        """Waiting and running actions, as ``depth`` counts them."""
        self.waiting = 0
        """Those in its lines."""
        self.entering = 0
        """Those at its door."""
        self.held = 0
        """Roots whose run has not begun."""
        self.returners = 0
        self.running = 0
        """Its attempts that hold a place in a pool."""
        self.ahead = 0
        """Those of them that were sent ahead and have no machine yet."""
        self.spot_running = 0
        self.used = NO_AMOUNTS
        self.inside: dict[PoolState, int] = {}
        """By pool: its running attempts there."""
        self.active_runs = 0
        self.active_tasks: dict[str, int] = {}
        self.runs_of: dict[str, dict[str, None]] = {}
        """By task: runs whose root is in this queue and not over, whether they have begun or not."""

    def configure(self, config: Queue) -> None:
        """Other limits from now on. A state that an operator has set stays, unless the new one says another."""
        if self.removed or self.config.state != config.state:
            self.state = "draining" if config.state == "drained" and not self.is_idle else config.state
        self.config, self.limit, self.removed = config, _limit(config), False

    def wire(self, pools: list[PoolState]) -> None:
        """Feed these pools, in this order of preference."""
        self.pools = pools
        self.spot = [pool for pool in pools if pool.config.medium == SPOT]
        self.on_demand = [pool for pool in pools if pool.config.medium == ON_DEMAND]
        self.memories = [pool.memory for pool in self.spot]
        sizes = [pool.config.capacity for pool in pools]
        bounds = [self.config.action_concurrency or 0, sum(sizes) if all(sizes) else 0]
        self.capacity = min((bound for bound in bounds if bound), default=0)
        self.takes_anything = any(not self.never_pays(pool) for pool in self.on_demand)

    # -- limits -------------------------------------------------------------------------------------------------

    def refusal(self, action: Action) -> Reason | None:
        """Why this queue starts nothing of this size now, wherever; None: it would."""
        config = self.config
        if self.state == "held":
            return Reason.HELD
        if config.action_concurrency and self.running + self.returners >= config.action_concurrency:
            busy = self.running >= config.action_concurrency
            return Reason.QUEUE_CONCURRENCY if busy else Reason.RETURNING_FIRST
        if self.returners and (self.limit is not NO_AMOUNTS or config.spend_limit or config.spot_share < 1):
            return Reason.RETURNING_FIRST
        return self._over(action)

    def no_way_back(self, action: Action, pool: PoolState) -> Reason | None:
        """Why a parent can't go on yet. It goes on in a held queue too; and where nothing else runs it always
        may, whatever the limits have been tightened to since it began: it can't wait for anybody."""
        config = self.config
        if not self.running:
            return None
        if config.action_concurrency and self.running >= config.action_concurrency:
            return Reason.QUEUE_CONCURRENCY
        if self.too_dear(pool):
            return Reason.SPEND_LIMIT
        if self.capacity and pool.config.medium == SPOT and self.spot_share_reached():
            return Reason.SPOT_SHARE
        return self._over(action)

    def _over(self, action: Action) -> Reason | None:
        if self.limit is NO_AMOUNTS or self.used.plus(action.profile.settings.amounts).within(self.limit):
            return None
        return Reason.RESOURCES

    @property
    def rate(self) -> float:
        """$ per hour of what runs, at the prices of now."""
        return sum(count * pool.prices.latest for pool, count in self.inside.items())

    def too_dear(self, pool: PoolState, leaving: float = 0.0) -> bool:
        """Whether one more attempt there would exceed ``spend_limit``, once what costs ``leaving`` has gone."""
        limit = self.config.spend_limit
        return bool(limit) and self.rate - leaving + pool.prices.latest > limit + _HAIR

    def never_pays(self, pool: PoolState) -> bool:
        """Whether ``spend_limit`` is below the pool's price for good: what a source says may change."""
        fixed = pool.config.fixed_price
        return fixed is not None and 0 < self.config.spend_limit < fixed

    def spot_share_reached(self, only_spot: bool = False) -> bool:
        """Whether one more spot attempt would exceed ``spot_share`` of the capacity, or else of what runs.

        A share of what runs would keep work that may run on spot only (``only_spot``) waiting for others for ever,
        so one such attempt may run where nothing else does.
        """
        share = self.config.spot_share
        if share >= 1.0 or (only_spot and share and not self.capacity and not self.running):
            return False
        return self.spot_running + 1 > share * (self.capacity or self.running + 1) + _HAIR

    def has_spot_share(self) -> bool:
        """Whether ``spot_share`` ever lets anything on spot."""
        share = self.config.spot_share
        return share > 0 and (not self.capacity or share * self.capacity + _HAIR >= 1)

    def takes_spot(self, amounts: Amounts) -> bool:
        """Whether any of its spot pools is ever large enough."""
        if amounts is NO_AMOUNTS:
            return bool(self.spot)
        return any(amounts.within(pool.limit) for pool in self.spot)

    def takes_on_demand(self, amounts: Amounts) -> bool:
        """Whether any of its on-demand pools is ever large enough, and not too dear."""
        return any(amounts.within(pool.limit) and not self.never_pays(pool) for pool in self.on_demand)

    def is_full(self) -> bool:
        """Whether ``depth`` lets nobody in.

        Where a full queue holds callers back, roots that may not begin yet are held back too and do not count: else
        they could fill it, and wait for a run whose children can't get in.
        """
        depth = self.config.depth
        return depth > 0 and self.counted - (self.held if self.config.on_full == "wait" else 0) >= depth

    def out_since(self) -> float | None:
        """Since when every one of its spot pools has been out of capacity; None: one of them is not."""
        latest = 0.0
        for pool in self.spot:
            if pool.no_capacity_since is None:
                return None
            latest = max(latest, pool.no_capacity_since)
        return latest if self.spot else None

    # -- who stands where ---------------------------------------------------------------------------------------

    def line_key(self, action: Action) -> object:
        """Which line it stands in: that for its medium (and, where smaller work may pass, its size)."""
        if self.config.scheduling == "greedy_capacity":
            return action.wanted, action.profile.settings.amounts
        return action.wanted

    def line_for(self, action: Action) -> WaitingLine:
        """That line, made where nobody stands in it yet."""
        key = self.line_key(action)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = WaitingLine(fair=self.config.fairness == "round_robin")
        return line

    def firsts(self) -> list[Action]:
        """The first of each line, in the order in which they go."""
        found = [first for line in self.lines.values() if (first := line.first()) is not None]
        return sorted(found, key=lambda action: (-action.profile.settings.priority, action.ticket))

    def heads(self) -> list[tuple[WaitingLine, Action]]:
        """The same with their lines; places that are not valid any more, and empty lines, are dropped."""
        if len(self.lines) == 1:
            [line] = self.lines.values()
            only = line.head()
            return [] if only is None else [(line, only)]
        found, empty = [], []
        for key, line in self.lines.items():
            head = line.head()
            if head is None:
                empty.append(key)
            else:
                found.append((line, head))
        for key in empty:
            del self.lines[key]
        if len(found) > 1:
            found.sort(key=lambda pair: (-pair[1].profile.settings.priority, pair[1].ticket))
        return found

    def first_back(self, pool: str) -> Action | None:
        """The first parent that waits for its place back in this pool."""
        return next((action for ticket, action in self.returning.get(pool, ()) if action.ticket == ticket), None)

    def next_back(self, pool: str) -> Action | None:
        """The same; places before it that are not valid any more are dropped."""
        places = self.returning.get(pool)
        while places:
            ticket, action = places[0]
            if action.ticket == ticket:
                return action
            places.popleft()
        return None

    @property
    def is_idle(self) -> bool:
        """Nothing of it is left, not even an attempt that was given up."""
        return not (self.enlisted or self.running)

    def __repr__(self) -> str:
        return f"<QueueState {self.config.name} {self.state} running={self.running} waiting={self.waiting}>"


def _descending(queue: QueueState) -> int:
    return -int(queue.config.priority)


def _limit(config: Queue) -> Amounts:
    limit = config.max_resources.amounts()
    return NO_AMOUNTS if limit == NO_AMOUNTS else limit
