"""What a queue remembers of its spot pools, what it makes of it, and that it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish._core.model.events import AttemptRunning, CheckpointCommitted, Configured, Evidence, PoolCapacityChanged
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import AttemptRecord
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish._core.scheduling.pool_health import LEAVE, MOST_COUNTED, RETURN, PoolMemory, passed_over
from flyteish.errors import ConfigurationError
from tests.core.world import World, profile

HOUR = 3600.0
DONE = Evidence(result=Payload(b"done"))
SPOT_ONLY = profile(Settings(interruptible=SpotPolicy(fallback="never"), retries=RetryStrategy(1)))
POOLS = (Pool("a", medium="spot"), Pool("b", medium="spot"), Pool("od"))


def world_of(pools: tuple[Pool, ...] = POOLS) -> World:
    world = World([Queue("default", pools=tuple(pool.name for pool in pools))], pools)
    world.now = 1_000_000.0
    return world


def memory(world: World, pool: str) -> PoolMemory:
    return world.state.capacity.pools[pool].memory


def attempt(world: World, run: str) -> AttemptRecord:
    action = world.state.action(ActionKey(run, "a0"))
    assert action is not None
    return action.attempts[-1]


def key(world: World, run: str) -> AttemptKey:
    return next(key for key in world.live if key.run == run)


def where(world: World) -> str:
    """The pool that new work goes to now."""
    run = world.submit(SPOT_ONLY)
    pool = attempt(world, run).pool
    world.end(key(world, run), DONE)
    return pool


def die(world: World, run: str, after: float) -> None:
    world.advance(after)
    world.end(key(world, run), Evidence(reclaimed="spot reclaimed"))


# -- choosing --------------------------------------------------------------------------------------------------------


def test_work_flows_away_from_a_pool_that_dies_and_comes_back_when_it_is_forgotten() -> None:
    """Two pools, the preferred one dying every five minutes: work goes to the other one, and later back."""
    world = world_of()
    run = world.submit(SPOT_ONLY)
    assert attempt(world, run).pool == "a"
    die(world, run, 300.0)
    assert attempt(world, run).pool == "a"  # once is chance
    die(world, run, 300.0)
    assert attempt(world, run).pool == "b"
    assert {where(world) for _ in range(5)} == {"b"}
    world.advance(HOUR)
    assert where(world) == "b"
    world.advance(4 * HOUR)
    assert where(world) == "a"


def test_a_choice_against_the_preferred_pool_is_explained() -> None:
    """The attempt says which pool came before which, and what is held against the other."""
    world = world_of()
    run = world.submit(SPOT_ONLY)
    die(world, run, 300.0)
    die(world, run, 300.0)
    world.tell(PoolCapacityChanged("a", 0))
    world.tell(PoolCapacityChanged("a", None))
    later = world.submit(SPOT_ONLY)
    said = attempt(world, later).why
    assert said.endswith("; pool b before a: 2 preemptions and 1 stock-out there in the last 60 min"), said
    assert "before" not in attempt(world, world.submit(profile(Settings(), task="e.od"))).why


def test_nothing_is_held_against_a_pool_that_is_merely_full() -> None:
    """Where the preferred pool has no room, the next one is taken without a word about its record."""
    world = world_of((Pool("a", medium="spot", capacity=1), *POOLS[1:]))
    first, second = world.submit(SPOT_ONLY), world.submit(SPOT_ONLY)
    assert (attempt(world, first).pool, attempt(world, second).pool) == ("a", "b")
    assert "before" not in attempt(world, second).why


def test_a_bad_pool_is_better_than_none() -> None:
    """Where the clean pool is full, work goes to the other one rather than wait."""
    world = world_of((Pool("a", medium="spot"), Pool("b", medium="spot", capacity=1), Pool("od")))
    for _ in range(5):
        memory(world, "a").preempted(world.now, 600.0, 600.0)
    first, second = world.submit(SPOT_ONLY), world.submit(SPOT_ONLY)
    assert (attempt(world, first).pool, attempt(world, second).pool) == ("b", "a")


def test_the_least_bad_of_bad_pools_goes_first() -> None:
    """Where something is held against every pool, the best record decides, and the order among those about equal."""
    world = world_of((Pool("a", medium="spot"), Pool("b", medium="spot"), Pool("c", medium="spot"), Pool("od")))
    for name, times in (("a", 8), ("b", 3), ("c", 3)):
        for _ in range(times):
            memory(world, name).preempted(world.now, 900.0, 900.0)
    assert where(world) == "b"


def test_a_refused_burst_is_one_stock_out() -> None:
    """Attempts that were on their way when the pool first said no, say nothing new of it."""
    world = world_of()
    runs = [world.submit(SPOT_ONLY) for _ in range(20)]
    for run in runs:
        world.end(key(world, run), Evidence(denied="insufficient capacity"))
    assert memory(world, "a").counts(world.now) == (0, 1)
    assert {attempt(world, run).pool for run in runs} == {"b"}
    world.advance(31.0)  # the cooldown is over, the memory is not
    assert where(world) == "b"
    world.advance(4 * HOUR)
    assert where(world) == "a"


def test_half_life_zero_holds_nothing_against_a_pool() -> None:
    """A pool with ``half_life=0`` is preferred whatever happened there."""
    world = world_of((Pool("a", medium="spot", half_life=0.0), *POOLS[1:]))
    run = world.submit(SPOT_ONLY)
    for _ in range(5):
        die(world, run, 600.0)
        assert attempt(world, run).pool == "a"


def test_another_half_life_begins_a_new_memory() -> None:
    """A changed ``half_life`` forgets; any other change of configuration does not."""
    world = world_of()
    memory(world, "a").preempted(world.now, 600.0, 600.0)
    queue = Queue("default", pools=("a", "b", "od"))
    world.configure(Configured((queue,), (Pool("a", medium="spot", capacity=5), *POOLS[1:])))
    assert memory(world, "a").counts(world.now) == (1, 0)
    world.configure(Configured((queue,), (Pool("a", medium="spot", half_life=60.0), *POOLS[1:])))
    assert memory(world, "a").counts(world.now) == (0, 0)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), "1h", True])
def test_a_wrong_half_life_is_refused(value: object) -> None:
    """The message names pool, parameter and what is accepted."""
    with pytest.raises(ConfigurationError, match=r"Pool\('a'\): half_life=.*expected seconds >= 0"):
        Pool("a", half_life=value)  # type: ignore[arg-type]


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_work_that_was_saved_is_not_lost() -> None:
    """A preemption right after a checkpoint weighs little: the start-up, and what came after the save."""
    world = world_of()
    run = world.submit(SPOT_ONLY)
    world.advance(60.0)
    world.begin(key(world, run))
    world.advance(3000.0)
    saved = CheckpointRecord(1, 1, "sha256:0", "bytes", 1, world.now)
    world.tell(CheckpointCommitted(run, "a0", 1, saved))
    die(world, run, 40.0)
    assert memory(world, "a").score(world.now) == pytest.approx(100.0 / (3100.0 + HOUR))
    assert attempt(world, run).pool == "a"


def test_stretches_with_and_without_capacity() -> None:
    """Mean stretches: finished ones and, as far as it has come, the one that goes on; unknown until one is over."""
    world = world_of()
    mind = memory(world, "a")
    assert (mind.mean_up(world.now), mind.mean_down(world.now)) == (0.0, 0.0)
    run = world.submit(SPOT_ONLY)
    world.begin(key(world, run))
    world.advance(500.0)
    assert mind.mean_up(world.now) == 0.0
    world.tell(PoolCapacityChanged("a", 0))
    assert mind.mean_up(world.now) == 500.0
    world.advance(100.0)
    assert mind.mean_down(world.now) == 0.0
    world.tell(PoolCapacityChanged("a", 3))
    assert mind.mean_down(world.now) == 100.0
    world.advance(250.0)
    assert mind.mean_up(world.now) == 750.0
    world.tell(PoolCapacityChanged("a", 2))  # still capacity: the stretch goes on
    world.advance(250.0)
    assert mind.mean_up(world.now) == 1000.0


def test_an_attempt_that_starts_ends_the_stock_out() -> None:
    """A denial begins a stretch without capacity; the first attempt that gets a machine afterwards ends it."""
    world = world_of((Pool("a", medium="spot", cooldown=10.0), Pool("od")))
    mind = memory(world, "a")
    run = world.submit(SPOT_ONLY)
    world.end(key(world, run), Evidence(denied="insufficient capacity"))
    assert mind.is_up is False
    world.advance(10.0)
    world.tell(AttemptRunning(*key(world, run)))
    assert mind.is_up is True
    assert mind.mean_down(world.now) == 10.0


def test_a_restarted_world_begins_with_a_clean_record() -> None:
    """What is remembered is a session's experience; the journal does not carry it."""
    world = world_of()
    run = world.submit(SPOT_ONLY)
    die(world, run, 3000.0)
    assert attempt(world, run).pool == "b"
    world.restart()
    assert attempt(world, run).pool == "a"


