"""Values of traced helpers: kept for later attempts, refused from attempts that were given up, never copied."""

from __future__ import annotations

from flyteish._core.model.effects import Record, Refuse
from flyteish._core.model.events import CheckpointCommitted, Evidence, ValueTraced
from flyteish._core.model.policies import RetryStrategy
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from tests.core.world import World, profile


def test_what_is_on_record_already_is_not_copied_for_the_next_value() -> None:
    """Each value costs as much as the one before it: 20,000 in one action are no more than 20,000 times one."""
    world = World()
    world.submit(profile())
    (key,) = world.live
    action = world.live[key].action
    world.tell(ValueTraced(*key, "0", Payload(b"0")))
    kept = action.traced
    for number in range(1, 50):
        effects = world.tell(ValueTraced(*key, str(number), Payload(b"%d" % number)))
        assert [type(effect) for effect in effects] == [Record]
        assert action.traced is kept
    assert kept == {str(number): Payload(b"%d" % number) for number in range(50)}
    world.check_replay()


def test_what_is_sent_again_is_on_record_once() -> None:
    """A worker that has not heard that it is sends its value and its checkpoint again."""
    world = World()
    world.submit(profile())
    (key,) = world.live
    record = CheckpointRecord(1, key.generation, "sha256:0", "bytes", 1, 0.0)
    for fact in (ValueTraced(*key, "0", Payload(b"0")), CheckpointCommitted(*key, record)):
        assert [type(effect) for effect in world.tell(fact)] == [Record]
        assert world.tell(fact) == []
    assert world.live[key].action.checkpoints == (record,)
    world.check_replay()


def test_a_value_of_an_attempt_that_was_given_up_is_refused() -> None:
    """Whoever waits for it learns why, and the attempt that took its place is not told another value."""
    world = World()
    world.submit(profile(Settings(retries=RetryStrategy(1))))
    (key,) = world.live
    action = world.live[key].action
    world.end(key, Evidence(error=ErrorDocument("builtins.ValueError", "no")))
    (refusal,) = world.tell(ValueTraced(*key, "k", Payload(b"late")))
    assert isinstance(refusal, Refuse)
    assert (refusal.error, refusal.message) == (
        "StaleAttemptError",
        f"attempt {key.generation} of {key.run}/{key.action} was given up; the value of its traced helper is refused",
    )
    assert action.traced is None
