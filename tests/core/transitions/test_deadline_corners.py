"""The deadline rule where it meets other rules: limits, hanging starts, one place for many, parents."""

from __future__ import annotations

from flyteish._core.model.events import (
    AttemptNoticed,
    CheckpointCommitted,
    CheckpointSkipped,
    Configured,
    Evidence,
    PoolCapacityChanged,
    QueueStateSet,
    RelocationOrdered,
)
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.records import Action, End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, Payload
from tests.core.world import ROOT, World, profile

HOUR = 3600.0
D = 180.0
POOLS = (Pool("spot", medium="spot", startup=D, grace=0.0), Pool("od", startup=D, grace=0.0))


def paced(work: float | None = 10 * HOUR, deadline: float = 20 * HOUR) -> Settings:
    return Settings(
        interruptible=SpotPolicy(work=work, deadline_policy="uniform-progress"),
        retries=RetryStrategy(count=1),
        timeout=Timeout(deadline=deadline),
    )


def several(number: int, queue: Queue = Queue("default"), available: int | None = None) -> World:  # noqa: B008
    """So many paced actions, each a run, over a spot and an on-demand pool."""
    world = World([queue], POOLS)
    if available is not None:
        world.tell(PoolCapacityChanged("spot", available))
    for _ in range(number):
        world.submit(profile(paced()))
    return world


def action(world: World, run: int = 1) -> Action:
    found = world.state.action(ActionKey(f"r{run}", ROOT))
    assert found is not None
    return found


def save(world: World, key: AttemptKey, progress: float | None = None, restored: float = 0.0) -> None:
    sequence = len(action(world, int(key.run[1:])).checkpoints) + 1
    record = CheckpointRecord(
        sequence, key.generation, "b", "bytes", 1, world.now, progress=progress, restore_seconds=restored
    )
    world.tell(CheckpointCommitted(*key, record))


def run_and_save(world: World, hours: float) -> None:
    """Every attempt runs for so long and saves each 6 minutes."""
    for _ in range(round(hours * 10)):
        world.advance(0.1 * HOUR)
        for key in world.live:
            save(world, key)


def test_one_spot_machine_does_not_call_everybody_away_from_on_demand() -> None:
    """Five run on-demand ahead of their pace; two spot machines come: two move, three stay."""
    world = several(5, available=0)
    for key in world.live:
        world.begin(key)
    run_and_save(world, 2)
    world.tell(PoolCapacityChanged("spot", 2))
    assert len(world.moving) == 2
    for key in list(world.moving):
        world.tell(AttemptNoticed(*key, "relocate", 0.0, "placement"))
        world.end(key, Evidence(reclaimed="moved"))
    assert sorted(live.pool for live in world.live.values()) == ["od", "od", "od", "spot", "spot"]
    world.advance(HOUR)
    assert len(world.moving) == 2
    assert not any(world.state.moves_to.values())


def test_those_who_wait_for_spot_come_before_those_who_run_elsewhere() -> None:
    """One waits, ahead of its pace; the only spot machine is for it, and nobody is moved for its sake."""
    world = several(2, available=1)
    first, second = world.live
    assert [live.pool for live in world.live.values()] == ["spot", "od"]
    world.begin(first)
    world.begin(second)
    run_and_save(world, 3)
    world.tell(PoolCapacityChanged("spot", 0))
    world.end(first, Evidence(reclaimed="gone"))
    assert action(world).rule == "ahead"
    world.tell(PoolCapacityChanged("spot", 1))
    assert not world.moving
    assert action(world).attempts[-1].medium == SPOT


def test_a_start_on_spot_that_hangs_is_given_up_in_time() -> None:
    """An attempt whose machine does not come up is moved while on-demand can still do all of the work."""
    world = several(1)
    assert action(world).attempts[-1].medium == SPOT
    world.advance(10 * HOUR - D - 2)
    assert not world.moving
    world.advance(2)
    assert list(world.moving) == [action(world).attempt_key()]


def test_a_recommendation_to_rebalance_does_not_end_the_watch() -> None:
    """It announces no end, so the deadline is watched as before, and the move is no preemption."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    world.tell(AttemptNoticed(*key, "rebalance", float("inf"), "metadata"))
    world.advance(10 * HOUR)
    assert key in world.moving
    world.tell(AttemptNoticed(*key, "relocate", 0.0, "placement"))
    world.end(key, Evidence(reclaimed="moved"))
    assert action(world).attempts[0].end is End.RELOCATED
    world.check_replay()


def test_nobody_leaves_spot_for_an_on_demand_place_that_is_not_there() -> None:
    """In a held queue it would start nowhere; it works on, and is moved once there is somewhere to go."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    world.tell(QueueStateSet("default", "held"))
    world.advance(10 * HOUR)
    assert not world.moving
    world.tell(QueueStateSet("default", "active"))
    world.advance(D + 1)
    assert key in world.moving


def test_a_limit_of_the_queue_is_no_reason_to_go_on_demand() -> None:
    """Held back by action_concurrency alone, the second one takes spot when its turn comes."""
    world = several(2, Queue("default", action_concurrency=1))
    world.advance(60.0)
    assert action(world, 2).wanted == SPOT
    [first] = world.live
    world.end(first, Evidence(result=Payload(b"1")))
    assert action(world, 2).attempts[-1].medium == SPOT


