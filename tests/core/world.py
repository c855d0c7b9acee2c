"""A world for the core: engines that are a set of live attempts, a clock that is a number, a journal that is a list.

It does what a shell does with the core's orders, checks everything after every event, and keeps the promises of the
specification that concern a whole history. It draws nothing: what happens is told to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flyteish._core import invariants
from flyteish._core.lifecycle import apply, child_identity, replay
from flyteish._core.model.effects import (
    Deliver,
    Effect,
    Record,
    Refuse,
    RelocateAttempt,
    RunEnded,
    StartAttempt,
    StopAttempt,
)
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    AttemptRunning,
    Configured,
    Event,
    Evidence,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    RunEvent,
    RunLoaded,
    RunRecovered,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
)
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.queues import SPOT, Pool, Queue
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, Action, AttemptRecord, End, Phase, RunRecord
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload, Profile, TaskReference
from flyteish._core.state import ReplayState, State

ROOT = "a0"


PLAIN = Settings()


def profile(settings: Settings = PLAIN, task: str = "e.t") -> Profile:
    return Profile(task, task, settings, TaskReference("m", "t"))


class Live:
    """An attempt that some engine runs: what it waits for, and whether it was told to end."""

    def __init__(self, pool: str, action: Action) -> None:
        self.pool = pool
        self.action = action
        self.awaits: set[str] = set()
        self.told: set[str] = set()
        self.calls: dict[tuple[str, bytes], int] = {}
        self.calling: dict[str, ActionSubmitted] = {}
        """What it has called, by the child's name: it asks again when its controller comes back."""
        self.stopped = ""


