"""Who pays for an ended attempt, what follows, and on which medium: the tables of the specification, row by row."""

from __future__ import annotations

import pytest

from flyteish._core.model.effects import StartAttempt
from flyteish._core.model.events import AttemptNoticed, CheckpointCommitted, Evidence
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from flyteish._core.rules.plan import plan
from flyteish._core.rules.retries import PAYS, most_attempts
from tests.core.world import World, profile

SPOT = Pool("spot", medium="spot")
ON_DEMAND = Pool("od")
DONE = Evidence(result=Payload(b"done"))
RAISED = Evidence(error=ErrorDocument("builtins.ValueError", "no", ("builtins.ValueError", "builtins.Exception")))
FINAL = Evidence(error=ErrorDocument("flyteish.errors.NonRecoverableError", "never", (), final=True))
MEMORY = Evidence(error=ErrorDocument("builtins.MemoryError", "", ("builtins.MemoryError",)))
RECLAIMED = Evidence(reclaimed="node drained")
VANISHED = Evidence(vanished="no heartbeat")


def world_of(settings: Settings) -> World:
    world = World([Queue("default")], [SPOT, ON_DEMAND])
    world.submit(profile(settings))
    return world


def end_all(world: World, *ends: Evidence) -> None:
    """Ends one attempt after the other, waiting out any back-off between."""
    for evidence in ends:
        while not world.live:
            due = world.state.next_due()
            assert due is not None, "nothing more will start"
            world.advance(due - world.now)
        world.end(next(iter(world.live)), evidence)


def media(world: World) -> list[str]:
    return [attempt.medium for attempt in world.state.runs["r1"].root_action.attempts]


@pytest.mark.parametrize(
    "evidence, end, charged, phase",
    [
        (DONE, End.SUCCEEDED, "", Phase.SUCCEEDED),
        (RAISED, End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(exit_code=1), End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(exit_code=0), End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(exit_code=-11), End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(exit_code=143), End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(rejected="OutOfcpu"), End.REJECTED, "", Phase.QUEUED),
        (Evidence(out_of_memory=True), End.OUT_OF_MEMORY, "retries", Phase.QUEUED),
        (MEMORY, End.OUT_OF_MEMORY, "retries", Phase.QUEUED),
        (FINAL, End.FINAL_ERROR, "", Phase.FAILED),
        (RECLAIMED, End.PREEMPTED, "preemptions", Phase.QUEUED),
        (VANISHED, End.INFRASTRUCTURE, "system_retries", Phase.BACKING_OFF),
        (Evidence(exit_code=137), End.INFRASTRUCTURE, "system_retries", Phase.BACKING_OFF),
        (Evidence(), End.INFRASTRUCTURE, "system_retries", Phase.BACKING_OFF),
        (Evidence(unmendable="image name invalid: say image="), End.UNMENDABLE, "", Phase.FAILED),
        (Evidence(stopped=True), End.CANCELLED, "", Phase.ABORTED),
        # The first that matches wins.
        (Evidence(result=Payload(b"x"), exit_code=137, reclaimed="gone"), End.SUCCEEDED, "", Phase.SUCCEEDED),
        (Evidence(error=RAISED.error, reclaimed="gone"), End.USER_ERROR, "retries", Phase.QUEUED),
        (Evidence(out_of_memory=True, exit_code=137), End.OUT_OF_MEMORY, "retries", Phase.QUEUED),
        (Evidence(reclaimed="gone", exit_code=143), End.PREEMPTED, "preemptions", Phase.QUEUED),
    ],
)
def test_each_class_of_end_is_paid_by_its_budget(evidence: Evidence, end: End, charged: str, phase: Phase) -> None:
    """What was seen gives one class of end, one budget that pays, and one phase that follows."""
    world = World([Queue("default", action_concurrency=1)], [SPOT, ON_DEMAND])
    world.submit(profile(Settings(retries=RetryStrategy(2), interruptible=SpotPolicy())))
    world.submit(profile(task="e.other"))  # keeps the place from being taken again at once
    key = next(iter(world.live))
    action = world.live[key].action
    world.end(key, evidence)
    if phase is Phase.QUEUED and action.phase is Phase.RUNNING:  # preempted: it was first in line again
        phase = Phase.RUNNING
    assert (action.attempts[0].end, action.attempts[0].charged, action.phase) == (end, charged, phase)


def test_every_class_of_end_has_a_payer() -> None:
    """No class of end is forgotten in the table."""
    assert PAYS.keys() == set(End)


