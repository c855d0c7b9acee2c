"""Who goes next: order, limits and typed reasons of queues and pools, and what a decision costs."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from flyteish._core.lifecycle import apply
from flyteish._core.model.effects import QueueDrained, StartAttempt
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    Configured,
    Event,
    Evidence,
    PoolCapacityChanged,
    QueueStateSet,
    RunSubmitted,
    TaskDeclared,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Phase
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import Payload, Profile
from flyteish._core.scheduling.queue_state import Reason
from flyteish.errors import ConfigurationError
from tests.core.world import ROOT, World, profile

DONE = Evidence(result=Payload(b"done"))


def sized(cpu: float, **more: Any) -> Profile:
    return profile(Settings(resources=Resources(cpu=cpu), **more), task=f"e.cpu{cpu}")


def running(world: World) -> list[str]:
    return [key.run for key, live in world.live.items() if live.action.phase is Phase.RUNNING]


def finish(world: World, run: str, action: str = ROOT) -> None:
    key = next(key for key in world.live if key[:2] == (run, action))
    world.end(key, DONE)


def reason(world: World, run: str, action: str = ROOT) -> tuple[Reason, int] | None:
    return world.state.admission.reason(world.state.runs[run].actions[action], world.now)


def order(world: World) -> list[str]:
    """The runs in the order in which they run, one ending after the other."""
    found = []
    while world.live:
        key = next(iter(world.live))
        found.append(key.run)
        world.end(key, DONE)
    return found


# -- order ---------------------------------------------------------------------------------------------------------


def test_priority_then_first_come() -> None:
    """A higher priority goes first; within one, those who came first."""
    world = World([Queue("default", action_concurrency=1)])
    for priority in (50, 1, 50, 100, 50):
        world.submit(profile(Settings(priority=priority), task=f"e.p{priority}"))
    assert order(world) == ["r1", "r4", "r3", "r5", "r2"]


@pytest.mark.parametrize("fairness, expected", [("round_robin", "abababaa"), ("fifo", "aaaaabbb")])
def test_runs_take_turns(fairness: Any, expected: str) -> None:
    """With round robin a run with much work does not keep another waiting; with fifo it does."""
    work = Queue("work", action_concurrency=1, fairness=fairness, state="held")
    world = World([Queue("default"), work])
    child = profile(Settings(queue="work"), task="e.child")
    names = {}
    for letter, calls in (("a", 5), ("b", 3)):
        names[world.submit(profile())] = letter
        caller = list(world.live)[-1]
        for number in range(calls):
            world.call(caller, child, bytes([number]))
    world.tell(QueueStateSet("work", "active"))
    found = ""
    while children := [key for key in world.live if key.action != ROOT]:
        found += names[children[0].run]
        world.end(children[0], DONE)
    assert found == expected


def test_a_strict_line_waits_for_its_head() -> None:
    """Smaller work does not pass a head that does not fit, on either medium, where the queue's own limit binds."""
    world = World([Queue("default", max_resources=Resources(cpu=4))], [Pool("od"), Pool("spot", medium="spot")])
    first, head, small = world.submit(sized(2)), world.submit(sized(3)), world.submit(sized(1))
    spot = world.submit(sized(1, interruptible=SpotPolicy(), retries=RetryStrategy(1)))
    assert running(world) == [first]
    assert reason(world, head) == (Reason.RESOURCES, 1)
    finish(world, first)
    assert running(world) == [head, small]
    finish(world, small)
    assert running(world) == [head, spot]


def test_greedy_capacity_lets_smaller_work_pass() -> None:
    """The head still goes as soon as it fits."""
    world = World([Queue("default", max_resources=Resources(cpu=4), scheduling="greedy_capacity")])
    first, head, small = world.submit(sized(2)), world.submit(sized(3)), world.submit(sized(1))
    assert running(world) == [first, small]
    finish(world, first)
    assert running(world) == [small, head]


