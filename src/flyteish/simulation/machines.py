"""One attempt in virtual time: start-up, restore, work, saves, notice, end, as its work model has them.

Tells the world what happens to it and asks it to be called again at a time. Must not decide where or whether it runs:
that is the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from flyteish._core.actions import Action
from flyteish._core.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptRunning,
    CheckpointCommitted,
    Event,
    Evidence,
)
from flyteish._core.ids import AttemptKey
from flyteish._core.queues import Pool
from flyteish._core.values import CheckpointRecord, ErrorDocument, Payload
from flyteish.simulation.workload import Workload, WorkModel

_DONE: Final = Evidence(result=Payload(b"\xc0", None, 1))
_STOPPED: Final = Evidence(stopped=True)
_FAILED: Final = Evidence(error=ErrorDocument("flyteish.simulation.SimulatedFailure", "drawn by failure_rate"))


class Surroundings(Protocol):
    """What a machine asks of the world."""

    now: float

    def tell(self, event: Event) -> None:
        """Something happened."""

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        """Call it then."""

    def call_children(self, machine: Machine, children: Sequence[Workload]) -> int:
        """The attempt calls these; returns how many outcomes it has to wait for."""

    def left(self, machine: Machine) -> None:
        """The attempt is over."""


class Job:
    """What one action has to do, and what of it is saved, over all its attempts."""

    __slots__ = ("failures", "model", "saved", "sequence", "work")

    def __init__(self, model: WorkModel, work: float, failures: tuple[float, ...] = ()) -> None:
        self.model = model
        self.work = work
        self.saved = 0.0
        """Seconds of work that a checkpoint holds."""
        self.sequence = 0
        self.failures = failures
        """For its first attempts: at which share of their work each raises; drawn beforehand."""


class Machine:
    """Runs one attempt of a job. ``waits`` counts the children's outcomes that it still needs."""

    __slots__ = (
        "_done", "_resumed_at", "_world", "action", "fails_at", "generation", "job", "key", "leaving", "over", "pool",
        "running_at", "waits",
    )  # fmt: skip

    def __init__(self, world: Surroundings, job: Job, action: Action, pool: Pool) -> None:
        self._world = world
        self.job = job
        self.action = action
        self.pool = pool.name
        self.generation = action.generation
        self.key = AttemptKey(action.run, action.id, action.generation)
        self.over = False
        self.leaving = False
        self.running_at = 0.0
        self.waits = 0
        self.fails_at = -1.0
        self._done = job.saved  # work done when it last began to work
        self._resumed_at = 0.0  # since when it works; 0: it does not
        startup = job.model.startup
        begins = world.now + (pool.assumed_startup if startup is None else startup)  # type: ignore[operator]
        if self._is_plain():
            # Nothing can happen to it but its end, so its beginning needs no step of its own.
            self.running_at = self._resumed_at = begins
            world.at(begins + job.work - job.saved, Machine._finish, self)
        else:
            world.at(begins, Machine._begin, self)

    def _is_plain(self) -> bool:
        model, timeout = self.job.model, self.action.profile.settings.timeout
        return (
            model.checkpoint_every is None
            and not model.children
            and not model.failure_rate
            and timeout.deadline is None
            and timeout.max_runtime is None
        )

    # -- work ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.over:
            return
        world, job = self._world, self.job
        self.running_at = world.now
        timeout = self.action.profile.settings.timeout
        if timeout.deadline is not None or timeout.max_runtime is not None:
            world.tell(AttemptRunning(*self.key))
        number = len(self.action.attempts) - 1
        if number < len(job.failures):
            self.fails_at = job.saved + job.failures[number] * (job.work - job.saved)
        if job.saved and job.model.restore_seconds:
            world.at(world.now + job.model.restore_seconds, Machine._work, self)  # type: ignore[operator]
        else:
            self._work()

    def _work(self) -> None:
        """Work until the next thing happens: a checkpoint is due, it fails, or it is done."""
        if self.over:
            return
        world, job = self._world, self.job
        self._resumed_at = world.now
        left = job.work - self._done
        every: Any = job.model.checkpoint_every
        if self.fails_at >= 0 and self.fails_at - self._done <= min(left, every or left):
            world.at(world.now + max(0.0, self.fails_at - self._done), Machine._fail, self)
        elif every is not None and every < left:
            world.at(world.now + every, Machine._save, self)
        else:
            world.at(world.now + left, Machine._finish, self)

    def _save(self) -> None:
        if self.over or self.leaving:
            return
        self._done = self.progress()
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
        self._work()

    def _commit(self) -> None:
        world, job = self._world, self.job
        job.saved = self._done
        job.sequence += 1
        progress = job.saved / job.work if job.work else 1.0
        cost: Any = job.model.save_seconds
        record = CheckpointRecord(job.sequence, self.generation, "", "bytes", 0, world.now, cost, progress)
        world.tell(CheckpointCommitted(*self.key, record))

    def progress(self) -> float:
        """Seconds of the job's work done by now."""
        if not self._resumed_at:
            return self._done
        return min(self.job.work, self._done + max(0.0, self._world.now - self._resumed_at))

    def _finish(self) -> None:
        if self.over:
            return
        children = self.job.model.children
        if children and not self.waits:
            self._done, self._resumed_at = self.job.work, 0.0
            self.waits = self._world.call_children(self, children)
            if self.waits:
                return
        self.end(_DONE)

    def child_returned(self) -> bool:
        """One of the outcomes that it waits for is here; True: it was the last."""
        self.waits -= 1
        return not self.waits

    def go_on(self) -> None:
        """It has all that it waited for."""
        if not self.over:
            self.end(_DONE)

    def child_failed(self) -> None:
        """A child has no other try: its error is raised here, as in a real parent."""
        if not self.over:
            self.end(_FAILED)

    def _fail(self) -> None:
        if not self.over:
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
        if model.on_notice == "save" and self._resumed_at and saves <= seconds:
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
