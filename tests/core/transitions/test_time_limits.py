"""Limits in time, to the tick; and what came too late."""

from __future__ import annotations

from collections import Counter

import pytest

from flyteish._core.lifecycle import apply, replay
from flyteish._core.model.effects import Record, StopAttempt
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    CancelRequested,
    CheckpointCommitted,
    Configured,
    Event,
    Evidence,
    LimitReached,
    PoolCapacityChanged,
    QueueStateSet,
    RunEvent,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from flyteish._core.scheduling.queue_state import Reason
from flyteish._core.state import ReplayState, State
from tests.core.world import ROOT, World, profile

DONE = Evidence(result=Payload(b"done"))


def one(settings: Settings, *pools: Pool) -> tuple[World, AttemptKey]:
    world = World([Queue("default")], pools or (Pool("od"),))
    world.submit(profile(settings))
    return world, next(iter(world.live))


# -- deadline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early, phase", [(0.25, Phase.SUCCEEDED), (0.0, Phase.TIMED_OUT)])
def test_a_result_at_the_deadline_is_late(early: float, phase: Phase) -> None:
    """Before it counts; at the very tick, the deadline has passed."""
    world, key = one(Settings(timeout=Timeout(deadline=10)))
    action = world.live[key].action
    world.now += 10 - early
    world.end(key, DONE)
    assert (action.phase, action.ended_at) == (phase, 1010.0 - early)
    world.check_replay()


def test_the_deadline_counts_waiting_and_back_off() -> None:
    """Whatever the action is doing, it ends as timed out at its deadline."""
    settings = Settings(timeout=Timeout(deadline=10), retries=RetryStrategy(3, backoff=Backoff(60)))
    world = World([Queue("default", action_concurrency=1)])
    world.submit(profile(settings))
    world.submit(profile(settings))
    world.end(next(iter(world.live)), Evidence(exit_code=1))
    assert world.state.runs["r1"].root_action.phase is Phase.BACKING_OFF
    world.advance(10)
    assert [run.phase for run in world.state.runs.values()] == ["timed_out", "timed_out"]
    assert {run.root_action.ended_at for run in world.state.runs.values()} == {1010.0}


def test_a_deadline_that_passed_while_no_controller_ran_is_noticed_before_anything_starts() -> None:
    """A run that is taken over too late ends at once; no attempt is started in vain."""
    world, _ = one(Settings(timeout=Timeout(deadline=10)))
    started = len(world.seen)
    world.now += 60
    world.restart()
    assert world.state.runs["r1"].phase == "timed_out"
    assert len(world.seen) == started


# -- max_runtime ----------------------------------------------------------------------------------------------------


def test_max_runtime_runs_from_the_beginning_of_user_code() -> None:
    """Start-up does not count; the attempt is told to stop, and its end pays from retries."""
    world, key = one(Settings(timeout=Timeout(max_runtime=5), retries=RetryStrategy(1)))
    world.advance(100)
    world.begin(key)
    world.advance(4.5)
    assert not world.live[key].stopped
    world.advance(0.5)
    assert world.live[key].stopped == "max_runtime"
    action = world.live[key].action
    world.end(key, Evidence(stopped=True))
    assert (action.attempts[0].end, action.attempts[0].charged) == (End.MAX_RUNTIME, "retries")
    assert action.phase is Phase.RUNNING
    world.check_replay()


@pytest.mark.parametrize(
    "evidence, phase, error",
    [
        (DONE, Phase.SUCCEEDED, None),
        (Evidence(stopped=True), Phase.FAILED, "flyteish.errors.TaskTimeoutError"),
        (Evidence(error=ErrorDocument("m.E", "clean-up failed")), Phase.FAILED, "flyteish.errors.TaskTimeoutError"),
        (Evidence(error=ErrorDocument("m.Final", "no", final=True)), Phase.FAILED, "m.Final"),
        (Evidence(reclaimed="gone"), Phase.FAILED, "flyteish.errors.TaskTimeoutError"),
    ],
)
def test_what_an_attempt_says_after_it_was_told_to_stop(evidence: Evidence, phase: Phase, error: str | None) -> None:
    """A result that is committed in time is never lost; whatever else it says, it took too long."""
    world, key = one(Settings(timeout=Timeout(max_runtime=5)))
    world.begin(key)
    action = world.live[key].action
    world.advance(5)
    world.end(key, evidence)
    assert action.phase is phase
    assert (action.error.type if action.error is not None else None) == error