def test_queues_that_compete_go_by_priority_and_equals_in_turn() -> None:
    """A pool's free place goes to the queue of the highest priority; queues of one priority take turns."""
    queues = [Queue("low", priority=1), Queue("a"), Queue("b"), Queue("high", priority="max")]
    world = World(queues, [Pool("od", capacity=1)])
    names: dict[str, str] = {}
    for queue in ("a", "low", "a", "a", "b", "b", "high"):
        names[world.submit(profile(Settings(queue=queue), task=f"e.{queue}"))] = queue
    assert [names[run] for run in order(world)] == ["a", "high", "a", "b", "a", "b", "low"]


# -- limits and reasons ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "queue, pools, expected",
    [
        (Queue("default", action_concurrency=1), [Pool("od")], Reason.QUEUE_CONCURRENCY),
        (Queue("default", run_concurrency=1), [Pool("od")], Reason.RUN_CONCURRENCY),
        (Queue("default", overlap="queue"), [Pool("od")], Reason.OVERLAP),
        (Queue("default", depth=1, on_full="wait"), [Pool("od")], Reason.DEPTH),
        (Queue("default", max_resources=Resources(cpu=1)), [Pool("od")], Reason.RESOURCES),
        (Queue("default", spend_limit=1.5), [Pool("od", price_per_hour=1.0)], Reason.SPEND_LIMIT),
        (Queue("default"), [Pool("od", capacity=1)], Reason.POOL_FULL),
        (Queue("default"), [Pool("od", resources=Resources(cpu=1))], Reason.RESOURCES),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_the_second_waits_for_a_typed_reason(queue: Queue, pools: list[Pool], expected: Reason) -> None:
    """Whoever does not start is told which limit it waits for, and goes when the first has ended."""
    world = World([queue], pools)
    first, second = world.submit(sized(1)), world.submit(sized(1))
    found = reason(world, second)
    assert found is not None
    assert found[0] is expected
    assert running(world) == [first]
    finish(world, first)
    assert running(world) == [second]


def test_held_cooling_and_stock_out_are_reasons() -> None:
    """An operator's hold, a pool's cooldown and a market without capacity each have their name."""
    world = World([Queue("default")], [Pool("od", cooldown=10.0)])
    world.tell(QueueStateSet("default", "held"))
    run = world.submit(profile())
    assert reason(world, run) == (Reason.HELD, 1)
    world.tell(QueueStateSet("default", "active"))
    world.end(next(iter(world.live)), Evidence(denied="no capacity"))
    assert reason(world, run) == (Reason.POOL_COOLING, 1)
    world.tell(PoolCapacityChanged("od", 0))
    world.advance(10)
    assert reason(world, run) == (Reason.NO_CAPACITY, 1)
    world.tell(PoolCapacityChanged("od", None))
    assert running(world) == [run]


def test_pools_are_tried_in_order_of_preference() -> None:
    """The first pool that takes it gets it."""
    world = World([Queue("default", pools=("b", "a"))], [Pool("a"), Pool("b", capacity=1)])
    world.submit(profile())
    world.submit(profile())
    assert [live.pool for live in world.live.values()] == ["b", "a"]


def test_spot_share_sends_the_rest_on_demand() -> None:
    """No more than the share is on spot; the rule says so."""
    settings = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1))
    world = World([Queue("default", action_concurrency=4, spot_share=0.5)], [Pool("spot", medium="spot"), Pool("od")])
    runs = [world.submit(profile(settings)) for _ in range(4)]
    assert [live.pool for live in world.live.values()] == ["spot", "spot", "od", "od"]
    assert world.state.runs[runs[3]].root_action.attempts[0].rule == "spot-share"


def test_spend_limit_is_kept_and_given_back() -> None:
    """Prices of what runs add up exactly, however often they come and go."""
    world = World([Queue("default", spend_limit=0.3)], [Pool("od", price_per_hour=0.1)])
    for _ in range(30):
        world.submit(profile())
    assert len(running(world)) == 3
    while world.live:
        world.end(next(iter(world.live)), DONE)
    assert world.state.capacity.queues["default"].rate == 0.0


TWO_CPUS = Settings(resources=Resources(cpu=2))


