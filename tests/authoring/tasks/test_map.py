"""`map`: order, concurrency, failures, leaving early; inside and outside an attempt, for both kinds of task."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

import flyteish as flyte
from flyteish._async.bridge import Bridged
from flyteish.errors import InputTypeError
from tests.authoring.attempt.fake_link import FakeLink

env = flyte.TaskEnvironment("maps")


@env.task
def double(x: int) -> int:
    if x < 0:
        raise ValueError(f"negative: {x}")
    return 2 * x


@env.task
async def double_async(x: int) -> int:
    await asyncio.sleep(0)
    return double.forward(x)


@env.task
def join(a: int, b: str, c: str = "!") -> str:
    return f"{a}{b}{c}"


@env.task
def doubles(xs: list[int]) -> list[int]:
    return [x for x in flyte.map(double_async, xs, concurrency=2) if isinstance(x, int)]


BOTH = pytest.mark.parametrize("task", [double, double_async])


@pytest.fixture(params=["inside", "outside"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Once inside a running attempt and once outside of any."""
    if request.param == "outside":
        yield request.param
        return
    with FakeLink().running():
        yield request.param


@BOTH
@pytest.mark.parametrize("concurrency", [0, 1, 3, 100])
async def test_results_come_in_the_rows_order(place: str, task: Any, concurrency: int) -> None:
    """Whatever the concurrency, the results are those of the rows, in order, in both forms."""
    expected = [2 * number for number in range(20)]
    assert list(flyte.map(task, range(20), concurrency=concurrency)) == expected
    assert [item async for item in flyte.map.aio(task, range(20), concurrency=concurrency)] == expected


async def test_several_iterables_are_taken_together(place: str) -> None:
    """Like the built-in `map`: the first items, then the second ones."""
    assert list(flyte.map(join, [1, 2], "ab")) == ["1a!", "2b!"]
    assert [item async for item in flyte.map.aio(join, iter([1, 2]), "ab", "?!")] == ["1a?", "2b!"]
    assert list(flyte.map(join, [], [])) == []


async def test_a_partial_of_a_task_can_be_mapped(place: str) -> None:
    """Arguments given to `functools.partial`, by position or name, are the same for every row."""
    assert list(flyte.map(functools.partial(join, 7), "ab")) == ["7a!", "7b!"]
    assert list(flyte.map(functools.partial(join, b="x", c="y"), [1, 2])) == ["1xy", "2xy"]
    assert list(flyte.map(functools.partial(double.override(retries=0)), [1])) == [2]


@BOTH
async def test_exceptions_are_results_by_default(place: str, task: Any) -> None:
    """As Flyte does: a failed row's exception stands in its place and the others go on."""
    for results in (list(flyte.map(task, [1, -2, 3])), [x async for x in flyte.map.aio(task, [1, -2, 3])]):
        first, error, third = results
        assert (first, third) == (2, 6)
        assert isinstance(error, ValueError)
        assert error.args == ("negative: -2",)


@BOTH
async def test_exceptions_can_be_raised(place: str, task: Any) -> None:
    """With `return_exceptions=False` the first failure in order is raised, after the results before it."""
    results = flyte.map(task, [1, -2, -3], return_exceptions=False)
    assert next(results) == 2
    with pytest.raises(ValueError, match="negative: -2"):
        next(results)
    more = flyte.map.aio(task, [1, -2, -3], return_exceptions=False)
    assert await anext(more) == 2
    with pytest.raises(ValueError, match="negative: -2"):
        await anext(more)


