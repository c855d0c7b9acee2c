"""Tasks for the tests of engines; imported here and in worker processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import flyteish
from flyteish import ctx
from flyteish.errors import NonRecoverableError

env = flyteish.TaskEnvironment(name="jobs")


class BadOrderError(ValueError):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number


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
def tidy(path: str) -> None:
    try:
        time.sleep(60)
    finally:
        Path(path).touch()


@env.task
def stubborn(path: str) -> None:
    while True:
        try:
            time.sleep(60)
        except BaseException:
            Path(path).touch()


@env.task
async def asleep(path: str) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        os.close(os.open(path, os.O_CREAT))


@env.task
async def cancels_itself() -> None:
    raise asyncio.CancelledError("my own")


@env.task
async def returns_when_cancelled() -> str:
    try:
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
def start_child(path: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(path).with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid}")
    Path(path).with_suffix(".tmp").rename(path)
    time.sleep(60)


def plain(x: int) -> int:
    return x


renamed = env.task(plain)