def test_spot_that_comes_before_the_on_demand_place_is_taken() -> None:
    """Behind and in line on-demand, where the queue lets nobody in: spot is there by the time that it does."""
    world = several(2, Queue("default", action_concurrency=1), available=0)
    assert [live.pool for live in world.live.values()] == ["od"]
    world.advance(60.0)
    assert action(world, 2).wanted == ON_DEMAND
    world.tell(PoolCapacityChanged("spot", None))
    world.advance(D + 1)
    [first] = world.live
    world.end(first, Evidence(result=Payload(b"1")))
    assert action(world, 2).attempts[-1].medium == SPOT


def test_without_a_spot_pool_nobody_looks_for_one() -> None:
    """On-demand in a queue that feeds nothing else: no look is planned that could only find the same."""
    world = World([Queue("default", pools=("od",))], POOLS)
    world.submit(profile(paced()))
    key = action(world).attempt_key()
    world.begin(key)
    run_and_save(world, 3)
    assert {timer.kind for timer in world.state.timers} == {"deadline"}


def test_work_that_is_learned_while_others_wait_and_run_steers_them_too() -> None:
    """The first success of the task says how much work it is: the running one is watched from then on, and the
    waiting one stops waiting for spot in time."""
    world = World([Queue("default")], POOLS)
    world.tell(PoolCapacityChanged("spot", 2))
    for _ in range(3):
        world.submit(profile(paced(work=None)))
    first, second = world.live
    world.begin(first)
    world.begin(second)
    assert action(world, 3).phase is Phase.QUEUED
    world.tell(PoolCapacityChanged("spot", 0))
    world.advance(8 * HOUR)
    assert action(world, 3).phase is Phase.QUEUED, "nobody knows its work"
    world.end(first, Evidence(result=Payload(b"1")))
    assert action(world, 3).attempts[-1].medium == ON_DEMAND
    world.advance(4 * HOUR)  # 20 h - 8 h - d
    assert second in world.moving
    assert not world.state.unpaced


def test_a_parent_that_waits_is_looked_at_when_it_goes_on() -> None:
    """Parked it is left alone, without a timer that fires for nothing; back at work it is moved if it has to be."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    child = world.call(key, profile(Settings(), task="e.child"))
    assert action(world).phase is Phase.PARKED
    world.advance(10 * HOUR)
    assert not world.moving
    assert "pace" not in {timer.kind for timer in world.state.timers}
    [working] = [live for live in world.live if live.action == child]
    world.end(working, Evidence(result=Payload(b"1")))
    assert key in world.moving


def test_what_reading_a_checkpoint_took_is_not_progress() -> None:
    """Run time kept counts work, so an attempt that restores for an hour has an hour less."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    world.advance(2 * HOUR)
    save(world, key, restored=HOUR)
    assert action(world).kept == HOUR


def test_a_checkpoint_that_cannot_be_restored_is_no_progress() -> None:
    """The newest is torn, the one before is used: what is kept, and what is done, are that one's. Said twice, once."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    for progress in (0.1, 0.2):
        world.advance(HOUR)
        save(world, key, progress)
    world.end(key, Evidence(reclaimed="gone"))
    key = action(world).attempt_key()
    world.begin(key)
    for _ in range(2):
        world.tell(CheckpointSkipped(*key, 2, "its checksum is wrong"))
    assert action(world).kept == HOUR
    from flyteish._core.transitions.deadline_pacing import situation

    assert situation(world.state, action(world), world.now, spot_free=True).saved == HOUR
    world.check_replay()
    folded = world.fold().action(action(world).key)
    assert folded is not None
    assert (folded.kept, folded.skipped) == (HOUR, (2,))


def test_an_attempt_that_is_over_is_watched_by_nobody() -> None:
    """On-demand for want of spot it asked to be told of any; it ends, and no name stays behind."""
    world = several(1, available=0)
    key = action(world).attempt_key()
    world.begin(key)
    run_and_save(world, 3)
    assert world.state.watchers
    world.end(key, Evidence(result=Payload(b"1")))
    assert not world.state.watchers


def test_moves_of_the_journal_are_counted_in_replay() -> None:
    """A new controller knows how often an action was moved off spot for safety."""
    world = several(1)
    key = action(world).attempt_key()
    world.begin(key)
    world.advance(10 * HOUR)
    assert [type(event) for _, event in world.journal].count(RelocationOrdered) == 1
    folded = world.fold().action(action(world).key)
    assert folded is not None
    assert folded.hurried == action(world).hurried == 1


def test_a_place_on_demand_that_is_configured_later_ends_the_wait() -> None:
    """Waiting for spot where there was nothing else, it is steered once its queue feeds an on-demand pool."""
    spot = Pool("spot", medium="spot", startup=D, grace=0.0)
    never = Settings(interruptible=SpotPolicy("never", work=10 * HOUR), timeout=Timeout(deadline=20 * HOUR))
    world = World([Queue("default")], [spot])
    world.tell(PoolCapacityChanged("spot", 0))
    world.submit(profile(never))
    world.advance(HOUR)
    world.configure(Configured((Queue("default"),), (spot, Pool("od", startup=D, grace=0.0))))
    world.advance(9 * HOUR)
    assert action(world).attempts[-1].medium == ON_DEMAND
