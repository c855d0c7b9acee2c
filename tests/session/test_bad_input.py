"""What people get wrong, and what machines do: each is one clear error, nothing is lost and nothing hangs.

Through the public API only. A session that refused something goes on with everything else.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from flyteish import Backoff, Pool, Queue, Resources, RetryStrategy, Session, TaskEnvironment, Timeout, errors
from flyteish.config import load_config
from flyteish.stores.sqlite import SqliteStore

PATIENCE = 20.0
env = TaskEnvironment(name="bad_input")


@env.task
async def trivial(x: int = 1) -> int:
    return x


@env.task
async def echo(data: bytes) -> bytes:
    return data


@env.task
async def makes(size: int) -> bytes:
    return b"x" * size


@env.task
async def parent_of_makes(size: int) -> int:
    return len(await makes(size))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(home=tmp_path / "home") as opened:
        yield opened
        assert opened.run(trivial, x=7).result(PATIENCE) == 7, "the session was harmed"


# -- names and settings ------------------------------------------------------------------------------------------


def test_an_unknown_queue_is_refused_and_the_known_ones_are_named(session: Session) -> None:
    """Wherever it was named: environment, task, override or run; the handle raises, and nothing is on record."""
    at_environment = TaskEnvironment(name="typo_env", queue="gpuu")

    @at_environment.task
    async def lost() -> None: ...

    @env.task
    async def calls() -> str:
        try:
            await trivial.override(queue="gpuu")()
        except errors.UnknownQueueError as error:
            return str(error)
        return "accepted"

    for run in (
        session.run(lost),
        session.run(trivial.override(queue="gpuu")),
        session.with_runcontext(queue="gpuu").run(trivial),
    ):
        with pytest.raises(errors.UnknownQueueError, match=r"'gpuu'.*known queues: default"):
            run.result(PATIENCE)
        assert run.phase == "refused"
        with pytest.raises(errors.RunNotFoundError):
            session.resume(run.name, trivial)
    assert "known queues: default" in session.run(calls).result(PATIENCE)


def settings() -> list[Any]:
    """Each level that takes settings, as a function of them."""
    return [
        pytest.param(lambda **said: TaskEnvironment(name="wrong", **said), id="environment"),
        pytest.param(lambda **said: env.task(**said)(lambda: None), id="task"),
        pytest.param(lambda **said: trivial.override(**said), id="override"),
        pytest.param(lambda **said: Session(defaults=said), id="session"),
        pytest.param(lambda **said: Session([Queue("q", defaults=said)]), id="queue"),
    ]


@pytest.mark.parametrize("level", settings())
@pytest.mark.parametrize(
    "said, message",
    [
        ({"retries": -1}, r"retries.*-1"),
        ({"retries": "many"}, r"retries.*'many'"),
        ({"retries": True}, r"retries.*True"),
        ({"timeout": -5}, r"timeout.*-5"),
        ({"timeout": timedelta(seconds=-5)}, r"timeout"),
        ({"timeout": "soon"}, r"timeout.*'soon'"),
        ({"interruptible": "yes"}, r"interruptible.*'yes'"),
        ({"priority": 0}, r"priority.*0"),
        ({"priority": "urgent"}, r"priority.*'urgent'"),
        ({"resources": 4}, r"resources.*4"),
        ({"env_vars": {"A": 1}}, r"env_vars"),
        ({"queue": 3}, r"queue.*3"),
        ({"cache": "sometimes"}, r"cache.*'sometimes'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_where_it_is_written(level: Any, said: dict[str, Any], message: str) -> None:
    """With the parameter, the value and what is accepted; nothing is opened, and no worker ever sees it."""
    with pytest.raises(errors.ConfigurationError, match=message):
        level(**said)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Timeout(max_runtime=-1), r"Timeout\.max_runtime=-1"),
        (lambda: Timeout(max_queued_time=-1), r"Timeout\.max_queued_time=-1"),
        (lambda: Timeout(deadline=timedelta(-1)), r"Timeout\.deadline"),
        (lambda: RetryStrategy(count=-1), r"RetryStrategy\.count=-1"),
        (lambda: RetryStrategy(retry_on=3), r"RetryStrategy\.retry_on=3"),
        (lambda: Backoff(base=-1), r"Backoff\.base=-1"),
        (lambda: Queue("q", depth=-1), r"Queue\('q'\): depth=-1"),
        (lambda: Queue(""), r"name=''"),
        (lambda: Session(pools=[Pool("p", engine="cloud")]), r"Pool\('p'\): engine='cloud'.*'inline'"),
        (lambda: Resources(cpu=-1), r"cpu=-1"),
        (lambda: Pool("p", engine=""), r"Pool\('p'\): engine=''"),
        (lambda: Pool("p", on_close=cast("Any", "leave")), r"Pool\('p'\): on_close='leave'.*'stop' or 'detach'"),
        (lambda: Session(pools=[Pool("p", on_close="detach")]), r"Pool\('p'\): on_close='detach'.*'stop' for"),
        (lambda: Session(engines={"inline": cast("Any", list)}), r"engines=\['inline'\]"),
        (lambda: Session(queues=[Queue("q", pools=("nowhere",))]), r"'nowhere'"),
        (lambda: Session(queues=[Queue("q"), Queue("q")]), r"different names"),
        (lambda: Session(durability="sometimes"), r"durability.*'sometimes'"),
        (lambda: Session(durability="memory").set_queue_state("x", "held"), r"queue='x'.*default"),
        (lambda: Session(durability="memory").set_queue_state("default", "on"), r"state='on'.*'held'"),
        (lambda: Session(durability="memory").with_runcontext("remote"), r"mode='remote'.*'local'"),
        (lambda: Session(durability="memory").with_runcontext(name="a/b"), r"name='a/b'"),
        (lambda: Session(durability="memory").with_runcontext(name="../up"), r"name='\.\./up'"),
        (lambda: Session(durability="memory").with_runcontext(name=""), r"name=''"),
    ],
)
def test_wrong_objects_are_refused_when_they_are_made(make: Any, message: str) -> None:
    """The message says whose parameter it is."""
    with pytest.raises(errors.ConfigurationError, match=message):
        make()


def test_a_name_that_is_taken_is_refused(session: Session) -> None:
    """While the earlier run is active and when it has ended: a name is one run's for ever."""
    started, leave = threading.Event(), threading.Event()

    @env.task
    def waits() -> int:
        started.set()
        leave.wait(PATIENCE)
        return 1

    run = session.with_runcontext(name="mine").run(waits)
    for _ in range(2):
        with pytest.raises(errors.ConfigurationError, match="name='mine'"):
            session.with_runcontext(name="mine").run(trivial)
        leave.set()
        assert run.result(PATIENCE) == 1


