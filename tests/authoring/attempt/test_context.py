"""``ctx()``: what an attempt knows of itself, and what is said where none runs."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyteish import current
from flyteish._authoring.attempt.context import CURRENT, AttemptContext, ctx, current_attempt
from flyteish._authoring.attempt.signals import OutsideTaskError
from flyteish.errors import FlyteishError, StaleAttemptError
from flyteish.interfaces import Notice
from tests.authoring.attempt.attempt_parts import ManualClock, attempt


def test_an_attempt_knows_itself(tmp_path: Path) -> None:
    """What the order says can be read from the context, in the words that users know."""
    context = attempt(tmp_path, group="fold 1", system_retries_left=2, preemptions=5)
    assert (context.run, context.action, context.task, context.generation) == ("r1", "a0", "train.fit", 4)
    assert (context.attempt, context.max_attempts, context.retries_left) == (2, 3, 1)
    assert (context.medium, context.queue, context.pool, context.group) == (
        "spot",
        "default",
        "cheap",
        "fold 1",
    )
    assert (context.system_retries_left, context.preemptions) == (2, 5)
    assert not context.is_last_attempt
    assert attempt(tmp_path, user_attempt=3).is_last_attempt
    assert repr(context) == "AttemptContext(r1/a0#4 train.fit on cheap (spot), attempt 2/3)"


def test_the_deadline_is_a_date_and_a_number_of_seconds(tmp_path: Path) -> None:
    """The deadline is an aware UTC datetime; the seconds to it go below zero. Without one both are None."""
    wall = ManualClock(1_000.0)
    context = attempt(tmp_path, wall=wall, deadline=1_060.0)
    assert context.deadline == datetime(1970, 1, 1, 0, 17, 40, tzinfo=UTC)
    assert context.seconds_to_deadline == 60.0
    wall.now = 1_070.0
    assert context.seconds_to_deadline == -10.0
    without = attempt(tmp_path)
    assert (without.deadline, without.seconds_to_deadline) == (None, None)


def test_outside_a_task_ctx_is_false_and_explains_itself() -> None:
    """``if ctx()`` is false, and using it says which attribute is missing and why."""
    assert not ctx()
    assert current_attempt() is None
    with pytest.raises(
        OutsideTaskError, match=r"ctx\(\)\.checkpoint is only available inside a running task"
    ) as caught:
        _ = ctx().checkpoint
    assert isinstance(caught.value, FlyteishError | RuntimeError)
    assert caught.value.name == "checkpoint"
    assert repr(ctx()) == "<no task is running here>"
    assert not hasattr(ctx(), "checkpoint")
    assert not copy.copy(ctx())


async def test_ctx_is_the_attempt_of_this_task_and_its_threads(tmp_path: Path) -> None:
    """Each asyncio task sees its own attempt, and so does a thread that got a copy of the context."""

    async def run(context: AttemptContext) -> tuple[str, str]:
        CURRENT.set(context)
        await asyncio.sleep(0)
        return ctx().action, await asyncio.to_thread(lambda: ctx().action)

    contexts = [attempt(tmp_path, key=attempt(tmp_path).order.key._replace(action=name)) for name in "ab"]
    assert await asyncio.gather(*map(run, contexts)) == [("a", "a"), ("b", "b")]
    assert not ctx()


def test_equal_calls_are_counted(tmp_path: Path) -> None:
    """The occurrence counts equal calls of one task in one attempt from 0, also from several threads."""
    context, seen = attempt(tmp_path), []  # type: ignore[var-annotated]

    def work() -> None:
        seen.extend(context.occurrence("t", b"1") for _ in range(1000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(4000))
    assert (context.occurrence("t", b"2"), context.occurrence("u", b"1")) == (0, 0)


def test_the_logger_says_whose_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records are named after the task and carry run, action and attempt."""
    with caplog.at_level(logging.INFO, logger="flyteish.task.train.fit"):
        attempt(tmp_path).logger.info("epoch %d", 3)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("flyteish.task.train.fit", "epoch 3")
    assert [getattr(record, name) for name in ("run", "action", "attempt")] == ["r1", "a0", 2]


def test_the_private_folder_lives_as_long_as_the_attempt(tmp_path: Path) -> None:
    """It is made when asked for, private, and gone with everything in it when the attempt ends."""
    context = attempt(tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = context.scratch()
    assert folder == context.scratch()
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "file").touch()
    context.close()
    context.close()
    assert list(tmp_path.iterdir()) == []
    assert (context.active, repr(context)[-7:]) == (False, ", over)")
    with pytest.raises(StaleAttemptError, match="r1/a0#4 is over"):
        context.scratch()


def test_the_parts_are_made_once(tmp_path: Path) -> None:
    """Checkpoint, interruption and logger are the same object each time."""
    context = attempt(tmp_path)
    assert context.checkpoint is context.checkpoint
    assert context.interruption is context.interruption
    assert context.logger is context.logger
    assert context  # true, unlike outside a task


def test_current_is_metaflows_habit(tmp_path: Path) -> None:
    """``current.spot_termination_notice`` exists once a notice came; outside a task it explains itself."""
    import flyteish.current as module

    context = attempt(tmp_path)
    token = CURRENT.set(context)
    try:
        path = module.spot_termination_notice
        assert path == current.spot_termination_notice
        assert isinstance(path, str)
        assert not Path(path).exists()
        context.interruption.notify(Notice("terminate", 120))
        assert Path(path).exists()
    finally:
        CURRENT.reset(token)
        context.close()
    for place in (module, current):
        with pytest.raises(OutsideTaskError, match="only available inside a running task"):
            _ = place.spot_termination_notice
    with pytest.raises(AttributeError, match="the rest is on ctx"):
        _ = module.run_id
