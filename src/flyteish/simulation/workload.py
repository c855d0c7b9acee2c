"""What is simulated: tasks with their settings, and models of the work that stands in for their code.

Values only; drawn numbers come from the random source that is passed in. Must not know the world that they run in.
"""

from __future__ import annotations

import math
from datetime import timedelta
from random import Random
from typing import Any, Literal, Protocol

import msgspec

from flyteish._core.model.settings import Settings
from flyteish._core.wording import not_accepted
from flyteish.errors import ConfigurationError


class Draw(Protocol):
    """A distribution of seconds."""

    def draw(self, random: Random) -> float:
        """One value, >= 0."""


class LogNormal(msgspec.Struct, frozen=True):
    """Seconds whose logarithm is normal: half are below ``median``; ``sigma`` is the spread of the logarithm."""

    median: float
    sigma: float = 0.5

    def __post_init__(self) -> None:
        _positive("LogNormal", "median", self.median)
        _at_least_zero("LogNormal", "sigma", self.sigma)

    def draw(self, random: Random) -> float:
        return self.median * math.exp(min(self.sigma * random.gauss(0.0, 1.0), 50.0))


class Exponential(msgspec.Struct, frozen=True):
    """Seconds without memory, with this mean."""

    mean: float

    def __post_init__(self) -> None:
        _positive("Exponential", "mean", self.mean)

    def draw(self, random: Random) -> float:
        return random.expovariate(1.0) * self.mean


class Observed(msgspec.Struct, frozen=True):
    """One of these seconds, each as likely as the other: durations that were seen."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigurationError("Observed: values=() is not accepted: expected at least one duration in seconds")
        for value in self.values:
            _at_least_zero("Observed", "values", value)

    def draw(self, random: Random) -> float:
        return random.choice(self.values)


class Calls(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Calls that an action makes together, and waits for before it goes on.

    Args:
        workloads: what is called.
        at: seconds of the action's own work after which it calls. Default None: when its own work is done.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    workloads: tuple[Workload, ...]
    at: float | int | timedelta | None = None

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        if isinstance(self.workloads, Workload):
            force(self, "workloads", (self.workloads,))
        given: Any = self.workloads
        if not isinstance(given, list | tuple) or not all(isinstance(each, Workload) for each in given):
            raise not_accepted("Calls: workloads", given, "Workload(...) objects")
        force(self, "workloads", tuple(given))
        if self.at is not None:
            force(self, "at", _seconds("at", self.at, "Calls"))


class WorkModel(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """What one action of a task does with its time.

    Args:
        work: seconds of work on an undisturbed machine: a number, a timedelta, or a distribution
            (``LogNormal``, ``Exponential``, ``Observed``).
        checkpoint_every: seconds of work between checkpoints. Default None: it saves none.
        save_seconds: how long a save takes. Default 0.
        restore_seconds: how long an attempt takes to read a checkpoint back. Default 0.
        startup: seconds from admission until the code begins. Default None: what the pool says.
        on_notice: ``"save"``: saves and leaves when its machine is about to go, if there is time for the save.
            ``"ignore"``: works on until it is gone. Default: saves if it has checkpoints.
        failure_rate: the share of attempts that raise, somewhere in their work. Default 0.
        fails_at: after so many seconds of its work the first, second, ... user attempt raises; None: it does not.
            Default none. Takes the place of ``failure_rate``.
        children: what the action calls: ``Workload`` objects are called together when its own work is done;
            ``Calls`` one after the other, each when it has done so much of its own work. Default none.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    work: float | int | timedelta | Any
    checkpoint_every: float | int | timedelta | None = None
    save_seconds: float | int | timedelta = 0.0
    restore_seconds: float | int | timedelta = 0.0
    startup: float | int | timedelta | None = None
    on_notice: Literal["save", "ignore", ""] = ""
    failure_rate: float = 0.0
    fails_at: tuple[float | None, ...] = ()
    children: tuple[Calls | Workload, ...] = ()

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        if not hasattr(self.work, "draw"):
            force(self, "work", _seconds("work", self.work))
        for field in ("save_seconds", "restore_seconds"):
            force(self, field, _seconds(field, getattr(self, field)))
        if self.startup is not None:
            force(self, "startup", _seconds("startup", self.startup))
        if self.checkpoint_every is not None:
            every = _seconds("checkpoint_every", self.checkpoint_every)
            if not every:
                raise not_accepted("WorkModel: checkpoint_every", self.checkpoint_every, "seconds > 0 or None")
            force(self, "checkpoint_every", every)
        if self.on_notice not in ("save", "ignore", ""):
            raise not_accepted("WorkModel: on_notice", self.on_notice, "'save' or 'ignore'")
        if not self.on_notice:
            force(self, "on_notice", "save" if self.checkpoint_every is not None else "ignore")
        rate: object = self.failure_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise not_accepted("WorkModel: failure_rate", rate, "a number from 0 to 1")
        fails_at = tuple(None if at is None else _seconds("fails_at", at) for at in self.fails_at)
        force(self, "fails_at", fails_at)
        force(self, "children", _calls(self.children))

    def draw(self, random: Random) -> float:
        """The work of one action, in seconds."""
        work: Any = self.work
        return work if isinstance(work, float) else max(0.0, float(work.draw(random)))


class Workload(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """So many actions of one task, and when they come.

    Args:
        task: a task (``@env.task``), or resolved ``Settings``.
        model: what each of them does.
        count: how many. Default 1.
        every: seconds between two of them, a number or a distribution (``Exponential`` for a Poisson stream).
            Default 0: all at once.
        start: seconds from the beginning until the first comes. Default 0.
        name: for reports. Default: the task's.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    task: Any
    model: WorkModel
    count: int = 1
    every: float | int | timedelta | Any = 0.0
    start: float | int | timedelta = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        if not isinstance(self.task, Settings) and not getattr(self.task, "__flyteish_task__", False):
            raise not_accepted("Workload: task", self.task, "a task (a function with @env.task) or Settings")
        if not isinstance(self.model, WorkModel):
            raise not_accepted("Workload: model", self.model, "WorkModel(...)")
        count: object = self.count
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise not_accepted("Workload: count", count, "an int >= 1")
        if not hasattr(self.every, "draw"):
            force(self, "every", _seconds("every", self.every, "Workload"))
        force(self, "start", _seconds("start", self.start, "Workload"))
        if not self.name:
            force(self, "name", getattr(self.task, "name", "task"))


def _calls(given: Any) -> tuple[Calls, ...]:
    """In the order in which they are made; what is given without a place of its own is called together, at the end."""
    items = (given,) if isinstance(given, Workload | Calls) else tuple(given)
    if not all(isinstance(each, Workload | Calls) for each in items):
        raise not_accepted("WorkModel: children", given, "Workload(...) and Calls(...) objects")
    together = tuple(each for each in items if isinstance(each, Workload))
    calls = [each for each in items if isinstance(each, Calls)]
    calls.sort(key=lambda each: math.inf if each.at is None else each.at)
    return (*calls, Calls(together)) if together else tuple(calls)


def _seconds(name: str, value: object, whose: str = "WorkModel") -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise not_accepted(f"{whose}: {name}", value, "seconds >= 0")
    return float(value)


def _positive(whose: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise not_accepted(f"{whose}: {name}", value, "a number > 0")


def _at_least_zero(whose: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise not_accepted(f"{whose}: {name}", value, "a number >= 0")
