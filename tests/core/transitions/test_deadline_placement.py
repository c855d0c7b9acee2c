"""The deadline rule in the core: waiting, catching up, moving back to spot, and to the safe side in time."""

from __future__ import annotations

from flyteish._core.model.events import (
    AttemptNoticed,
    CheckpointCommitted,
    Evidence,
    PoolCapacityChanged,
    RelocationOrdered,
)
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import Action, AttemptRecord, End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, Payload
from tests.core.world import ROOT, World, profile

HOUR = 3600.0
D = 180.0
PACED = Settings(
    interruptible=SpotPolicy(work=48 * HOUR, deadline_policy="uniform-progress"),
    retries=RetryStrategy(count=1),
    timeout=Timeout(deadline=70 * HOUR),
)


class Paced(World):
    """One action with 48 h of work and 70 h of time, over a spot and an on-demand pool with a change-over of 3 min."""

    def __init__(self, settings: Settings = PACED, available: int | None = None) -> None:
        pools = (
            Pool("spot", medium="spot", startup=D, grace=0.0, cooldown=30.0),
            Pool("od", startup=D, grace=0.0),
        )
        super().__init__([Queue("default", pools=("spot", "od"))], pools)
        if available is not None:
            self.tell(PoolCapacityChanged("spot", available))
        self.begun = self.now
        self.submit(profile(settings))
        self.sequence = 0

    @property
    def action(self) -> Action:
        action = self.state.action(ActionKey("r1", ROOT))
        assert action is not None
        return action

    @property
    def attempt(self) -> AttemptRecord:
        return self.action.attempts[-1]

    @property
    def key(self) -> AttemptKey:
        return self.action.attempt_key()

    @property
    def hours(self) -> float:
        """Since the submission."""
        return (self.now - self.begun) / HOUR

    def save(self, progress: float | None = None) -> None:
        self.sequence += 1
        record = CheckpointRecord(self.sequence, self.key.generation, "b", "bytes", 1, self.now, progress=progress)
        self.tell(CheckpointCommitted(*self.key, record))

    def work(self, hours: float, every: float = 0.1) -> None:
        """The attempt runs, saving as it goes, until it is told to move or the time is over."""
        until = self.now + hours * HOUR
        while self.now < until - 1e-6 and self.key not in self.moving:
            self.advance(min(every * HOUR, until - self.now))
            self.save()

    def leave(self) -> None:
        """It does as it was told: it saves and ends."""
        self.tell(AttemptNoticed(*self.key, "relocate", 0.0, "placement"))
        self.save()
        self.end(self.key, Evidence(reclaimed="moved"))


def test_spot_is_taken_whenever_it_can_be_had() -> None:
    """With spot there it starts on spot at once, and the record says by which rule."""
    world = Paced()
    assert (world.attempt.medium, world.attempt.rule) == (SPOT, "spot-while-it-lasts")


def test_it_waits_while_ahead_and_runs_on_demand_once_behind() -> None:
    """Preempted after 12 h of progress with no spot left, it waits until ep(t) has caught up: t = 12 h * 70/48."""
    world = Paced()
    world.begin(world.key)
    world.work(12)
    world.tell(PoolCapacityChanged("spot", 0))
    world.end(world.key, Evidence(reclaimed="gone"))
    assert world.action.phase is Phase.QUEUED
    assert world.action.rule == "ahead"
    world.advance(5.49 * HOUR)  # ep(17.5 h) = 12 h
    assert world.action.phase is Phase.QUEUED
    world.advance(0.02 * HOUR)
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "behind")
    assert world.attempt.charged == ""


def test_it_goes_back_to_spot_only_when_ahead_by_two_change_overs() -> None:
    """On-demand it catches up; spot that comes before is left, and spot that is there then is taken by a planned move
    that no budget pays for."""
    world = Paced(available=0)
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "behind")  # no progress is behind at once
    world.begin(world.key)
    world.work(0.1)
    world.tell(PoolCapacityChanged("spot", 1))
    assert world.key not in world.moving, "ep(t + 2d) is not reached"
    world.work(2)
    assert world.key in world.moving
    # progress p(t) = t; p = (t + 2d) * 48/70, the first look at or after that
    assert world.hours * HOUR >= 2 * D * 48 / 22 - 1
    assert world.hours * HOUR <= 2 * D * 48 / 22 + 2 * 0.1 * HOUR
    moved = [event for _, event in world.journal if type(event) is RelocationOrdered]
    assert [(event.to, event.rule) for event in moved] == [("spot", "caught-up")]
    world.leave()
    first = world.action.attempts[0]
    assert (first.end, first.charged) == (End.RELOCATED, "")
    assert first.cause.startswith("to spot: ")
    assert (world.attempt.medium, world.action.preemptions, world.action.user_attempt) == (SPOT, 0, 1)


def test_a_market_that_comes_back_brings_it_back_at_once() -> None:
    """Ahead on-demand for want of spot, it moves the moment that a spot pool reports capacity."""
    world = Paced(available=0)
    world.advance(1.0)
    world.begin(world.key)
    world.work(3)
    assert not world.moving
    world.tell(PoolCapacityChanged("spot", 1))
    assert world.key in world.moving