def test_a_checkpoint_saved_while_stopping_serves_the_next_attempt() -> None:
    """The attempt is still the one that counts, so its last save is welcome."""
    world, key = one(Settings(timeout=Timeout(max_runtime=5), retries=RetryStrategy(1)))
    world.begin(key)
    world.advance(5)
    world.tell(CheckpointCommitted(*key, CheckpointRecord(1, 1, "blob", "bytes", 1, world.now)))
    assert not world.refusals
    assert len(world.live[key].action.checkpoints) == 1


def test_cancelling_wins_over_max_runtime() -> None:
    """An attempt that was told to stop for running too long gets no other try once its action is cancelled."""
    world, key = one(Settings(timeout=Timeout(max_runtime=5), retries=RetryStrategy(3)))
    world.begin(key)
    world.advance(5)
    stops = [type(e) for e in world.tell(CancelRequested("r1", ROOT, "changed my mind"))]
    assert StopAttempt not in stops  # it has been told already
    world.end(key, Evidence(stopped=True))
    assert world.state.runs["r1"].phase == "aborted"


def test_a_limit_of_an_earlier_attempt_is_void() -> None:
    """The timer of an attempt that is over does not stop the next one."""
    world, key = one(Settings(timeout=Timeout(max_runtime=5), retries=RetryStrategy(1)))
    world.begin(key)
    world.advance(3)
    world.end(key, Evidence(exit_code=1))
    again = next(iter(world.live))
    world.begin(again)
    world.advance(3)
    assert not world.live[again].stopped
    assert not world.tell(LimitReached("r1", ROOT, 1, "max_runtime"))
    world.advance(2)
    assert world.live[again].stopped == "max_runtime"


# -- max_queued_time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "queue",
    [
        Queue("default", action_concurrency=1),
        Queue("default", depth=1, on_full="wait"),
        Queue("default", run_concurrency=1),
        Queue("default", overlap="queue"),
    ],
)
def test_waiting_too_long_pays_from_retries_wherever_it_waits(queue: Queue) -> None:
    """In line, at the door of a full queue, or behind another run: each wait is a user attempt."""
    world = World([queue])
    world.submit(profile())
    settings = Settings(timeout=Timeout(max_queued_time=4), retries=RetryStrategy(1))
    world.submit(profile(settings, task="e.t"))
    second = world.state.runs["r2"].root_action
    assert second.phase in (Phase.QUEUED, Phase.ENTERING)
    world.advance(4)
    assert (second.user_attempt, second.attempts[0].end) == (2, End.QUEUE_TIMEOUT)
    world.advance(4)
    assert second.phase.value == "failed"
    assert second.error is not None
    assert second.error.type == "flyteish.errors.TaskTimeoutError"
    assert (second.ended_at, len(second.attempts)) == (1008.0, 2)
    world.check_replay()


