"""One attempt in virtual time: start-up, restore, work, saves, notice, end, as its work model has them.

Tells the world what happens to it and asks it to be called again at a time. Must not decide where or whether it runs:
that is the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, Protocol

from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptRunning,
    CheckpointCommitted,
    Event,
    Evidence,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool
from flyteish._core.model.records import Action
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from flyteish.simulation.workload import Workload, WorkModel

_DONE: Final = Evidence(result=Payload(b"\xc0", None, 1))
_STOPPED: Final = Evidence(stopped=True)
_FAILED: Final = Evidence(error=ErrorDocument("flyteish.simulation.SimulatedFailure", "as its work model has it"))
_CHILD_FAILED: Final = Evidence(
    error=ErrorDocument("flyteish.simulation.SimulatedFailure", "a task that it called failed")
)


class Surroundings(Protocol):
    """What a machine asks of the world."""

    now: float

    def tell(self, event: Event) -> None:
        """Something happened."""

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """Call it then."""

    def call_children(self, machine: Machine, group: int, children: Sequence[Workload]) -> int:
        """The attempt makes its ``group``-th calls; returns how many outcomes it has to wait for."""

    def left(self, machine: Machine) -> None:
        """The attempt is over."""


class Job:
    """What one action has to do, and what of it is saved, over all its attempts."""

    __slots__ = ("chance", "model", "plain", "saved", "sequence", "work")

    def __init__(self, model: WorkModel, work: float, chance: int = 0, plain: bool = False) -> None:
        self.model = model
        self.work = work
        self.plain = plain
        """Nothing can happen to its attempts but their end."""
        self.saved = 0.0
        """Seconds of work that a checkpoint holds."""
        self.sequence = 0
        self.chance = chance
        """Says of each of its attempts whether and where it raises, under whichever policy."""

    def fails_at(self, action: Action) -> float:
        """Seconds of work at which the action's newest attempt raises; below 0: it does not."""
        model, number = self.model, action.user_attempt - 1
        if model.fails_at:
            at = model.fails_at[number] if number < len(model.fails_at) else None
            return -1.0 if at is None else max(self.saved, min(at, self.work))
        if model.failure_rate:
            random = Random(self.chance + len(action.attempts))
            if random.random() < model.failure_rate:
                return self.saved + random.random() * (self.work - self.saved)
        return -1.0


def is_plain(model: WorkModel, settings: Settings) -> bool:
    """Whether nothing can happen to an attempt of such a task but its end."""
    return (
        model.checkpoint_every is None
        and not model.children
        and not model.failure_rate
        and not model.fails_at
        and model.on_notice == "ignore"
        and settings.timeout.deadline is None
        and settings.timeout.max_runtime is None
    )


