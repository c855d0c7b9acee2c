"""The notice as user code sees it: merged, awaited, waited for, called back, written to a file."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyteish._authoring.attempt.context import CURRENT, AttemptContext, ctx
from flyteish._core.rules.attempt_ends import NOTICE_RANK as RANK
from flyteish.errors import ConfigurationError, InputTypeError
from flyteish.interfaces import Notice
from tests.authoring.attempt.attempt_parts import ManualClock, attempt


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> AttemptContext:
    return attempt(tmp_path, clock=clock, wall=lambda: 1_000_000.0)


def test_without_a_notice_nothing_is_pending(context: AttemptContext) -> None:
    """No notice: nothing is pending, no time is known, no file exists."""
    interruption = context.interruption
    assert (interruption.pending, interruption.notice, interruption.seconds_left) == (False, None, None)
    assert not interruption.file.exists()
    assert repr(interruption) == "Interruption(none)"


def test_the_time_left_runs_down_to_zero(context: AttemptContext, clock: ManualClock) -> None:
    """The seconds left follow the clock and stop at zero."""
    assert context.interruption.notify(Notice("terminate", 120, "metadata"), now=90.0)
    assert context.interruption.pending
    assert context.interruption.seconds_left == 110.0
    assert repr(context.interruption) == "Interruption(terminate by metadata, 110 s left)"
    clock.now = 500.0
    assert context.interruption.seconds_left == 0.0


@pytest.mark.parametrize(
    "later, changed, expected",
    [
        (Notice("terminate", 120, "queue"), False, Notice("terminate", 120, "metadata")),
        (Notice("terminate", 200, "queue"), False, Notice("terminate", 120, "metadata")),
        (Notice("terminate", 60, "queue"), True, Notice("terminate", 60, "queue")),
        (Notice("rebalance", 120, "queue"), False, Notice("terminate", 120, "metadata")),
        (Notice("drain", 30, "node"), True, Notice("terminate", 30, "metadata")),
        (Notice("shutdown", -5, "sigterm"), True, Notice("terminate", 0, "metadata")),
    ],
)
def test_notices_merge(context: AttemptContext, later: Notice, changed: bool, expected: Notice) -> None:
    """The earliest end and the gravest kind win; a later, milder or equal notice changes nothing."""
    context.interruption.notify(Notice("terminate", 120, "metadata"))
    assert context.interruption.notify(later) is changed
    assert context.interruption.notice == expected


@pytest.mark.parametrize("kind", [kind for kind in RANK if kind != "rebalance"])
def test_a_rebalance_can_be_upgraded(context: AttemptContext, clock: ManualClock, kind: str) -> None:
    """A recommendation without a known end becomes the real thing when that comes, once."""
    assert context.interruption.notify(Notice("rebalance", math.inf, "metadata"))
    assert context.interruption.seconds_left == math.inf
    clock.now += 50
    assert context.interruption.notify(Notice(kind, 120, "node"))
    assert context.interruption.notice == Notice(kind, 120, "node")
    assert not context.interruption.notify(Notice(kind, 120, "node"))
    assert context.interruption.noticed_at == 100.0


def test_unknown_kinds_are_refused(context: AttemptContext) -> None:
    """The error names the kind and those that are known."""
    with pytest.raises(ConfigurationError, match=r"kind='boom'.*drain, rebalance, relocate"):
        context.interruption.notify(Notice("boom", 1))


async def test_waiting_ends_with_the_notice(context: AttemptContext) -> None:
    """Waiters on a loop and on threads get the notice from another thread, and afterwards at once."""
    waiting = [asyncio.create_task(context.interruption.wait(), name=f"waiter {n}") for n in range(3)]
    on_thread = asyncio.create_task(asyncio.to_thread(context.interruption.wait_sync, 30), name="thread")
    await asyncio.sleep(0)
    notice = Notice("drain", 30, "node")
    threading.Thread(target=context.interruption.notify, args=(notice,)).start()
    assert await asyncio.gather(*waiting, on_thread) == [notice] * 4
    assert await context.interruption.wait() == notice
    assert context.interruption.wait_sync(0) == notice


async def test_a_cancelled_wait_leaves_nothing(context: AttemptContext) -> None:
    """A waiter that gives up is forgotten."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(context.interruption.wait(), 0.001)
    assert context.interruption._listeners == []
    assert context.interruption.wait_sync(0) is None


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_bad_timeouts_are_refused(context: AttemptContext, timeout: float) -> None:
    """A time-out must be a number of seconds from 0 on."""
    with pytest.raises(ConfigurationError, match="timeout="):
        context.interruption.wait_sync(timeout)