@pytest.mark.parametrize(
    "evidence", [RAISED, FINAL, VANISHED, Evidence(exit_code=0), Evidence(exit_code=1), Evidence()], ids=repr
)
def test_what_ends_badly_after_a_notice_is_a_preemption(evidence: Evidence) -> None:
    """From the notice on, exceptions and silent ends are the machine's doing; a result still counts."""
    world = world_of(Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1)))
    key = next(iter(world.live))
    action = world.live[key].action
    world.tell(AttemptNoticed(*key, "terminate", 120.0, "market"))
    world.end(key, evidence)
    assert action.attempts[0].end is End.PREEMPTED
    again = next(iter(world.live))
    world.tell(AttemptNoticed(*again, "terminate", 120.0, "market"))
    world.end(again, DONE)
    assert action.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "settings, ends, expected",
    [
        (Settings(interruptible=SpotPolicy()), [], ["on-demand"]),
        (Settings(), [], ["on-demand"]),
        (
            Settings(interruptible=SpotPolicy(), retries=RetryStrategy(2)),
            [RAISED, RAISED],
            ["spot", "spot", "on-demand"],
        ),
        # The trip-wire: three preemptions in a row, then the rest of this user attempt, and only this one.
        (
            Settings(interruptible=SpotPolicy(), retries=RetryStrategy(2)),
            [RECLAIMED] * 3 + [RAISED],
            ["spot", "spot", "spot", "on-demand", "spot"],
        ),
        (
            Settings(interruptible=SpotPolicy(preemptions_without_progress=1), retries=RetryStrategy(2)),
            [RECLAIMED, RECLAIMED, RAISED, RAISED],
            ["spot", "on-demand", "on-demand", "spot", "on-demand"],
        ),
        # An infrastructure failure does not move it to another medium.
        (
            Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1)),
            [VANISHED, RECLAIMED, VANISHED],
            ["spot"] * 4,
        ),
        (
            Settings(interruptible=SpotPolicy(fallback="first-preemption")),
            [VANISHED, RECLAIMED, VANISHED],
            ["spot", "spot", "on-demand", "on-demand"],
        ),
        (
            Settings(interruptible=SpotPolicy(fallback="never")),
            [RECLAIMED] * 6,
            ["spot"] * 7,
        ),
        (
            Settings(interruptible=SpotPolicy(budget="single"), retries=RetryStrategy(2)),
            [RECLAIMED, RECLAIMED],
            ["spot", "spot", "on-demand"],
        ),
    ],
)
def test_the_medium_of_each_attempt(settings: Settings, ends: list[Evidence], expected: list[str]) -> None:
    """Spot as long as the rules allow it; the final user attempt never."""
    world = world_of(settings)
    end_all(world, *ends)
    while not world.live:
        world.advance(60)
    assert media(world) == expected


def test_a_checkpoint_resets_the_trip_wire() -> None:
    """Work that advances may stay on spot for ever; a tripped wire stays tripped for its user attempt."""
    world = world_of(Settings(interruptible=SpotPolicy(preemptions_without_progress=2), retries=RetryStrategy(1)))

    def checkpoint() -> None:
        key = next(iter(world.live))
        world.tell(CheckpointCommitted(*key, CheckpointRecord(1, key.generation, "b", "bytes", 1, 0.0)))

    for _ in range(5):
        end_all(world, RECLAIMED)
        checkpoint()
    assert set(media(world)) == {"spot"}
    end_all(world, RECLAIMED, RECLAIMED)
    checkpoint()
    end_all(world, VANISHED)
    world.advance(60)
    assert media(world)[-2:] == ["on-demand", "on-demand"]


@pytest.mark.parametrize("retries, system", [(0, 0), (1, 0), (0, 2), (2, 3)])
def test_the_bound_on_attempts_is_reached_and_kept(retries: int, system: int) -> None:
    """(retries+1) * (preemptions_without_progress + 1 + system_retries) attempts happen at the very worst."""
    policy = SpotPolicy(preemptions_without_progress=2)
    strategy = RetryStrategy(retries, system_retries=system)
    world = world_of(Settings(interruptible=policy, retries=strategy))
    root = world.state.runs["r1"].root_action
    while root.phase not in (Phase.FAILED, Phase.SUCCEEDED):
        on_spot = bool(world.live) and root.attempts[-1].medium == "spot"
        spent = root.system_used == system
        end_all(world, RECLAIMED if on_spot else RAISED if spent else VANISHED)
    bound = most_attempts(retries, policy, system)
    assert bound is not None
    # The final user attempt is never on spot, so it alone can't be preempted for nothing.
    assert len(root.attempts) == bound - policy.preemptions_without_progress


def test_preempted_on_demand_pays_from_system_retries() -> None:
    """There is no safer place left, so it is an infrastructure failure, with its back-off."""
    world = world_of(Settings(retries=RetryStrategy(0, system_retries=1)))
    root = world.state.runs["r1"].root_action
    end_all(world, RECLAIMED)
    assert (root.phase, root.attempts[0].charged, root.preemptions) == (Phase.BACKING_OFF, "system_retries", 1)
    end_all(world, RECLAIMED)
    assert root.phase is Phase.FAILED
    assert root.error is not None
    assert root.error.type == "flyteish.errors.PreemptedError"


