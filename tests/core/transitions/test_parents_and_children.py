"""Parents and children: waiting without deadlock, and what a retry, a cancel or a restart means for both."""

from __future__ import annotations

import pytest

from flyteish._core.model.effects import Deliver, Record
from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    CancelRequested,
    Configured,
    Evidence,
    QueueStateSet,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Action, Phase
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload
from tests.core.world import ROOT, World, profile

DONE = Evidence(result=Payload(b"done"))
CHILD = profile(task="e.child")


PLAIN = Queue("default")
ON_DEMAND = Pool("od")


def family(queue: Queue = PLAIN, pool: Pool = ON_DEMAND, **settings: object) -> tuple[World, AttemptKey]:
    world = World([queue], [pool])
    world.submit(profile(Settings(**settings)))  # type: ignore[arg-type]
    return world, next(iter(world.live))


def action(world: World, name: str, run: str = "r1") -> Action:
    return world.state.runs[run].actions[name]


def key_of(world: World, name: str) -> AttemptKey:
    return next(key for key in world.live if key.action == name)


@pytest.mark.parametrize(
    "queue, pool",
    [
        (Queue("default", action_concurrency=1), Pool("od")),
        (Queue("default"), Pool("od", capacity=1)),
        (Queue("default", max_resources=Resources(cpu=1)), Pool("od")),
        (Queue("default"), Pool("od", resources=Resources(cpu=1))),
        (Queue("default", spend_limit=1.0), Pool("od", price_per_hour=1.0)),
        (Queue("default", depth=1, on_full="wait"), Pool("od")),
        (Queue("default", run_concurrency=1), Pool("od")),
    ],
)
def test_a_parent_that_waits_never_blocks_its_child(queue: Queue, pool: Pool) -> None:
    """With room for one, parent and child and grandchild take turns, and the parent is first in line again."""
    world, parent = family(queue, pool, resources=Resources(cpu=1))
    one_cpu = profile(Settings(resources=Resources(cpu=1)), "e.child")
    child = world.call(parent, one_cpu)
    assert action(world, ROOT).phase is Phase.PARKED
    grandchild = world.call(key_of(world, child), one_cpu)
    other = world.submit(profile(Settings(resources=Resources(cpu=1)), "e.other"))
    if not queue.run_concurrency and not queue.depth:
        assert world.state.runs[other].root_action.phase is Phase.QUEUED
    world.end(key_of(world, grandchild), DONE)
    world.settle()
    assert world.state.runs[other].phase == "succeeded"


def test_the_outcome_reaches_the_parent_with_its_place() -> None:
    """While others run in its place it does not go on, and it goes before everybody who waits."""
    world, parent = family(Queue("default", action_concurrency=1))
    child = world.call(parent, CHILD)
    for _ in range(2):
        world.submit(profile())
    world.tell(QueueStateSet("default", "held"))  # a held queue starts nothing, but lets parents go on
    effects = world.tell(AttemptEnded(*key_of(world, child), DONE))
    del world.live[key_of(world, child)]
    assert [type(effect) for effect in effects].count(Deliver) == 1
    assert action(world, ROOT).phase is Phase.RUNNING


def test_a_parent_goes_on_where_nothing_else_runs_whatever_the_limits_have_become() -> None:
    """A limit that was tightened below what it needs can't keep it: it can't wait for anybody."""
    world, parent = family(Queue("default"), Pool("od"), resources=Resources(cpu=4))
    child = world.call(parent, CHILD)
    small = (Queue("default", max_resources=Resources(cpu=1)),), (Pool("od", resources=Resources(cpu=1)),)
    world.configure(Configured(*small))
    world.end(key_of(world, child), DONE)
    assert action(world, ROOT).phase is Phase.RUNNING


def test_children_that_end_while_others_are_awaited_are_told_at_once() -> None:
    """as_completed works: only the last outcome has to wait for the parent's place."""
    world, parent = family()
    first, second = world.call(parent, CHILD, b"1"), world.call(parent, CHILD, b"2")
    world.end(key_of(world, first), DONE)
    assert world.live[parent].awaits == {second}
    assert action(world, ROOT).phase is Phase.PARKED


def test_a_call_while_it_waits_for_its_place_hands_over_what_was_held() -> None:
    """A parent that calls again before it has its place back waits again, and gets the outcome that was held."""
    world, parent = family(Queue("default", action_concurrency=1))
    first = world.call(parent, CHILD, b"1")
    second = world.call(parent, CHILD, b"2")
    world.end(key_of(world, first), DONE)  # the second child has the place now
    world.submit(profile(task="e.other"))
    world.tell(AttemptEnded(*key_of(world, second), DONE))
    del world.live[key_of(world, second)]
    assert action(world, ROOT).phase is Phase.RUNNING
    assert world.live[parent].awaits == set()


