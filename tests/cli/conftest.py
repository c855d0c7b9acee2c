"""The command line in this process, and as a program of its own, each with files of tasks to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flyteish.cli import main

SRC = Path(__file__).resolve().parents[2] / "src"

FLOWS = '''
import asyncio, sys, time
from dataclasses import dataclass
from enum import Enum
import flyteish
from flyteish import TaskEnvironment, Timeout
import steps

env = TaskEnvironment(name="flows")

class Colour(Enum):
    RED = "r"
    BLUE = "b"

@dataclass
class Settings:
    rate: float
    layers: list[int]

@env.task(interruptible=True, retries=2)
async def square(x: int) -> int:
    return steps.square(x)

@env.task
async def main(data: list[int], dry_run: bool = False, colour: Colour = Colour.RED) -> int:
    """Add the squares."""
    print("adding")
    return sum(await asyncio.gather(*[square(x) for x in data]))

@env.task
async def echo(value: Settings) -> Settings:
    return value

@env.task
async def fail(why: str = "no reason") -> None:
    raise ValueError(why)

@env.task(timeout=Timeout(deadline=0.05))
async def late() -> None:
    await asyncio.sleep(60)

@env.task
async def wait_for(path: str) -> str:
    while not steps.exists(path):
        await asyncio.sleep(0.01)
    return "it came"

@env.task
async def first_then_wait(path: str) -> str:
    counted = await note(path)
    return await wait_for(path) + f" after {counted}"

@env.task
async def note(path: str) -> int:
    with open(path + ".notes", "a") as file:
        file.write("note\\n")
    return 1

@env.task
async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("not now", file=sys.stderr, flush=True)

if __name__ == "__main__":
    raise RuntimeError("the file is not run as a program")
'''
STEPS = """
import os
def square(x): return x * x
def exists(path): return os.path.exists(path)
"""


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The command line in this process; its working directory is empty but for what the test puts there."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A file with tasks, not a Python name, beside a module that it imports."""
    file = tmp_path / "project" / "my-flows.py"
    file.parent.mkdir()
    file.write_text(FLOWS)
    (file.parent / "steps.py").write_text(STEPS)
    return file


class Program:
    """``python -m flyteish ...`` whose lines can be waited for, without sleeping."""

    def __init__(self, folder: Path, *argv: object, **variables: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1", **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "flyteish", *map(str, argv)],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, name="stderr of a program", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._over = True
            self._more.notify_all()

    def line(self, text: str, seconds: float = 30) -> str:
        """The first line of standard error with this text, waited for."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._more:
            assert self._more.wait_for(lambda: found() is not None or self._over, seconds), self.lines
            line = found()
        assert line is not None, self.lines
        return line

    def run_name(self) -> str:
        """The name of the run that it began."""
        return self.line("run r").split()[1]

    def signal(self, number: signal.Signals) -> float:
        """Send it; returns when."""
        self.process.send_signal(number)
        return time.monotonic()

    def end(self, seconds: float = 30) -> Said:
        """Wait for its end."""
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return Said(code, out, "\n".join(self.lines))

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start the command line as a program; it is gone when the test is over."""
    started: list[Program] = []

    def start(*argv: object, **variables: str) -> Program:
        started.append(Program(tmp_path, *argv, **variables))
        return started[-1]

    yield start
    for each in started:
        each.clean_up()
