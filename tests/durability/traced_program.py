"""The program that kills its controller right after it has seen the value of a traced helper, and says what it saw.

``python traced_program.py HOME NOTES ENGINE TASK`` starts the run, or resumes it where it is on record, and prints the
values of all draws. Each life but the last sees one value more than the one before it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import flyteish
from flyteish import Pool, Session, TaskEnvironment, errors
from tests.durability.program import note

DRAWS = 3
RUN = "traced"

env = TaskEnvironment(name="traced_program")


@flyteish.trace
def draw(number: int) -> float:
    return random.random()


@flyteish.trace
async def draw_async(number: int) -> float:
    await asyncio.sleep(0)
    return random.random()


def seen(number: int, value: float) -> None:
    """On disk first; then the controller is gone, if nobody has seen as much before."""
    notes = Path(os.environ["PROGRAM_NOTES"])
    before = {line.split()[1] for line in notes.read_text(encoding="utf-8").splitlines()}
    note("seen", number, repr(value))
    if str(number) not in before:
        os.kill(int(os.environ["PROGRAM_CONTROLLER"]), signal.SIGKILL)
        signal.pause()  # a worker's own end follows


@env.task
def blocking() -> list[float]:
    values = []
    for number in range(DRAWS):
        values.append(draw(number))
        seen(number, values[-1])
    return values


@env.task
async def awaiting() -> list[float]:
    values = []
    for number in range(DRAWS):
        values.append(await draw_async(number))
        seen(number, values[-1])
    return values


@env.task
async def mixed() -> list[float]:
    """A `def` helper in an `async def` task."""
    values = []
    for number in range(DRAWS):
        values.append(draw(number))
        seen(number, values[-1])
    return values


def main(home: str, engine: str, task: str) -> list[float]:
    with Session(pools=[Pool("only", engine=engine)], home=home) as session:
        root = env.tasks[f"traced_program.{task}"]
        try:
            handle = session.resume(RUN, root)
        except errors.RunNotFoundError:
            handle = session.with_runcontext(name=RUN).run(root)
        found: list[float] = handle.result()
        return found


if __name__ == "__main__":
    os.environ["PROGRAM_NOTES"] = sys.argv[2]
    os.environ["PROGRAM_CONTROLLER"] = str(os.getpid())
    Path(sys.argv[2]).touch()
    print(main(sys.argv[1], *sys.argv[3:]), flush=True)
