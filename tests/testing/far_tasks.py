"""Tasks for attempts that outlive their session; what they tell and wait for are files."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from flyteish import TaskEnvironment, ctx

env = TaskEnvironment(name="far")
PATIENCE = 30.0


def mark(folder: str, name: str, text: str = "x") -> None:
    with open(os.path.join(folder, name), "a") as file:
        file.write(f"{text}\n")


def marks(folder: str | Path, name: str) -> list[str]:
    path = Path(folder, name)
    return path.read_text().splitlines() if path.exists() else []


async def until(folder: str, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not marks(folder, name):
        assert time.monotonic() < deadline, f"nobody opened {name}"
        await asyncio.sleep(0.003)


@env.task
async def waits(folder: str, value: int = 7) -> int:
    mark(folder, "began", str(os.getpid()))
    print("before the gate", flush=True)
    await until(folder, "gate")
    print("behind the gate", flush=True)
    return value


@env.task(timeout=2.0)
async def overruns(folder: str) -> None:
    mark(folder, "began", str(os.getpid()))
    await until(folder, "gate")


@env.task
async def parent(folder: str) -> int:
    mark(folder, "parent", str(os.getpid()))
    return sum(await asyncio.gather(waits(folder, 1), waits(folder, 2)))


@env.task
def hears_nothing(folder: str) -> None:
    """Lets nobody stop it."""
    mark(folder, "began", str(os.getpid()))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            time.sleep(0.01)
        except BaseException:
            mark(folder, "asked")


@env.task(secrets="far-secret")
def whispers(folder: str) -> tuple[int, bool]:
    mark(folder, "began", str(os.getpid()))
    secret = os.environ["FAR_SECRET"]
    process = Path("/proc/self")
    started = (process / "environ").read_bytes() + (process / "cmdline").read_bytes() if process.is_dir() else b""
    return len(secret), secret.encode() in started


@env.task
def add(x: int) -> int:
    return x + 1


@env.task(interruptible=True, retries=1)
async def leaves(folder: str) -> tuple[int, int]:
    """Goes when it is told that its machine goes."""
    mark(folder, "began", str(os.getpid()))
    if ctx().generation == 1:
        notice = await ctx().interruption.wait()
        mark(folder, "noticed", notice.kind)
        await until(folder, "gate")
        ctx().interruption.leave()
    return ctx().attempt, ctx().generation