class World:
    """Drives one core."""

    def __init__(self, queues: Iterable[Queue] = (Queue("default"),), pools: Iterable[Pool] = (Pool("od"),)) -> None:
        self.config = Configured(tuple(queues), tuple(pools))
        self.first_config = self.config
        self.state = State.configured(*msg(self.config))
        self.now = 1000.0
        self.journal: list[tuple[float, RunEvent]] = []
        self.live: dict[AttemptKey, Live] = {}
        self.seen: dict[AttemptKey, None] = {}
        self.ended: dict[ActionKey, tuple[object, ...]] = {}
        self.over: set[str] = set()
        self.refusals: list[Refuse] = []
        self.delivered: list[Deliver] = []
        self.exempt: set[str] = set()
        self.late: set[ActionKey] = set()
        self.moving: dict[AttemptKey, float] = {}
        """Attempts that were told to move, with their grace."""
        self.reconfigured = False
        self.placed_at = 0.0
        """What the next end says of it."""
        self.runs = 0

    # -- telling the core -----------------------------------------------------------------------------------------

    def tell(self, event: Event) -> list[Effect]:
        capacity = self.state.capacity
        before = invariants.exceeded(capacity).keys()
        self.state, effects = apply(self.state, event, self.now)
        for effect in effects:
            self._carry_out(effect)
        after = invariants.exceeded(capacity)
        for effect in effects:
            if type(effect) is StartAttempt:
                names = {f"pool {effect.pool}", f"queue {effect.action.profile.settings.queue}"}
                if effect.medium == SPOT:
                    names.add(f"spot of {effect.action.profile.settings.queue}")
                assert not names & after.keys(), f"started over a limit: {after}"
        lived_through = type(event) is RunRecovered and event.living and self.reconfigured
        if type(event) is Configured or lived_through:
            self.exempt |= {f"pool {name}" for name in capacity.pools}
            self.exempt |= {f"{what} {name}" for name in capacity.queues for what in ("queue", "runs of", "spot of")}
        if type(event) is RunRecovered:  # what lives has its places, whatever the limits are now
            self.exempt |= after.keys()
        if type(event) is PoolPriceChanged:  # nothing that runs is ended for it
            self.exempt |= {f"queue {name}" for name in capacity.queues}
        assert not after.keys() - before - self.exempt, after
        invariants.check(self.state, self.now, self.exempt)
        self._check_deadlines()
        return effects

    def _carry_out(self, effect: Effect) -> None:
        if type(effect) is Record:
            assert effect.at == self.now
            self.journal.append((effect.at, effect.event))
        elif type(effect) is StartAttempt:
            self._start(effect)
        elif type(effect) is StopAttempt:
            assert effect.key in self.seen
            if effect.key in self.live:  # else it ended just now
                assert self.live[effect.key].pool == effect.pool
                self.live[effect.key].stopped = effect.reason
        elif type(effect) is RelocateAttempt:
            assert effect.key in self.seen, "an attempt that was never there is moved"
            assert effect.key not in self.moving, "an attempt is moved twice"
            if effect.key in self.live:  # else it ended just now
                self.moving[effect.key] = effect.seconds
        elif type(effect) is Deliver:
            self._deliver(effect)
        elif type(effect) is Refuse:
            self.refusals.append(effect)
        elif type(effect) is RunEnded:
            assert effect.run not in self.over, "a run ended twice"
            self.over.add(effect.run)

    def _start(self, effect: StartAttempt) -> None:
        assert effect.key not in self.seen, "a generation was used twice"
        action = effect.action
        policy = action.profile.settings.interruptible
        if effect.medium == SPOT:
            assert policy is not None
            assert policy.fallback != "final" or not action.is_final_user_attempt, "last user attempt on spot"
        others = [key for key in self.live if key[:2] == effect.key[:2]]
        assert not others, f"{effect.key} starts beside {others}"
        self.seen[effect.key] = None
        self.live[effect.key] = Live(effect.pool, action)

    def _deliver(self, effect: Deliver) -> None:
        action = effect.action
        assert action.phase in TERMINAL
        self.delivered.append(effect)
        self._check_final(action)
        if action.parent is None:
            return
        parent = self.state.runs[action.run].actions[action.parent]
        live = self.live.get(parent.attempt_key()) if parent.phase in WITH_ATTEMPT else None
        if live is None:
            return  # nobody waits for it now; whoever calls it again is told then
        assert action.id not in live.told, "an outcome was delivered twice"
        live.told.add(action.id)
        if action.id in live.awaits:
            live.awaits.remove(action.id)
            assert live.awaits or parent.phase is Phase.RUNNING, "a parent goes on without a place"

    def _check_final(self, action: Action) -> None:
        facts = (action.phase, action.result, action.error, action.ended_at)
        assert self.ended.setdefault(action.key, facts) == facts, "an outcome changed"

    def _check_deadlines(self) -> None:
        for run in self.state.runs.values():
            for action in run.actions.values():
                limit = action.deadline_at
                if limit is None or action.key in self.late:
                    continue
                assert action.phase in TERMINAL or self.now < limit, f"{action!r} outlived its deadline"
                assert not action.ended_at or action.ended_at <= limit
                assert action.phase is not Phase.TIMED_OUT or action.ended_at == limit

    # -- what may happen ------------------------------------------------------------------------------------------

    def submit(self, root: Profile, cached: Payload | None = None, inputs: bytes = b"") -> str:
        """A new run; returns its name, also where it is refused."""
        self.runs += 1
        name = f"r{self.runs}"
        queue = root.settings.queue
        if any(type(effect) is Refuse for effect in self.tell(RunSubmitted(name, root.task, queue))):
            return name
        self.tell(TaskDeclared(name, root))
        self.tell(ActionSubmitted(name, ROOT, None, 0, root.key, Payload(inputs), inputs, cached=cached))
        return name

    def call(self, caller: AttemptKey, child: Profile, inputs: bytes = b"", cached: Payload | None = None) -> str:
        """A live attempt calls a task; returns the child's id."""
        live = self.live[caller]
        if child.key not in self.state.runs[caller.run].profiles:
            self.tell(TaskDeclared(caller.run, child))
        occurrence = live.calls.get((child.key, inputs), 0)
        name = child_identity(self.state, caller.run, caller.action, child.task, inputs, occurrence)
        fresh = self.is_current(caller)
        if fresh:
            live.calls[child.key, inputs] = occurrence + 1
            live.awaits.add(name)
            live.told.discard(name)
        live.calling[name] = ActionSubmitted(
            caller.run, name, caller.action, caller.generation, child.key, Payload(inputs), inputs, occurrence,
            cached=cached,
        )  # fmt: skip
        if self._ask(live, name):
            assert fresh, "a call of an attempt that was given up was accepted"
        return name

    def _ask(self, live: Live, child: str) -> bool:
        """Make a call; whether it was accepted."""
        refused = len(self.refusals)
        self.tell(live.calling[child])
        if len(self.refusals) > refused:
            live.awaits.discard(child)
            return False
        return True

    def end(self, key: AttemptKey, evidence: Evidence, chance: float = 0.5) -> None:
        """An attempt of the engine's is over."""
        current = self.is_current(key)
        live = self.live.pop(key)
        placed_at, self.placed_at = self.placed_at, 0.0
        self.tell(AttemptEnded(key.run, key.action, key.generation, evidence, chance, placed_at=placed_at))
        if evidence.result is not None and current:
            action = live.action
            limit = action.deadline_at
            timed_out = action.phase is Phase.TIMED_OUT and limit is not None and limit <= self.now
            assert timed_out or action.result == evidence.result, "a success was lost"

    def is_current(self, key: AttemptKey) -> bool:
        action = self.state.action(ActionKey(key.run, key.action))
        return action is not None and action.phase in WITH_ATTEMPT and action.generation == key.generation

    def advance(self, seconds: float) -> None:
        """Time passes; whatever is due is told when it is due."""
        until = self.now + seconds
        while (due := self.state.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.tell(TimePassed())
        self.now = until
        self.tell(TimePassed())

    def configure(self, config: Configured) -> None:
        self.config = config
        self.reconfigured = True
        self.tell(config)

    def restart(self, survivors: Collection[AttemptKey] = ()) -> None:
        """The controller dies, and with it all attempts but the survivors; another takes up what the journal says."""
        folded = self.fold()
        unfinished = [run for run in folded.runs.values() if run.root and not run.ended_at]
        names = {run.id for run in unfinished}
        self.live = {key: live for key, live in self.live.items() if key in survivors and key.run in names}
        self.moving.clear()
        self.state = State.configured(*msg(self.config))
        self.exempt.clear()
        for run in unfinished:
            overdue = [a for a in run.actions.values() if a.deadline_at is not None and a.deadline_at <= self.now]
            self.late |= {action.key for action in overdue}
        self.take_orders()
        for run in unfinished:
            self._recover(run)
        for key, live in list(self.live.items()):
            live.action = self.state.runs[key.run].actions[key.action]
            for child in sorted(live.awaits):
                live.told.discard(child)
                self._ask(live, child)

    def _recover(self, run: RunRecord) -> None:
        living = tuple(key[1:] for key in self.live if key.run == run.id)
        last_at = max(at for at, event in self.journal if event.run == run.id)
        self.state, _ = apply(self.state, RunLoaded(run), self.now)  # it stands nowhere until it is recovered
        before = {a.id: (fields(a.attempts[-1]), a.current) for a in run.actions.values() if a.attempts}
        effects = self.tell(RunRecovered(run.id, living, last_at))
        again = {effect.action.id for effect in effects if type(effect) is StartAttempt}
        for name, (facts, attempt) in before.items():
            if attempt is None:
                continue
            if (name, attempt.generation) in living:
                assert name not in again, f"{name} lives, and is started again"
                kept = [n for n, field in enumerate(AttemptRecord.__struct_fields__) if field not in _MAY_FOLLOW]
                assert [facts[n] for n in kept] == [fields(attempt)[n] for n in kept], "it lives, and was changed"
            else:
                assert (attempt.end, attempt.charged) == (End.ABANDONED, ""), "somebody pays for a dead controller"
                own = max(attempt.admitted_at, attempt.running_at, attempt.last_checkpoint_at)
                assert attempt.ended_at == max(last_at, own), "the time without a controller is billed"

    def take_orders(self) -> None:
        """What a new controller is told of queues and pools before it takes runs over."""

    # -- what the journal says ------------------------------------------------------------------------------------

    def fold(self) -> State:
        state = ReplayState()
        for at, event in self.journal:
            state = replay(state, event, at)
        return state

    def check_replay(self) -> None:
        """The journal gives the same facts as were lived through."""
        folded = self.fold()
        invariants.check(folded)
        for name, run in self.state.runs.items():
            if run.root:
                assert facts_of_run(folded.runs[name]) == facts_of_run(run)
        for key, facts in self.ended.items():
            action = folded.action(key)
            assert action is not None
            assert (action.phase, action.result, action.error, action.ended_at) == facts

    # -- to the end -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Room everywhere, and every attempt that waits for nothing ends: then everything ends."""
        if self.reconfigured:  # what was accepted under one configuration need not fit another
            names = {*self.state.capacity.queues, *(queue.name for queue in self.first_config.queues)}
            queues = tuple(Queue(name) for name in sorted(names))
            self.configure(Configured(queues, (Pool("od"), Pool("spot", medium="spot"))))
        for name in list(self.state.capacity.pools):
            self.tell(PoolCapacityChanged(name, None))
            self.tell(PoolPriceChanged(name, 0.0))  # work waits as long as every pool is dearer than its queue may pay
        for name, queue in list(self.state.capacity.queues.items()):
            if queue.state == "held":
                self.tell(QueueStateSet(name, "active"))
        for _ in range(5000):
            if self._end_somebody():
                continue
            due = self.state.next_due()
            if due is None:
                break
            self.advance(max(0.0, due - self.now))
        left = [action for run in self.state.runs.values() for action in run.actions.values()]
        left = [action for action in left if action.phase not in TERMINAL]
        reasons = [(action, self.state.admission.reason(action, self.now)) for action in left]
        assert not left, f"a deadlock: {reasons}"
        assert not self.live
        for queue in self.state.capacity.queues.values():
            assert queue.is_idle
            left_over = (queue.counted, queue.waiting, queue.active_runs, len(queue.runs_of), queue.rate)
            assert left_over == (0, 0, 0, 0, 0.0)

    def _end_somebody(self) -> bool:
        for key, live in list(self.live.items()):
            if live.stopped or not self.is_current(key):
                self.end(key, Evidence(stopped=True))
                return True
            if not live.awaits and live.action.phase is Phase.RUNNING:
                self.end(key, Evidence(result=Payload(f"{key}".encode())))
                return True
        return False

    def begin(self, key: AttemptKey) -> None:
        self.tell(AttemptRunning(*key))


def msg(config: Configured) -> tuple[tuple[Queue, ...], tuple[Pool, ...]]:
    return config.queues, config.pools


_MAY_FOLLOW = ("end", "cause", "ended_at", "stop", "moving", "moving_why", "engine_facts")
"""Fields of a living attempt that may change when it is taken up, for a limit may have passed meanwhile."""
_WAITING = frozenset((Phase.ENTERING, Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT))


def facts_of_run(run: RunRecord) -> tuple[object, ...]:
    """What must not depend on whether it was lived through or read."""
    actions = {name: facts_of(action) for name, action in run.actions.items()}
    return run.id, run.task, run.queue, run.root, run.open, run.ended_at, list(run.profiles), actions


def facts_of(action: Action) -> tuple[object, ...]:
    phase = "waiting" if action.phase in _WAITING else "alive" if action.phase in WITH_ATTEMPT else action.phase.value
    return (
        phase, [fields(attempt) for attempt in action.attempts], action.generation, action.user_attempt,
        action.system_used, action.preemptions_in_row, action.preemptions, action.denials, action.rejections,
        action.abandoned,
        action.result, action.error, action.ended_at, action.cached, action.checkpoints, dict(action.traced or {}),
        action.warnings, action.cancel_reason, action.submitted_at, action.parent, action.group,
    )  # fmt: skip


def fields(attempt: AttemptRecord) -> tuple[object, ...]:
    return tuple(getattr(attempt, name) for name in attempt.__struct_fields__)