def test_out_of_slack_it_runs_on_demand_to_the_end() -> None:
    """Once idle with R < C + 2d it goes on-demand, and nothing moves it from there, however much spot there is."""
    tight = Settings(
        interruptible=SpotPolicy(work=48 * HOUR, deadline_policy="uniform-progress"),
        retries=RetryStrategy(count=1),
        timeout=Timeout(deadline=48 * HOUR + 2 * D - 1),
    )
    world = Paced(tight)
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "deadline-safety")
    world.begin(world.key)
    world.work(47)
    assert not world.moving


def test_on_spot_without_checkpoints_it_is_moved_while_it_can_still_be_kept() -> None:
    """A task that never saves is moved to on-demand when a sudden loss would miss the deadline: D - C - d."""
    world = Paced()
    world.begin(world.key)
    world.advance(70 * HOUR - 48 * HOUR - D - 2)
    assert not world.moving
    world.advance(2)
    assert world.key in world.moving
    world.end(world.key, Evidence(reclaimed="moved"))
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "deadline-safety")
    world.begin(world.key)
    world.advance(48 * HOUR)
    world.end(world.key, Evidence(result=Payload(b"done")))
    assert world.action.phase is Phase.SUCCEEDED


def test_reported_progress_corrects_an_optimists_estimate() -> None:
    """Half of the estimate has been run and a tenth is done: the work is five times as much, so it goes on-demand."""
    optimist = Settings(
        interruptible=SpotPolicy(work=10 * HOUR, deadline_policy="uniform-progress"),
        retries=RetryStrategy(count=1),
        timeout=Timeout(deadline=50 * HOUR),
    )
    world = Paced(optimist)
    world.begin(world.key)
    world.advance(5 * HOUR)
    world.save(progress=0.1)
    world.end(world.key, Evidence(reclaimed="gone"))
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "deadline-safety")


def test_the_final_user_attempt_stays_on_demand_whatever_the_deadline_says() -> None:
    """Rules 1 to 3 go before: the deadline rule never puts on spot what they keep off it."""
    final = Settings(interruptible=SpotPolicy(work=HOUR), timeout=Timeout(deadline=70 * HOUR))
    world = Paced(final)
    assert (world.attempt.medium, world.attempt.rule) == (ON_DEMAND, "final-attempt")
    world.begin(world.key)
    world.work(0.9)
    assert not world.moving


def test_learned_work_turns_the_rule_on() -> None:
    """Without an estimate the first action follows the ordinary rules, the next one goes by what the first took."""
    unknown = Settings(
        interruptible=SpotPolicy(deadline_policy="uniform-progress"),
        retries=RetryStrategy(count=1),
        timeout=Timeout(deadline=10 * HOUR),
    )
    world = Paced(unknown)
    assert world.attempt.rule == "interruptible"
    world.begin(world.key)
    world.advance(2 * HOUR)
    world.end(world.key, Evidence(result=Payload(b"1")))
    world.submit(profile(unknown))
    second = world.state.action(ActionKey("r2", ROOT))
    assert second is not None
    assert (second.work, second.attempts[-1].rule) == (2 * HOUR, "spot-while-it-lasts")


def test_the_change_over_is_measured() -> None:
    """A start that takes 20 minutes makes d 20 minutes, for all that follows."""
    world = Paced()
    world.advance(1200)
    world.begin(world.key)
    pools = [("spot", D), ("od", D)]
    assert world.state.experience.changeover("e.t", pools) == 1200.0
    assert world.state.experience.changeover("other", pools) == D


def test_a_real_preemption_during_a_move_stays_a_preemption() -> None:
    """The market's own notice is graver than the move's: the end is charged to preemptions."""
    world = Paced(available=0)
    world.advance(1.0)
    world.begin(world.key)
    world.work(3)
    world.tell(PoolCapacityChanged("spot", 1))
    world.tell(AttemptNoticed(*world.key, "relocate", 0.0, "placement"))
    world.tell(AttemptNoticed(*world.key, "drain", 10.0, "node"))
    world.end(world.key, Evidence(reclaimed="drained"))
    assert world.action.attempts[0].end is End.PREEMPTED
    world.check_replay()


def test_moves_are_replayed() -> None:
    """The journal gives the same history as was lived through, moves included."""
    world = Paced(available=0)
    world.advance(1.0)
    world.begin(world.key)
    world.work(3)
    world.tell(PoolCapacityChanged("spot", 1))
    world.leave()
    world.check_replay()


def test_where_nothing_is_safer_than_spot_the_deadline_rule_does_not_apply() -> None:
    """With fallback="never" a queue may feed spot pools alone: late or not, its work runs on spot."""
    settings = Settings(interruptible=SpotPolicy("never", work=400), timeout=Timeout(deadline=200))
    world = World([Queue("default")], [Pool("spot", medium="spot")])
    world.submit(profile(settings))
    assert [live.pool for live in world.live.values()] == ["spot"]


def test_work_that_must_not_happen_twice_is_refused_where_there_is_only_spot() -> None:
    """It would wait for an on-demand pool for ever: fallback="never" does not make it safe."""
    world = World([Queue("default")], [Pool("spot", medium="spot")])
    world.submit(profile(Settings(interruptible=SpotPolicy("never"), idempotent=False)))
    assert [refusal.error for refusal in world.refusals] == ["ConfigurationError"]
