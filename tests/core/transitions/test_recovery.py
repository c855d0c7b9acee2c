"""A new controller takes a run up: what lives goes on where it is, the rest is started again if somebody waits."""

from __future__ import annotations

import pytest

from flyteish._core.lifecycle import apply
from flyteish._core.model.effects import RelocateAttempt, StartAttempt, StopAttempt
from flyteish._core.model.events import (
    AttemptNoticed,
    CancelRequested,
    ControllerRestarted,
    Evidence,
    RunLoaded,
    RunRecovered,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import End, Phase, RunRecord
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload
from flyteish._core.state import State
from tests.core.world import World, profile

DONE = Evidence(result=Payload(b"done"))


ONE = Pool("od", capacity=1)


def started(pool: Pool = ONE, **settings: object) -> tuple[World, AttemptKey]:
    world = World([Queue("default")], [pool])
    world.submit(profile(Settings(**settings)))  # type: ignore[arg-type]
    return world, next(iter(world.live))


def key_of(world: World, name: str) -> AttemptKey:
    return next(key for key in world.live if key.action == name)


def test_a_price_that_never_changed_stays_as_it_was() -> None:
    """To the last digit, whichever controllers saw the attempt."""
    world, key = started(Pool("od", price_per_hour=0.1))
    world.now -= 1.5
    world.restart([key])
    world.now += 100.0
    world.end(key, DONE)
    (attempt,) = world.state.runs["r1"].root_action.attempts
    assert attempt.price_per_hour == 0.1


def test_an_attempt_that_lives_keeps_its_place_its_generation_and_its_bill() -> None:
    world, key = started()
    world.begin(key)
    world.advance(10)
    world.restart(survivors=[key])
    pool = world.state.capacity.pools["od"]
    assert (pool.running, list(world.live)) == (1, [key])
    world.advance(10)
    world.end(key, DONE)
    attempt = world.state.runs["r1"].root_action.attempts[0]
    assert (attempt.end, attempt.ended_at - attempt.admitted_at) == (End.SUCCEEDED, 20.0)
    world.settle()


def test_nobody_else_gets_the_place_of_one_that_lives() -> None:
    world, key = started()
    world.submit(profile())
    world.restart(survivors=[key])
    assert list(world.live) == [key]
    world.settle()


@pytest.mark.parametrize("downtime", [0.0, 3600.0, -500.0])
def test_the_time_without_a_controller_is_on_no_bill(downtime: float) -> None:
    """An attempt that died with it ended at the last moment on record, also where the clock has gone back since."""
    world, key = started()
    world.begin(key)
    world.advance(10)
    world.tell(AttemptNoticed(*key, "drain", 60.0, "node"))
    state = State.configured(world.config.queues, world.config.pools)
    now = world.now + downtime
    state, _ = apply(state, RunLoaded(world.fold().runs["r1"]), now)
    state, effects = apply(state, RunRecovered("r1", (), world.now), now)
    first, _ = state.runs["r1"].root_action.attempts
    assert (first.end, first.charged, first.ended_at - first.admitted_at) == (End.ABANDONED, "", 10.0)
    assert any(type(effect) is StartAttempt for effect in effects)


def test_a_journal_of_an_earlier_version_reads_as_before() -> None:
    """Nothing lived, and what had run was billed until the run was taken up."""
    world, _ = started()
    folded = world.fold()
    run: RunRecord = folded.runs["r1"]
    state = State.configured(world.config.queues, world.config.pools)
    state, _ = apply(state, RunLoaded(run), 1100.0)
    state, _ = apply(state, ControllerRestarted("r1"), 1100.0)
    assert (run.root_action.attempts[0].end, run.root_action.attempts[0].ended_at) == (End.ABANDONED, 1100.0)


def test_limits_in_time_go_on() -> None:
    """``max_runtime`` counts from the beginning of user code, whoever was in control."""
    world, key = started(timeout=Timeout(max_runtime=30))
    world.begin(key)
    world.advance(20)
    world.restart(survivors=[key])
    world.advance(9)
    assert not world.live[key].stopped
    world.advance(1)
    assert world.live[key].stopped == "max_runtime"
    world.settle()


def test_who_was_told_to_stop_is_told_again() -> None:
    """Nobody knows whether the order arrived."""
    world, key = started()
    world.tell(CancelRequested("r1", "a0", "enough"))
    world.live[key].stopped = ""
    world.restart(survivors=[key])
    assert world.live[key].stopped == "cancelled"
    world.end(key, Evidence(stopped=True))
    assert world.state.runs["r1"].root_action.phase is Phase.ABORTED


def test_who_was_told_to_move_is_told_again() -> None:
    policy = SpotPolicy(work=50)
    world = World([Queue("default")], [Pool("spot", medium="spot", grace=5.0), Pool("od", grace=5.0)])
    world.submit(profile(Settings(interruptible=policy, retries=RetryStrategy(1), timeout=Timeout(deadline=100))))
    key = next(iter(world.live))
    world.begin(key)
    while not world.moving:
        due = world.state.next_due()
        assert due is not None
        world.advance(due - world.now)
    world.restart(survivors=[key])
    assert world.moving == {key: 5.0}
    world.settle()


def test_a_parent_that_waits_for_its_children_holds_no_place() -> None:
    """And goes on when they are done, though its controller is another one now."""
    world, parent = started()
    child = key_of(world, world.call(parent, profile(task="e.child")))
    world.restart(survivors=[parent, child])
    assert world.state.runs["r1"].root_action.phase.value == "parked"
    world.end(child, DONE)
    assert world.state.runs["r1"].root_action.phase.value == "running"
    assert not world.live[parent].awaits
    world.settle()


def test_a_child_that_died_is_started_again_for_a_caller_that_lives() -> None:
    """The caller waits over a connection that comes back; nobody needs to call again."""
    world, parent = started()
    child = key_of(world, world.call(parent, profile(task="e.child")))
    state = State.configured(world.config.queues, world.config.pools)
    state, _ = apply(state, RunLoaded(world.fold().runs["r1"]), world.now)
    state, effects = apply(state, RunRecovered("r1", ((parent.action, 1),), world.now), world.now)
    started_again = [effect.key for effect in effects if type(effect) is StartAttempt]
    assert started_again == [AttemptKey("r1", child.action, 2)]


def test_a_child_that_lives_goes_on_without_its_parent() -> None:
    """The parent is started again, makes the same call, and finds it at work."""
    world, parent = started(Pool("od"))
    child = key_of(world, world.call(parent, profile(task="e.child")))
    world.restart(survivors=[child])
    again = key_of(world, "a0")
    assert again.generation == 2
    world.call(again, profile(task="e.child"))
    assert [key for key in world.live if key.action == child.action] == [child]
    world.settle()


def test_a_grandchild_that_nobody_waits_for_lies_dormant() -> None:
    world, parent = started(Pool("od"))
    child = key_of(world, world.call(parent, profile(task="e.child")))
    grandchild = world.call(child, profile(task="e.grandchild"))
    world.restart(survivors=[parent])
    actions = world.state.runs["r1"].actions
    assert actions[child.action].phase is Phase.RUNNING
    assert actions[grandchild].phase is Phase.DORMANT
    world.settle()


def test_an_attempt_of_an_action_that_is_over_holds_its_place_until_it_has_let_go() -> None:
    world, parent = started(Pool("od", capacity=2))
    child = key_of(world, world.call(parent, profile(Settings(timeout=Timeout(deadline=5)), task="e.child")))
    world.advance(5)
    assert world.state.runs["r1"].actions[child.action].phase is Phase.TIMED_OUT
    world.live[child].stopped = ""
    world.restart(survivors=[parent, child])
    assert world.live[child].stopped == "deadline"
    assert world.state.capacity.pools["od"].running == 2
    world.settle()


def test_a_pool_that_is_not_configured_any_more_keeps_what_lives_there() -> None:
    world, key = started(Pool("old"))
    world.config = type(world.config)(world.config.queues, (Pool("new"),))
    world.restart(survivors=[key])
    world.end(key, DONE)
    assert world.state.runs["r1"].ended_at


def test_orders_are_only_given_again_to_the_living() -> None:
    world, key = started()
    world.tell(CancelRequested("r1", "a0", "enough"))
    state = State.configured(world.config.queues, world.config.pools)
    state, _ = apply(state, RunLoaded(world.fold().runs["r1"]), world.now)
    state, effects = apply(state, RunRecovered("r1", (), world.now), world.now)
    assert not [effect for effect in effects if type(effect) in (StopAttempt, RelocateAttempt, StartAttempt)]
    assert state.runs["r1"].root_action.phase is Phase.ABORTED
    assert key.generation == 1
