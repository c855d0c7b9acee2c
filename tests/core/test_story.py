"""The explanation of an action, and the lifecycle's table and picture."""

from __future__ import annotations

import pytest

from flyteish._core.diagram import mermaid, table
from flyteish._core.lifecycle import MOVES
from flyteish._core.model.events import AttemptNoticed, CheckpointCommitted, CheckpointSkipped, Evidence
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, Phase
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from flyteish._core.story import attempt_lines, summary_line, why
from flyteish._core.transitions import phases
from tests.core.world import ROOT, World, profile

SETTINGS = Settings(
    queue="gpu",
    interruptible=SpotPolicy(),
    retries=RetryStrategy(2),
    sources={"queue": "@env.task", "retries": ".override()"},
)


def world_of(settings: Settings = SETTINGS, **limits: int) -> World:
    world = World([Queue("gpu", **limits)], [Pool("spot", medium="spot", cooldown=10.0), Pool("od")])  # type: ignore[arg-type]
    world.submit(profile(settings, "train.fit"))
    return world


def test_the_story_of_retries_and_preemptions() -> None:
    """Which attempt ran where and why, how it ended, who paid, and how long each part took."""
    world = world_of()
    for evidence in (Evidence(reclaimed="node drained"), Evidence(exit_code=1), Evidence(exit_code=2)):
        [key] = world.live
        world.advance(2)
        world.begin(key)
        world.advance(30)
        world.end(key, evidence)
    root = world.state.runs["r1"].root_action
    lines = attempt_lines(root)
    assert lines[0] == (
        "attempt 1 ran on spot in pool 'spot', user attempt 1: interruptible, user attempt 1 of 3; was preempted "
        "(node drained, 1 uncharged) [rule interruptible, queued 0 s, start-up 2 s, running 30 s]"
    )
    assert "ended: user error (exited with code 1, 1 charged to retries)" in lines[1]
    assert lines[3].startswith(
        "attempt 4 starts on-demand in pool 'od', user attempt 3: final user attempt (retries=2)"
    )
    told = why(root, world.now)
    assert told[0] == "train.fit (r1/a0) running; 4 attempts; user attempt 3 of 3; preempted once"
    assert "queue='gpu' (from @env.task)" in told[1]
    assert "(from .override())" in told[1]
    assert "timeout" not in told[1]


def test_denials_checkpoints_notices_and_warnings_are_told() -> None:
    """Everything that bears on what happens next is in the story."""
    world = world_of()
    [key] = world.live
    world.end(key, Evidence(denied="insufficient capacity"))
    world.advance(10)
    [key] = world.live
    record = CheckpointRecord(4, 2, "blob", "bytes", 1, world.now, progress=0.4)
    world.tell(CheckpointSkipped(*key, 3, "checksum differs"))
    world.tell(CheckpointCommitted(*key, record))
    world.tell(AttemptNoticed(*key, "terminate", 120.0, "market"))
    text = "\n".join(why(world.state.runs["r1"].root_action, world.now))
    assert "attempt 1 (generation 2)" in text
    assert "got a terminate notice" in text
    assert "turned away once by a pool without capacity" in text
    assert "checkpoint 4 by generation 2, progress 40% is the newest" in text
    assert "warning: checkpoint 3 was skipped on restore: checksum differs" in text


def test_what_it_waits_for_has_a_reason_and_a_place() -> None:
    """The typed reason of admission, its place in line, and for how long."""
    world = world_of(action_concurrency=1)
    world.submit(profile(SETTINGS, "train.fit"))
    world.advance(90)
    second = world.state.runs["r2"].root_action
    told = why(second, world.now, world.state.admission.reason(second, world.now))
    assert told[-1] == (
        "waits for 90 s, place 1 in line: QUEUE_CONCURRENCY: the queue's action_concurrency is reached; "
        "wants spot: interruptible, user attempt 1 of 3"
    )
    [key] = world.live
    world.call(key, profile(SETTINGS, "train.child"))
    parent = world.state.runs["r1"].root_action
    assert (
        why(parent, world.now, world.state.admission.reason(parent, world.now))[-1] == "waits: CHILDREN: its children"
    )


def test_ends_that_are_no_attempts() -> None:
    """Waiting too long, a cached result and a failure read as what they are."""
    world = World([Queue("default", action_concurrency=1)])
    world.submit(profile(task="e.first"))
    world.submit(profile(Settings(timeout=Timeout(max_queued_time=5))))
    world.submit(profile(), cached=Payload(b"found"))
    world.advance(5)
    failed, cached = world.state.runs["r2"].root_action, world.state.runs["r3"].root_action
    assert attempt_lines(failed) == [
        "attempt 1 of user attempt 1 never started: waited longer than max_queued_time=5 s (retries=0) [queued 5 s]"
    ]
    assert "TaskTimeoutError: waited longer" in summary_line(failed)
    assert summary_line(cached) == "e.t (r3/a0) succeeded; from the cache"
    assert "nothing ran" in "\n".join(why(cached, world.now))
    [key] = world.live
    world.end(key, Evidence(error=ErrorDocument("m.Broken", "no luck")))
    assert summary_line(world.state.runs["r1"].root_action).endswith("Broken: no luck")


def test_a_journal_tells_the_same_story() -> None:
    """What was lived through and what is read back are told in the same words."""
    world = world_of()
    for evidence in (Evidence(reclaimed="node drained"), Evidence(denied="none"), Evidence(result=Payload(b"x"))):
        if not world.live:
            world.advance(10)
        [key] = world.live
        world.begin(key) if evidence.denied is None else None
        world.advance(3)
        world.end(key, evidence)
    world.advance(20)
    for key in list(world.live):
        world.end(key, Evidence(result=Payload(b"x")))
    live = world.state.runs["r1"].root_action
    read = world.fold().runs["r1"].root_action
    assert why(live, world.now) == why(read, world.now)


def test_a_move_that_the_table_does_not_know_tells_the_story() -> None:
    """An impossible change of phase is refused, with what may follow and the attempts so far."""
    world = world_of()
    [key] = world.live
    world.end(key, Evidence(result=Payload(b"x")))
    root = world.state.runs["r1"].actions[ROOT]
    with pytest.raises(AssertionError, match=r"train\.fit succeeded.*nothing: it is over\n  attempt 1 ran on spot"):
        phases.move(world.state, root, Phase.RUNNING)


def test_the_table_is_whole() -> None:
    """Every phase has its row; what is over stays over; what lives can end; an attempt can always be replaced."""
    assert MOVES.keys() == set(Phase)
    assert all(not MOVES[phase] for phase in TERMINAL)
    assert all(MOVES[phase] >= {Phase.ABORTED, Phase.TIMED_OUT} for phase in set(Phase) - TERMINAL)
    assert all(MOVES[phase] >= {Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT} for phase in WITH_ATTEMPT)


def test_the_picture_shows_every_move_and_no_other() -> None:
    """The diagram is drawn from the table, and so is the Markdown table."""
    drawn = set()
    for line in mermaid().splitlines()[2:]:
        before, _, after = line.strip().partition(" --> ")
        if after and "[*]" not in line:
            starts = set(Phase) - TERMINAL if before == "unfinished" else {Phase(before)}
            drawn |= {(start, Phase(after)) for start in starts}
    assert drawn == {(before, after) for before, afters in MOVES.items() for after in afters}
    assert all(f"| `{phase}` |" in table() for phase in Phase)