@pytest.mark.parametrize(
    "queue, pools, settings, words",
    [
        (Queue("default"), [Pool("spot", medium="spot")], Settings(), "feeds no on-demand pool"),
        (Queue("default"), [Pool("od")], Settings(interruptible=SpotPolicy(fallback="never")), "no spot pool"),
        (Queue("default", max_resources=Resources(cpu=1)), [Pool("od")], TWO_CPUS, "more than"),
        (Queue("default"), [Pool("od", resources=Resources(cpu=1))], TWO_CPUS, "more than"),
        (Queue("default", spend_limit=1), [Pool("od", price_per_hour=2)], Settings(), "spend_limit"),
    ],
)  # fmt: skip
def test_work_that_could_never_start_is_refused(
    queue: Queue, pools: list[Pool], settings: Settings, words: str
) -> None:
    """It would wait for ever, so it is said at once; nothing is recorded of such a run."""
    world = World([queue], pools)
    run = world.submit(profile(settings))
    assert words in world.refusals[0].message
    assert world.refusals[0].error == "ConfigurationError"
    assert run not in world.state.runs
    assert world.journal == []


def test_an_unknown_queue_is_refused_with_the_known_ones() -> None:
    """Runs and children alike."""
    world = World([Queue("a"), Queue("b")])
    world.submit(profile(Settings(queue="gpu")))
    world.submit(profile(Settings(queue="a")))
    world.call(next(iter(world.live)), profile(Settings(queue="gpu"), task="e.child"))
    assert [(refusal.error, "known queues: a, b" in refusal.message) for refusal in world.refusals] == [
        ("UnknownQueueError", True),
        ("UnknownQueueError", True),
    ]


def test_a_full_queue_refuses_or_holds_back() -> None:
    """Above ``depth`` a submission is refused at once, or waits outside and comes in, in order."""
    world = World([Queue("default", depth=2, action_concurrency=1)])
    for _ in range(3):
        world.submit(profile())
    assert [refusal.error for refusal in world.refusals] == ["ResourceExhaustedError"]
    world = World([Queue("default", depth=2, action_concurrency=1, on_full="wait")])
    for _ in range(4):
        world.submit(profile())
    assert reason(world, "r4") == (Reason.DEPTH, 2)
    assert order(world) == ["r1", "r2", "r3", "r4"]


def test_a_cached_result_needs_no_room() -> None:
    """Nothing needs to run, so a full queue does not matter."""
    world = World([Queue("default", depth=1)])
    world.submit(profile())
    run = world.submit(profile(), cached=Payload(b"found"))
    assert world.state.runs[run].phase == "succeeded"


def test_held_roots_do_not_keep_a_full_queue_closed_to_children() -> None:
    """With depth=1 and run_concurrency=1 the next root may wait, but the active run's children get in."""
    world = World([Queue("default", depth=1, run_concurrency=1, on_full="wait")])
    world.submit(profile())
    second = world.submit(profile())
    caller = next(iter(world.live))
    child = world.call(caller, profile(task="e.child"))
    assert world.state.runs["r1"].actions[child].phase is Phase.RUNNING
    world.settle()
    assert world.state.runs[second].phase == "succeeded"


def test_a_held_run_begins_only_when_the_queue_has_room() -> None:
    """Where a full queue holds callers back, the next run waits for the last attempt of the one before."""
    world = World([Queue("default", depth=2, run_concurrency=1, on_full="wait")])
    world.submit(profile())
    world.submit(profile())
    assert reason(world, "r2") == (Reason.RUN_CONCURRENCY, 1)
    caller = next(iter(world.live))
    for name in (b"1", b"2"):
        world.call(caller, profile(task="e.child"), name)
    world.end(caller, DONE)  # its children have been told to stop, and still run
    assert reason(world, "r2") == (Reason.DEPTH, 1)
    world.end(next(iter(world.live)), Evidence(stopped=True))
    assert running(world) == ["r1", "r2"]