def test_a_config_file_with_an_unknown_key_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file and the nearest key that is known."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "flyteish.toml"
    file.write_text("[queues.default]\naction_concurency = 2\n")
    with pytest.raises(errors.ConfigurationError, match=r"flyteish\.toml.*action_concurency.*action_concurrency"):
        Session()
    file.write_text("[pools.spot\n")
    with pytest.raises(errors.ConfigurationError, match=r"flyteish\.toml"):
        Session()


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 200_000, 1_000_000], ids=["inline", "around the limit", "by blob"])
def test_large_values_go_by_the_blob_store_and_come_back(session: Session, size: int) -> None:
    """As arguments and results, of roots and of children."""
    data = os.urandom(size)
    assert session.run(echo, data=data).result(PATIENCE) == data
    assert session.run(parent_of_makes, size=size).result(PATIENCE) == size

    async def awaited() -> bytes:
        return await session.run(echo, data=data)

    assert asyncio.run(awaited()) == data


def test_values_larger_than_accepted_are_refused_clearly(tmp_path: Path) -> None:
    """Results and arguments; the error names the task, the size and the way out, and no retry is wasted on it."""
    config = load_config(home=tmp_path, max_value_size=100_000)
    ran: list[int] = []

    @env.task(retries=5)
    async def too_large() -> bytes:
        ran.append(1)
        return b"x" * 200_000

    with Session(config=config) as session:
        with pytest.raises(errors.SerializationError, match=r"too_large\(\).*195\.3 KiB.*97\.7 KiB.*File"):
            session.run(too_large).result(PATIENCE)
        with pytest.raises(errors.SerializationError, match=r"echo\(\).*max_value_size.*File"):
            session.run(echo, data=b"x" * 200_000)
        assert session.run(makes, size=90_000).result(PATIENCE) == b"x" * 90_000
    assert ran == [1]