def test_words_know_when_there_were_too_many_to_count() -> None:
    """Counts are bounded, and say so."""
    mind = PoolMemory(1800.0)
    for _ in range(MOST_COUNTED + 1):
        mind.preempted(100.0, 60.0, 60.0)
    assert mind.words(100.0) == "at least 1,000 preemptions there in the last 30 min"
    assert mind.words(100.0 + 1800.0) == "what happened there before the last 30 min is not forgotten yet"


# -- properties --------------------------------------------------------------------------------------------------------

happenings = st.lists(
    st.tuples(
        st.sampled_from(["got", "refused", "ended", "preempted", "came", "went"]),
        st.floats(0.0, 4 * HOUR),
        st.floats(0.0, HOUR),
    ),
    max_size=40,
)


def lived(half_life: float, things: list[tuple[str, float, float]]) -> tuple[PoolMemory, float]:
    mind, now = PoolMemory(half_life), 1000.0
    for what, wait, seconds in things:
        now += wait
        if what == "preempted":
            mind.preempted(now, seconds, seconds / 2)
        elif what == "ended":
            mind.ended(now, seconds)
        else:
            getattr(mind, what)(now)
    return mind, now


@given(happenings, st.sampled_from([0.0, 60.0, HOUR]), st.lists(st.floats(0.0, 10 * HOUR), min_size=2))
def test_a_record_only_gets_better_while_nothing_happens(
    things: list[tuple[str, float, float]], half_life: float, later: list[float]
) -> None:
    """The score is within 0 and 2, never grows by itself, and once nothing is held against a pool it is too small to
    matter."""
    mind, now = lived(half_life, things)
    scores = [mind.score(now + each) for each in sorted(later)]
    assert all(0.0 <= score <= 2.0 for score in scores)
    assert scores == sorted(scores, reverse=True)
    if mind.held_until > now:
        assert mind.score(mind.held_until - 1e-6) <= RETURN * 1.01
    assert mind.mean_up(now) >= 0.0 <= mind.mean_down(now)
    assert mind.record(now) == mind.record(now), "a question changes nothing"


@given(st.lists(happenings, min_size=2, max_size=4), st.floats(0.0, 6 * HOUR))
def test_somebody_is_always_tried_first(stories: list[list[tuple[str, float, float]]], wait: float) -> None:
    """The best pool is never passed over; who is passed over is really worse, and who is not is not much worse; asked
    again, the answer is the same."""
    minds = [lived(HOUR, things)[0] for things in stories]
    now = max(lived(HOUR, things)[1] for things in stories) + wait
    scores = {id(mind): mind.score(now) for mind in minds}
    least = min(scores.values())
    last = passed_over(minds, (), now)
    assert len(last) < len(minds)
    assert all(scores[id(mind)] > least + LEAVE for mind in last)
    assert all(scores[id(mind)] <= least + LEAVE for mind in minds if mind not in last)
    assert passed_over(minds, last, now)[: len(last)] == [m for m in passed_over(minds, last, now) if m in last]
    stay = passed_over(minds, last, now)
    assert set(map(id, last)) <= set(map(id, stay))
    assert passed_over(minds, stay, now) == stay