def test_large_work_that_returns_is_not_starved_by_small_work() -> None:
    """In a pool with resources nobody takes what a returning parent waits for; when it is back, others may start."""
    queues = [Queue("default"), Queue("small"), Queue("tiny", action_concurrency=1)]
    world = World(queues, [Pool("od", resources=Resources(cpu=4))])
    world.submit(sized(3))
    parent = next(iter(world.live))
    child = world.call(parent, sized(2, queue="small"))
    filler = world.submit(sized(2, queue="small"))
    finish(world, "r1", child)
    assert reason(world, "r1") == (Reason.RESOURCES, 1)
    late = world.submit(sized(1, queue="tiny"))
    assert reason(world, late) == (Reason.RETURNING_FIRST, 1)
    finish(world, filler)
    assert running(world) == ["r1", late]


@pytest.mark.parametrize("overlap, phases", [("skip", ["succeeded"]), ("replace", ["aborted", "succeeded"])])
def test_overlap_skips_or_replaces(overlap: Any, phases: list[str]) -> None:
    """A second run of the same task is not started, or takes the first one's place; other tasks do not mind."""
    world = World([Queue("default", overlap=overlap)])
    world.submit(profile())
    world.submit(profile())
    world.submit(profile(task="e.other"))
    world.settle()
    assert [world.state.runs[run].phase for run in world.state.runs if run != "r3"] == phases
    assert world.state.runs["r3"].phase == "succeeded"
    assert [refusal.error for refusal in world.refusals] == (["RunSkippedError"] if overlap == "skip" else [])
    world.check_replay()


def test_a_replaced_run_stays_replaced_after_a_restart() -> None:
    """That it was replaced is in its own journal."""
    world = World([Queue("default", overlap="replace")])
    world.submit(profile())
    world.submit(profile())
    world.restart()
    assert world.state.runs["r1"].phase == "aborted"


# -- operators ------------------------------------------------------------------------------------------------------


def test_draining_lets_work_in_flight_finish() -> None:
    """New runs are refused, children of running ones are not; then it is drained, and says so once."""
    world = World([Queue("default")])
    world.submit(profile())
    world.tell(QueueStateSet("default", "draining"))
    world.submit(profile())
    assert world.refusals[0].error == "ResourceExhaustedError"
    caller = next(iter(world.live))
    child = world.call(caller, profile(task="e.child"))
    assert len(world.refusals) == 1
    assert world.state.capacity.queues["default"].state == "draining"  # though its only root is parked
    finish(world, "r1", child)
    drained = [type(effect) for effect in world.tell(AttemptEnded(*caller, DONE))]
    world.live.clear()
    assert drained.count(QueueDrained) == 1
    assert world.state.capacity.queues["default"].state == "drained"


def test_an_idle_queue_is_drained_at_once() -> None:
    """There is nothing to wait for."""
    world = World([Queue("default")])
    assert QueueDrained("default") in world.tell(QueueStateSet("default", "draining"))


def test_a_zombie_holds_its_place_until_it_is_gone() -> None:
    """An action that timed out is over at once, but its machine is not free before its attempt has let go."""
    world = World([Queue("default", action_concurrency=1)])
    world.submit(profile(Settings(timeout=Timeout(deadline=5))))
    second = world.submit(profile(task="e.other"))
    world.advance(5)
    assert world.state.runs["r1"].phase == "timed_out"
    world.state.forget("r1")
    assert reason(world, second) == (Reason.QUEUE_CONCURRENCY, 1)
    world.end(next(iter(world.live)), Evidence(stopped=True))
    assert running(world) == [second]
    assert "r1" not in world.state.runs


def test_new_limits_bind_new_admissions_only() -> None:
    """Nothing that runs is killed; looser limits apply at once."""
    world = World([Queue("default")], [Pool("od")])
    for _ in range(3):
        world.submit(profile())
    world.configure(Configured((Queue("default", action_concurrency=1),), (Pool("od"),)))
    world.submit(profile())
    assert running(world) == ["r1", "r2", "r3"]
    for run in ("r1", "r2"):
        finish(world, run)
    assert running(world) == ["r3"]
    world.configure(Configured((Queue("default"),), (Pool("od"),)))
    assert running(world) == ["r3", "r4"]


