"""From what was learned of a task to the workload that stands in for it: its work, saves, failures and children.

Says in words what it goes by and what it had to assume. Must not know pools or markets, nor how often it is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from statistics import median, pstdev
from typing import Any, Final

import msgspec

from flyteish._core.model.settings import Settings
from flyteish._core.rules.experience import TaskSeen
from flyteish._core.wording import span
from flyteish._learning.documents import Learned
from flyteish.errors import ConfigurationError
from flyteish.simulation.workload import Calls, Observed, Workload, WorkModel

SAVES_AT_MOST: Final = 500
"""Checkpoints in one simulated action: more would make it slow and hardly another."""
FAILURES_AT_MOST: Final = 0.9
TURNS_AT_MOST: Final = 200
"""Calls of one task that follow each other; where there are more, several are simulated as one."""
UNSEEN_SPREAD: Final = 0.25
"""Of the logarithm of a duration, where one was seen; half of it where there were two, and so on."""
LEAST_SPREAD: Final = 0.02
DEPTH: Final = 8
"""Of calls within calls."""


class SeenDurations(msgspec.Struct, frozen=True):
    """Durations that were seen, each somewhat longer or shorter: the next one will be none of them exactly.

    A few say little of how much they vary, so that a part of the spread is assumed, and goes as more are seen.
    """

    values: tuple[float, ...]
    spread: float
    """Of the logarithm."""

    @classmethod
    def of(cls, values: Sequence[float]) -> SeenDurations:
        """By the rule of thumb for the width of a kernel, and what is assumed."""
        logs = [math.log(max(value, 1e-6)) for value in values]
        width = 1.06 * pstdev(logs) * len(logs) ** -0.2
        return cls(tuple(values), min(1.0, math.hypot(width, UNSEEN_SPREAD / len(logs), LEAST_SPREAD)))

    def draw(self, random: Random) -> float:
        """One value, >= 0."""
        return random.choice(self.values) * math.exp(self.spread * random.gauss(0.0, 1.0))


class Modeller:
    """Makes the workload of one task. ``based_on`` and ``assumed`` are the words for it."""

    def __init__(self, learned: Learned, work: object = None, checkpoint_every: Any = None) -> None:
        self._learned = learned
        self._work = work
        self._every = checkpoint_every
        self.based_on: list[str] = []
        self.assumed: list[str] = []
        self.tasks: set[str] = set()
        """Of the whole tree."""
        self.settings: list[Settings] = []

    def root(self, task: str, settings: Settings, count: int) -> Workload:
        """The task that the forecast is about.

        Raises:
            ConfigurationError: nothing is known of its work, or the caller's estimate is not accepted.
        """
        if isinstance(self._work, WorkModel):
            self.based_on.append("the work model that was given")
            return self._workload(task, settings, self._work, count)
        seen = self._learned.tasks.get(task, TaskSeen())
        shape = self._learned.shapes.get(task)
        children: tuple[Calls | Workload, ...] = ()
        policy = settings.interruptible
        work: Any
        if self._work is not None:
            work = self._work
            self.based_on.append(f"the given work of {_words(work)}")
        elif shape is not None and shape.own:
            work = _net(shape.own, seen)
            self.based_on.append(f"{_runs(len(shape.own))} of {task}")
            children = self._children(task, (task,))
        elif seen.works:
            work = _net(seen.works, seen)
            self.based_on.append(f"{_runs(len(seen.works))} of {task}")
        elif policy is not None and policy.work is not None:
            work = policy.work
            self.based_on.append(f"the author's estimate SpotPolicy(work={_words(work)})")
        else:
            raise ConfigurationError(
                f"forecast of {task}: work=None is not accepted, for no run of it has succeeded yet: expected seconds, "
                "a timedelta or a distribution of flyteish.simulation (--work 2h on the command line), or "
                "SpotPolicy(work=...) on the task"
            )
        model = self._model(work, seen, self._every, children)
        self._tell(task, seen, model, settings)
        return self._workload(task, settings, model, count)

    def _workload(self, task: str, settings: Settings, model: WorkModel, count: int) -> Workload:
        self.tasks.add(task)
        self.settings.append(settings)
        return Workload(settings, model, count=count, name=task)

    def _model(self, work: Any, seen: TaskSeen, every: Any, children: tuple[Calls | Workload, ...] = ()) -> WorkModel:
        save = median(seen.saves) if seen.saves else 0.0
        if every is None and seen.gaps:
            every = max(1e-3, median(seen.gaps) - save)
        model = WorkModel(
            work,
            checkpoint_every=every,
            save_seconds=save,
            restore_seconds=median(seen.restores) if seen.restores else 0.0,
            failure_rate=min(FAILURES_AT_MOST, seen.failure_share),
            children=children,
        )
        least = _most(model.work) / SAVES_AT_MOST
        if model.checkpoint_every is not None and model.checkpoint_every < least:  # type: ignore[operator]
            model = msgspec.structs.replace(model, checkpoint_every=least)
        return model

    def _tell(self, task: str, seen: TaskSeen, model: WorkModel, settings: Settings) -> None:
        if self._every is not None:
            self.based_on.append(f"checkpoints every {span(model.checkpoint_every)}, as given")
        elif seen.gaps:
            every = span(model.checkpoint_every)
            self.based_on.append(f"checkpoints every {every}, as seen, {span(median(seen.saves))} each")
        elif settings.interruptible is not None and not model.children:
            self.assumed.append(f"{task} saves no checkpoints: none were seen")
        if model.failure_rate:
            self.based_on.append(f"{model.failure_rate:.0%} of its attempts raised")

    def _children(self, task: str, path: Sequence[str]) -> tuple[Calls | Workload, ...]:
        """What it calls, all at once or one after the other."""
        shape = self._learned.shapes[task]
        found: list[Calls | Workload] = []
        for child in shape.children:
            seen = self._learned.tasks.get(child.task)
            known = self._learned.shapes.get(child.task)
            deeper = known is not None and known.own and child.task not in path and len(path) < DEPTH
            if seen is None or not seen.works:
                self.assumed.append(f"{child.task}, which it calls, takes no time: no action of it has succeeded yet")
                continue
            self.based_on.append(
                f"{child.count} calls of {child.task}" if child.count > 1 else f"a call of {child.task}"
            )
            if known is not None and deeper:
                below = self._children(child.task, (*path, child.task))
                model = self._model(_net(known.own, seen), seen, None, below)
            else:
                model = self._model(_net(seen.works, seen), seen, None)
            if not shape.in_turn:
                found.append(self._workload(child.task, child.settings, model, child.count))
                continue
            turns = min(child.count, TURNS_AT_MOST)
            model = _longer(model, child.count / turns)
            found += [Calls((self._workload(child.task, child.settings, model, 1),))] * turns
        return tuple(found)


def _net(values: Sequence[float], seen: TaskSeen) -> SeenDurations:
    """The work without the saves that were made in that time: they are simulated apart."""
    gap = median(seen.gaps) if seen.gaps else 0.0
    share = max(0.0, gap - median(seen.saves)) / gap if gap else 1.0
    return SeenDurations.of([value * share for value in values])


def _longer(model: WorkModel, times: float) -> WorkModel:
    """One action in place of several that follow each other."""
    work: Any = model.work
    if times == 1.0 or not isinstance(work, SeenDurations):
        return model
    seen = SeenDurations(tuple(value * times for value in work.values), work.spread)
    return msgspec.structs.replace(model, work=seen)


def _most(work: Any) -> float:
    """A long work, to tell how many checkpoints there would be."""
    if isinstance(work, Observed | SeenDurations):
        return max(work.values)
    return work if isinstance(work, float) else float(getattr(work, "median", getattr(work, "mean", 0.0)))


def _words(work: Any) -> str:
    if isinstance(work, timedelta):
        work = work.total_seconds()
    return span(work) if isinstance(work, int | float) and work >= 0 else repr(work)


def _runs(count: int) -> str:
    return f"{count} past runs" if count > 1 else "one past run"
