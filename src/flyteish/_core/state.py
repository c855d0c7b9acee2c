"""Everything the core knows: the runs, the queues and pools, and the times it waits for.

A bag of records with the timers' order; it decides nothing. ``lifecycle`` is the only way to change it, and this must
not know what its rules are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from flyteish._core.model.ids import ActionKey
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import TERMINAL, Action, RunRecord
from flyteish._core.rules.experience import Experience, NoExperience
from flyteish._core.scheduling.admission import Admission
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.replayed import ReplayAdmission, ReplayCapacity

_FEW: Final = 1024
"""So many timers are never worth a look at whether somebody still waits for them."""


_OF_ATTEMPTS: Final = frozenset(("max_runtime", "pace"))


class Timer(NamedTuple):
    """Something to look at again, not before ``at``."""

    at: float
    number: int
    kind: str
    """``deadline``, ``max_runtime``, ``max_queued_time``, ``max_spot_wait``, ``backoff``, ``cooldown``; ``review`` of a
    waiting and ``pace`` of a running action under the deadline rule."""
    key: ActionKey | None
    guard: int
    """Generation or wait that it belongs to; void if the action has moved on."""
    pool: str = ""


class State:
    """What the core has been told so far, and nothing else."""

    __slots__ = (
        "_compact_at", "_numbers", "admission", "capacity", "experience", "movers", "moves_to", "runs", "timers",
        "unpaced", "watchers",
    )  # fmt: skip

    def __init__(self, capacity: Capacity, admission: Admission) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.capacity = capacity
        self.admission = admission
        self.timers: list[Timer] = []
        self.experience = Experience()
        self.watchers: dict[ActionKey, None] = {}
        """Actions on-demand that the deadline rule would move to spot, if there were any."""
        self.unpaced: dict[str, dict[ActionKey, None]] = {}
        """By task: actions with a deadline that does not steer them yet, for nobody knows how much work they are."""
        self.movers: dict[ActionKey, tuple[str, str]] = {}
        """Actions told to move whose attempt is not over: queue and medium that they will line up for."""
        self.moves_to: dict[tuple[str, str], int] = {}
        """How many of them, by queue and medium."""
        self._numbers = 0
        self._compact_at = _FEW

    @classmethod
    def configured(
        cls, queues: tuple[Queue, ...], pools: tuple[Pool, ...], experience: Experience | None = None
    ) -> State:
        """A live state with these queues and pools, and what was learned before."""
        capacity = Capacity(queues, pools)
        state = cls(capacity, Admission(capacity))
        if experience is not None:
            state.experience = experience
        return state

    def action(self, key: ActionKey) -> Action | None:
        run = self.runs.get(key.run)
        return run.actions.get(key.action) if run is not None else None

    def moves(self, action: Action, medium: str) -> None:
        """It was told to move."""
        where = (action.profile.settings.queue, medium)
        self.movers[action.key] = where
        self.moves_to[where] = self.moves_to.get(where, 0) + 1

    def settled(self, action: Action) -> None:
        """Its attempt is over: nobody waits for it to move, nor to be moved."""
        self.watchers.pop(action.key, None)
        where = self.movers.pop(action.key, None)
        if where is not None:
            self.moves_to[where] -= 1

    def remind(self, at: float, kind: str, action: Action | None, guard: int = 0, pool: str = "") -> None:
        """Come back to this at a time."""
        self._numbers += 1
        heappush(self.timers, Timer(at, self._numbers, kind, action.key if action else None, guard, pool))
        if len(self.timers) > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Drop what nobody waits for any more: a long limit on short tasks must not keep a timer for each of them."""
        # In place: whoever goes through what is due has this list in hand.
        self.timers[:] = [timer for timer in self.timers if not self._is_void(timer)]
        heapify(self.timers)
        self._compact_at = max(_FEW, 2 * len(self.timers))  # so that each timer pays for a bounded share

    def _is_void(self, timer: Timer) -> bool:
        if timer.key is None:
            return False
        action = self.action(timer.key)
        if action is None or action.phase in TERMINAL:
            return True
        if timer.kind == "deadline":
            return False
        return timer.guard != (action.generation if timer.kind in _OF_ATTEMPTS else action.wait)

    def next_due(self) -> float | None:
        """When ``apply(state, TimePassed(), now)`` has something to do next."""
        return self.timers[0].at if self.timers else None

    def pop_due(self, now: float) -> Timer | None:
        return heappop(self.timers) if self.timers and self.timers[0].at <= now else None

    def forget(self, run: str) -> None:
        """Drop an ended run from memory, once none of its attempts holds a place; the journal keeps it."""
        record = self.runs.get(run)
        if record is not None and record.ended_at:
            record.forgotten = True
            if not record.zombies:
                del self.runs[run]

    def __repr__(self) -> str:
        return f"<State {len(self.runs)} runs, {len(self.timers)} timers>"


class ReplayState(State):
    """What a journal says: only what happened. Nothing is decided, nobody waits in a line, and nothing is due."""

    __slots__ = ()

    def __init__(self) -> None:
        capacity = ReplayCapacity()
        super().__init__(capacity, ReplayAdmission(capacity))
        self.experience = NoExperience()

    def remind(self, at: float, kind: str, action: Action | None, guard: int = 0, pool: str = "") -> None:
        """Nothing is due in replay."""