class Machine:
    """Runs one attempt of a job."""

    # What is said here is written for those attempts only that it changes for: most are plain.
    over = False
    leaving = False
    """It saves because of a notice, and goes when that is done."""
    told_to_save = False
    """It had a notice, and goes when the save that it was at is done."""
    running_at = 0.0
    waits = 0
    """Children's outcomes that it still needs."""
    fails_at = -1.0
    _resumed_at = 0.0  # since when it works; 0: it does not
    _save_at = -1.0  # work at which the next checkpoint is due
    _calls = 0  # groups of calls that it has made
    restoring: Any = 0.0
    """Seconds that it took to read its checkpoint back, until a checkpoint tells of them."""

    def __init__(self, world: Surroundings, job: Job, action: Action, pool: Pool) -> None:
        self._world = world
        self.job = job
        self.action = action
        self.pool = pool.name
        self.generation = action.generation
        self.key = AttemptKey(action.run, action.id, action.generation)
        self._done = job.saved  # work done when it last began to work
        startup = job.model.startup
        begins = world.now + (pool.assumed_startup if startup is None else startup)  # type: ignore[operator]
        if job.plain:  # its beginning needs no step of its own
            self.running_at = self._resumed_at = begins
            world.at(begins + job.work - job.saved, Machine._finish, self)
        else:
            world.at(begins, Machine._begin, self)

    # -- work ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.over:
            return
        world, job = self._world, self.job
        self.running_at = world.now
        timeout = self.action.profile.settings.timeout
        if timeout.deadline is not None or timeout.max_runtime is not None:
            world.tell(AttemptRunning(*self.key))
        self.fails_at = job.fails_at(self.action)
        every: Any = job.model.checkpoint_every
        if every is not None:
            self._save_at = job.saved + every
        if job.saved and job.model.restore_seconds:
            self.restoring = job.model.restore_seconds
            world.at(world.now + self.restoring, Machine._work, self)
        else:
            self._work()

    def _work(self) -> None:
        """Work until the next thing happens: a call, a checkpoint, a failure, or the end."""
        if self.over or self.leaving:
            return
        world, job, done = self._world, self.job, self._done
        self._resumed_at = world.now
        until, then = job.work, Machine._finish
        if 0 <= self._save_at < until:
            until, then = self._save_at, Machine._save
        calls: Any = job.model.children
        if self._calls < len(calls):
            at = calls[self._calls].at
            if at is None or at >= job.work:
                at = job.work
            if at < until or then is Machine._finish:
                until, then = at, Machine._call
        if 0 <= self.fails_at <= until:
            until, then = self.fails_at, Machine._fail
        world.at(world.now + max(0.0, until - done), then, self)

    def _call(self) -> None:
        """Call tasks, and go on when all of them have returned."""
        if self.over or self.leaving:
            return
        self._done = self.progress()
        self._resumed_at = 0.0
        calls: Any = self.job.model.children[self._calls]
        self._calls += 1
        if not self._world.call_children(self, self._calls - 1, calls.workloads):
            self._world.at(self._world.now, Machine.go_on, self)

    def _save(self) -> None:
        if self.over or self.leaving:
            return
        self._done = self._save_at  # to the bit: sums of seconds drift
        self._save_at += self.job.model.checkpoint_every  # type: ignore[operator]
        self._resumed_at = 0.0
        seconds: Any = self.job.model.save_seconds
        if seconds:
            self._world.at(self._world.now + seconds, Machine._saved, self)
        else:
            self._saved()

    def _saved(self) -> None:
        if self.over or self.leaving:
            return
        self._commit()
        if self.told_to_save:
            self._gone()
        else:
            self._work()

    def _commit(self) -> None:
        world, job = self._world, self.job
        job.saved = self._done
        job.sequence += 1
        progress = job.saved / job.work if job.work else 1.0
        cost: Any = job.model.save_seconds
        restoring, self.restoring = self.restoring, 0.0
        record = CheckpointRecord(
            job.sequence, self.generation, "", "bytes", 0, world.now, cost, progress, restore_seconds=restoring
        )
        world.tell(CheckpointCommitted(*self.key, record))

    def progress(self) -> float:
        """Seconds of the job's work done by now."""
        if not self._resumed_at:
            return self._done
        return min(self.job.work, self._done + max(0.0, self._world.now - self._resumed_at))

    def _finish(self) -> None:
        if not self.over and not self.leaving:
            self.end(_DONE)

    def child_returned(self) -> bool:
        """One of the outcomes that it waits for is here; True: it was the last."""
        self.waits -= 1
        return not self.waits

    def go_on(self) -> None:
        """It has all that it waited for."""
        if self.over:
            return
        job = self.job
        if self._done >= job.work and self._calls == len(job.model.children):
            self.end(_DONE)
        else:
            self._work()

    def child_failed(self) -> None:
        """A child has no other try: its error is raised here, as in a real parent."""
        if not self.over:
            self.end(_CHILD_FAILED)

    def _fail(self) -> None:
        if not self.over and not self.leaving:
            self.end(_FAILED)

    # -- leaving ------------------------------------------------------------------------------------------------

    def notice(self, kind: str, seconds: float, source: str) -> None:
        """The machine goes away in ``seconds``."""
        if self.over or self.leaving:
            return
        world, model = self._world, self.job.model
        world.tell(AttemptNoticed(*self.key, kind, seconds, source))
        if self.over:
            return
        saves: Any = model.save_seconds
        self.told_to_save = model.on_notice == "save"
        if self.told_to_save and self._resumed_at and saves <= seconds:
            self._done = self.progress()
            self._resumed_at = 0.0
            self.leaving = True
            world.at(world.now + saves, Machine._saved_and_gone, self)
        else:
            world.at(world.now + seconds, Machine._gone, self)

    def _saved_and_gone(self) -> None:
        if self.over:
            return
        self._commit()
        self._gone()

    def _gone(self) -> None:
        if not self.over:
            self.end(Evidence(reclaimed="its machine was taken away"))

    def stop(self) -> None:
        """The core says so."""
        if not self.over:
            self.end(_STOPPED)

    def end(self, evidence: Evidence) -> None:
        """It is over, with this evidence."""
        self.over = True
        self._world.left(self)
        running_at = self.running_at if self.running_at <= self._world.now else 0.0
        self._world.tell(AttemptEnded(*self.key, evidence, 0.5, running_at))
