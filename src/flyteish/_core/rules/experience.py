"""What has been seen of tasks and pools: how much work a task is, and how long it takes to begin in a pool.

Remembers the latest observations and answers with the careful end of them; ``deadline_pacing`` and forecasts go by
it. Must not know actions, queues, or what follows from its answers (spec: attempts, "measured change-over time").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

KEPT = 32
"""Observations of one kind that are remembered: older ones may be of other code and other machines."""
CAREFUL_SHARE = 0.95
"""Share of the remembered works that lies at or below the estimate."""
COUNTED = 200
"""Ends of attempts that the share of failures goes by, at most."""


class TaskSeen(msgspec.Struct, omit_defaults=True, gc=False):
    """One task's latest observations, in seconds, oldest first."""

    works: list[float] = []
    """Of successful actions: running time that was kept, over all their attempts."""
    starts: dict[str, list[float]] = {}
    """By pool: from admission to user code."""
    restores: list[float] = []
    """Reading a checkpoint back."""
    gaps: list[float] = []
    """From one checkpoint of an attempt to the next, the save included."""
    saves: list[float] = []
    """Saving a checkpoint."""
    successes: int = 0
    failures: int = 0
    """Attempts that raised; both counts fade together, see ``failed``."""

    @property
    def failure_share(self) -> float:
        """Of the attempts whose end was their own doing: the share that raised."""
        ends = self.successes + self.failures
        return self.failures / ends if ends else 0.0


class Experience(msgspec.Struct):
    """All of it; grows with the number of tasks and pools, not with the number of attempts."""

    tasks: dict[str, TaskSeen] = {}

    def of(self, task: str) -> TaskSeen:
        """The record of a task, made when it is first seen."""
        seen = self.tasks.get(task)
        if seen is None:
            seen = self.tasks[task] = TaskSeen()
        return seen

    def started(self, task: str, pool: str, seconds: float) -> None:
        """User code began so long after the admission."""
        seen = self.tasks.get(task) or self.of(task)
        latest = seen.starts.get(pool)
        if latest is None:
            seen.starts[pool] = [seconds]
        else:
            _keep(latest, seconds)

    def restored(self, task: str, seconds: float) -> None:
        """A checkpoint was read back in so long."""
        _keep(self.of(task).restores, seconds)

    def finished(self, task: str, seconds: float) -> None:
        """An action succeeded with so much work kept."""
        seen = self.tasks.get(task) or self.of(task)
        seen.successes += 1
        _keep(seen.works, seconds)

    def saved(self, task: str, gap: float, seconds: float) -> None:
        """A checkpoint was committed ``gap`` after the one before, or the attempt's beginning; it took so long."""
        seen = self.of(task)
        _keep(seen.gaps, gap)
        _keep(seen.saves, seconds)

    def failed(self, task: str) -> None:
        """An attempt raised. The counts are halved now and then: the code may be mended by now."""
        seen = self.of(task)
        seen.failures += 1
        if seen.successes + seen.failures > COUNTED:
            seen.successes //= 2
            seen.failures //= 2

    def work(self, task: str) -> float | None:
        """A careful estimate of the work of one action of the task, seconds; None: none was seen to succeed."""
        seen = self.tasks.get(task)
        if seen is None or not seen.works:
            return None
        works = sorted(seen.works)
        return works[math.ceil(CAREFUL_SHARE * len(works)) - 1]

    def changeover(self, task: str, pools: Iterable[tuple[str, float]], save: float = 0.0) -> float:
        """The longest change-over (start-up and restore) seen lately in any of the pools, seconds.

        Args:
            task: whose.
            pools: name and assumed start-up of each, the assumption where the task never began there.
            save: how long its checkpoint took to save, which stands in until one was read back. Default 0.
        """
        seen = self.tasks.get(task)
        if seen is None:
            return max((assumed for _, assumed in pools), default=0.0) + save
        starts = seen.starts
        longest = max((max(starts[name]) if name in starts else assumed for name, assumed in pools), default=0.0)
        return longest + max(seen.restores, default=save)

    def recall(self, tasks: Mapping[str, TaskSeen]) -> None:
        """What earlier sessions saw."""
        self.tasks.update(tasks)

    def put_last(self, tasks: Iterable[str]) -> None:
        """These were seen after all others: where only the last are kept, they are."""
        for name in tasks:
            self.tasks[name] = self.tasks.pop(name)

    def __repr__(self) -> str:
        return f"<Experience of {len(self.tasks)} tasks>"


class NoExperience(Experience):
    """Nothing is learned from what is read again: who lived through it has learned it."""

    def started(self, task: str, pool: str, seconds: float) -> None:
        pass

    def restored(self, task: str, seconds: float) -> None:
        pass

    def finished(self, task: str, seconds: float) -> None:
        pass

    def saved(self, task: str, gap: float, seconds: float) -> None:
        pass

    def failed(self, task: str) -> None:
        pass


def _keep(latest: list[float], seconds: float) -> None:
    latest.append(seconds)
    if len(latest) > KEPT:
        del latest[0]