async def test_the_end_of_the_attempt_releases_waiters(context: AttemptContext) -> None:
    """When the attempt ends without a notice, awaiting is cancelled and threads get None; nothing hangs."""
    waiting = asyncio.create_task(context.interruption.wait(), name="waiter")
    on_thread = asyncio.create_task(asyncio.to_thread(context.interruption.wait_sync), name="thread")
    await asyncio.sleep(0)
    context.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await on_thread is None
    assert not context.interruption.notify(Notice("terminate", 1))


async def test_a_context_that_is_over_waits_for_nothing(tmp_path: Path) -> None:
    """An interruption first asked for after the attempt ended does not wait either."""
    context = attempt(tmp_path)
    context.close()
    assert context.interruption.wait_sync() is None
    with pytest.raises(asyncio.CancelledError):
        await context.interruption.wait()


async def test_callbacks_on_a_loop_run_once_and_there(context: AttemptContext) -> None:
    """Sync and async callbacks run on the loop they were registered on, once, and see ``ctx()``."""
    CURRENT.set(context)
    seen: list[object] = []
    over = asyncio.Event()

    @context.interruption.on_notice
    def sync(notice: Notice) -> None:
        seen.append((notice.kind, threading.current_thread() is threading.main_thread(), ctx().action))

    async def coroutine(notice: Notice) -> None:
        await asyncio.sleep(0)
        seen.append((notice.kind, ctx().action))
        over.set()

    assert context.interruption.on_notice(coroutine) is coroutine
    threading.Thread(target=context.interruption.notify, args=(Notice("rebalance", 300),)).start()
    await over.wait()
    context.interruption.notify(Notice("terminate", 120))
    await asyncio.sleep(0)
    assert seen == [("rebalance", True, "a0"), ("rebalance", "a0")]
    assert sync.__name__ == "sync"


async def test_a_callback_may_come_late(context: AttemptContext) -> None:
    """Registered after the notice, it is called all the same."""
    context.interruption.notify(Notice("drain", 30))
    called = asyncio.Event()
    context.interruption.on_notice(lambda notice: called.set())
    await asyncio.wait_for(called.wait(), 30)


def test_callbacks_without_a_loop_run_on_a_thread(context: AttemptContext) -> None:
    """In a ``def`` task, sync and async callbacks run on threads of their own."""
    names: list[str] = []
    done = [threading.Event(), threading.Event()]

    def sync(notice: Notice) -> None:
        names.append(threading.current_thread().name)
        done[0].set()

    async def coroutine(notice: Notice) -> None:
        await asyncio.sleep(0)
        done[1].set()

    context.interruption.on_notice(sync)
    context.interruption.on_notice(coroutine)
    context.interruption.notify(Notice("drain", 30))
    assert all(event.wait(30) for event in done)
    assert names[0].startswith("flyteish on_notice")
    assert names[0].endswith("sync")


