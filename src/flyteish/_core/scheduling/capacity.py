"""Who stands where and who holds what: all queues and pools together, as they are configured now.

Keeps counts and lines exact, whoever comes and goes; decides nothing: who starts is ``admission``'s business,
what an action becomes is ``lifecycle``'s.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Final

from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import Action, RunRecord
from flyteish._core.model.resources import NO_AMOUNTS
from flyteish._core.scheduling.queue_state import PoolState, QueueState
from flyteish._core.scheduling.waiting_lines import WaitingLine
from flyteish.errors import ConfigurationError

# Tickets of those at the head are lower than all others, so that tickets alone order the heads of two lines.
_AHEAD: Final = 1 << 62


class Capacity:
    """All queues and pools, kept together: one action's coming or going is written in all of them at once.

    Changes of configuration apply at once and kill nothing that runs.
    """

    __slots__ = ("_tickets", "dirty", "eager", "freed", "pools", "queues", "roomy")

    def __init__(self, queues: tuple[Queue, ...] = (), pools: tuple[Pool, ...] = ()) -> None:
        self.queues: dict[str, QueueState] = {}
        self.pools: dict[str, PoolState] = {}
        self.eager = 0
        """Actions in lines and parents that want their place back: with nobody waiting, nothing needs deciding."""
        self.roomy: dict[str, None] = {}
        """Queues with somebody at the door that are no longer full."""
        self._tickets = 0
        self.dirty: dict[str, None] = {}
        """Queues in which somebody new waits, or has more room."""
        self.freed: dict[str, None] = {}
        """Pools with more room."""
        self.configure(queues, pools)

    # -- counts -------------------------------------------------------------------------------------------------

    def enlist(self, action: Action) -> QueueState:
        """From here on its queue knows of it, until it is struck off. Returns the queue."""
        queue = self.queues[action.profile.settings.queue]
        if not action.enlisted:
            action.enlisted = True
            queue.enlisted += 1
            if queue.state == "drained":
                queue.state = "draining"  # unfinished work of a run that was taken over came back to it
        return queue

    def strike_off(self, action: Action) -> None:
        """The action is over."""
        action.enlisted = False
        self.queues[action.profile.settings.queue].enlisted -= 1

    def count(self, action: Action, counts: bool) -> None:
        """Whether the action counts to its queue's ``depth``."""
        action.counted = counts
        queue = self.queues[action.profile.settings.queue]
        if counts:
            queue.counted += 1
        else:
            queue.counted -= 1
            if queue.config.depth:
                self.roomy[queue.config.name] = None

    # -- lines --------------------------------------------------------------------------------------------------

    def line_up(self, action: Action, at_head: bool) -> None:
        """Give an action a place in its queue's line for the medium it wants."""
        queue = self.queues[action.profile.settings.queue]
        queue.line_for(action).add(self._next_ticket(at_head), action, at_head)
        action.stands = "line"
        queue.waiting += 1
        self.eager += 1
        self.dirty[queue.config.name] = None

    def wait_outside(self, action: Action) -> None:
        """The queue is full: stand at its door."""
        queue = self.queues[action.profile.settings.queue]
        queue.door.add(self._next_ticket(), action, at_head=False)
        action.stands = "door"
        queue.entering += 1

    def next_inside(self, queue: QueueState) -> Action | None:
        """The first of those at the door, who leaves it."""
        action = queue.door.head()
        if action is not None:
            queue.door.pop()
            self.withdraw(action)
        return action

    def hold_root(self, action: Action) -> None:
        """Stand with the roots whose runs have not begun."""
        queue = self.queues[action.profile.settings.queue]
        queue.hold.add(self._next_ticket(), action, at_head=False)
        action.stands = "hold"
        queue.held += 1
        if queue.config.depth:
            self.roomy[queue.config.name] = None  # one that is held may not count to the depth

    def block_root(self, action: Action, queue: QueueState, task: str) -> None:
        """The root at the head of the hold steps aside until no run of its task is active."""
        queue.hold.pop()
        heappush(queue.blocked.setdefault(task, []), (action.ticket, action))
        action.stands = "overlap"

    def unblock_root(self, queue: QueueState, task: str) -> None:
        """The first of those blocked by a run of ``task`` goes to the head of the hold."""
        blocked = queue.blocked.get(task)
        while blocked:
            ticket, action = heappop(blocked)
            if action.ticket == ticket:
                queue.hold.add(ticket, action, at_head=True)
                action.stands = "hold"
                break
        if not blocked:
            queue.blocked.pop(task, None)

    def leave_hold(self, action: Action, queue: QueueState) -> None:
        """The root at the head of the hold goes on from there."""
        queue.hold.pop()
        self.withdraw(action)

    def announce_run(self, run: str, task: str, queue: str) -> None:
        """A run of this task is in this queue from now on, whether it may begin yet or not."""
        runs_of = self.queues[queue].runs_of
        if task in runs_of:
            runs_of[task][run] = None
        else:
            runs_of[task] = {run: None}

    def begin_run(self, run: RunRecord, queue: QueueState) -> None:
        """A run takes one of the queue's run places."""
        run.active = True
        queue.active_runs += 1
        queue.active_tasks[run.task] = queue.active_tasks.get(run.task, 0) + 1

    def finish_run(self, run: RunRecord, queue: QueueState) -> None:
        """The root is over: its run place is free, and so is its task's turn."""
        if run.active:
            run.active = False
            queue.active_runs -= 1
            queue.active_tasks[run.task] -= 1
            if not queue.active_tasks[run.task]:
                del queue.active_tasks[run.task]
        if queue.blocked and run.task not in queue.active_tasks:
            self.unblock_root(queue, run.task)

    def ask_to_return(self, action: Action) -> None:
        """A parent whose children are done wants its place back, before anybody else."""
        queue = self.queues[action.profile.settings.queue]
        pool = self.pools[action.attempts[-1].pool]
        action.ticket, action.stands = self._next_ticket(), "return"
        places = queue.returning.get(pool.config.name)
        if places is None:
            places = queue.returning[pool.config.name] = deque()
        places.append((action.ticket, action))
        queue.returners += 1
        pool.returners += 1
        self.eager += 1
        self.dirty[queue.config.name] = None

    def withdraw(self, action: Action) -> None:
        """Leave wherever it stands; the place itself is dropped when it comes to the head."""
        if not action.ticket:
            return
        queue = self.queues[action.profile.settings.queue]
        if action.stands == "line":
            queue.waiting -= 1
            self.eager -= 1
        elif action.stands == "door":
            queue.entering -= 1
        elif action.stands != "return":
            queue.held -= 1
        else:
            pool = self.pools[action.attempts[-1].pool]
            queue.returners -= 1
            pool.returners -= 1
            self.eager -= 1
            self.freed[pool.config.name] = None  # others may have stood back for it
        action.ticket, action.stands = 0, ""
        self.dirty[queue.config.name] = None

    def leave_returning(self, action: Action, queue: QueueState, pool: PoolState) -> None:
        """The first parent that waited for its place back there gets it."""
        queue.returning[pool.config.name].popleft()
        action.ticket, action.stands = 0, ""
        queue.returners -= 1
        pool.returners -= 1
        self.eager -= 1
        self.dirty[queue.config.name] = None  # it held others of its queue back

    def touch(self, queue: str) -> None:
        """Look at this queue again: a limit of it changed."""
        self.dirty[queue] = None

    def touch_pool(self, pool: str) -> None:
        """Look at this pool again: its capacity changed."""
        self.freed[pool] = None

    def _next_ticket(self, at_head: bool = False) -> int:
        self._tickets += 1
        return self._tickets - _AHEAD if at_head else self._tickets

    # -- places -------------------------------------------------------------------------------------------------

    def admit(self, action: Action, queue: QueueState, pool: PoolState) -> None:
        """The head of a line, which was taken out of it, gets its place."""
        action.ticket, action.stands = 0, ""
        queue.waiting -= 1
        self.eager -= 1
        self._occupy(action, queue, pool)

    def occupy(self, action: Action, pool: PoolState) -> None:
        """Count one attempt in its queue and pool."""
        self._occupy(action, self.queues[action.profile.settings.queue], pool)

    def _occupy(self, action: Action, queue: QueueState, pool: PoolState) -> None:
        config = pool.config
        action.occupies = config.name
        action.place_medium = config.medium
        queue.running += 1
        pool.running += 1
        queue.inside[pool] = queue.inside.get(pool, 0) + 1
        if action.place_medium == SPOT:
            queue.spot_running += 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            queue.used = queue.used.plus(amounts)
            pool.used = pool.used.plus(amounts)

    def send_ahead(self, action: Action) -> None:
        """Its attempt holds a place, but has no machine yet."""
        self.queues[action.profile.settings.queue].ahead += 1
        self.pools[action.occupies].ahead += 1

    def has_machine(self, action: Action) -> None:
        """Its attempt, which was sent ahead, has a machine from now on."""
        self.queues[action.profile.settings.queue].ahead -= 1
        self.pools[action.occupies].ahead -= 1

    def vacate(self, action: Action) -> None:
        """Give the place back, if it holds one; counts exactly what ``occupy`` counted."""
        if not action.occupies:
            return
        queue = self.queues[action.profile.settings.queue]
        pool = self.pools[action.occupies]
        action.occupies = ""
        queue.running -= 1
        pool.running -= 1
        if pool.ahead and not action.attempts[-1].placed_at:
            queue.ahead -= 1
            pool.ahead -= 1
        left = queue.inside[pool] - 1
        if left:
            queue.inside[pool] = left
        else:
            del queue.inside[pool]
        if action.place_medium == SPOT:
            queue.spot_running -= 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            queue.used = queue.used.minus(amounts)
            pool.used = pool.used.minus(amounts)
        if self.eager:
            self.dirty[queue.config.name] = None
            self.freed[pool.config.name] = None

    # -- configuration ------------------------------------------------------------------------------------------

    def configure(self, queues: tuple[Queue, ...], pools: tuple[Pool, ...], now: float = 0.0) -> None:
        """Take on new limits; a queue or pool that still has work stays until it has none.

        Raises:
            ConfigurationError: a queue names a pool that is not there; nothing is changed.
        """
        names = {config.name for config in pools}
        for config in queues:
            missing = [name for name in config.pools if name not in names]
            if missing:
                expected = f"expected names of pools: {', '.join(sorted(names)) or 'there are none'}"
                raise ConfigurationError(f"Queue({config.name!r}): pools={missing!r} is not accepted: {expected}")
        for pool in self.pools.values():
            pool.removed = pool.config.name not in names
        for wanted in pools:
            if wanted.name in self.pools:
                self.pools[wanted.name].configure(wanted, now)
            else:
                self.pools[wanted.name] = PoolState(wanted)
        shapes = {name: _shape(queue) for name, queue in self.queues.items()}
        self._configure_queues(queues)
        self._wire()
        for name, queue in self.queues.items():
            if name in shapes and shapes[name] != _shape(queue):
                self._line_up_anew(queue)
            self.dirty[name] = None

    def _configure_queues(self, queues: tuple[Queue, ...]) -> None:
        for config in queues:
            if config.name in self.queues:
                self.queues[config.name].configure(config)
            else:
                self.queues[config.name] = QueueState(config)
        for name in self.queues.keys() - {config.name for config in queues}:
            queue = self.queues[name]
            if queue.is_idle:
                del self.queues[name]
            else:
                queue.state, queue.removed = "draining", True

    def _wire(self) -> None:
        configured = [pool for pool in self.pools.values() if not pool.removed]
        for queue in self.queues.values():
            named = [self.pools[name] for name in queue.config.pools if not self.pools[name].removed]
            # A removed queue whose pools went with it finishes its work wherever there is room.
            queue.wire(named or configured)
        for pool in self.pools.values():
            pool.feeders = [queue for queue in self.queues.values() if pool in queue.pools]
            pool.feeders.sort(key=lambda queue: -queue.config.priority)
        self.reprice()

    def reprice(self) -> None:
        """Prices are others than before: look again at queues with a limit on them."""
        on_demand = [pool for pool in self.pools.values() if pool.config.medium == ON_DEMAND and not pool.removed]
        for queue in self.queues.values():
            own = [pool.prices.latest for pool in queue.on_demand if pool.prices.latest]
            anybodys = (pool.prices.latest for pool in on_demand if pool.prices.latest)
            queue.on_demand_price = min(own, default=0.0) or min(anybodys, default=0.0)
            if queue.config.spend_limit:
                self.dirty[queue.config.name] = None

    def _line_up_anew(self, queue: QueueState) -> None:
        waiting = [action for line in queue.lines.values() for action in line]
        waiting.sort(key=lambda action: action.ticket)
        queue.lines = {}
        for action in waiting:
            queue.line_for(action).add(action.ticket, action, at_head=action.ticket < 0)
        outside, queue.door = list(queue.door), WaitingLine(fair=queue.config.fairness == "round_robin")
        for action in outside:
            queue.door.add(action.ticket, action, at_head=False)

    def adopt_queue(self, name: str) -> QueueState:
        """A queue that unfinished work is in, though it may not be configured any more."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = QueueState(Queue(name))
            queue.state, queue.removed = "draining", True
            self._wire()
        return queue

    def adopt_pool(self, name: str, medium: str) -> PoolState:
        """A pool that a living attempt is in, though it may not be configured any more."""
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = PoolState(Pool(name, medium=SPOT if medium == SPOT else ON_DEMAND))
            pool.removed = True
            self._wire()
        return pool

    def drop(self, queue: QueueState) -> None:
        """Its last work is done, and it is not configured any more."""
        del self.queues[queue.config.name]
        self._wire()

    def known(self) -> list[str]:
        """Names of the configured queues."""
        return sorted(name for name, queue in self.queues.items() if not queue.removed)


def _shape(queue: QueueState) -> tuple[str, str]:
    return queue.config.scheduling, queue.config.fairness
