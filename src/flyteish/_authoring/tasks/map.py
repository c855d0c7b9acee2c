"""``map``: call a task once per row of arguments, several at a time, and give the results in the rows' order.

Decides when the next row is taken and what happens when the consumer leaves early. Must not know how a call is
carried out: inside a running attempt every row is an action, outside one it is a call of the plain function.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, overload

from flyteish._async.bridge import can_wait_here, wait_here
from flyteish._async.feeds import LoopFeed
from flyteish._authoring.tasks.groups import group
from flyteish._authoring.tasks.task import Task

R = TypeVar("R")
Pending = TypeVar("Pending")
Partial = functools.partial[Any]


class _Mapped(NamedTuple):
    """A checked request."""

    call: Callable[..., Coroutine[Any, Any, Any]]
    rows: Iterator[tuple[Any, ...]]
    concurrency: int
    context: Context
    """Context variables for the calls, with the group's label; set here, since a generator's would leak."""


class Mapper:
    """``flyteish.map``; see ``__call__`` and ``aio``."""

    @overload
    def __call__(
        self,
        task: Task[..., R],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False],
    ) -> Generator[R, None, None]: ...

    @overload
    def __call__(
        self,
        task: Task[..., R],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> Generator[R | Exception, None, None]: ...

    @overload
    def __call__(
        self,
        task: Partial,
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> Generator[Any, None, None]: ...

    def __call__(
        self,
        task: Task[..., Any] | Partial,
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> Generator[Any, None, None]:
        """Call the task with the first item of each iterable, then with the second, and so on; results in order.

        For ``def`` tasks and scripts; ``async def`` code has ``map.aio``. Rows are taken as they are needed,
        and only while a result is waited for. Leaving early (``break`` and ``close()``) cancels what is in flight.

        Args:
            task: a task, ``task.override(...)``, or a ``functools.partial`` of one.
            iterables: of equal lengths.
            group_name: label of the actions. Default: ``<task>_map``.
            concurrency: calls in flight at most. 0 (default): all at once, so the iterables must end.
            return_exceptions: give a failed call's exception as its result (default, as Flyte does); False
                raises the first and cancels the others.

        Raises:
            TypeError: ``task`` is no task, or does not take that many arguments.
            ValueError: ``concurrency`` is negative, or the iterables differ in length.
        """
        give = _in_place if can_wait_here() else _blocking
        return give(_checked(task, iterables, group_name, concurrency), return_exceptions)

    @overload
    def aio(
        self,
        task: Task[..., R],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False],
    ) -> AsyncGenerator[R, None]: ...

    @overload
    def aio(
        self,
        task: Task[..., R],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> AsyncGenerator[R | Exception, None]: ...

    @overload
    def aio(
        self,
        task: Partial,
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> AsyncGenerator[Any, None]: ...

    def aio(
        self,
        task: Task[..., Any] | Partial,
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> AsyncGenerator[Any, None]:
        """The same for ``async for``: the caller's event loop goes on between the results."""
        return _awaiting(_checked(task, iterables, group_name, concurrency), return_exceptions)

    def __repr__(self) -> str:
        return "<flyteish.map>"


map: Final = Mapper()


# -- the two drivers ----------------------------------------------------------------------------------------------


class _Window(Generic[Pending]):
    """The calls between the first result not given out yet and the last row taken; as many run as may.

    ``start`` begins one row's call. Who uses the window tells it of ended calls by counting ``running`` down.
    """

    def __init__(self, mapped: _Mapped, start: Callable[[tuple[Any, ...]], Pending]) -> None:
        self._rows: Iterator[tuple[Any, ...]] | None = mapped.rows
        self._concurrency = mapped.concurrency
        self._start = start
        self.calls: deque[Pending] = deque()
        self.running = 0

    def fill(self) -> bool:
        """Begin what may begin now. Whether there is a result to wait for."""
        while self._rows is not None and (not self._concurrency or self.running < self._concurrency):
            row = next(self._rows, None)
            if row is None:
                self._rows = None
            else:
                self.calls.append(self._start(row))
                self.running += 1
        return bool(self.calls)


def _in_place(mapped: _Mapped, return_exceptions: bool) -> Generator[Any, None, None]:
    """In an ``async def`` task: the loop awaits each result while the consumer stands still."""
    results = _awaiting(mapped, return_exceptions)
    try:
        while True:
            try:
                result = wait_here(anext(results))
            except StopAsyncIteration:
                return
            yield result
    finally:
        if can_wait_here():
            wait_here(results.aclose())


def _blocking(mapped: _Mapped, return_exceptions: bool) -> Generator[Any, None, None]:
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    # A loop of its own, although this thread only waits: async tasks called from here run on it, and never on a
    # loop that somebody further up may be blocking.
    with _loop_beside() as feed:

        def start(row: tuple[Any, ...]) -> Future[Any]:
            future: Future[Any] = Future()
            future.add_done_callback(ended.put)
            context = mapped.context.copy()
            try:
                coroutine = context.run(mapped.call, *row)
            except Exception as error:
                future.set_exception(error)
            else:
                feed.put(_begin, future, coroutine, context)
            return future

        window = _Window(mapped, start)
        while window.fill():
            while not window.calls[0].done():
                ended.get()
                window.running -= 1
                window.fill()
            while not ended.empty():
                ended.get()
                window.running -= 1
            yield _result(window.calls.popleft(), return_exceptions)


