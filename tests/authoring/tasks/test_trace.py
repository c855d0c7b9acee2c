"""`trace` and `group`: what is remembered for later attempts, and which actions get which label."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import flyteish as flyte
from flyteish.errors import InputTypeError, StaleAttemptError, TaskDefinitionError
from flyteish.interfaces import Limits
from tests.authoring.attempt.fake_link import FakeLink, as_task

env = flyte.TaskEnvironment("traces")
ran: list[Any] = []


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task
async def double_async(x: int) -> int:
    return 2 * x


@env.task
def inner_group(x: int) -> int:
    return double(x)


@flyte.trace
def draw(x: int, y: int = 0) -> int:
    """A helper."""
    ran.append((x, y))
    if x < 0:
        raise ValueError(x)
    return x + len(ran)


@flyte.trace
async def fetch(size: int) -> bytes:
    ran.append(size)
    await asyncio.sleep(0)
    return bytes(size)


@flyte.trace
def outer(x: int) -> int:
    return draw(x) + draw(x)


@flyte.trace
def calls_a_task(x: int) -> int:
    return double(x)


@flyte.trace
async def calls_a_task_async(x: int) -> int:
    return await double_async(x)


@flyte.trace
async def runs_the_function(x: int) -> int:
    return double.forward(x) + await double_async.forward(x)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def test_outside_an_attempt_a_helper_is_its_function() -> None:
    """It runs every time, and can be recognised."""
    assert (draw(1), draw(1)) == (2, 3)
    assert asyncio.run(fetch(2)) == b"\0\0"
    assert (draw.__name__, draw.__doc__) == ("draw", "A helper.")


def test_a_later_attempt_gets_the_recorded_values() -> None:
    """Equal calls in equal order get their values back without running the helper; others run."""
    link = FakeLink()
    with link.running():
        first = [draw(1), draw(1), draw(2), draw(y=0, x=1)]
    assert len(ran) == 4
    assert len(link.remembered) == 4
    with link.running(traced=link.remembered):
        assert [draw(1), draw(1), draw(2), draw(1)] == first
        assert len(ran) == 4
        draw(1)
        draw(3)
    assert len(ran) == 6
    assert len(link.remembered) == 6


async def test_async_helpers_are_remembered_too() -> None:
    """Also values that are too large to travel inline."""
    link = FakeLink()
    with link.running():
        values = await asyncio.gather(fetch(3), fetch(Limits().inline + 1))
    assert ran == [3, Limits().inline + 1]
    assert sorted(payload.blob is None for payload in link.remembered.values()) == [False, True]
    with link.running(traced=link.remembered):
        assert await asyncio.gather(fetch(3), fetch(Limits().inline + 1)) == values
    assert len(ran) == 2


async def test_a_value_is_seen_once_it_is_on_record() -> None:
    """Until its value is journalled a helper has not returned: what the task has seen, every later attempt sees."""
    link = FakeLink()
    link.hold_traced = True
    with link.running():
        call = asyncio.create_task(fetch(3))
        await link.value_told()
        await asyncio.sleep(0)
        assert ran == [3]
        assert not call.done()
        link.confirm_traced()
        assert await call == bytes(3)


def test_a_blocking_helper_waits_for_its_record_too() -> None:
    """A `def` helper gives its value out as late; it is confirmed on another thread, as by a controller."""
    link = FakeLink()
    link.hold_traced = True
    seen: list[int] = []

    def attempt() -> None:
        with link.running():
            seen.append(draw(1))

    thread = threading.Thread(target=attempt)
    thread.start()
    assert link.told.wait(30)
    assert seen == []
    link.confirm_traced()
    thread.join()
    assert seen == [2]


@as_task
async def test_a_blocking_helper_leaves_the_loop_of_an_async_task_free() -> None:
    """The loop goes on until its value is on record: what confirms it may run on that very loop."""
    link = FakeLink()
    link.hold_traced = True

    async def confirm() -> None:
        await link.value_told()
        link.confirm_traced()

    with link.running():
        confirmed = asyncio.create_task(confirm())
        assert draw(1) == 2
        await confirmed


async def test_a_refused_value_is_not_given_out() -> None:
    """An attempt that was given up learns it from its helpers as from its checkpoints."""
    link = FakeLink()
    link.refuse_traced = "a newer attempt runs"
    with link.running():
        with pytest.raises(StaleAttemptError, match=r"draw\(\) returned was refused: a newer attempt runs"):
            draw(1)
        with pytest.raises(StaleAttemptError, match=r"fetch\(\) returned was refused: a newer attempt runs"):
            await fetch(1)
    assert link.remembered == {}


def test_an_attempt_that_is_over_runs_no_helpers() -> None:
    """Code that its attempt left behind does not pay for requests that nobody remembers."""
    link = FakeLink()
    with link.running() as context:
        context.close()
        with pytest.raises(StaleAttemptError, match=r"draw\(\) was called by attempt .* which is over"):
            draw(1)
    assert ran == []


def test_an_exception_is_not_remembered() -> None:
    """A helper that failed runs again in the next attempt; only values are kept."""
    link = FakeLink()
    for _ in range(2):
        with link.running(traced=link.remembered), pytest.raises(ValueError, match="-1"):
            draw(-1)
    assert len(ran) == 2
    assert link.remembered == {}


def test_helpers_inside_helpers_have_keys_of_their_own() -> None:
    """Once the outer value is remembered, the inner ones are not asked for; calls elsewhere keep their values."""
    link = FakeLink()
    with link.running():
        first = (outer(1), draw(1))
    assert len(link.remembered) == 4
    with link.running(traced=link.remembered):
        assert (outer(1), draw(1)) == first
    assert len(ran) == 3


@as_task
async def test_tasks_cannot_be_called_inside_a_helper() -> None:
    """A later attempt would skip them; the error says what to do instead, and nothing is submitted."""
    link = FakeLink()
    with link.running():
        with pytest.raises(RuntimeError, match=r"'traces\.double'.*double\.forward"):
            calls_a_task(1)
        with pytest.raises(RuntimeError, match=r"double_async\.forward"):
            await calls_a_task_async(1)
        assert link.calls == []
        assert await runs_the_function(1) == 4
        assert double(1) == 2
    assert calls_a_task(1) == 2


def test_arguments_of_a_helper_are_checked_inside_an_attempt() -> None:
    """Its key is made of them, so they have to be what it declares."""
    with FakeLink().running(), pytest.raises(InputTypeError, match=r"draw.*'x' expects int"):
        draw("one")  # type: ignore[arg-type]


def numbers():
    yield 1


async def letters():
    yield "a"


@pytest.mark.parametrize("thing", [numbers, letters, len, int, double, 7])
def test_what_cannot_be_traced_is_refused(thing: Any) -> None:
    """Generators and things that are no functions are refused where they are decorated."""
    with pytest.raises(TaskDefinitionError, match="cannot be traced"):
        flyte.trace(thing)


@as_task
async def test_a_group_labels_the_actions_inside_it() -> None:
    """The innermost label counts, in `with` and `async with`; after the block the one before is back."""
    link = FakeLink()
    with link.running():
        double(1)
        with flyte.group("outer"):
            double(2)
            async with flyte.group("inner") as label:
                await asyncio.gather(double_async(3), double.aio(4))
            double(5)
        double(6)
    assert [call.group for call in link.calls] == [None, "outer", "inner", "inner", "outer", None]
    assert repr(label) == "group('inner')"


def test_a_label_stays_with_its_attempt() -> None:
    """A task called inside a group labels its own calls itself, although it inherits context variables."""
    link = FakeLink()
    with link.running(), flyte.group("mine"):
        assert inner_group(1) == 2
    assert [(call.profile.task, call.group) for call in link.calls] == [
        ("traces.inner_group", "mine"),
        ("traces.double", None),
    ]


def test_a_group_outside_an_attempt_does_nothing() -> None:
    """Programs that run without a session may keep their groups."""
    with flyte.group("mine"):
        assert double(1) == 2


@pytest.mark.parametrize("name", ["", "  ", None, 7])
def test_a_group_needs_a_name(name: Any) -> None:
    """An empty label would be no label."""
    with pytest.raises(ValueError, match="non-empty str"):
        flyte.group(name)