def test_a_retried_parent_finds_finished_children_and_gets_failed_ones_anew() -> None:
    """Equal calls in equal order: a success is delivered again without running, a failure is tried again."""
    world, parent = family(retries=RetryStrategy(1))
    good, bad = world.call(parent, CHILD, b"good"), world.call(parent, CHILD, b"bad")
    world.end(key_of(world, good), DONE)
    world.end(key_of(world, bad), Evidence(exit_code=1))
    world.end(parent, Evidence(exit_code=1))
    again = key_of(world, ROOT)
    assert world.call(again, CHILD, b"good") == good
    assert world.live[again].awaits == set()
    anew = world.call(again, CHILD, b"bad")
    assert anew != bad
    assert action(world, anew).phase is Phase.RUNNING
    world.check_replay()


@pytest.mark.parametrize("queue", [Queue("default", action_concurrency=1), Queue("default")])
def test_a_retried_parent_waits_for_a_child_that_still_runs(queue: Queue) -> None:
    """The child goes on while its parent is tried again; nothing runs twice."""
    world, parent = family(queue, retries=RetryStrategy(1))
    child = world.call(parent, CHILD)
    world.end(parent, Evidence(reclaimed="gone"))
    world.advance(60)
    if queue.action_concurrency:  # the child has the place
        world.end(key_of(world, child), DONE)
    again = key_of(world, ROOT)
    assert world.call(again, CHILD) == child
    if not queue.action_concurrency:
        assert action(world, ROOT).phase is Phase.PARKED
        world.end(key_of(world, child), DONE)
    assert action(world, ROOT).phase is Phase.RUNNING
    assert len(action(world, child).attempts) == 1


def test_the_same_call_sent_twice_is_one_call() -> None:
    """A worker that repeats a request does not make its parent wait for two ends of one child."""
    world, parent = family()
    child = world.call(parent, CHILD)
    world.live[parent].calls.clear()
    assert world.call(parent, CHILD) == child
    world.end(key_of(world, child), DONE)
    assert action(world, ROOT).phase is Phase.RUNNING


def test_the_same_call_sent_again_hears_how_it_ended() -> None:
    """A worker that lost its connection before the answer came asks a new controller, which runs nothing twice."""
    world, parent = family(retries=RetryStrategy(1))
    world.advance(1)
    child = world.call(parent, CHILD)
    world.end(key_of(world, child), Evidence(exit_code=1))
    world.live[parent].calls.clear()
    assert world.call(parent, CHILD) == child
    assert world.live[parent].awaits == set()
    world.advance(1)
    world.end(parent, Evidence(exit_code=1))
    assert world.call(key_of(world, ROOT), CHILD) != child
    world.check_replay()


def test_a_cached_child_does_not_cost_the_parent_its_place() -> None:
    """Its result is there at once."""
    world, parent = family(Queue("default", action_concurrency=1))
    world.submit(profile(task="e.other"))
    world.call(parent, CHILD, cached=Payload(b"found"))
    assert action(world, ROOT).phase is Phase.RUNNING
    assert world.live[parent].awaits == set()


@pytest.mark.parametrize("evidence, phase", [(DONE, "succeeded"), (Evidence(exit_code=1), "failed")])
def test_an_ended_parent_takes_its_descendants_with_it(evidence: Evidence, phase: str) -> None:
    """Those that wait end at once, those that run are told to stop; the run ends with the last of them."""
    world, parent = family(Queue("default", action_concurrency=1))
    running = world.call(parent, CHILD, b"1")
    waiting = world.call(parent, CHILD, b"2")
    world.end(parent, evidence)
    assert action(world, waiting).phase is Phase.ABORTED
    assert world.live[key_of(world, running)].stopped == "cancelled"
    assert world.state.runs["r1"].phase == phase
    assert "r1" not in world.over
    world.end(key_of(world, running), Evidence(stopped=True))
    assert action(world, running).phase is Phase.ABORTED
    assert "r1" in world.over


@pytest.mark.parametrize("children_done", [False, True])
def test_a_parent_may_be_cancelled_while_it_waits(children_done: bool) -> None:
    """For its children, or for its place."""
    world, parent = family(Queue("default", action_concurrency=1))
    child = world.call(parent, CHILD, b"1")
    if children_done:
        world.configure(Configured((Queue("default", action_concurrency=1),), (Pool("od"), Pool("new"))))
        world.end(key_of(world, child), DONE)
    world.tell(CancelRequested("r1", ROOT, "enough"))
    world.end(parent, Evidence(stopped=True))
    world.settle()
    assert world.state.runs["r1"].phase == "aborted"


