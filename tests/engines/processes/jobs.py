"""Tasks for the tests of engines; imported here and in worker processes."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import flyteish
from flyteish import ctx
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord
from flyteish._worker import messages as m
from flyteish.errors import NonRecoverableError

env = flyteish.TaskEnvironment(name="jobs")


class BadOrderError(ValueError):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number


def make(path: str) -> None:
    os.close(os.open(path, os.O_CREAT))


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task
async def adouble(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@env.task
def where() -> tuple[int, bool, str]:
    return os.getpid(), threading.current_thread() is threading.main_thread(), os.getcwd()


@env.task
def go_to(folder: str) -> None:
    os.chdir(folder)


@env.task
def big(size: int) -> bytes:
    return b"x" * size


@env.task
def fail() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        failure = BadOrderError(7, "too late")
        failure.add_note("while shipping")
        raise failure from error


@env.task
def give_up() -> None:
    raise NonRecoverableError("hopeless")


@env.task
def unserialisable() -> object:
    return threading.Lock()


@env.task
def leave(code: int) -> None:
    sys.exit(code)


@env.task
def interrupt() -> None:
    raise KeyboardInterrupt


@env.task
def drop_dead(code: int) -> None:
    os._exit(code)


@env.task
def kill_myself(number: int) -> None:
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
    time.sleep(60)


@env.task
def touch_and_hang(path: str) -> None:
    Path(path).touch()
    time.sleep(60)


@env.task
def wait_for(path: str) -> int:
    """Until somebody makes the file."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return os.getpid()


@env.task
def tidy(entered: str, path: str) -> None:
    try:
        Path(entered).touch()
        time.sleep(60)
    finally:
        Path(path).touch()


@env.task
def stubborn(entered: str) -> None:
    while True:
        try:
            Path(entered).touch()
            time.sleep(60)
        except BaseException:
            pass


@env.task
async def asleep(entered: str, path: str) -> None:
    try:
        make(entered)
        await asyncio.sleep(60)
    finally:
        make(path)


@env.task
async def cancels_itself() -> None:
    raise asyncio.CancelledError("my own")


@env.task
async def returns_when_cancelled(entered: str) -> str:
    try:
        make(entered)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "partial"
    return "whole"


@env.task
async def saves_on_notice() -> str:
    notice = await ctx().interruption.wait()
    await ctx().checkpoint.save(b"half way", progress=0.5)
    await asyncio.sleep(60)
    return notice.kind


@env.task
def returns_on_notice() -> str:
    notice = ctx().interruption.wait_sync(60)
    assert notice is not None
    return f"{notice.kind} by {notice.source}"


@env.task
def variable(name: str) -> str | None:
    return os.environ.get(name)


@env.task
def speak(words: str) -> None:
    print(words)
    print(words, "in part", end="")
    logging.getLogger("jobs").warning("logged %s", words)
    os.write(1, b"written\n")
    subprocess.run(["echo", "by a child"], check=True)


@env.task
def mute() -> None:
    pass


@env.task
def parent(x: int) -> int:
    return double(x) + 1


@env.task
def many_calls(count: int) -> list[int]:
    return [double(x) for x in range(count)]


@env.task
async def aparent(x: int) -> int:
    return await double.aio(x) + 1


@env.task
async def impatient(x: int) -> str:
    try:
        async with asyncio.timeout(0.05):
            await double.aio(x)
    except TimeoutError:
        return "gave up"
    return "got it"


@env.task
def forge(what: str) -> str:
    """Says something that no worker says."""
    link: Any = ctx().link
    connection = link._send.__self__
    mine = ctx().order.key
    record = CheckpointRecord(1, mine.generation, f"sha256:{0:064}", "bytes", 1, 0.0, space="r1/somebody-else")
    other = AttemptKey(mine.run, "somebody-else", 1)
    messages: dict[str, Any] = {
        "another's checkpoint": m.Checkpointed(mine, 1, record),
        "another's end": m.Ended(other, WorkerEvidence(stopped=True), 0.0),
        "no number": m.Ended(mine, WorkerEvidence(stopped=True), math.nan),
        "ready again": m.Ready(),
        "what was not asked": m.Recalled([other]),
    }
    if what in messages:
        connection.send(messages[what])
    else:
        frame = struct.pack(">IQQ", 1, 4, 0) + b"\x90"  # after ready, taken, began
        data = {"garbage": b"{'json': true}" * 2, "a huge frame": b"\xff" * 20, "an unknown message": frame}
        connection.sock.sendall(data[what])
    time.sleep(60)
    return "nobody noticed"


@flyteish.trace
def draw(number: int) -> int:
    return number


@flyteish.trace
async def draw_async(number: int) -> int:
    return number


@env.task
def draws() -> list[float]:
    """When the value was drawn, and when it was seen, on the machine's clock."""
    return [time.monotonic(), draw(1), time.monotonic()]


@env.task
async def draws_async() -> list[float]:
    return [time.monotonic(), await draw_async(1), time.monotonic()]


@env.task
def start_child(path: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(path).with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid}")
    Path(path).with_suffix(".tmp").rename(path)
    time.sleep(60)


def plain(x: int) -> int:
    return x


renamed = env.task(plain)
