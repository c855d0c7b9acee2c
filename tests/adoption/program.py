"""The program whose controller is killed: a root over legs, each over two leaves of different kinds, beside a marathon
that lasts as long as the whole.

``python program.py HOME NOTES GATES RUN`` starts the run, or takes it up where it is on record, and prints the result.
Notes are lines of words, appended by whoever does something before anything follows from it. What may go on, and when,
is decided by whoever makes the gates (files); nothing here waits for luck.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import flyteish
from flyteish import Pool, Queue, TaskEnvironment, Timeout, ctx, errors

LEGS = 5
STEPS = 3
PATIENCE = 60.0
RESULT = sum(10 * leg + 1 + 10 * leg + 2 for leg in range(LEGS)) + sum(range(LEGS))
NOTES, GATES = "PROGRAM_NOTES", "PROGRAM_GATES"

env = TaskEnvironment(name="program", timeout=Timeout(max_runtime=10 * PATIENCE))


def note(*words: object) -> None:
    descriptor = os.open(os.environ[NOTES], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


def says(what: str, *words: object) -> None:
    """A note of the attempt that runs here."""
    note(what, ctx().action, ctx().generation, ctx().attempt, *words)


def is_open(gate: str) -> bool:
    return Path(os.environ[GATES], gate).exists()


def at_gate(gate: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_open(gate):
        assert time.monotonic() < deadline, f"nobody opened {gate}"
        time.sleep(0.003)


async def at_gate_too(gate: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_open(gate):
        assert time.monotonic() < deadline, f"nobody opened {gate}"
        await asyncio.sleep(0.003)


# -- leaves --------------------------------------------------------------------------------------------------------


@env.task
async def plain(leg: int, value: int) -> int:
    says("executed", os.getpid(), leg)
    await at_gate_too(f"leave-{leg}")
    says("leaves")
    return value


@env.task
def threaded(leg: int, value: int) -> int:
    says("executed", os.getpid(), leg)
    at_gate(f"leave-{leg}")
    says("leaves")
    return value


@env.task(retries=1)
async def flaky(leg: int, value: int) -> int:
    """Its first user attempt fails; that its controller was killed is no failure."""
    says("executed", os.getpid(), leg)
    await at_gate_too(f"leave-{leg}")
    says("leaves")
    if ctx().attempt == 1:
        raise ConnectionError("the first attempt")
    return value


@flyteish.trace
async def helper(step: int) -> int:
    says("traced", step)
    return step


@env.task
async def with_helpers(leg: int, value: int) -> int:
    says("executed", os.getpid(), leg)
    for step in range(STEPS):
        assert await helper(step) == step
    await at_gate_too(f"leave-{leg}")
    for step in range(STEPS, 2 * STEPS):
        assert await helper(step) == step
    says("leaves")
    return value


@env.task(retries=1)
async def with_checkpoints(leg: int, value: int) -> int:
    """Saves, fails once behind its second checkpoint, and goes on from there."""
    says("executed", os.getpid(), leg)
    saved = await ctx().checkpoint.load_bytes()
    begin = int(saved) if saved else 0
    says("restored", begin)
    for step in range(begin, 2 * STEPS):
        if step == STEPS:
            await at_gate_too(f"leave-{leg}")
            if ctx().attempt == 1:
                says("leaves")
                raise ConnectionError("in the middle")
        await ctx().checkpoint.save(str(step + 1).encode())
        says("saved", step + 1)
    says("leaves")
    return value


KINDS = (plain, threaded, flaky, with_helpers, with_checkpoints)
FAILURES = {"program.flaky": 1, "program.with_checkpoints": 1}


# -- parents -------------------------------------------------------------------------------------------------------


@env.task
async def leg(number: int) -> int:
    says("executed", os.getpid())
    await at_gate_too(f"start-{number}")
    one, other = KINDS[number % len(KINDS)], KINDS[(number + 2) % len(KINDS)]
    values = await asyncio.gather(delivered(one, number, 10 * number + 1), delivered(other, number, 10 * number + 2))
    says("leaves")
    return sum(values)


async def delivered(task: object, number: int, value: int) -> int:
    found: int = await task.aio(number, value)  # type: ignore[attr-defined]
    says("delivered", number, value, found)
    return found


@env.task
def marathon() -> int:
    """Lives through everything; asks its controller for something in every leg."""
    says("executed", os.getpid())
    total = 0
    for number in range(LEGS):
        at_gate(f"start-{number}")
        total += int(helper_sync(number))
        ctx().checkpoint.write(str(number).encode())
        says("saved", number)
    at_gate(f"leave-{LEGS - 1}")
    says("leaves")
    return total


@flyteish.trace
def helper_sync(step: int) -> int:
    says("traced", step)
    return step


@env.task
async def root() -> int:
    says("executed", os.getpid())
    long = asyncio.ensure_future(delivered_marathon())
    total = 0
    for number in range(LEGS):
        total += await delivered_leg(number)
    total += await long
    says("leaves")
    return total


async def delivered_marathon() -> int:
    found = await marathon.aio()
    says("delivered", "marathon", "-", found)
    return found


async def delivered_leg(number: int) -> int:
    found = await leg(number)
    says("delivered", "leg", number, found)
    return found


def main(home: str, run: str, address: str | None) -> int:
    from flyteish import Session  # here, for the attempts import this file too, and need neither
    from flyteish.testing import RemoteEngine

    engine = lambda: RemoteEngine(Path(home, "remote"), via=address, reconnect_seconds=PATIENCE)  # noqa: E731
    pools = [Pool("only", engine="remote", on_close="detach")]
    queues = [Queue("default", action_concurrency=4)]
    with Session(queues, pools, engines={"remote": engine}, home=home, recover="all") as session:
        try:
            handle = session.resume(run, root)
        except errors.RunNotFoundError:
            handle = session.with_runcontext(name=run).run(root)
        return handle.result()


if __name__ == "__main__":
    os.environ[NOTES], os.environ[GATES] = sys.argv[2], sys.argv[3]
    print(main(sys.argv[1], sys.argv[4], sys.argv[5]), flush=True)