def test_a_chain_of_calls_longer_than_the_stack_is_cancelled() -> None:
    """After a restart a deep chain of dormant descendants ends with its root."""
    world, key = family()
    for _ in range(600):
        child = world.call(key, CHILD)
        key = key_of(world, child)
    world.restart()
    world.tell(CancelRequested("r1", ROOT, "enough"))
    world.end(key_of(world, ROOT), Evidence(stopped=True))
    assert {each.phase for each in world.state.runs["r1"].actions.values()} == {Phase.ABORTED}
    assert "r1" in world.over


# -- restarts -------------------------------------------------------------------------------------------------------


def test_a_restart_costs_no_budget_and_loses_no_result() -> None:
    """The root runs again, a finished child is delivered, an unfinished one runs when it is called again."""
    world, parent = family(retries=RetryStrategy(1))
    done, open_ = world.call(parent, CHILD, b"1"), world.call(parent, CHILD, b"2")
    world.end(key_of(world, done), DONE)
    world.restart()
    root = action(world, ROOT)
    assert (root.user_attempt, root.system_used, root.abandoned, root.generation) == (1, 0, 1, 2)
    assert action(world, open_).phase is Phase.DORMANT
    again = key_of(world, ROOT)
    assert world.call(again, CHILD, b"1") == done
    assert world.call(again, CHILD, b"2") == open_
    assert action(world, open_).phase is Phase.RUNNING
    world.settle()
    world.check_replay()


def test_a_dormant_child_that_nobody_calls_again_ends_with_its_parent() -> None:
    """So that the run can end."""
    world, parent = family()
    child = world.call(parent, CHILD)
    world.restart()
    world.end(key_of(world, ROOT), DONE)
    assert action(world, child).phase is Phase.ABORTED
    assert "r1" in world.over


def test_what_was_cancelled_stays_cancelled_over_a_restart() -> None:
    """A cancel that the attempt had not yet obeyed is not forgotten."""
    world, _ = family()
    world.tell(CancelRequested("r1", ROOT, "enough"))
    world.restart()
    assert world.state.runs["r1"].phase == "aborted"
    assert not world.live


def test_a_run_goes_on_though_its_queue_is_not_configured_any_more() -> None:
    """Unfinished work is finished over the pools there are; new work is refused."""
    world = World([Queue("default"), Queue("old")])
    world.submit(profile(Settings(queue="old")))
    world.config = Configured((Queue("default"),), (Pool("od"),))
    world.restart()
    world.submit(profile(Settings(queue="old")))
    assert world.refusals[-1].error == "UnknownQueueError"
    world.end(key_of(world, ROOT), DONE)
    assert world.state.runs["r1"].phase == "succeeded"
    assert "old" not in world.state.capacity.queues


@pytest.mark.parametrize("notice, kept", [("terminate", True), ("relocate", True), ("rebalance", False), ("", False)])
def test_what_a_leaving_parent_drops_goes_on(notice: str, kept: bool) -> None:
    """Calls that an attempt no longer awaits are cancelled, unless it has to leave: its next attempt finds them."""
    world = World([PLAIN], [ON_DEMAND, Pool("spot", medium="spot")])
    world.submit(profile(Settings(retries=RetryStrategy(1), interruptible=SpotPolicy())))
    parent = next(iter(world.live))
    child = world.call(parent, CHILD)
    if notice:
        for _ in range(2):
            world.tell(AttemptNoticed(*parent, notice, 120.0, "market"))
    world.tell(CancelRequested(parent.run, child, "the caller was cancelled", by=str(parent)))
    assert (action(world, child).cancel_reason == "") is kept
    if kept:
        world.end(parent, Evidence(reclaimed="by its market"))
        again = key_of(world, ROOT)
        assert again.generation == 2
        assert action(world, child).phase is Phase.RUNNING
        assert world.call(again, CHILD) == child
        world.end(key_of(world, child), DONE)
        assert action(world, child).phase is Phase.SUCCEEDED
        assert len(action(world, child).attempts) == 1


def test_a_notice_is_on_record_once() -> None:
    """However many sources tell of it; one that is graver is news."""
    world, attempt = family()
    kinds = ["rebalance", "rebalance", "drain", "relocate", "terminate", "terminate", "rebalance"]
    recorded = []
    for kind in kinds:
        effects = world.tell(AttemptNoticed(*attempt, kind, 120.0, "node"))
        facts = [effect.event for effect in effects if isinstance(effect, Record)]
        recorded += [fact.kind for fact in facts if isinstance(fact, AttemptNoticed)]
    assert recorded == ["rebalance", "drain", "terminate"]
    assert action(world, ROOT).attempts[-1].notice == "terminate"
