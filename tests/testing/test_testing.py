"""``flyteish.testing``: a session whose spot machines are taken away on cue, and a single attempt without one."""

import asyncio

import pytest

import flyteish
from flyteish import TaskEnvironment, ctx, errors, testing

env = TaskEnvironment(name="tested")


@pytest.fixture
def local() -> TaskEnvironment:
    """For the tasks that a test defines itself."""
    return TaskEnvironment(name="local")


@env.task(interruptible=True, retries=1)
async def count_to(n: int) -> tuple[int, int]:
    """Counts with a checkpoint at every step; returns where the last attempt began, and its generation."""
    checkpoint = ctx().checkpoint
    saved = await checkpoint.load_bytes()
    start = int(saved or b"0")
    for i in range(start, n):
        await asyncio.sleep(0.01)
        await checkpoint.save(str(i + 1).encode(), progress=(i + 1) / n)
    return start, ctx().generation


async def test_a_reclaimed_task_goes_on_from_its_checkpoint() -> None:
    """Two reclaims: three attempts, all in the same user attempt, none of them starting over."""
    async with testing.spot_session([0.06, 0.06], notice_seconds=0.02) as session:
        run = session.run(count_to, n=40)
        start, generation = await run
        (action,) = run.actions()
        cost = run.cost()
    assert generation == 3
    assert start > 0
    assert [attempt.end for attempt in action.attempts] == ["preempted", "preempted", "succeeded"]
    assert [attempt.user_attempt for attempt in action.attempts] == [1, 1, 1]
    assert [attempt.charged for attempt in action.attempts] == ["preemptions", "preemptions", ""]
    assert cost.saved is not None


async def test_without_progress_the_trip_wire_sends_it_on_demand(local: TaskEnvironment) -> None:
    """Three preemptions in a row without a checkpoint: the rest of the user attempt runs on-demand."""
    media = []

    @local.task(interruptible=True, retries=1)
    async def stubborn() -> str:
        media.append(ctx().medium)
        if ctx().medium == "spot":
            await asyncio.sleep(30)
        return ctx().medium

    async with testing.spot_session([0.01] * 10, notice_seconds=0.01) as session:
        run = session.run(stubborn)
        assert await run == "on-demand"
        assert "3 preemptions in a row" in run.why()
    assert media == ["spot", "spot", "spot", "on-demand"]


async def test_a_result_within_the_grace_period_counts(local: TaskEnvironment) -> None:
    """And the task may react to its notice."""

    @local.task(interruptible=True, retries=1)
    async def hurries() -> str:
        notice = await ctx().interruption.wait()
        return notice.kind

    async with testing.spot_session([0.01], notice_seconds=5) as session:
        assert await asyncio.wait_for(session.run(hurries), 4) == "terminate"


async def test_an_error_after_the_notice_is_a_preemption(local: TaskEnvironment) -> None:
    """It is not charged to the retries."""
    tries = []

    @local.task(interruptible=True, retries=1)
    async def breaks() -> int:
        tries.append(ctx().attempt)
        if len(tries) == 1:
            await ctx().interruption.wait()
            raise OSError("the disk went first")
        return ctx().attempt

    async with testing.spot_session([0.01], notice_seconds=5) as session:
        assert await asyncio.wait_for(session.run(breaks), 4) == 1


async def test_a_single_attempt_without_a_session() -> None:
    """``testing.attempt`` gives the plain function a context; the next attempt finds its checkpoints."""
    with testing.attempt(retries=1) as first:
        assert await count_to.forward(n=3) == (0, 1)
        assert flyteish.ctx().attempt == 1
    with testing.attempt(number=2, retries=1, checkpoints=first) as second:
        assert await count_to.forward(n=5) == (3, 2)
        second.fenced = True
        with pytest.raises(errors.StaleAttemptError):
            await ctx().checkpoint.save(b"late")
        second.notice(seconds=1)
        assert ctx().interruption.pending
    assert [record.sequence for record in second.checkpoints] == [1, 2, 3, 4, 5]
