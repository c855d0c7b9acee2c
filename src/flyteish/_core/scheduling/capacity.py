"""Who stands where and who holds what: the one set of books over all queues and pools.

Keeps counts and lines exact, whoever comes and goes; decides nothing: who starts is ``admission``'s business,
what an action becomes is ``lifecycle``'s.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Final

from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import Action, RunRecord
from flyteish._core.model.resources import NO_AMOUNTS
from flyteish._core.scheduling.queue_state import PoolBook, QueueBook

# Tickets of those at the head are lower than all others, so that tickets alone order the heads of two lines.
_AHEAD: Final = 1 << 62


class Ledger:
    """The queues' and pools' books, kept together: one action's coming or going is written in all of them at once."""

    __slots__ = ("_polite", "_tickets", "dirty", "eager", "freed", "pools", "queues", "roomy")

    def __init__(self) -> None:
        self.queues: dict[str, QueueBook] = {}
        self.pools: dict[str, PoolBook] = {}
        self.eager = 0
        """Actions in lines and parents that want their place back: with nobody waiting, nothing needs deciding."""
        self.roomy: dict[str, None] = {}
        """Queues with somebody at the door that are no longer full."""
        self._tickets = 0
        self.dirty: dict[str, None] = {}
        """Queues in which somebody new waits, or has more room."""
        self.freed: dict[str, None] = {}
        """Pools with more room."""
        self._polite: dict[str, None] = {}
        """Queues in which somebody stood back for another queue's returning parent."""

    # -- counts -------------------------------------------------------------------------------------------------

    def enlist(self, action: Action) -> QueueBook:
        """From here on its queue knows of it, until it is struck off. Returns the queue's book."""
        book = self.queues[action.profile.settings.queue]
        if not action.enlisted:
            action.enlisted = True
            book.enlisted += 1
            if book.state == "drained":
                book.state = "draining"  # unfinished work of a run that was taken over came back to it
        return book

    def strike_off(self, action: Action) -> None:
        """The action is over."""
        if action.enlisted:
            action.enlisted = False
            self.queues[action.profile.settings.queue].enlisted -= 1

    def count(self, action: Action, counts: bool) -> None:
        """Whether the action counts to its queue's ``depth``."""
        action.counted = counts
        book = self.queues[action.profile.settings.queue]
        if counts:
            book.counted += 1
        else:
            book.counted -= 1
            if book.config.depth:
                self.roomy[book.config.name] = None

    # -- lines --------------------------------------------------------------------------------------------------

    def line_up(self, action: Action, at_head: bool) -> None:
        """Give an action a place in its queue's line for the medium it wants."""
        book = self.queues[action.profile.settings.queue]
        book.line_for(action).add(self._next_ticket(at_head), action, at_head)
        action.stands = "line"
        book.waiting += 1
        self.eager += 1
        self.dirty[book.config.name] = None

    def wait_outside(self, action: Action) -> None:
        """The queue is full: stand at its door."""
        book = self.queues[action.profile.settings.queue]
        book.door.add(self._next_ticket(), action, at_head=False)
        action.stands = "door"
        book.entering += 1

    def next_inside(self, book: QueueBook) -> Action | None:
        """The first of those at the door, who leaves it."""
        action = book.door.head()
        if action is not None:
            book.door.pop()
            self.withdraw(action)
        return action

    def hold_root(self, action: Action) -> None:
        """Stand with the roots whose runs have not begun."""
        book = self.queues[action.profile.settings.queue]
        book.hold.add(self._next_ticket(), action, at_head=False)
        action.stands = "hold"
        book.held += 1
        if book.config.depth:
            self.roomy[book.config.name] = None  # one that is held may not count to the depth

    def block_root(self, action: Action, book: QueueBook, task: str) -> None:
        """The root at the head of the hold steps aside until no run of its task is active."""
        book.hold.pop()
        heappush(book.blocked.setdefault(task, []), (action.ticket, action))
        action.stands = "overlap"

    def unblock_root(self, book: QueueBook, task: str) -> None:
        """The first of those blocked by a run of ``task`` goes to the head of the hold."""
        blocked = book.blocked.get(task)
        while blocked:
            ticket, action = heappop(blocked)
            if action.ticket == ticket:
                book.hold.add(ticket, action, at_head=True)
                action.stands = "hold"
                break
        if not blocked:
            book.blocked.pop(task, None)

    def leave_hold(self, action: Action, book: QueueBook) -> None:
        """The root at the head of the hold goes on from there."""
        book.hold.pop()
        self.withdraw(action)

    def begin_run(self, run: RunRecord, book: QueueBook) -> None:
        """A run takes one of the queue's run places."""
        run.active = True
        book.active_runs += 1
        book.active_tasks[run.task] = book.active_tasks.get(run.task, 0) + 1

    def finish_run(self, run: RunRecord, book: QueueBook) -> None:
        """The root is over: its run place is free, and so is its task's turn."""
        if run.active:
            run.active = False
            book.active_runs -= 1
            book.active_tasks[run.task] -= 1
            if not book.active_tasks[run.task]:
                del book.active_tasks[run.task]
        if book.blocked and run.task not in book.active_tasks:
            self.unblock_root(book, run.task)

    def ask_to_return(self, action: Action) -> None:
        """A parent whose children are done wants its place back, before anybody else."""
        book = self.queues[action.profile.settings.queue]
        pool = self.pools[action.attempts[-1].pool]
        action.ticket, action.stands = self._next_ticket(), "return"
        places = book.returning.get(pool.config.name)
        if places is None:
            places = book.returning[pool.config.name] = deque()
        places.append((action.ticket, action))
        book.returners += 1
        pool.returners += 1
        self.eager += 1
        self.dirty[book.config.name] = None

    def withdraw(self, action: Action) -> None:
        """Leave wherever it stands; the place itself is dropped when it comes to the head."""
        if not action.ticket:
            return
        book = self.queues[action.profile.settings.queue]
        if action.stands == "line":
            book.waiting -= 1
            self.eager -= 1
        elif action.stands == "door":
            book.entering -= 1
        elif action.stands != "return":
            book.held -= 1
        else:
            pool = self.pools[action.attempts[-1].pool]
            book.returners -= 1
            pool.returners -= 1
            self.eager -= 1
            self.freed[pool.config.name] = None  # others may have stood back for it
        action.ticket, action.stands = 0, ""
        self.dirty[book.config.name] = None

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

    def occupy(self, action: Action, pool: PoolBook) -> None:
        """Count one attempt in its queue and pool."""
        book = self.queues[action.profile.settings.queue]
        config = pool.config
        action.occupies = config.name
        action.place_medium = config.medium
        book.running += 1
        pool.running += 1
        book.inside[pool] = book.inside.get(pool, 0) + 1
        if action.place_medium == SPOT:
            book.spot_running += 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            book.used = book.used.plus(amounts)
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
        book = self.queues[action.profile.settings.queue]
        pool = self.pools[action.occupies]
        action.occupies = ""
        book.running -= 1
        pool.running -= 1
        if pool.ahead and not action.attempts[-1].placed_at:
            book.ahead -= 1
            pool.ahead -= 1
        left = book.inside[pool] - 1
        if left:
            book.inside[pool] = left
        else:
            del book.inside[pool]
        if action.place_medium == SPOT:
            book.spot_running -= 1
        amounts = action.profile.settings.amounts
        if amounts is not NO_AMOUNTS:
            book.used = book.used.minus(amounts)
            pool.used = pool.used.minus(amounts)
        if self.eager:
            self.dirty[book.config.name] = None
            self.freed[pool.config.name] = None