def test_a_row_of_the_wrong_type_is_that_rows_failure() -> None:
    """The other rows run; the wrong one's error names the parameter."""
    with FakeLink().running() as context:
        first, error, third = flyte.map(double, [1, "two", 3])
        assert (first, third) == (2, 6)
        assert isinstance(error, InputTypeError)
        assert "'x' expects int" in str(error)
        with pytest.raises(InputTypeError):
            list(flyte.map(double, ["two"], return_exceptions=False))
    assert not context.active


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda map: map(print, [1]), TypeError, "expected a task"),
        (lambda map: map(functools.partial(print), [1]), TypeError, "expected a task"),
        (lambda map: map(double), TypeError, "at least one iterable"),
        (lambda map: map(double, [1], concurrency=-1), ValueError, "concurrency=-1 is not accepted"),
        (lambda map: map(double, [1], concurrency=1.5), ValueError, "concurrency=1.5 is not accepted"),
        (lambda map: map(double, [1], [2]), TypeError, r"maps\.double.*2 iterable"),
        (lambda map: map(functools.partial(double, x=1), [1]), TypeError, r"maps\.double.*1 iterable"),
        (lambda map: map(functools.partial(join, d=1), [1]), TypeError, r"maps\.join"),  # type: ignore[call-arg]
        (lambda map: map(join, [1, 2], ["a"]), ValueError, "differ in length: 2, 1"),
        (lambda map: map(double, 7), TypeError, "not iterable"),
    ],
)
@pytest.mark.parametrize("form", [flyte.map, flyte.map.aio])
def test_what_cannot_be_mapped_is_refused_where_it_is_written(make: Any, error: type, words: str, form: Any) -> None:
    """Nothing waits for the first `next`: the call itself raises."""
    with pytest.raises(error, match=words):
        make(form)


async def test_iterators_of_different_lengths_are_an_error(place: str) -> None:
    """Where the lengths are seen only on the way, the error comes when they are, and says which ended first."""
    with pytest.raises(ValueError, match=r"maps\.join.*number 2 ended after 1 rows"):
        list(flyte.map(join, iter([1, 2]), iter("a"), concurrency=1))
    with pytest.raises(ValueError, match="number 1 ended after 0 rows"):
        [item async for item in flyte.map.aio(join, iter([]), iter("a"))]


def test_rows_are_taken_when_they_are_needed(place: str) -> None:
    """With a bound, an endless iterable will do: rows are taken only when a call may begin."""
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    with closing(flyte.map(double, rows(), concurrency=3)) as results:
        assert taken == []
        assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    # Beyond the results: three that run, and those that overtook a slower one before them.
    assert 5 <= len(taken) < 200


def test_rows_are_taken_on_the_consumers_thread(place: str) -> None:
    """An iterable that belongs to its thread, such as a database cursor, can be mapped over."""
    threads = set()

    def rows() -> Iterator[int]:
        for number in range(10):
            threads.add(threading.current_thread())
            yield number

    assert len(list(flyte.map(double, rows(), concurrency=2))) == 10
    assert threads == {threading.current_thread()}


async def test_no_more_run_than_may() -> None:
    """Never more than `concurrency` calls are in flight, and that many are while rows are left."""
    running: list[int] = []
    most: list[int] = []

    def meeting(size: int) -> Any:
        barrier = asyncio.Barrier(size)  # nobody passes before all are there

        async def meet(x: int) -> int:
            running.append(x)
            most.append(len(running))
            await barrier.wait()
            running.remove(x)
            return x

        return flyte.TaskEnvironment("meetings").task(meet)

    assert [x async for x in flyte.map.aio(meeting(4), range(48), concurrency=4)] == list(range(48))
    assert list(flyte.map(meeting(4), range(48), concurrency=4)) == list(range(48))
    assert max(most) == 4
    assert len([x async for x in flyte.map.aio(meeting(48), range(48))]) == 48
    assert max(most) == 48


async def test_a_slow_head_does_not_keep_the_others_idle() -> None:
    """While the first result is waited for, finished calls make room for further rows."""
    gate = asyncio.Event()
    begun = []

    async def wait(x: int) -> int:
        begun.append(x)
        if x == 0:
            await gate.wait()
        if x == 9:
            gate.set()
        return x

    task = flyte.TaskEnvironment("gates").task(wait)
    assert [item async for item in flyte.map.aio(task, range(10), concurrency=2)] == list(range(10))
    assert begun == list(range(10))