def test_an_unserialisable_result_fails_at_once_and_says_why(session: Session) -> None:
    """With the task and the type, and without wasting retries."""
    ran: list[int] = []

    @env.task(retries=5)
    async def gives_a_lock() -> Any:
        ran.append(1)
        return threading.Lock()

    @env.task(retries=5)
    async def lies() -> int:
        ran.append(2)
        return "three"  # type: ignore[return-value]

    with pytest.raises(errors.SerializationError, match=r"gives_a_lock.*lock"):
        session.run(gives_a_lock).result(PATIENCE)
    with pytest.raises(errors.OutputTypeError, match=r"lies.*int.*str"):
        session.run(lies).result(PATIENCE)
    assert ran == [1, 2]


def test_an_unserialisable_argument_is_refused_at_the_call(session: Session) -> None:
    """Before anything is submitted."""

    @env.task
    async def takes(x: Any) -> None: ...

    with pytest.raises(errors.SerializationError, match=r"takes.*'?x'?.*lock"):
        session.run(takes, x=threading.Lock())


# -- stores ---------------------------------------------------------------------------------------------------------


def test_a_store_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The error names the file and how to set it aside; the bytes are what they were."""
    file = tmp_path / "flyteish.db"
    file.write_bytes(b"this is no database at all " * 100)
    before = file.read_bytes()
    with pytest.raises(errors.StoreError, match=r"flyteish\.db"), Session(home=tmp_path):
        pass
    assert file.read_bytes() == before


def test_a_damaged_store_is_an_error_and_not_a_lost_run(tmp_path: Path) -> None:
    """Overwritten pages are noticed, named, and never taken for an empty journal."""
    with Session(home=tmp_path) as session:
        run = session.run(echo, data=os.urandom(50_000))
        run.wait(PATIENCE)
    file = tmp_path / "flyteish.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    data = bytearray(file.read_bytes())
    for position in range(4096 + 100, len(data), 512):
        data[position : position + 32] = os.urandom(32)
    file.write_bytes(data)
    with pytest.raises(errors.StoreCorruptError, match=r"flyteish\.db.*mv "), Session(home=tmp_path) as session:
        session.resume(run.name, echo)


def test_a_newer_store_is_refused_unchanged(tmp_path: Path) -> None:
    """Nothing of it is touched: the newer flyteish goes on with it."""
    with Session(home=tmp_path) as session:
        session.run(trivial).wait(PATIENCE)
    file = tmp_path / "flyteish.db"
    with closing(sqlite3.connect(file)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {version + 1}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = file.read_bytes()
    with pytest.raises(errors.StoreVersionError, match=r"newer flyteish"), Session(home=tmp_path):
        pass
    assert file.read_bytes() == before


def test_two_controllers_on_one_store_are_refused(tmp_path: Path) -> None:
    """In one process and in two; the error names who has it, and the owner is not disturbed."""
    with Session(home=tmp_path) as session:
        with pytest.raises(errors.StoreLockedError, match=str(os.getpid())):
            Session(home=tmp_path).open()
        program = "import sys, flyteish; flyteish.Session(home=sys.argv[1]).open()"
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, env=environ
        )
        assert done.returncode == 1
        assert f"StoreLockedError: {tmp_path}/flyteish.db is in use by process {os.getpid()}" in done.stderr
        assert session.run(trivial).result(PATIENCE) == 1


def test_a_session_that_could_not_open_can_be_opened_later(tmp_path: Path) -> None:
    """And leaves no thread behind meanwhile."""
    before = set(threading.enumerate())
    with Session(home=tmp_path) as owner:
        other = Session(home=tmp_path)
        with pytest.raises(errors.StoreLockedError):
            other.open()
        assert owner.run(trivial).result(PATIENCE) == 1
    with other:
        assert other.run(trivial).result(PATIENCE) == 1
    assert not [each for each in threading.enumerate() if each not in before and "controller" in each.name]


def test_a_home_that_cannot_be_made_says_how_to_choose_another(tmp_path: Path) -> None:
    """A file stands in its way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match=r"home=.*FLYTEISH_HOME"), Session(home=tmp_path / "file"):
        pass


