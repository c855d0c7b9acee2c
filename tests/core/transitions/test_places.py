"""Attempts that are sent ahead to an engine whose machines are busy: they wait, and everything knows it."""

from __future__ import annotations

import pytest

from flyteish._core.billing.bills import billed, lines_of, total
from flyteish._core.model.events import AttemptEnded, AttemptPlaced, AttemptRunning, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import RetryStrategy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Action, End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload
from flyteish._core.scheduling.queue_state import Reason
from flyteish._core.story import attempt_lines, why
from tests.core.world import World, profile

DONE = Evidence(result=Payload(b"done"))
WORKERS = Pool("workers", capacity=2, ahead=4, price_per_hour=3600.0)


def world_of(tasks: int, **settings: object) -> World:
    world = World([Queue("default")], [WORKERS])
    for _ in range(tasks):
        world.submit(profile(Settings(**settings)))  # type: ignore[arg-type]
    return world


def action(world: World, run: str) -> Action:
    return world.state.runs[run].root_action


def place(world: World, run: str) -> AttemptKey:
    key = action(world, run).attempt_key()
    world.tell(AttemptPlaced(*key))
    return key


def test_as_many_are_sent_ahead_as_the_pool_says() -> None:
    world = world_of(9)
    assert len(world.live) == 6
    pool, queue = world.state.capacity.pools["workers"], world.state.capacity.queues["default"]
    assert (pool.running, pool.ahead, queue.ahead, queue.waiting) == (6, 6, 6, 3)
    place(world, "r1")
    place(world, "r2")
    assert (pool.running - pool.ahead, queue.running - queue.ahead) == (2, 2)
    world.settle()


def test_what_waits_for_a_machine_is_shown_as_queued_and_says_why() -> None:
    world = world_of(1)
    assert (world.state.runs["r1"].phase, action(world, "r1").shown_phase) == ("queued", Phase.QUEUED)
    reason = world.state.admission.reason(action(world, "r1"), world.now)
    assert reason == (Reason.SENT_AHEAD, 0)
    told = "\n".join(why(action(world, "r1"), world.now + 3, reason))
    assert "queued" in told
    assert "waits for 3 s: SENT_AHEAD" in told
    place(world, "r1")
    assert world.state.runs["r1"].phase == "running"
    assert "starts on-demand" in attempt_lines(action(world, "r1"))[0]


def test_waiting_for_a_machine_is_on_no_bill() -> None:
    """Twenty-four tasks of half a second on two workers cost twelve seconds."""
    world = World([Queue("default")], [Pool("workers", capacity=2, ahead=62, price_per_hour=3600.0)])
    for _ in range(24):
        world.submit(profile())
    keys = list(world.live)
    while keys:
        pair, keys = keys[:2], keys[2:]
        begun = world.now
        world.advance(0.5)
        for key in pair:  # short ones: their end says when they had their machine
            world.live.pop(key)
            world.tell(AttemptEnded(*key, DONE, placed_at=begun, running_at=begun))
    attempts = [action(world, run) for run in world.state.runs]
    cost = total(billed(attempts, world.now))
    assert (cost.seconds, cost.dollars) == pytest.approx((12.0, 12.0))
    lines = [line for run in world.state.runs.values() for line in lines_of(run, world.now)]
    assert sum(line.seconds for line in lines) == pytest.approx(12.0)
    world.check_replay()


def test_an_attempt_that_never_had_a_machine_costs_nothing() -> None:
    world = world_of(1)
    world.advance(100)
    world.end(action(world, "r1").attempt_key(), Evidence(reclaimed="the pool is gone"))
    first = action(world, "r1").attempts[0]
    assert first.placed_at == 0
    assert "was sent ahead to on-demand pool 'workers' and got no machine" in attempt_lines(action(world, "r1"))[0]
    assert total(billed([action(world, "r1")], world.now)).seconds == 0


