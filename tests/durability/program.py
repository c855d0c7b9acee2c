"""The program that is killed: a root over four parents over eight children each, and notes of all that they do.

``python program.py HOME NOTES RUN ENGINE`` starts the run, or resumes it where it is on record, and prints the result.
Notes are lines of words, appended and synced: executions, traced calls and deliveries, before anything follows.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import flyteish
from flyteish import Pool, Queue, Session, TaskEnvironment, ctx, errors

PARENTS = 4
CHILDREN = 8
STEPS = 4
RESULT = sum(100 * i + j for i in range(PARENTS) for j in range(CHILDREN))

env = TaskEnvironment(name="program")


def note(*words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    descriptor = os.open(os.environ["PROGRAM_NOTES"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def executed() -> None:
    note("executed", ctx().action, ctx().generation, ctx().attempt)


@env.task
async def plain(i: int, j: int) -> int:
    executed()
    await asyncio.sleep(0.01)
    return 100 * i + j


@env.task
def threaded(i: int, j: int) -> int:
    executed()
    time.sleep(0.01)
    return 100 * i + j


@env.task(retries=2)
async def flaky(i: int, j: int) -> int:
    """Its first user attempt fails; being killed with the program is not one."""
    executed()
    await asyncio.sleep(0.005)
    if ctx().attempt == 1:
        raise ConnectionError("the first attempt")
    return 100 * i + j


@flyteish.trace
async def helper(step: int) -> int:
    note("traced", ctx().action, step)
    await asyncio.sleep(0.003)
    return step


@env.task
async def with_helpers(i: int, j: int) -> int:
    executed()
    for step in range(STEPS):
        assert await helper(step) == step
    return 100 * i + j


@env.task
async def with_checkpoints(i: int, j: int) -> int:
    saved = await ctx().checkpoint.load_bytes()
    begin = int(saved) if saved else 0
    executed()
    note("restored", ctx().action, begin)
    for step in range(begin, STEPS):
        await asyncio.sleep(0.003)
        await ctx().checkpoint.save(str(step + 1).encode())
    return 100 * i + j


KINDS = (plain, threaded, flaky, with_helpers, with_checkpoints)


@env.task
async def parent(i: int) -> int:
    executed()
    return sum(await asyncio.gather(*[delivered(i, j) for j in range(CHILDREN)]))


async def delivered(i: int, j: int) -> int:
    value = await KINDS[(i + j) % len(KINDS)].aio(i, j)
    note("delivered", ctx().action, ctx().generation, i, j, value)
    return value


@env.task
async def root() -> int:
    executed()
    return sum(await asyncio.gather(*[parent(i) for i in range(PARENTS)]))


def main(home: str, run: str, engine: str) -> int:
    with Session([Queue("default", action_concurrency=3)], [Pool("only", engine=engine)], home=home) as session:
        try:
            handle = session.resume(run, root)
        except errors.RunNotFoundError:
            handle = session.with_runcontext(name=run).run(root)
        return handle.result()


if __name__ == "__main__":
    os.environ["PROGRAM_NOTES"] = sys.argv[2]
    Path(sys.argv[2]).touch()
    print(main(sys.argv[1], *sys.argv[3:]), flush=True)
