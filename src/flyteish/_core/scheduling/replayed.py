"""Queues, pools and admission in replay: everything that is read from a journal was decided when it was new.

A null object: it has the face of ``Capacity`` and ``Admission``, accepts everything, and keeps nothing. In replay
nobody stands in a line or holds a place, so whoever asks an action (``ticket``, ``occupies``, ``enlisted``) hears of
none. Must not know what is replayed, nor for whom.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from flyteish._core.model.events import RunSubmitted
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Action
from flyteish._core.scheduling.admission import Admission
from flyteish._core.scheduling.capacity import Capacity
from flyteish._core.scheduling.queue_state import PoolState, QueueState
from flyteish._core.scheduling.submission_checks import Refusal

T = TypeVar("T")


class _Whatever(dict[str, T], Generic[T]):
    """Finds the same value under every name that is asked for by force, and has none."""

    def __init__(self, value: T) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, name: str) -> T:
        return self._value


class ReplayCapacity(Capacity):
    """One queue and one pool stand for all: without limits, without anybody in them."""

    __slots__ = ("_any_queue",)

    def __init__(self) -> None:
        super().__init__()
        self._any_queue = QueueState(Queue("of the journal"))
        self.queues = _Whatever(self._any_queue)
        self.pools = _Whatever(PoolState(Pool("of the journal", half_life=0.0)))

    def enlist(self, action: Action) -> QueueState:
        return self._any_queue

    def count(self, action: Action, counts: bool) -> None:
        pass

    def line_up(self, action: Action, at_head: bool) -> None:
        pass

    def announce_run(self, run: str, task: str, queue: str) -> None:
        pass

    def occupy(self, action: Action, pool: PoolState) -> None:
        pass

    def has_machine(self, action: Action) -> None:
        pass

    def adopt_queue(self, queue: str) -> QueueState:
        return self.queues[queue]

    def adopt_pool(self, pool: str, medium: str) -> PoolState:
        return self.pools[pool]


class ReplayAdmission(Admission):
    """Refuses nobody, and starts nobody."""

    __slots__ = ()

    def refuses_run(self, event: RunSubmitted) -> Refusal | None:
        return None

    def refuses(self, action: Action) -> Refusal | None:
        return None
