"""Tasks that fail, each in a way of its own. ``FAILURES`` says what whoever resumes such a run is told."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from flyteish import RetryStrategy, SpotPolicy, TaskEnvironment, Timeout, ctx, errors
from tests.durability.golden.values import Opaque, Pair

env = TaskEnvironment("failing")
workers = TaskEnvironment("crashing", queue="workers")


class LayersDifferError(ValueError):
    """An error of the program's own, with state beside its arguments."""

    def __init__(self, wanted: int, found: int) -> None:
        super().__init__(wanted, found)
        self.wanted = wanted


class FinalError(errors.NonRecoverableError):
    pass


@env.task
async def raises(kind: str) -> Any:
    """Raises what has that name; never returns."""
    match kind:
        case "own":
            _own()
        case "context":
            try:
                _own()
            except LayersDifferError:
                raise KeyError("while handling it")  # noqa: B904 - the context is what is wanted
        case "group":
            raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [errors.OOMError("no memory")])])
        case "os":
            raise FileNotFoundError(2, "No such file or directory", "weights.bin")
        case "unicode":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        case "local":
            raise _local_class()("local", 4)
        case "not plain":
            raise ValueError("holds", Opaque("o"), Pair(1))
        case "final":
            raise FinalError("no use")
        case "exit":
            raise SystemExit(3)
        case "memory":
            raise MemoryError("host")
    raise AssertionError(kind)


def _own() -> None:
    error = LayersDifferError(3, 4)
    error.add_note("in epoch 2")
    try:
        raise ConnectionError("the store is away")
    except ConnectionError as cause:
        raise error from cause


def _local_class() -> type[Exception]:
    class LocalError(RuntimeError):
        pass

    return LocalError


@env.task
async def takes_int(x: int) -> int:
    return x


@env.task
async def calls_wrongly() -> int:
    value: Any = "text"
    return await takes_int(value)


@env.task
async def returns_wrongly() -> int:
    value: Any = "text"
    return value


@env.task
async def returns_generator() -> Any:
    return (x for x in range(3))


@env.task
async def calls_unknown_queue() -> int:
    return await takes_int.override(queue="nowhere")(1)


@env.task(timeout=Timeout(max_runtime=0.05))
async def runs_too_long() -> None:
    await asyncio.Event().wait()


@env.task(timeout=Timeout(deadline=0.1), retries=50)
async def misses_its_deadline() -> None:
    await asyncio.Event().wait()


@env.task(timeout=Timeout(max_queued_time=0.05), queue="spare")
async def queues_too_long() -> None:
    pass


@env.task(interruptible=SpotPolicy(budget="single", fallback="never"))
async def is_preempted() -> None:
    await ctx().interruption.wait()
    await asyncio.Event().wait()


@env.task
async def is_aborted() -> None:
    await asyncio.Event().wait()


@workers.task
def exits(code: int) -> None:
    os._exit(code)


@workers.task
def dies(number: int) -> None:
    os.kill(os.getpid(), number)


@workers.task(retries=RetryStrategy(0, system_retries=1))
def vanishes() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAILURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    **{f"fails-{kind.replace(' ', '-')}": (raises, (kind,)) for kind in (
        "own", "context", "group", "os", "unicode", "local", "not plain", "final", "exit", "memory",
    )},
    "fails-input": (calls_wrongly, ()), "fails-output": (returns_wrongly, ()),
    "fails-generator": (returns_generator, ()), "fails-queue": (calls_unknown_queue, ()),
    "fails-runtime": (runs_too_long, ()), "fails-deadline": (misses_its_deadline, ()),
    "fails-queued": (queues_too_long, ()), "fails-preempted": (is_preempted, ()),
    "fails-aborted": (is_aborted, ()), "fails-exit-0": (exits, (0,)), "fails-exit-3": (exits, (3,)),
    "fails-signal": (dies, (11,)), "fails-vanished": (vanishes, ()),
}  # fmt: skip
"""By name of the run: the task, and its arguments."""
