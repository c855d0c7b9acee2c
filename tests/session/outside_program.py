"""A program of its own for the tests beside it: ``python program.py WHAT HOME``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import flyteish
from flyteish import Pool, Queue, Session

env = flyteish.TaskEnvironment(name="program")


class Plain:
    """Nothing but cloudpickle carries it."""

    def __init__(self, number: int) -> None:
        self.number = number


@env.task
def plain(number: int) -> Plain:
    return Plain(number)


@env.task
def take(value: object) -> None:
    """Does nothing with it."""


@env.task
def give() -> object:
    return Plain(1)


@env.task
async def pass_on() -> None:
    await take.aio(Plain(1))


@env.task
def notice_file() -> str:
    return flyteish.current.spot_termination_notice


@env.task
def hoard(ready: str) -> None:
    """Uses its private folder in every way, and is never done."""
    attempt = flyteish.ctx()
    attempt.checkpoint.write(b"weights")
    assert attempt.checkpoint.load_sync() is not None
    assert not os.path.exists(flyteish.current.spot_termination_notice)
    Path(ready).touch()
    time.sleep(600)


@env.task
def leave_a_child(told: str) -> None:
    """Starts a process and forgets it."""
    child = subprocess.Popen(["sleep", "600"])
    child.returncode = 0  # so that nobody warns: it is left on purpose
    Path(told).write_text(str(child.pid))


def main(what: str, home: Path) -> None:
    with Session([Queue("default")], [Pool("machines", engine="processes")], home=home) as session:
        if what == "plain":
            print(session.run(plain, 7).result(60).number, flush=True)
        elif what == "child":
            session.run(leave_a_child, str(home / "child")).result(60)
        elif what == "killed":
            session.run(hoard, str(home / "ready"))
            while not (home / "ready").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
