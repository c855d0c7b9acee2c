"""The second shell: drives the core through virtual time, with markets and modelled attempts in place of engines.

Takes what happens next, tells the core, and carries out its orders; nothing waits for a clock. Must not decide:
retries, media and order are the core's, exactly as in a real run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from flyteish import errors
from flyteish._core import lifecycle
from flyteish._core.model.effects import (
    Deliver,
    QueueDrained,
    Record,
    Refuse,
    RelocateAttempt,
    RunEnded,
    StartAttempt,
    StopAttempt,
)
from flyteish._core.model.events import (
    ActionSubmitted,
    Event,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Phase, RunRecord
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload, Profile, TaskReference
from flyteish._core.rules.experience import Experience
from flyteish._core.state import State
from flyteish.interfaces import Market
from flyteish.markets.followed import Markets
from flyteish.simulation.machines import Job, Machine, is_plain
from flyteish.simulation.workload import Workload

EPOCH: Final = 1_000_000.0
"""Virtual time begins here: a 0 means "never" in the core's records."""
_ROOT: Final = "a0"
_NOTHING: Final = Payload(b"\x80", None, 1)


class VirtualWorld:
    """One simulation. ``run`` goes on until every run has ended, or ``horizon`` seconds have passed.

    Args:
        queues, pools: as for a session.
        markets: by pool name; pools without one are never reclaimed.
        seed: of what is drawn: work, arrivals, failures.
        settings: the settings of a workload's task, by the policy that is simulated.
        ended: told of each run that is over.
        sampled: told, before time moves on, until when things stay as they are.
        experience: what the core has learned before. Default: nothing.
        horizon: seconds after which what has not ended is left unfinished. Default: a year.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        pools: Sequence[Pool],
        markets: Mapping[str, Market],
        *,
        seed: int,
        settings: Callable[[Workload], Settings],
        ended: Callable[[RunRecord], None],
        sampled: Callable[[VirtualWorld, float], None],
        experience: Experience | None = None,
        horizon: float = 365 * 86400.0,
    ) -> None:
        self.state = State.configured(tuple(queues), tuple(pools), experience)
        self.now = EPOCH
        self.attempts = 0
        """Started so far."""
        self.events = 0
        """Told to the core so far."""
        self.unfinished = 0
        self.refused = 0
        """Submissions that a full queue turned away."""
        self.running = {"spot": 0, "on-demand": 0}
        """Attempts now, by medium."""
        self._seed = seed
        self._settings = settings
        self._ended = ended
        self._sampled = sampled
        self._until = EPOCH + horizon
        self._coming = 0  # runs not submitted yet
        self.sample_at = EPOCH
        """Whoever samples moves it on."""
        self._pools = {pool.name: pool for pool in pools}
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = 0
        self._live: dict[AttemptKey, Machine] = {}
        self._jobs: dict[str, dict[str, Job]] = {}
        self._profiles: dict[int, Profile] = {}
        self._plain: set[int] = set()
        self._chance: dict[int, Random] = {}
        self._kept: list[Workload] = []  # so that an id stands for one workload only
        self._runs = 0
        self._markets = Markets(pools, markets)
        self._markets.open(self.now)
        self._follow_markets()

    # -- what comes ---------------------------------------------------------------------------------------------

    def add(self, workload: Workload) -> None:
        """Its actions come as runs of their own, from now on."""
        self._coming += workload.count
        random = self._random(workload)
        first: Any = workload.start
        every: Any = workload.every
        self.at(self.now + first, self._arrive, (workload, workload.count, every, random))

    def _arrive(self, coming: tuple[Workload, int, Any, Random]) -> None:
        workload, left, every, random = coming
        while left:
            self._submit(workload, random)
            left -= 1
            gap = every if isinstance(every, float) else every.draw(random)
            if gap and left:
                self.at(self.now + gap, self._arrive, (workload, left, every, random))
                return

    def _submit(self, workload: Workload, random: Random) -> None:
        self._runs += 1
        self._coming -= 1
        run = f"s{self._runs}"
        profile = self._profile(workload)
        self._jobs[run] = {_ROOT: self._job(workload, random)}
        self.unfinished += 1
        self.tell(RunSubmitted(run, profile.task, profile.settings.queue))
        self.tell(TaskDeclared(run, profile))
        self.tell(ActionSubmitted(run, _ROOT, None, 0, profile.key, _NOTHING, b""))

    def _profile(self, workload: Workload) -> Profile:
        found = self._profiles.get(id(workload))
        if found is None:
            key = f"{workload.name}/{len(self._profiles)}"
            found = Profile(key, workload.name, self._settings(workload), TaskReference("", workload.name))
            self._profiles[id(workload)] = found
            self._kept.append(workload)
            if is_plain(workload.model, found.settings):
                self._plain.add(id(workload))
        return found

    def _random(self, workload: Workload) -> Random:
        found = self._chance.get(id(workload))
        if found is None:
            found = self._chance[id(workload)] = Random(f"{self._seed} {workload.name} {len(self._chance)}")
            self._kept.append(workload)
        return found

    def _job(self, workload: Workload, random: Random) -> Job:
        model = workload.model
        work = model.draw(random)
        return Job(model, work, random.getrandbits(48) if model.failure_rate else 0, id(workload) in self._plain)

    def _child(self, workload: Workload, run: str, name: str) -> Job:
        model = workload.model
        if not model.failure_rate and isinstance(model.work, float):
            return Job(model, model.work, plain=id(workload) in self._plain)
        # By its name: which parent calls first is the policy's doing, and every policy meets the same work.
        return self._job(workload, Random(f"{self._seed} {run} {name}"))

    def call_children(self, machine: Machine, group: int, children: Sequence[Workload]) -> int:
        """An attempt calls tasks: those that are over already are not called again."""
        run, parent = machine.action.run, machine.action
        jobs, actions = self._jobs[run], self.state.runs[run].actions
        waits = 0
        names = []
        for number, workload in enumerate(children):
            profile = self._profile(workload)
            if profile.key not in self.state.runs[run].profiles:
                self.tell(TaskDeclared(run, profile))
            for index in range(workload.count):
                name = f"{parent.id}.{group}-{number}.{index}"
                known = actions.get(name)
                while known is not None and known.ended_at and known.phase != "succeeded":
                    name += "'"  # one that failed gets a new try, as in a real run
                    known = actions.get(name)
                if known is None or not known.ended_at:
                    waits += 1
                    names.append((name, workload, profile))
        machine.waits = waits  # an outcome may come before the last of them is called
        for name, workload, profile in names:
            if name not in jobs:
                jobs[name] = self._child(workload, run, name)
            self.tell(ActionSubmitted(run, name, parent.id, machine.generation, profile.key, _NOTHING, b""))
        return waits

    # -- time ---------------------------------------------------------------------------------------------------

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> None:
        self._numbers += 1
        heappush(self._heap, (when, self._numbers, call, argument))

    def run(self) -> None:
        """To the end.

        Raises:
            ConfigurationError, UnknownQueueError: a queue can never take the work.
        """
        heap, until, markets = self._heap, self._until, self._markets
        while self.unfinished or self._coming:
            timers = self.state.timers
            soonest = when = heap[0][0] if heap else math.inf
            if timers and timers[0].at < soonest:
                soonest = timers[0].at
            if markets.next_at < soonest:
                soonest = markets.next_at
            if soonest > self.now:
                if soonest > until:
                    self.now = until
                    break
                if soonest > self.sample_at:
                    self._sampled(self, soonest)
                self.now = soonest
            if markets.next_at <= self.now:
                self._follow_markets()
            elif when <= self.now:
                _, _, call, argument = heappop(heap)
                call(argument)
            else:
                self.tell(TimePassed())
        while heap and heap[0][0] <= self.now:  # attempts that were told to stop by what ended the last run
            _, _, call, argument = heappop(heap)
            call(argument)

    def _follow_markets(self) -> None:
        for key, notice in self._markets.due(self.now):
            machine = self._live.get(key)
            if machine is not None:
                machine.notice(notice.kind, notice.seconds, notice.source)
        for event in self._markets.news(self.now):
            self.tell(event)

    # -- the core -----------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the core, and carry out what it orders."""
        self.events += 1
        self.state, effects = lifecycle.apply(self.state, event, self.now)
        for effect in effects:
            kind = type(effect)
            if kind is not Record:  # nothing is journalled
                _HANDS[kind](self, effect)

    def _start(self, effect: StartAttempt) -> None:
        action = effect.action
        job = self._jobs[action.run][action.id]
        self.attempts += 1
        self.running[effect.medium] += 1
        machine = Machine(self, job, action, self._pools[effect.pool])
        self._live[machine.key] = machine
        self._markets.started(effect.pool, machine.key, self.now)

    def left(self, machine: Machine) -> None:
        """An attempt is over; the core hears of it next."""
        del self._live[machine.key]
        self.running[self._pools[machine.pool].medium] -= 1
        self._markets.ended(machine.key, machine.pool)

    def _stop(self, effect: StopAttempt) -> None:
        machine = self._live.get(effect.key)
        if machine is not None:
            self.at(self.now, Machine.stop, machine)

    def _relocate(self, effect: RelocateAttempt) -> None:
        machine = self._live.get(effect.key)
        if machine is not None:
            self.at(self.now, _move, (machine, effect.seconds))

    def _deliver(self, effect: Deliver) -> None:
        action = effect.action
        if action.parent is not None:
            parent = self.state.runs[action.run].actions[action.parent]
            machine = self._live.get(AttemptKey(parent.run, parent.id, parent.generation))
            if machine is not None and machine.waits:
                # Not within the core's own orders: what follows from it is told to the core next.
                if action.phase is not Phase.SUCCEEDED:
                    self.at(self.now, Machine.child_failed, machine)
                elif machine.child_returned():
                    self.at(self.now, Machine.go_on, machine)

    def _run_ended(self, effect: RunEnded) -> None:
        self.unfinished -= 1
        self._ended(self.state.runs[effect.run])
        del self._jobs[effect.run]
        self.state.forget(effect.run)

    def _refused(self, effect: Refuse) -> None:
        """A full queue refuses work as in a real run; work that can never fit is the scenario's mistake."""
        if effect.error == "StaleAttemptError":
            return  # an attempt that was given up speaks in vain
        if effect.error not in ("ResourceExhaustedError", "RunSkippedError"):
            raise getattr(errors, effect.error)(effect.message)
        self.refused += 1
        run, action = effect.key
        if action in ("", _ROOT):
            self.unfinished -= 1
            self._jobs.pop(run, None)
            return
        parent = self.state.runs[run].actions[action.rpartition(".")[0].rpartition(".")[0]]
        machine = self._live.get(parent.attempt_key())
        if machine is not None:
            self.at(self.now, Machine.child_failed, machine)

    def __repr__(self) -> str:
        return (
            f"<VirtualWorld at {self.now - EPOCH:.0f} s, {self.attempts} attempts, {self.unfinished} runs unfinished>"
        )


def _move(leaving: tuple[Machine, float]) -> None:
    machine, seconds = leaving
    machine.notice("relocate", seconds, "placement")


_HANDS: Final[dict[type, Callable[[VirtualWorld, Any], None]]] = {
    StartAttempt: VirtualWorld._start,
    StopAttempt: VirtualWorld._stop,
    RelocateAttempt: VirtualWorld._relocate,
    Deliver: VirtualWorld._deliver,
    RunEnded: VirtualWorld._run_ended,
    Refuse: VirtualWorld._refused,
    QueueDrained: lambda world, effect: None,
}