def test_max_queued_time_runs_until_it_has_its_machine() -> None:
    """Then it is taken back from the engine, and pays from ``retries`` as if it had stood in line."""
    world = world_of(1, timeout=Timeout(max_queued_time=10), retries=RetryStrategy(1))
    key = action(world, "r1").attempt_key()
    world.advance(10)
    assert world.live[key].stopped == "max_queued_time"
    world.end(key, Evidence(stopped=True))
    first = action(world, "r1").attempts[0]
    assert (first.end, first.charged, first.placed_at) == (End.QUEUE_TIMEOUT, "retries", 0.0)
    assert "waited longer than max_queued_time=10 s" in first.cause
    second = place(world, "r1")
    world.advance(100)
    assert not world.live[second].stopped
    world.check_replay()


def test_max_runtime_does_not_run_while_it_waits() -> None:
    world = world_of(1, timeout=Timeout(max_runtime=10))
    key = action(world, "r1").attempt_key()
    world.advance(60)
    assert not world.live[key].stopped
    world.tell(AttemptRunning(*key))
    assert action(world, "r1").attempts[0].placed_at == world.now
    world.advance(10)
    assert world.live[key].stopped == "max_runtime"


def test_one_that_had_its_machine_in_time_is_judged_by_its_own_end() -> None:
    """Its engine says so late, since it was short; the limit was reached in between."""
    world = world_of(1, timeout=Timeout(max_queued_time=10))
    key = action(world, "r1").attempt_key()
    world.advance(10)
    assert world.live[key].stopped
    world.placed_at = world.now - 0.02
    world.end(key, Evidence(exit_code=1))
    assert action(world, "r1").attempts[0].end is End.USER_ERROR
    world.check_replay()


def test_start_up_is_counted_from_the_machine_on() -> None:
    world = world_of(1)
    key = action(world, "r1").attempt_key()
    world.advance(30)
    place(world, "r1")
    world.advance(2)
    world.begin(key)
    assert world.state.experience.of("e.t").starts == {"workers": [2.0]}
    assert "queued 30 s, start-up 2 s" in attempt_lines(action(world, "r1"))[0]


def test_who_calls_a_task_has_its_machine() -> None:
    """Whether its engine has said so or not; and a parent that waits holds no place."""
    world = world_of(1)
    key = action(world, "r1").attempt_key()
    world.advance(5)
    world.call(key, profile(task="e.child"))
    assert action(world, "r1").attempts[0].placed_at == world.now
    assert world.state.capacity.pools["workers"].running == 1
    world.check_replay()
    world.settle()


def test_a_parent_goes_on_before_those_that_were_sent_ahead() -> None:
    """As soon as one of the machines is free: what only waits at the engine is not in its way."""
    world = world_of(1)
    parent = place(world, "r1")
    children = [world.call(parent, profile(task="e.child")), world.call(parent, profile(task="e.child"), b"2")]
    for _ in range(4):
        world.submit(profile())
    for key in [key for key in world.live if key.action in children]:
        world.tell(AttemptPlaced(*key))
    for key in [key for key in world.live if key.action in children]:
        world.end(key, DONE)
    assert action(world, "r1").phase is Phase.RUNNING
    world.settle()


def test_a_restart_keeps_who_waits_for_a_machine() -> None:
    world = world_of(2, timeout=Timeout(max_queued_time=10))
    first = place(world, "r1")
    second = action(world, "r2").attempt_key()
    world.advance(4)
    world.restart(survivors=[first, second])
    pool = world.state.capacity.pools["workers"]
    assert (pool.running, pool.ahead) == (2, 1)
    world.advance(6)
    assert [world.live[key].stopped for key in (first, second)] == ["", "max_queued_time"]
    world.settle()


def test_in_other_pools_nothing_waits_ahead() -> None:
    """Admitted is placed, and the journal has no line more."""
    world = World([Queue("default")], [Pool("od", capacity=1)])
    world.submit(profile())
    attempt = action(world, "r1").attempts[0]
    assert attempt.placed_at == attempt.admitted_at
    world.end(attempt_key := action(world, "r1").attempt_key(), DONE)
    assert attempt_key.generation == 1
    kinds = [type(event).__name__ for _, event in world.journal]
    assert kinds == ["RunSubmitted", "TaskDeclared", "ActionSubmitted", "AttemptAdmitted", "AttemptEnded"]