# -- a full disk --------------------------------------------------------------------------------------------------

FULL_DISK = """
    import asyncio, resource, signal, sys, threading
    import flyteish
    from flyteish import Session, TaskEnvironment, ctx, errors

    env = TaskEnvironment(name="full")

    @env.task
    async def fills(n: int) -> bytes:
        return bytes([n % 256]) * 30_000

    @env.task
    def waits() -> str:
        threading.Event().wait(600)
        return "never"

    @env.task
    async def saves() -> None:
        while True:
            await ctx().checkpoint.save(b"x" * 2000)
            await asyncio.sleep(0.001)

    @env.task
    async def small(n: int) -> int:
        return n

    @env.task
    async def many() -> int:
        assert sum([await small(n) for n in range(5)]) == 10
        if sys.argv[2] == "fill":
            print("acknowledged", flush=True)
        return sum([len(await fills(n)) for n in range(100_000)])

    if __name__ == "__main__":
        if sys.argv[2] == "resume":
            with Session(home=sys.argv[1]) as session:
                run = session.resume(sys.argv[3], many)
                small_ones = [a for a in run.actions() if a.profile.task == "full.small"]
                print([str(a.phase) for a in small_ones])
                run.abort("seen enough")
                run.wait(20)
        else:
            # No file may grow beyond this: the writes fail as on a full disk, and the process lives.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            session = Session(home=sys.argv[1]).open()
            runs = [session.run(task) for task in (waits, saves, many)]
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            for run in runs:
                try:
                    run.result(60)
                except errors.StoreError as error:
                    print(type(error).__name__, error, flush=True)
            try:
                session.run(small, n=1).result(60)
            except errors.StoreError as error:
                print("later", type(error).__name__, flush=True)
            session.close()
            print(runs[2].name, flush=True)
"""


def test_a_full_disk_tells_every_waiting_handle_and_loses_nothing(tmp_path: Path) -> None:
    """Each raises StoreError naming the file and the cure; nothing hangs; what was acknowledged is resumable."""
    file = tmp_path / "full.py"
    file.write_text(textwrap.dedent(FULL_DISK))
    home = tmp_path / "home"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}

    def program(*arguments: str) -> list[str]:
        command = [sys.executable, "-W", "error", str(file), str(home), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first, *told, later, name = program("fill")
    assert first == "acknowledged"
    assert len(told) == 3
    for line in told:
        assert line.startswith("StoreError")
        assert str(home / "flyteish.db") in line
        assert "Free space" in line
        assert "flyteish resume" in line
    assert later == "later StoreError"
    assert program("resume", name) == [str(["succeeded"] * 5)]
    assert SqliteStore(home / "flyteish.db").owner() is None