async def test_leaving_early_cancels_what_is_in_flight() -> None:
    """`break` out of the async form cancels the actions that were not finished, and waits for them."""
    link = FakeLink()
    link.hold = True
    with link.running():
        async with aclosing(flyte.map.aio(double_async, range(4), concurrency=4)) as results:
            first = asyncio.ensure_future(anext(results))
            await link.calls_made(4)
            link.release(1)
            assert await first == 0
    assert sorted(number for number, _ in link.cancelled) == [2, 3, 4]


async def test_cancelling_the_consumer_cancels_what_is_in_flight() -> None:
    """A consumer that is cancelled while it waits leaves no action behind."""
    link = FakeLink()
    link.hold = True

    async def consume() -> None:
        async with aclosing(flyte.map.aio(double_async, range(3))) as results:
            async for _ in results:
                raise AssertionError("nothing has finished")

    with link.running():
        consumer = asyncio.create_task(consume())
        await link.calls_made(3)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
    assert sorted(number for number, _ in link.cancelled) == [1, 2, 3]
    assert link.held == {}


@BOTH
def test_closing_the_sync_form_cancels_what_is_in_flight(task: Any) -> None:
    """Closing the generator cancels the actions that were not finished and leaves no thread behind."""
    link = FakeLink()
    link.hold = True
    answers = iter([lambda: link.release(1)])
    original = link.call

    def call(*args: Any) -> int:
        number = original(*args)
        if len(link.calls) == 4:
            next(answers)()
        return number

    link.call = call  # type: ignore[method-assign, assignment]
    with link.running():
        results = flyte.map(task, range(4))
        assert next(results) == 0
        results.close()
    assert sorted(number for number, _ in link.cancelled) == [2, 3, 4]
    assert not [thread for thread in threading.enumerate() if thread.name == "flyteish map"]


def test_every_row_is_an_action_with_the_groups_label() -> None:
    """Inside an attempt each row is a call of its own, labelled with the group's name or one made of the task's."""
    link = FakeLink()
    with link.running():
        list(flyte.map(double, [1, 1]))
        list(flyte.map(double_async, [1], group_name="fold"))
        double(1)
    assert [(call.profile.task, call.occurrence, call.group) for call in link.calls] == [
        ("maps.double", 0, "maps.double_map"),
        ("maps.double", 1, "maps.double_map"),
        ("maps.double_async", 0, "fold"),
        ("maps.double", 2, None),
    ]


async def test_the_sync_form_works_where_a_loop_runs(place: str) -> None:
    """In an async task the loop goes on; elsewhere it is blocked, but never what the map waits for."""

    async def task() -> None:
        assert list(flyte.map(double_async, range(5))) == [0, 2, 4, 6, 8]
        assert doubles([1, 2]) == [2, 4]

    await Bridged(task(), [])
    assert list(flyte.map(double_async, range(5))) == [0, 2, 4, 6, 8]


def test_context_variables_reach_the_calls(place: str) -> None:
    """The calls see the consumer's context variables, and the consumer sees nothing of the map's."""
    assert list(flyte.map(double, [1])) == [2]
    with flyte.group("mine"):
        results = flyte.map(double, [1, 2])
        assert next(results) == 2
        results.close()


@env.task
async def leave(x: int) -> int:
    if x == 1:
        raise SystemExit(x)
    return x


def test_an_exit_is_the_consumers() -> None:
    """`SystemExit` of a plain function is raised where its result is taken; it is no result, and nothing hangs."""
    results = flyte.map(leave, range(3), concurrency=1)
    assert next(results) == 0
    with pytest.raises(SystemExit):
        next(results)


def test_leaving_at_once_leaves_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """Rows whose calls had not even begun are forgotten without a complaint of Python's."""
    with FakeLink().running():
        for number in (1, 3000):
            with closing(flyte.map(double_async, range(number))) as results:
                assert next(results) == 0
    assert [str(warning.message) for warning in recwarn] == []