async def test_failing_callbacks_are_logged(context: AttemptContext, caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is in the log of the attempt and nowhere else; the others run."""
    called = asyncio.Event()

    def sync(notice: Notice) -> None:
        raise ValueError("sync trouble")

    async def coroutine(notice: Notice) -> None:
        raise ValueError("async trouble")

    context.interruption.on_notice(sync)
    context.interruption.on_notice(coroutine)
    context.interruption.on_notice(lambda notice: called.set())
    context.interruption.notify(Notice("drain", 30))
    await asyncio.wait_for(called.wait(), 30)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors == ["sync trouble", "async trouble"]


async def test_callbacks_end_with_the_attempt(context: AttemptContext) -> None:
    """An async callback that still runs when the attempt ends is cancelled."""
    ends: list[str] = []
    started, ended = asyncio.Event(), asyncio.Event()

    async def endless(notice: Notice) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")
            ended.set()

    context.interruption.on_notice(endless)
    context.interruption.notify(Notice("drain", 30))
    await started.wait()
    context.close()
    await asyncio.wait_for(ended.wait(), 30)
    assert ends == ["cancelled"]


def test_only_functions_are_callbacks(context: AttemptContext) -> None:
    """Anything else is refused when it is registered, not when the notice comes."""
    with pytest.raises(InputTypeError, match="callback=3"):
        context.interruption.on_notice(3)  # type: ignore[type-var]


def test_the_file_holds_the_notice(context: AttemptContext) -> None:
    """The path is the same all along; the file appears with the notice, whole, and is kept up to date."""
    file = context.interruption.file
    context.interruption.notify(Notice("rebalance", math.inf, "metadata"))
    assert json.loads(file.read_text()) == {
        "kind": "rebalance", "seconds": None, "source": "metadata", "ends_at": None,
    }  # fmt: skip
    context.interruption.notify(Notice("terminate", 120, "metadata"))
    assert json.loads(file.read_text()) == {
        "kind": "terminate", "seconds": 120.0, "source": "metadata", "ends_at": "1970-01-12T13:48:40+00:00",
    }  # fmt: skip
    assert context.interruption.file == file
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_file_is_there_for_who_asks_late(context: AttemptContext) -> None:
    """Asked for after the notice, the file exists at once."""
    context.interruption.notify(Notice("terminate", 120))
    assert context.interruption.file.exists()


def test_an_unwritable_file_does_not_stop_the_notice(context: AttemptContext, caplog: pytest.LogCaptureFixture) -> None:
    """A notice that can't be written is logged; it is pending all the same."""
    context.interruption.file.parent.rmdir()
    assert context.interruption.notify(Notice("terminate", 120))
    assert context.interruption.pending
    assert "cannot write the notice" in caplog.text


# -- changes, the grace period ------------------------------------------------------------------------------


async def test_changes_are_told_once_each(context: AttemptContext, clock: ManualClock) -> None:
    """``on_change`` hears of the first notice and of each that says more; ``on_notice`` of the first only."""
    first: list[str] = []
    changes: list[tuple[str, float]] = []
    context.interruption.on_notice(lambda notice: first.append(notice.kind))
    context.interruption.on_change(lambda notice: changes.append((notice.kind, notice.seconds)))
    for notice in (
        Notice("rebalance", math.inf, "metadata"),
        Notice("terminate", 120.0, "metadata"),
        Notice("terminate", 120.0, "queue"),
        Notice("terminate", 119.5, "node"),  # the same end, rounded
        Notice("terminate", 30.0, "node"),
        Notice("drain", 60.0, "node"),
    ):
        context.interruption.notify(notice)
    late: list[str] = []
    context.interruption.on_change(lambda notice: late.append(notice.kind))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (first, late) == (["rebalance"], ["terminate"])
    assert changes == [("rebalance", math.inf), ("terminate", 120.0), ("terminate", 30.0)]


def test_the_end_is_a_date(context: AttemptContext) -> None:
    """In UTC; none where no end is known."""
    assert context.interruption.ends_at is None
    context.interruption.notify(Notice("rebalance", math.inf))
    assert context.interruption.ends_at is None
    context.interruption.notify(Notice("terminate", 120.0))
    assert context.interruption.ends_at == datetime.fromtimestamp(1_000_120.0, UTC)


def test_many_small_steps_are_a_change_in_the_end(context: AttemptContext) -> None:
    """What is below notice each time is measured against what was told."""
    told = [context.interruption.notify(Notice("terminate", 120.0 - 0.4 * n)) for n in range(6)]
    assert told == [True, False, False, True, False, False]


def test_a_change_makes_a_save_due_again(context: AttemptContext, clock: ManualClock) -> None:
    """What was done since a recommendation is to be saved when the machine really goes."""
    context.interruption.notify(Notice("rebalance", math.inf))
    clock.now += 1
    context.checkpoint.save_sync(b"")
    assert not context.checkpoint.due()
    clock.now += 1
    context.interruption.notify(Notice("terminate", 120.0))
    assert context.checkpoint.due()


async def test_the_grace_period_bounds_a_block(tmp_path: Path) -> None:
    """Without a notice there is no limit; one that comes, or gets sooner, sets it."""
    context = attempt(tmp_path)
    async with context.interruption.grace() as timeout:
        assert timeout.when() is None

    async def works(*notices: Notice) -> None:
        async with context.interruption.grace(spare=1.0):
            for notice in notices:
                context.interruption.notify(notice)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await works(Notice("drain", 1000.0), Notice("terminate", 1.0))
    with pytest.raises(TimeoutError):
        await works()


@pytest.mark.parametrize("spare", [-1, math.inf, math.nan, "1", True])
def test_spare_seconds_are_checked(context: AttemptContext, spare: float) -> None:
    """Refused at the call."""
    with pytest.raises(ConfigurationError, match=r"grace\(spare="):
        context.interruption.grace(spare)