async def _awaiting(mapped: _Mapped, return_exceptions: bool) -> AsyncGenerator[Any, None]:
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def start(row: tuple[Any, ...]) -> asyncio.Future[Any]:
        call: asyncio.Future[Any]
        context = mapped.context.copy()
        try:
            coroutine = context.run(mapped.call, *row)
        except Exception as error:
            call = loop.create_future()
            call.set_exception(error)
        else:
            call = loop.create_task(coroutine, name="flyteish map", context=context)
        call.add_done_callback(over)
        return call

    def over(call: asyncio.Future[Any]) -> None:
        window.running -= 1
        woken.set()
        if not call.cancelled():
            call.exception()  # seen: asyncio need not complain of those that are never given out

    window = _Window(mapped, start)
    try:
        while window.fill():
            while not window.calls[0].done():
                woken.clear()
                await woken.wait()
                window.fill()
            yield _result(window.calls.popleft(), return_exceptions)
    finally:
        for call in window.calls:
            call.cancel()
        await asyncio.gather(*window.calls, return_exceptions=True)


def _result(call: Future[Any] | asyncio.Future[Any], return_exceptions: bool) -> Any:
    try:
        return call.result()
    except Exception as error:
        if return_exceptions:
            return error
        raise


@contextmanager
def _loop_beside() -> Iterator[LoopFeed]:
    """The way to an event loop on a thread of its own; leaving cancels what still runs there and waits for it."""
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # with a factory it leaves this thread alone
    loop = runner.get_loop()
    feed = LoopFeed(loop, _abandon)
    leaving = False

    def serve() -> None:
        with runner:
            while not leaving:
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt):
                    pass  # a call raised it: asyncio lets it through, but it is the consumer's, as its result
            feed.drop()

    thread = threading.Thread(target=serve, name="flyteish map", daemon=True)
    thread.start()
    try:
        yield feed
    finally:
        leaving = True
        with suppress(RuntimeError):  # closed already: a call's SystemExit came at the same moment
            loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _begin(future: Future[Any], coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
    call = asyncio.get_running_loop().create_task(coroutine, name="flyteish map", context=context)
    call.add_done_callback(functools.partial(_finish, future))


def _finish(future: Future[Any], call: asyncio.Task[Any]) -> None:
    if call.cancelled():
        future.cancel()
    elif (error := call.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(call.result())


def _abandon(begin: object, arguments: tuple[Any, ...]) -> None:
    future, coroutine, _ = arguments
    coroutine.close()
    future.cancel()


# -- the request ----------------------------------------------------------------------------------------------------


def _checked(
    given: Task[..., Any] | Partial,
    iterables: tuple[Iterable[Any], ...],
    group_name: str | None,
    concurrency: int,
) -> _Mapped:
    task, args, kwargs = (
        (given.func, given.args, given.keywords) if isinstance(given, functools.partial) else (given, (), {})
    )
    if not isinstance(task, Task):
        raise TypeError(f"map: task={task!r} is not accepted: expected a task, or a functools.partial of one")
    if not iterables:
        raise TypeError(f"map({task.name}): expected at least one iterable of arguments")
    number: object = concurrency
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(
            f"map({task.name}): concurrency={number!r} is not accepted: expected an int >= 0 (0 = unlimited)"
        )
    try:
        inspect.signature(task.function).bind(*args, *iterables, **kwargs)
    except TypeError as error:
        raise TypeError(f"map({task.name}) with {len(iterables)} iterable(s): {error}") from None
    rows = _rows(task.name, iterables)
    context = copy_context()
    context.run(group(group_name or f"{task.name}_map").__enter__)
    return _Mapped(functools.partial(task.aio, *args, **kwargs), rows, concurrency, context)


def map_named(
    task: Task[..., Any], named: Mapping[str, Iterable[Any]], bound: Mapping[str, Any], concurrency: int = 0
) -> Generator[Any, None, None]:
    """As ``map`` with ``return_exceptions``, for checked iterables by parameter; ``bound`` is for every call."""

    def call(*row: Any) -> Coroutine[Any, Any, Any]:
        return task.aio(**bound, **dict(zip(named, row, strict=True)))

    context = copy_context()
    context.run(group(f"{task.name}_map").__enter__)
    give = _in_place if can_wait_here() else _blocking
    return give(_Mapped(call, _rows(task.name, tuple(named.values())), concurrency, context), True)


def _rows(name: str, iterables: tuple[Iterable[Any], ...]) -> Iterator[tuple[Any, ...]]:
    sizes = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
    if len(set(sizes)) > 1:
        raise ValueError(f"map({name}): the iterables differ in length: {', '.join(str(size) for size in sizes)}")
    # Iterators are made now, so that what is not iterable is reported where `map` is called.
    return _zipped(name, [iter(iterable) for iterable in iterables])


def _zipped(name: str, iterators: list[Iterator[Any]]) -> Iterator[tuple[Any, ...]]:
    nothing = object()
    for number in range(2**63):
        row = tuple(next(iterator, nothing) for iterator in iterators)
        missing = [index + 1 for index, item in enumerate(row) if item is nothing]
        if len(missing) == len(row):
            return
        if missing:
            raise ValueError(
                f"map({name}): the iterables differ in length: number {missing[0]} ended after {number} rows"
            )
        yield row
