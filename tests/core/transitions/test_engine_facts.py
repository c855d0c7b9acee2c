"""What engines tell of a living attempt: its machine, why it has none yet, notices that are withdrawn, its token."""

from __future__ import annotations

from flyteish._core.model.events import (
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    Evidence,
    NoticeWithdrawn,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import RetryStrategy
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import Action, End, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.story import attempt_lines
from tests.core.world import World, profile

RAISED = Evidence(exit_code=1)
REJECTED = Evidence(rejected="OutOfcpu")


def running(**settings: object) -> tuple[World, AttemptKey, Action]:
    world = World([Queue("default")], [Pool("od", price_per_hour=1.0)])
    world.submit(profile(Settings(**settings)))  # type: ignore[arg-type]
    key = next(iter(world.live))
    return world, key, world.state.runs["r1"].root_action


def recorded(world: World, kind: type) -> int:
    return sum(type(event) is kind for _, event in world.journal)


def test_where_an_attempt_runs_is_on_record_and_in_its_story() -> None:
    """Once, unless it changes; the price of the machine goes before the pool's."""
    world, key, action = running()
    for _ in range(2):
        world.tell(AttemptPlaced(*key, "n7", "eu-west-1a", "m5.large", 0.25))
    assert recorded(world, AttemptPlaced) == 1
    assert action.attempts[0].price_per_hour == 0.25
    assert "node n7, zone eu-west-1a, m5.large" in attempt_lines(action)[0]
    world.check_replay()


def test_why_it_has_no_machine_yet_is_told_until_it_has_one() -> None:
    """What is said again is recorded once."""
    world, key, action = running()
    for reason in ("Unschedulable", "Unschedulable", "ImagePullBackOff"):
        world.tell(AttemptPending(*key, reason, "0/3 nodes"))
    assert recorded(world, AttemptPending) == 2
    assert "has no machine yet: ImagePullBackOff: 0/3 nodes" in attempt_lines(action)[0]
    world.tell(AttemptPlaced(*key, "n7"))
    assert "no machine yet" not in attempt_lines(action)[0]
    world.check_replay()


def test_after_a_withdrawn_notice_an_end_is_judged_as_without_it() -> None:
    world, key, action = running()
    world.tell(AttemptNoticed(*key, "drain", 60.0, "node"))
    world.tell(NoticeWithdrawn(*key, "node", "uncordoned"))
    world.end(key, RAISED)
    assert action.attempts[0].end is End.USER_ERROR
    world.check_replay()


def test_who_withdraws_takes_back_only_what_it_said_itself() -> None:
    """The market still takes the machine away, whatever becomes of the drain."""
    world, key, action = running()
    world.tell(AttemptNoticed(*key, "terminate", 60.0, "market"))
    world.tell(AttemptNoticed(*key, "drain", 60.0, "node"))
    world.tell(NoticeWithdrawn(*key, "metadata", "said nothing"))
    world.tell(NoticeWithdrawn(*key, "node", "uncordoned"))
    assert recorded(world, NoticeWithdrawn) == 1
    assert action.attempts[0].notice == "terminate"
    world.end(key, RAISED)
    assert action.attempts[0].end is End.PREEMPTED
    world.check_replay()


def test_the_digest_of_its_token_outlives_the_controller() -> None:
    world, key, _ = running()
    world.tell(AttemptOrdered(*key, b"digest"))
    facts = world.fold().runs["r1"].root_action.attempts[0].engine_facts
    assert facts is not None
    assert facts.token_digest == b"digest"


# -- rejected by the machine -----------------------------------------------------------------------------------------


def test_a_rejection_counts_against_nobody_and_is_tried_again_at_once() -> None:
    world, key, action = running(retries=RetryStrategy(0, system_retries=0))
    world.end(key, REJECTED)
    assert (action.attempts[0].end, action.attempts[0].charged) == (End.REJECTED, "")
    assert (action.phase, action.generation) == (Phase.RUNNING, 2)


def test_twenty_rejections_in_a_row_are_free_and_no_more() -> None:
    """The next one is a failure of the infrastructure, which pays from ``system_retries``."""
    world, _, action = running(retries=RetryStrategy(0, system_retries=1))
    for _ in range(21):
        world.end(next(iter(world.live)), REJECTED)
    assert [attempt.end for attempt in action.attempts] == [End.REJECTED] * 20 + [End.INFRASTRUCTURE]
    assert action.attempts[-1].charged == "system_retries"
    assert "rejected by 21 machines in a row" in action.attempts[-1].cause
    world.advance(60)
    world.end(next(iter(world.live)), REJECTED)
    assert action.phase is Phase.FAILED
    world.check_replay()


def test_the_row_of_rejections_ends_when_user_code_begins() -> None:
    world, _, action = running(retries=RetryStrategy(1))
    for _ in range(15):
        world.end(next(iter(world.live)), REJECTED)
    world.begin(next(iter(world.live)))
    world.end(next(iter(world.live)), RAISED)
    for _ in range(15):
        world.end(next(iter(world.live)), REJECTED)
    assert {attempt.end for attempt in action.attempts} == {End.REJECTED, End.USER_ERROR, None}
    world.check_replay()


def test_a_rejection_of_what_runs_already_is_no_rejection() -> None:
    world, key, action = running()
    world.begin(key)
    world.end(key, REJECTED)
    assert action.attempts[0].end is End.INFRASTRUCTURE