@pytest.mark.parametrize("jitter, moments", [(1.0, 1000), (0.0, 1)])
def test_a_thousand_waits_that_are_over_together_are_not_retried_in_step(jitter: float, moments: int) -> None:
    """Their back-off has its jitter, over all of its range, though there is no end that anybody told us of."""
    state = State.configured((Queue("default", action_concurrency=1),), (Pool("od"),))
    backoff = Backoff(base=60, jitter=jitter)
    settings = Settings(timeout=Timeout(max_queued_time=4), retries=RetryStrategy(1, backoff=backoff))
    journal: list[tuple[float, RunEvent]] = []

    def tell(now: float, event: Event) -> None:
        nonlocal state
        state, effects = apply(state, event, now)
        journal.extend((effect.at, effect.event) for effect in effects if type(effect) is Record)

    for number in range(1001):  # the first one keeps the only place
        run, root = f"r{number}", profile(settings if number else Settings())
        tell(1000.0, RunSubmitted(run, root.task, "default"))
        tell(1000.0, TaskDeclared(run, root))
        tell(1000.0, ActionSubmitted(run, ROOT, None, 0, root.key, Payload(b""), b""))
    while (due := state.next_due()) is not None:
        tell(due, TimePassed())

    again = {run: state.runs[run].root_action.attempts[1].queued_at for run in state.runs if run != "r0"}
    distinct, first, last = len(set(again.values())), min(again.values()), max(again.values())
    assert (len(again), distinct) == (1000, moments)
    assert 1004.0 <= first <= last <= 1064.0
    if jitter:
        tenths = Counter(int((at - 1004) // 6) for at in again.values())
        assert len(tenths) == 10, tenths
        assert min(tenths.values()) > 50, tenths
    replayed = ReplayState()
    for at, event in journal:
        replayed = replay(replayed, event, at)
    differs = [run for run, at in again.items() if replayed.runs[run].root_action.attempts[1].queued_at != at]
    assert differs == []


def test_a_vain_try_is_part_of_one_wait() -> None:
    """A pool without capacity neither restarts max_queued_time nor makes a later wait shorter."""
    settings = Settings(timeout=Timeout(max_queued_time=10), retries=RetryStrategy(1))
    world, key = one(settings, Pool("od", cooldown=4.0))
    action = world.live[key].action
    world.advance(3)
    world.end(key, Evidence(denied="no capacity"))
    world.advance(4)
    [key] = world.live
    assert action.attempts[0].queued_at == 1000.0
    world.advance(4)  # past the limit while the start is under way
    world.end(key, Evidence(denied="no capacity"))
    assert (action.user_attempt, action.attempts[0].end) == (2, End.QUEUE_TIMEOUT)
    world.advance(9)
    assert action.user_attempt == 2
    world.check_replay()


def test_a_wait_that_goes_on_began_by_the_clock_of_now() -> None:
    """The clock of the controller that began it was ahead: nobody waits from a moment that is still to come."""
    settings = Settings(timeout=Timeout(max_queued_time=10), retries=RetryStrategy(0))
    world, key = one(settings, Pool("od", cooldown=4.0), Pool("other", cooldown=4.0))
    world.now -= 1.5
    world.restart([key])
    world.end(key, Evidence(denied="no capacity"))
    [again] = world.live
    assert world.live[again].action.attempts[0].queued_at == 998.5
    world.end(again, Evidence(denied="no capacity"))
    action = world.state.runs["r1"].root_action
    assert (action.phase, action.queued_at) == (Phase.QUEUED, 998.5)


def test_a_timer_of_a_wait_that_was_denied_does_not_shorten_the_next() -> None:
    """Each wait has limits of its own."""
    settings = Settings(timeout=Timeout(max_queued_time=10), retries=RetryStrategy(2))
    world, key = one(settings, Pool("od", cooldown=0.0))
    action = world.live[key].action
    world.advance(5)
    world.end(key, Evidence(denied="no capacity"))
    [key] = world.live
    world.end(key, Evidence(exit_code=1))
    [key] = world.live
    world.tell(QueueStateSet("default", "held"))
    world.advance(1)
    world.end(key, Evidence(exit_code=1))  # the third user attempt waits from 1006 on
    world.advance(9.5)
    assert action.phase is Phase.QUEUED
    world.advance(0.5)
    assert action.phase.value == "failed"


# -- max_spot_wait --------------------------------------------------------------------------------------------------

PATIENT = Settings(interruptible=SpotPolicy(max_spot_wait=5), retries=RetryStrategy(1))
POOLS = (Pool("spot", medium="spot", capacity=1, cooldown=0.0), Pool("od"))


def spot_world(settings: Settings) -> World:
    world = World([Queue("default")], POOLS)
    world.tell(PoolCapacityChanged("spot", 0))
    world.submit(profile(settings))
    return world


def test_patience_with_spot_ends_after_max_spot_wait() -> None:
    """Without capacity for so long it goes on-demand, and says why."""
    world = spot_world(PATIENT)
    world.advance(4.5)
    assert not world.live
    world.advance(0.5)
    root = world.state.runs["r1"].root_action
    assert (root.attempts[0].medium, root.attempts[0].rule, world.now) == ("on-demand", "stock-out", 1005.0)
    world.check_replay()


def test_capacity_in_between_begins_the_patience_anew() -> None:
    """Only an uninterrupted stock-out counts, and a pool that is merely full is none."""
    world = World([Queue("default")], POOLS)
    world.submit(profile(PATIENT, task="e.first"))
    world.submit(profile(PATIENT))
    root = world.state.runs["r2"].root_action
    world.advance(60)
    assert root.phase is Phase.QUEUED  # the pool is full, which is no stock-out
    world.tell(PoolCapacityChanged("spot", 0))
    world.advance(3)
    world.tell(PoolCapacityChanged("spot", 1))
    world.advance(1)
    world.tell(PoolCapacityChanged("spot", 0))
    world.advance(4.5)
    assert root.phase is Phase.QUEUED
    world.advance(0.5)
    assert root.attempts[0].rule == "stock-out"


def test_no_patience_at_all() -> None:
    """max_spot_wait=0 goes on-demand as soon as there is no capacity, and waits while pools are merely full."""
    none = Settings(interruptible=SpotPolicy(max_spot_wait=0), retries=RetryStrategy(1))
    world = World([Queue("default")], POOLS)
    world.submit(profile(none, task="e.first"))
    world.submit(profile(none))
    root = world.state.runs["r2"].root_action
    world.advance(10)
    assert root.phase is Phase.QUEUED
    world.tell(PoolCapacityChanged("spot", 0))
    world.advance(0)
    assert root.attempts[0].medium == "on-demand"


def test_a_machine_that_comes_up_does_not_end_a_stock_out_that_the_market_reports() -> None:
    """What the market says counts, until it says otherwise."""
    pools = (Pool("spot", medium="spot"), Pool("od"))
    world = World([Queue("default")], pools)
    world.submit(profile(PATIENT, task="e.first"))
    [early] = world.live
    world.tell(PoolCapacityChanged("spot", 0))
    world.submit(profile(PATIENT))
    world.begin(early)
    world.advance(5)
    assert world.state.runs["r2"].root_action.attempts[0].rule == "stock-out"


def test_a_new_configuration_does_not_send_it_back_to_wait_for_spot() -> None:
    """Whoever has waited long enough stays in the on-demand line."""
    one_place = (Pool("spot", medium="spot"), Pool("od", capacity=1))
    world = World([Queue("default")], one_place)
    world.submit(profile(task="e.first"))
    world.tell(PoolCapacityChanged("spot", 0))
    world.submit(profile(PATIENT))
    world.advance(5)
    world.configure(Configured((Queue("default"),), one_place))
    second = world.state.runs["r2"].root_action
    assert (second.wanted, second.rule) == ("on-demand", "stock-out")


def test_never_means_never() -> None:
    """fallback='never' opts out of the stock-out rule: it waits."""
    world = spot_world(Settings(interruptible=SpotPolicy(fallback="never", max_spot_wait=5)))
    world.advance(1000)
    root = world.state.runs["r1"].root_action
    assert world.state.admission.reason(root, world.now) == (Reason.NO_CAPACITY, 1)


def test_a_machine_that_was_granted_before_the_stock_out_does_not_end_it() -> None:
    """Only an attempt admitted after the pool ran out shows that it has capacity again."""
    pools = (Pool("spot", medium="spot", capacity=2, cooldown=100.0), Pool("od"))
    world = World([Queue("default")], pools)
    for task in ("e.first", "e.t"):
        world.submit(profile(PATIENT, task=task))
    early, denied = list(world.live)
    world.advance(1)
    world.end(denied, Evidence(denied="no capacity"))
    world.begin(early)
    world.advance(5)
    assert world.state.runs["r2"].root_action.attempts[0].rule == "stock-out"


# -- zombies --------------------------------------------------------------------------------------------------------


def test_nothing_of_a_zombie_counts() -> None:
    """Results, checkpoints and calls of an attempt that was given up are refused or ignored."""
    world, key = one(Settings(timeout=Timeout(deadline=5)))
    world.advance(5)
    action = world.live[key].action
    world.tell(CheckpointCommitted(*key, CheckpointRecord(1, 1, "blob", "bytes", 1, world.now)))
    world.call(key, profile(task="e.child"))
    assert [refusal.error for refusal in world.refusals] == ["StaleAttemptError"] * 2
    world.end(key, DONE)
    assert (action.phase, action.result) == (Phase.TIMED_OUT, None)


def test_an_end_that_is_reported_twice_counts_once() -> None:
    """The second report of a generation finds it over."""
    world, key = one(Settings(retries=RetryStrategy(1, backoff=Backoff(5))))
    action = world.live[key].action
    world.end(key, Evidence(exit_code=1))
    assert not world.tell(AttemptEnded(*key, DONE))
    world.advance(5)
    assert not world.tell(AttemptEnded(*key, Evidence(exit_code=1)))
    assert (action.phase, action.user_attempt) == (Phase.RUNNING, 2)


def test_long_limits_on_short_tasks_keep_no_timers() -> None:
    """A timer that nobody waits for is dropped long before it is due; those still needed stay."""
    limits = profile(Settings(timeout=Timeout(deadline=3600.0)))
    state = State.configured((Queue("default"),), (Pool("od"),))
    for number in range(5000):
        run = f"r{number}"
        for event in (
            RunSubmitted(run, limits.task, "default"),
            TaskDeclared(run, limits),
            ActionSubmitted(run, "a0", None, 0, limits.key, Payload(b""), b""),
        ):
            state, _ = apply(state, event, 0.0)
        if number:
            state, _ = apply(state, AttemptEnded(run, "a0", 1, DONE), 0.0)
            state.forget(run)
    assert len(state.timers) < 2500
    state, _ = apply(state, TimePassed(), 3600.0)
    assert state.runs["r0"].phase == "timed_out"


def test_a_limit_that_passed_unheard_is_taken_in_at_once_also_while_timers_are_tidied_up() -> None:
    """A denial after max_queued_time ends the wait in the same event, even if that event drops void timers."""
    timeout = Timeout(max_queued_time=4)
    world, key = one(Settings(timeout=timeout, retries=RetryStrategy(1)))
    _, other = world.submit(profile(Settings(timeout=timeout))), list(world.live)[1]
    world.advance(4)
    world.state._compact_at = 0
    world.end(other, DONE)
    world.state._compact_at = 0
    action = world.live[key].action
    world.end(key, Evidence(denied="insufficient capacity"))
    assert [attempt.end for attempt in action.attempts] == [End.QUEUE_TIMEOUT]


def test_patience_with_spot_ends_also_where_a_new_configuration_took_the_last_pool_with_capacity() -> None:
    """The pools that are left have been out of capacity, so max_spot_wait runs from when they were."""
    pools = Pool("od", capacity=1), Pool("spot", medium="spot"), Pool("spot2", medium="spot", capacity=1)
    world = World([Queue("default")], pools)
    for _ in range(2):
        world.submit(profile(Settings(interruptible=SpotPolicy(max_spot_wait=3), retries=RetryStrategy(1))))
        world.tell(PoolCapacityChanged("spot", 0))
    waiting = world.submit(profile(Settings(interruptible=SpotPolicy(max_spot_wait=3), retries=RetryStrategy(1))))
    assert waiting not in [key.run for key in world.live]
    world.configure(Configured((Queue("default"),), pools[:2]))
    world.advance(3)
    assert waiting in [key.run for key in world.live]