def test_system_retries_are_per_user_attempt_and_not_reset_by_starting() -> None:
    """Each user attempt forgives as many; a new attempt that merely starts does not."""
    world = world_of(Settings(retries=RetryStrategy(1, system_retries=1)))
    root = world.state.runs["r1"].root_action
    end_all(world, VANISHED, RAISED, VANISHED, VANISHED)
    assert [attempt.user_attempt for attempt in root.attempts] == [1, 1, 2, 2]
    assert root.error is not None
    assert root.error.type == "flyteish.errors.SystemRetriesExhaustedError"
    assert "system_retries=1" in root.error.message


@pytest.mark.parametrize(
    "evidence, error",
    [
        (RAISED, "builtins.ValueError"),
        (FINAL, "flyteish.errors.NonRecoverableError"),
        (MEMORY, "builtins.MemoryError"),
        (Evidence(out_of_memory=True), "flyteish.errors.OOMError"),
        (Evidence(exit_code=0), "flyteish.errors.ExitedBeforeReturningError"),
        (Evidence(exit_code=3), "flyteish.errors.WorkerCrashedError"),
        (Evidence(unmendable="secret missing"), "flyteish.errors.NonRecoverableError"),
    ],
)
def test_the_error_of_a_spent_budget(evidence: Evidence, error: str) -> None:
    """The task's own exception where it raised one, else one that says what ended it."""
    world = world_of(Settings())
    end_all(world, evidence)
    root = world.state.runs["r1"].root_action
    assert root.error is not None
    assert root.error.type == error


@pytest.mark.parametrize("retry_on, attempts", [(None, 2), (["ValueError"], 2), (["Exception"], 2), (["KeyError"], 1)])
def test_retry_on_narrows_what_is_retried(retry_on: object, attempts: int) -> None:
    """An exception that is none of the named types, nor of their subclasses, fails at once."""
    world = world_of(Settings(retries=RetryStrategy(1, retry_on=retry_on)))
    end_all(world, RAISED)
    assert len(world.state.runs["r1"].root_action.attempts) == attempts


def test_back_off_grows_up_to_its_cap() -> None:
    """min(cap, base * factor**n) before the n-th retry; preemptions wait for nothing."""
    backoff = Backoff(base=2.0, factor=3.0, cap=10.0)
    world = world_of(Settings(retries=RetryStrategy(4, backoff=backoff), interruptible=SpotPolicy()))
    root = world.state.runs["r1"].root_action
    waits = []
    for evidence in (RAISED, RECLAIMED, RAISED, RAISED, RAISED):
        since = world.now
        end_all(world, evidence)
        while not world.live:
            due = world.state.next_due()
            assert due is not None
            world.advance(due - world.now)
        waits.append(world.now - since)
    assert waits == [2.0, 0.0, 6.0, 10.0, 10.0]
    assert root.max_attempts == 5


@pytest.mark.parametrize("chance, expected", [(0.0, 8.0), (0.5, 6.0), (1.0, 4.0)])
def test_jitter_takes_off_a_share_of_the_wait(chance: float, expected: float) -> None:
    """Chance is an argument, so that replay waits as long."""
    assert Backoff(base=2.0, factor=2.0, jitter=0.5).delay(2, chance) == expected


def test_a_huge_retry_count_does_not_overflow() -> None:
    """However many retries, the wait is a number."""
    assert Backoff(base=1.0, factor=10.0).delay(10**6, 0.0) == 3600.0


def test_a_preempted_attempt_starts_again_before_others_of_its_priority() -> None:
    """It goes to the head of its priority class, and holds no place while it waits."""
    world = World([Queue("default", action_concurrency=1)], [SPOT, ON_DEMAND])
    policy = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1))
    names = [world.submit(profile(policy)) for _ in range(3)]
    [key] = world.live
    world.end(key, RECLAIMED)
    assert [k.run for k in world.live] == [names[0]]


def test_the_plan_says_the_same_before_anything_runs() -> None:
    """plan() lists the medium of each user attempt, and why, with warnings worth heeding."""
    told = plan(Settings(interruptible=SpotPolicy(), retries=RetryStrategy(2)))
    assert [(row.user_attempt, row.medium) for row in told.attempts] == [(1, "spot"), (2, "spot"), (3, "on-demand")]
    assert "final user attempt (retries=2)" in str(told)
    assert plan(Settings(interruptible=SpotPolicy(fallback="never"))).warnings
    assert plan(Settings(interruptible=SpotPolicy())).warnings
    assert plan(Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1), timeout=Timeout(deadline=9))).warnings


def test_generations_are_never_used_twice() -> None:
    """Also a start that a pool without capacity turned away has used its generation up."""
    world = World([Queue("default")], [Pool("od", cooldown=5.0)])
    world.submit(profile())
    [key] = world.live
    world.end(key, Evidence(denied="insufficient capacity"))
    root = world.state.runs["r1"].root_action
    assert (root.phase, root.attempts, root.denials, root.generation) == (Phase.QUEUED, [], 1, 1)
    starts = []
    world.advance(4.9)
    assert not world.live
    world.now += 0.1
    starts = [e for e in world.tell(AttemptNoticed("x", "y", 1, "drain", 1, "s")) if type(e) is StartAttempt]
    assert [start.generation for start in starts] == [2]
