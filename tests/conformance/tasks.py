"""Tasks for the conformance suite: importable, so that every engine can load them wherever it runs attempts.

What they have to tell beyond their results they tell by files: ``mark`` leaves one, ``marked`` looks for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import flyteish
from flyteish import SpotPolicy, TaskEnvironment, Timeout, ctx, errors

env = TaskEnvironment(name="conformance")
PATIENCE = 30.0


def mark(folder: str, name: str) -> None:
    with open(os.path.join(folder, name), "a") as file:
        file.write("x")


def marked(folder: str, name: str) -> int:
    path = Path(folder, name)
    return len(path.read_text()) if path.exists() else 0


class OrderRefusedError(ValueError):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number


# -- values ----------------------------------------------------------------------------------------------------


@env.task
async def add(x: int, y: int = 1) -> int:
    await asyncio.sleep(0)
    return x + y


@env.task
def sub(x: int, y: int = 1) -> int:
    return x - y


@env.task
def big(size: int) -> bytes:
    return b"x" * size


@env.task
async def sizes(data: bytes, size: int) -> tuple[int, int]:
    return len(data), len(await big.aio(size))


@env.task
async def about_me() -> tuple[int, int, str, str, str, bool]:
    me = ctx()
    return me.attempt, me.generation, me.queue, me.pool, me.medium, me.is_last_attempt


@env.task(env_vars={"CONFORMANCE_SCOPED": "inside"})
async def variables() -> tuple[str | None, str | None]:
    return os.environ.get("CONFORMANCE_SCOPED"), os.getenv("CONFORMANCE_ABSENT")


@env.task(env_vars={"CONFORMANCE_SCOPED": "inside"}, secrets="conformance-secret")
def variables_sync() -> tuple[str | None, int]:
    return os.environ.get("CONFORMANCE_SCOPED"), len(os.environ["CONFORMANCE_SECRET"])


# -- failures ----------------------------------------------------------------------------------------------------


@env.task
async def refuses() -> None:
    error = OrderRefusedError(7, "no stock")
    error.add_note("seen at the till")
    raise error from KeyError("the cause")


@env.task
def refuses_sync() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as cause:
        error = OrderRefusedError(7, "no stock")
        error.add_note("seen at the till")
        raise error from cause


@env.task
def several() -> None:
    raise ExceptionGroup("several", [ValueError("a"), TypeError("b")])


@env.task(retries=2)
async def flaky(needed: int) -> int:
    if ctx().attempt < needed:
        raise ConnectionError(f"attempt {ctx().attempt}")
    return ctx().attempt


@env.task(retries=5)
def hopeless(folder: str) -> None:
    mark(folder, "hopeless")
    raise errors.NonRecoverableError("never")


def _leave(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    raise {
        "interrupt": KeyboardInterrupt("x"),
        "stop": StopIteration(5),
        "cancelled": asyncio.CancelledError(),
        "generator": GeneratorExit(),
        "group": BaseExceptionGroup("g", [KeyboardInterrupt()]),
    }[kind]


@env.task
async def leaves(kind: str) -> None:
    _leave(kind)


@env.task
def leaves_sync(kind: str) -> None:
    _leave(kind)


@env.task
async def survives(kind: str) -> str:
    try:
        await leaves(kind)
    except Exception as error:
        return type(error).__name__
    return "nothing"


@env.task
def gives_a_lock() -> Any:
    return threading.Lock()


@env.task
def dies(code: int) -> None:
    os._exit(code)


# -- time ----------------------------------------------------------------------------------------------------


@env.task(timeout=0.15, retries=1)
async def overruns(folder: str) -> None:
    mark(folder, "began")
    await asyncio.sleep(PATIENCE)


@env.task(timeout=0.15, retries=1)
def overruns_sync(folder: str) -> None:
    mark(folder, "began")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not marked(folder, "leave"):
        time.sleep(0.005)


@env.task(timeout=Timeout(deadline=0.4), retries=100)
async def misses_its_deadline() -> None:
    await asyncio.sleep(0.03)
    raise ValueError("again")


@env.task
async def endless(folder: str) -> None:
    try:
        mark(folder, "began")
        await asyncio.sleep(PATIENCE)
    finally:
        mark(folder, "cleaned")


@env.task
def endless_sync(folder: str) -> None:
    mark(folder, "began")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not marked(folder, "leave"):
        time.sleep(0.005)


# -- families ----------------------------------------------------------------------------------------------------


@env.task
async def sums(n: int) -> int:
    return sum(await asyncio.gather(*[add(i) for i in range(n)]))


@env.task
def sums_sync(n: int) -> int:
    return sum(sub(i) for i in range(n))


@env.task
async def mixed(n: int) -> int:
    return sub(await add(n)) + await sums_sync.aio(n)


@env.task
def down(n: int) -> int:
    return 0 if n == 0 else 1 + down(n - 1)


@env.task
async def middle(n: int) -> int:
    return sum(await asyncio.gather(*[add(n + i) for i in range(3)])) + sub(n)


@env.task
async def top() -> int:
    return sum(await asyncio.gather(*[middle(n) for n in range(3)])) + sums_sync(3)


TOP = sum(3 * n + 3 + 3 + n - 1 for n in range(3)) + sum(i - 1 for i in range(3))


@env.task
async def impatient(folder: str) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            task = asyncio.ensure_future(endless(folder))
            while not marked(folder, "began"):  # noqa: ASYNC110 - by another attempt, perhaps in another process
                await asyncio.sleep(0.002)
            task.cancel()
            await task
    except asyncio.CancelledError:
        return f"cleaned {marked(folder, 'cleaned')}"
    return "nothing"


@env.task
async def catches() -> list[str]:
    found = await asyncio.gather(refuses(), refuses_sync.aio(), add(1), return_exceptions=True)
    return [type(each).__name__ for each in found]


@flyteish.trace
async def helper(folder: str, n: int) -> int:
    mark(folder, "helped")
    return n * 2


@env.task(retries=1)
async def traced(folder: str) -> int:
    value = await helper(folder, 4)
    if ctx().attempt == 1:
        raise ConnectionError("again")
    return value


# -- spot ----------------------------------------------------------------------------------------------------


@env.task(interruptible=True, retries=1)
async def trains(folder: str) -> tuple[int, int, int]:
    """Saves when its notice comes; goes on from there."""
    saved = await ctx().checkpoint.load_bytes()
    if saved is not None:
        return int(saved), ctx().attempt, ctx().generation
    notice = await ctx().interruption.wait()
    assert notice.kind == "terminate"
    await ctx().checkpoint.save(b"5")
    mark(folder, "saved")
    await asyncio.sleep(PATIENCE)
    return -1, -1, -1


@env.task(interruptible=True, retries=1)
def trains_sync(folder: str) -> tuple[int, int, int]:
    """The same, the old way: looks for the notice in its loop, and for the file that stands for it."""
    checkpoint = ctx().checkpoint
    saved = checkpoint.read()
    if saved is not None:
        return int(saved), ctx().attempt, ctx().generation
    deadline = time.monotonic() + PATIENCE
    while not ctx().interruption.pending and time.monotonic() < deadline:
        time.sleep(0.005)
    assert os.path.exists(flyteish.current.spot_termination_notice)
    checkpoint.write(b"5")
    mark(folder, "saved")
    while time.monotonic() < deadline and not marked(folder, "leave"):
        time.sleep(0.005)
    return -1, -1, -1


@env.task(interruptible=True, retries=1)
async def hurries() -> str:
    """Returns within its grace."""
    await ctx().interruption.wait()
    return f"generation {ctx().generation} on {ctx().medium}"


@env.task(interruptible=True, retries=1)
async def panics() -> tuple[int, int]:
    """Raises after its notice, the first time."""
    if ctx().generation == 1:
        await ctx().interruption.wait()
        raise ConnectionError("everything goes down")
    return ctx().attempt, ctx().generation


@env.task(interruptible=SpotPolicy(preemptions_without_progress=2), retries=3)
async def never_saves() -> tuple[str, int, int]:
    if ctx().medium == "spot":
        await asyncio.sleep(PATIENCE)
    return ctx().medium, ctx().attempt, ctx().generation


@env.task(
    interruptible=SpotPolicy(work=2.0, deadline_policy="uniform-progress"), retries=1, timeout=Timeout(deadline=60.0)
)
async def paced(steps: int) -> list[str]:
    """Saves each step with the medium it ran on, and leaves its machine when it is told to."""
    checkpoint = ctx().checkpoint
    data = await checkpoint.load_bytes()
    media = data.decode().split() if data else []
    while len(media) < steps:
        await asyncio.sleep(0.05)
        media.append(ctx().medium)
        await checkpoint.save(" ".join(media).encode(), progress=len(media) / steps)
        if ctx().interruption.pending:
            ctx().interruption.leave()
    return media