def test_a_removed_queue_finishes_and_goes_and_may_come_back() -> None:
    """What is in it ends, new work is refused, and a queue of that name starts afresh."""
    world = World([Queue("default"), Queue("old", action_concurrency=1)], [Pool("od"), Pool("gone")])
    for _ in range(2):
        world.submit(profile(Settings(queue="old")))
    without = Configured((Queue("default"),), (Pool("od"),))
    world.configure(without)
    world.submit(profile(Settings(queue="old")))
    assert world.refusals[0].error == "UnknownQueueError"
    assert order(world) == ["r1", "r2"]
    assert "old" not in world.state.capacity.queues
    world.configure(Configured((Queue("default"), Queue("old")), (Pool("od"),)))
    world.submit(profile(Settings(queue="old")))
    assert running(world) == ["r4"]


def test_work_that_waits_for_a_medium_that_is_gone_takes_the_other() -> None:
    """A queue that loses its spot pools sends interruptible work on-demand."""
    settings = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1))
    world = World([Queue("default")], [Pool("spot", medium="spot", capacity=1), Pool("od")])
    world.submit(profile(settings))
    world.submit(profile(settings))
    assert running(world) == ["r1"]
    world.configure(Configured((Queue("default"),), (Pool("od"),)))
    assert running(world) == ["r1", "r2"]
    assert world.state.runs["r2"].root_action.attempts[0].rule == "no-spot-pool"


def test_a_queue_of_unknown_pools_is_refused_and_nothing_changes() -> None:
    """The message names the queue and the pools there are."""
    world = World()
    with pytest.raises(ConfigurationError, match=r"Queue\('q'\): pools=\['x'\].*od"):
        world.tell(Configured((Queue("q", pools=("x",)),), (Pool("od"),)))
    assert world.state.capacity.known() == ["default"]


# -- what a decision costs --------------------------------------------------------------------------------------------


def calls_of(world: World, event: Event) -> int:
    """How many Python calls taking in one event makes."""
    count = 0

    def count_one(frame: FrameType, kind: str, _: object) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    sys.setprofile(count_one)
    try:
        world.state, effects = apply(world.state, event, world.now)
    finally:
        sys.setprofile(None)
    assert any(type(effect) is StartAttempt for effect in effects)
    return count


@pytest.mark.parametrize("scheduling, fairness", [("strict_fifo", "round_robin"), ("greedy_capacity", "fifo")])
def test_admission_costs_the_same_however_many_wait(scheduling: Any, fairness: Any) -> None:
    """The end of one attempt, and the start of the next, take as many steps with 100,000 waiting as with 1,000."""
    costs = []
    for waiting in (1_000, 100_000):
        world = World([Queue("default", action_concurrency=3, scheduling=scheduling, fairness=fairness)])
        world.submit(profile())
        root = next(iter(world.live))
        child = profile(task="e.child")
        world.call(root, child)
        for number in range(waiting):
            call = ActionSubmitted("r1", f"c{number}", ROOT, 1, child.key, Payload(b""), b"")
            world.state, _ = apply(world.state, call, world.now)
        some = next(key for key in world.live if key.action != ROOT)
        costs.append(calls_of(world, AttemptEnded(*AttemptKey(*some), DONE)))
    assert costs[1] <= costs[0] * 1.2


def test_letting_the_next_run_begin_costs_the_same_however_many_are_held() -> None:
    """With run_concurrency reached, a root's end looks at the first of the held ones, not at all."""
    costs = []
    for waiting in (100, 10_000):
        world = World([Queue("default", run_concurrency=1)])
        world.submit(profile())
        first = next(iter(world.live))
        for number in range(waiting):
            for event in (
                RunSubmitted(f"x{number}", "e.t", "default"),
                TaskDeclared(f"x{number}", profile()),
                ActionSubmitted(f"x{number}", ROOT, None, 0, "e.t", Payload(b""), b""),
            ):
                world.state, _ = apply(world.state, event, world.now)
        costs.append(calls_of(world, AttemptEnded(*first, DONE)))
    assert costs[1] <= costs[0] * 1.2
