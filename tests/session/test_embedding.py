"""Sessions inside other programs: notebooks, web apps, scripts, threads, and programs that end or are interrupted.

The programs are real: an IPython, an ASGI app with its lifespan, scripts in processes of their own with warnings as
errors and ``-X dev``, so that a thread, a task or a file that is left behind shows.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import flyteish
from flyteish import Session, TaskEnvironment, _in_use, errors
from flyteish.stores.sqlite import SqliteStore

PATIENCE = 30.0
"""Seconds that a program may need at most on a busy machine."""
PROMPT = 5.0
"""Seconds within which an interrupted program is gone; what it cleans up takes none."""

env = TaskEnvironment(name="embedding")


@env.task
async def add_one(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task
async def endless() -> None:
    await asyncio.sleep(600)


# -- programs ----------------------------------------------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join(each for each in sys.path if each)
    return {**os.environ, "PYTHONPATH": path, "FLYTEISH_HOME": str(home)}


def script(folder: Path, text: str, *more: str) -> list[str]:
    file = folder / "program.py"
    file.write_text(textwrap.dedent(text))
    return [sys.executable, "-W", "error", "-X", "dev", str(file), *more]


def outcome(command: list[str], home: Path) -> str:
    """What the program printed; it ended by itself, in order, and complained of nothing."""
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    return done.stdout.strip()


def complaints(stderr: str) -> list[str]:
    """What a program complained of; that a step took long on a busy machine, as ``-X dev`` has asyncio say, is none."""
    return [line for line in stderr.splitlines() if not (line.startswith("Executing <") and " took " in line)]


TASKS = """
    import asyncio, signal, sys, threading, time
    import flyteish
    from flyteish import Session, TaskEnvironment, ctx

    env = TaskEnvironment(name="script")

    @env.task
    async def child(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @env.task
    def plain(x: int) -> int:
        return 2 * x

    @env.task
    async def root(x: int) -> int:
        return plain(await child(x))

    @env.task
    async def finished(x: int) -> int:
        print("finished ran", flush=True)
        return x

    @env.task
    async def steps() -> int:
        saved = await ctx().checkpoint.load_bytes()
        if saved:
            return int(saved)
        await ctx().checkpoint.save(b"7")
        print("waiting", flush=True)
        await asyncio.sleep(600)
        return 0

    @env.task
    async def long() -> int:
        return await finished(1) + await steps()

    @env.task
    def blocked() -> int:
        print("waiting", flush=True)
        time.sleep(600)
        return 0
"""


def test_a_plain_script_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """No session object, no loop, no closing: the program ends when its last line has run, without a warning."""
    command = script(tmp_path, TASKS + "    print(flyteish.run(root, x=1).result(20))")
    began = time.monotonic()
    assert outcome(command, tmp_path / "home") == "4"
    assert time.monotonic() - began < PROMPT
    row = SqliteStore(tmp_path / "home" / "flyteish.db").runs()[0]
    assert (row.phase, SqliteStore(tmp_path / "home" / "flyteish.db").owner()) == ("succeeded", None)


@pytest.mark.parametrize(
    "body",
    [
        "asyncio.run(main())",
        "asyncio.run(main()); asyncio.run(main())",
        "thread = threading.Thread(target=lambda: asyncio.run(main())); thread.start(); thread.join()",
    ],
    ids=["once", "two loops, one session", "in a thread"],
)
def test_an_asyncio_program_ends_at_once_and_leaves_nothing(tmp_path: Path, body: str) -> None:
    """Also where one default session serves several loops, one after the other."""
    main = """
    async def main():
        assert await flyteish.run(root, x=1) == 4
        assert await asyncio.gather(*[flyteish.run(root, x=n) for n in range(3)]) == [2, 4, 6]
        print("done")

    """
    printed = outcome(script(tmp_path, TASKS + main + body), tmp_path / "home")
    assert set(printed.splitlines()) == {"done"}


def test_a_session_that_nobody_closes_keeps_no_program_from_ending(tmp_path: Path) -> None:
    """Its threads are daemons; its claim on the store goes with the process."""
    body = "    session = Session(home=sys.argv[1])\n    print(session.run(root, x=1).result(20))"
    home = tmp_path / "home"
    file = script(tmp_path, TASKS + body, str(home))
    done = subprocess.run(file, env=environment(home), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "4\n")
    with Session(home=home) as session:
        assert session.run(double, x=1).result(20) == 2


# -- programs that end in the middle -----------------------------------------------------------------------------

MAINS = {
    "default session, awaited": """
    async def main():
        await flyteish.run({task})
    asyncio.run(main())
    """,
    "async with": """
    async def main():
        async with Session(home=sys.argv[1]) as session:
            await session.run({task})
    asyncio.run(main())
    """,
    "no loop": """
    flyteish.run({task}).wait()
    """,
    "with": """
    with Session(home=sys.argv[1]) as session:
        session.run({task}).wait()
    """,
}


def resumed(home: Path, folder: Path) -> tuple[str, Any]:
    """The program's one run, resumed by another program: what that one printed, and the run's record."""
    (folder / "resume").mkdir(exist_ok=True)
    body = """
    with Session(home=sys.argv[1]) as session:
        print(session.resume(sys.argv[2], long).result(20))
    """
    (run,) = SqliteStore(home / "flyteish.db").runs()
    # The same source, so that a task's identity is what it was.
    printed = outcome(script(folder / "resume", TASKS + body, str(home), run.run), home)
    from flyteish._core.replay import record_of

    return printed, record_of(run.run, [entry for _, entry in SqliteStore(home / "flyteish.db").read(run.run)])


@pytest.mark.parametrize("main", MAINS.values(), ids=MAINS)
def test_ctrl_c_ends_a_program_promptly_and_its_run_can_be_resumed(tmp_path: Path, main: str) -> None:
    """Finished children are not run again, checkpoints are there, and nobody pays for the interruption."""
    home = tmp_path / "home"
    interrupt(script(tmp_path, TASKS + main.format(task="long"), str(home)), home)
    printed, record = resumed(home, tmp_path)
    assert printed == "8", "the checkpoint was lost, or a finished child ran again"
    for action in record.actions.values():
        assert (action.user_attempt, action.system_used) == (1, 0), f"{action!r} paid for the interruption"


def test_ctrl_c_does_not_wait_for_a_def_task(tmp_path: Path) -> None:
    """Its thread can't be stopped, and must not keep the program."""
    home = tmp_path / "home"
    interrupt(script(tmp_path, TASKS + MAINS["default session, awaited"].format(task="blocked")), home)


def interrupt(command: list[str], home: Path) -> None:
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        try:
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert time.monotonic() - began < PROMPT
    assert complaints(said)[-1] == "KeyboardInterrupt", said
    assert "never awaited" not in said
    assert "was destroyed but it is pending" not in said


def test_a_program_may_end_while_its_run_goes_on(tmp_path: Path) -> None:
    """``asyncio.run`` cancels what is left on the loop: to the run that is no decision of anybody's."""
    main = """
    async def main():
        flyteish.run(long)
        await asyncio.sleep(0.3)
    asyncio.run(main())
    """
    home = tmp_path / "home"
    began = time.monotonic()
    assert outcome(script(tmp_path, TASKS + main), home).splitlines() == ["finished ran", "waiting"]
    assert time.monotonic() - began < PROMPT
    printed, _ = resumed(home, tmp_path)
    assert printed == "8"


def test_a_run_goes_on_after_its_loop_in_a_program_that_does(tmp_path: Path) -> None:
    """Who started it on a loop that has ended can still wait for it: its attempts start again on the session's own."""
    main = """
    async def main():
        handle = flyteish.run(long)
        await asyncio.sleep(0.3)
        return handle
    print(asyncio.run(main()).result(20))
    """
    printed = outcome(script(tmp_path, TASKS + main), tmp_path / "home")
    assert printed.splitlines() == ["finished ran", "waiting", "8"]


def test_a_run_goes_on_after_a_loop_that_was_closed_without_a_word(tmp_path: Path) -> None:
    """A loop that is closed with its tasks pending never says that they are gone; they are found missing."""
    loop = asyncio.new_event_loop()
    began = threading.Event()
    times: list[int] = []

    @env.task
    async def forgotten() -> int:
        times.append(1)
        began.set()
        if len(times) == 1:
            await asyncio.sleep(600)
        return len(times)

    async def main(session: Session) -> Any:
        handle = session.run(forgotten)
        while not began.is_set():  # noqa: ASYNC110 - the task runs on this very loop
            await asyncio.sleep(0.001)
        return handle

    with Session(durability="memory") as session:
        handle = loop.run_until_complete(main(session))
        left = asyncio.all_tasks(loop)
        loop.close()
        assert handle.result(PATIENCE) == 2
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # what asyncio says of it is not the subject


# -- notebooks -------------------------------------------------------------------------------------------------------


def test_top_level_await_in_ipython(tmp_path: Path) -> None:
    """A cell awaits a run; tasks are defined in cells, and defined anew; blocking on the cell's own loop is refused."""
    file = tmp_path / "cells.ipy"
    file.write_text(
        textwrap.dedent(
            """
            import flyteish
            env = flyteish.TaskEnvironment(name="cells")

            @env.task
            async def hello(name: str) -> str:
                return f"hello {name}"

            @env.task
            def shout(text: str) -> str:
                return text.upper()

            @env.task
            async def both(name: str) -> str:
                return shout(await hello(name))

            print(await flyteish.run(both, name="a"))
            run = flyteish.run(both, name="b")
            await run
            print(run.outputs())
            async def impatient():
                try:
                    flyteish.run(both, name="c").wait()
                except RuntimeError as error:
                    print("use `await run`" in str(error))
            await impatient()
            """
        )
    )
    ipython = [sys.executable, "-m", "IPython", "--quick", "--colors=NoColor", "--HistoryManager.enabled=False"]
    environ = {**environment(tmp_path / "home"), "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run([*ipython, str(file)], env=environ, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.stdout.splitlines() == ["HELLO A", "('HELLO B',)", "True"], done.stdout + done.stderr
    assert done.returncode == 0


# -- a web app --------------------------------------------------------------------------------------------------------


async def test_a_fastapi_app_with_a_session_and_loop_bound_clients() -> None:
    """The lifespan opens session, client and lock; requests start runs whose tasks use them on the app's own loop."""
    web = TaskEnvironment(name="web")
    state: dict[str, Any] = {}

    @web.task
    async def asks_the_app(n: int) -> int:
        async with state["lock"]:
            reply = await state["client"].get(f"/double/{n}")
        assert asyncio.get_running_loop() is state["loop"]
        return int(reply.json())

    @web.task
    async def adds(numbers: list[int]) -> int:
        return sum(await asyncio.gather(*[asks_the_app(n) for n in numbers]))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        transport = httpx.ASGITransport(app)
        async with (
            Session(durability="memory") as session,
            httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            state.update(session=session, client=client, lock=asyncio.Lock(), loop=asyncio.get_running_loop())
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/double/{n}")
    async def double_of(n: int) -> int:
        return 2 * n

    @app.get("/sum/{most}")
    async def sum_to(most: int) -> int:
        total: int = await state["session"].run(adds, numbers=list(range(most)))
        return total

    async with app.router.lifespan_context(app), asyncio.timeout(PATIENCE):
        replies = await asyncio.gather(*[state["client"].get(f"/sum/{n}") for n in (3, 10)])
        assert [reply.json() for reply in replies] == [6, 90]
    with pytest.raises(errors.SessionClosedError):
        state["session"].run(adds, numbers=[1])


async def test_entered_in_one_context_and_left_in_another() -> None:
    """As async fixtures and some frameworks' start-up do: leaving closes the session all the same."""
    session = Session(durability="memory")
    await asyncio.create_task(session.__aenter__(), context=contextvars.Context())
    assert await session.run(add_one, x=1) == 2
    await asyncio.create_task(session.__aexit__(None, None, None), context=contextvars.Context())
    with pytest.raises(errors.SessionClosedError):
        session.run(add_one, x=1)


# -- sessions, loops and threads -----------------------------------------------------------------------------------


async def test_closing_a_session_from_the_loop_its_tasks_run_on_is_prompt() -> None:
    """``close`` blocks the loop, so the attempts there clean up right afterwards."""
    cleaned = asyncio.Event()
    begun = asyncio.Event()

    @env.task
    async def careful() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            cleaned.set()

    session = Session(durability="memory").open()
    run = session.run(careful)
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        began = time.monotonic()
        session.close()
        assert time.monotonic() - began < PROMPT / 2
        with pytest.raises(errors.SessionClosedError, match=run.name):
            await run
        await cleaned.wait()


async def test_closing_does_not_wait_for_parents_that_wait_for_children() -> None:
    """Parent and child are told together; neither waits for the other."""
    begun = asyncio.Event()
    seen: list[str] = []

    @env.task
    async def child() -> None:
        begun.set()
        await asyncio.sleep(600)

    @env.task
    async def family() -> None:
        try:
            await child()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    async with asyncio.timeout(PATIENCE):
        async with Session(durability="memory") as session:
            run = session.run(family)
            await begun.wait()
            began = time.monotonic()
        assert time.monotonic() - began < PROMPT / 2
        with pytest.raises(errors.SessionClosedError):
            await run
    assert seen == ["CancelledError"], "the end of the session is no failure of the child"


def test_a_session_in_a_thread_and_another_in_this_one() -> None:
    """Each with its own controller; handles may be waited for in any thread."""
    handles: list[Any] = []
    ready, leave = threading.Event(), threading.Event()

    def other() -> None:
        with Session(durability="memory") as session:
            handles.append(session.run(double, x=4))
            ready.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(PATIENCE)
    with Session(durability="memory") as mine:
        assert mine.run(add_one, x=1).result(PATIENCE) == 2
        assert handles[0].result(PATIENCE) == 8
    leave.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_several_sessions_close_without_leaving_threads() -> None:
    """Ten sessions later there are as many threads as before."""
    before = set(threading.enumerate())
    for _ in range(10):
        with Session(durability="memory") as session:
            assert session.run(add_one, x=1).result(PATIENCE) == 2
            assert session.run(double, x=1).result(PATIENCE) == 2
    deadline = time.monotonic() + PATIENCE
    while set(threading.enumerate()) - before:
        left = set(threading.enumerate()) - before
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.005)


async def test_a_run_inside_a_task_is_a_run_of_its_own() -> None:
    """``flyteish.run`` inside a task uses the task's session; the new run has its own name and record."""

    @env.task
    async def starts_another() -> tuple[str, str, int]:
        inner = flyteish.run(add_one, x=1)
        return flyteish.ctx().run, inner.name, await inner

    async with Session(durability="memory") as session, asyncio.timeout(PATIENCE):
        run = session.run(starts_another)
        outer, inner, value = await run
    assert (outer, value) == (run.name, 2)
    assert inner != outer
    assert len(run.actions()) == 1


def test_a_run_may_be_waited_for_in_a_def_task() -> None:
    """It has a thread of its own to block; the run that it waits for goes on elsewhere."""

    @env.task
    def waits_for_another() -> int:
        return flyteish.run(add_one, x=1).result(PATIENCE)

    with Session(durability="memory") as session:
        assert session.run(waits_for_another).result(PATIENCE) == 2


async def test_blocking_on_the_loop_that_a_run_needs_is_refused_clearly() -> None:
    """``run.wait()`` there could never end, so it raises and names the cure; on another thread it is fine."""
    async with Session(durability="memory") as session, asyncio.timeout(PATIENCE):
        run = session.run(add_one, x=1)
        with pytest.raises(RuntimeError, match=r"would block the event loop.*use `await run`"):
            run.wait(PATIENCE)
        assert await asyncio.to_thread(run.result, PATIENCE) == 2
        assert run.result() == 2  # it is over: nothing is waited for


async def test_closing_a_session_inside_its_own_task() -> None:
    """The task's own run is answered, nothing hangs."""
    session = Session(durability="memory").open()

    @env.task
    async def closes() -> None:
        await asyncio.to_thread(session.close)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(errors.SessionClosedError):
            await session.run(closes)
        with pytest.raises(errors.SessionClosedError):
            session.run(add_one, x=1)


async def test_cancelling_the_await_of_a_handle_leaves_the_run_alone() -> None:
    """A handle may be awaited again, and by several."""
    async with Session(durability="memory") as session, asyncio.timeout(PATIENCE):
        gate = asyncio.Event()

        @env.task
        async def gated() -> str:
            await gate.wait()
            return "through"

        run = session.run(gated)
        waiting = asyncio.ensure_future(run)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        assert set(await asyncio.gather(run, run)) == {"through"}


def test_init_twice_closes_the_session_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one serves; the same home is free again, and its runs are there."""
    monkeypatch.setattr(_in_use, "_default", [])  # this test's own: other tests are other programs
    first = flyteish.init(home=tmp_path)
    run = flyteish.run(add_one, x=1)
    assert run.result(PATIENCE) == 2
    second = flyteish.init(home=tmp_path)
    try:
        with pytest.raises(errors.SessionClosedError):
            first.run(add_one, x=1)
        assert flyteish.run(add_one, x=2).result(PATIENCE) == 3
        assert second.resume(run.name, add_one).result(PATIENCE) == 2
    finally:
        second.close()


async def test_a_cancelled_entry_leaves_no_open_session(tmp_path: Path) -> None:
    """Whoever is cancelled while the session opens, on its own thread, does not leave the store claimed."""
    session = Session(home=tmp_path)
    entering = asyncio.ensure_future(session.__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert SqliteStore(tmp_path / "flyteish.db").owner() is None
    async with Session(home=tmp_path) as again:
        assert await again.run(add_one, x=1) == 2
