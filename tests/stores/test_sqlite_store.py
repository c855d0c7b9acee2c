"""The durable store beyond its contract: processes that die, disks that fill, damaged and old files."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from flyteish._core.model.events import AttemptRunning, Entry
from flyteish.errors import (
    ConfigurationError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreVersionError,
)
from flyteish.interfaces import Batch, Command, RunRow
from flyteish.stores.faults import explained
from flyteish.stores.schema import APPLICATION_ID, VERSION, prepare
from flyteish.stores.segments import MAX_BYTES, pack, unpack
from flyteish.stores.sqlite import SqliteStore
from flyteish.stores.writer import Writer

LIMIT = 30.0  # seconds until a wait is called hung


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    opened.open()
    yield opened
    opened.close()


def running(number: int, run: str = "r1") -> Entry:
    return Entry(float(number), AttemptRunning(run, "a0", number))


class Answer:
    """A `done` that can be waited for."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []
        self._called = threading.Event()

    def __call__(self, error: BaseException | None) -> None:
        self.errors.append(error)
        self._called.set()

    def error(self) -> BaseException | None:
        assert self._called.wait(LIMIT)
        return self.errors[0]


def commit(store: SqliteStore | Writer, *entries: tuple[str, Entry]) -> None:
    answer = Answer()
    (store.append if isinstance(store, SqliteStore) else store.submit)(Batch(entries=entries), answer)
    error = answer.error()
    if error is not None:
        raise error


@contextmanager
def script(text: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another Python process; ended and reaped whatever happens."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -- processes that die -------------------------------------------------------------------------------------

APPEND_FOR_EVER = """
import os, sys, threading
from pathlib import Path
from flyteish._core.model.events import AttemptRunning, Entry
from flyteish.interfaces import Batch, RunRow
from flyteish.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
store.open()
run = sys.argv[2]
on_their_way = threading.Semaphore(40)  # so that there are many bursts, each of many batches

def acknowledge(number):
    def done(error):
        os.write(1, b"%d\\n" % number if error is None else repr(error).encode())
        on_their_way.release()
    return done

for number in range(1, 200_000):
    entry = Entry(float(number), AttemptRunning(run, "a" * (number % 50), number))
    row = RunRow(run, "main", "q", "running", 1.0, None, number)
    on_their_way.acquire()
    store.append(Batch(entries=[(run, entry)] * 3, rows=[row]), acknowledge(number))
"""


def test_a_killed_controller_loses_nothing_it_acknowledged(path: Path, seed: int) -> None:
    """Killed at ten random points, on one store: acknowledged batches are there, and whole."""
    chance = random.Random(seed)
    for run in (f"r{number}" for number in range(10)):
        with script(APPEND_FOR_EVER, path, run) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randint(1, 3000))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged = int([line for line in lines if line.endswith("\n")][-1])
        reader = SqliteStore(path)
        entries = list(reader.read(run))
        assert [number for number, _ in entries] == list(range(1, len(entries) + 1))
        assert [entry.at for _, entry in entries] == [1 + n // 3 for n in range(len(entries))]
        assert len(entries) % 3 == 0
        assert len(entries) // 3 >= acknowledged
        row = reader.run(run)
        assert row is not None
        assert row.actions == len(entries) // 3
        assert reader.owner() is None


OPEN_AND_WAIT = """
import os, sys
from pathlib import Path
from flyteish.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
store.open()
forked = os.fork() if len(sys.argv) > 2 else 0
if not forked:
    print(os.getpid(), flush=True)
sys.stdin.read()
if len(sys.argv) > 2:
    os._exit(0)
store.close()
"""


def test_another_process_that_has_the_store_is_named(path: Path) -> None:
    """A second controller is refused with the first one's process id, and may read meanwhile."""
    with script(OPEN_AND_WAIT, path) as process:
        pid = int(said(process))
        other = SqliteStore(path)
        with pytest.raises(StoreLockedError, match=f"process {pid}"):
            other.open()
        assert other.owner() == pid
        assert other.runs() == []
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert other.owner() is None


def test_the_claim_dies_with_its_process(path: Path) -> None:
    """After `kill -9` the next controller gets the store at once."""
    with script(OPEN_AND_WAIT, path) as process:
        pid = int(said(process))
        assert SqliteStore(path).owner() == pid
        process.kill()
        process.wait(LIMIT)
        other = SqliteStore(path)
        assert other.owner() is None
        other.open()
        assert other.owner() == os.getpid()
        other.close()


def test_a_forked_child_does_not_keep_the_claim(path: Path) -> None:
    """A child that outlives its killed controller (as a pool's worker does) does not lock the store."""
    with script(OPEN_AND_WAIT, path, "and fork") as process:
        child = int(said(process))
        process.kill()
        process.wait(LIMIT)
        os.kill(child, 0)  # it lives: the next controller gets the store all the same
        other = SqliteStore(path)
        other.open()
        commit(other, ("r1", running(1)))
        other.close()
        assert process.stdin is not None
        process.stdin.close()


def test_a_fork_does_not_write_through_its_parents_store(path: Path) -> None:
    """In a forked child `append` answers with an error instead of never; the parent's store goes on."""
    text = """
import os, sys
from pathlib import Path
from flyteish.interfaces import Batch
from flyteish.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
store.open()
if os.fork() == 0:
    store.append(Batch(entries=()), lambda error: print(error, flush=True))
    try:
        store.put_note("n", b"")
    except Exception as error:
        print(error, flush=True)
    store.close()
    os._exit(0)
os.wait()
print(store.owner(), flush=True)
store.append(Batch(entries=()), lambda error: print(error, flush=True))
store.close()
"""
    with script(text, path) as process:
        pid = process.pid
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    why = f"this store, which is opened by process {pid}, not by this fork of it"
    assert out.splitlines() == [
        f"{path}: cannot append to {why}",
        f"{path}: cannot write to {why}",
        str(pid),
        "None",
    ]


def test_other_processes_read_while_the_controller_writes(path: Path, store: SqliteStore) -> None:
    """A reader in another process sees a gapless beginning of the journal, and in the end all of it."""
    text = """
import sys
from pathlib import Path
from flyteish.stores.sqlite import SqliteStore

store, seen = SqliteStore(Path(sys.argv[1])), 0
print("ready", flush=True)
while seen < 30_000:
    for number, entry in store.read("r1", seen):
        assert number == seen + 1 == entry.at, (number, seen, entry)
        seen = number
print(seen)
"""
    with script(text, path) as process:
        assert said(process) == "ready"
        last = Answer()
        for number in range(1, 30_001, 3):
            batch = Batch(entries=[("r1", running(n)) for n in range(number, number + 3)])
            store.append(batch, last if number == 29_998 else lambda error: None)
        assert last.error() is None
        assert said(process) == "30000"


# -- a disk that is full ------------------------------------------------------------------------------------

FILL_THE_DISK = """
import resource, sys, threading
from pathlib import Path
from flyteish._core.model.events import ActionSubmitted, Entry
from flyteish._core.model.values import Payload
from flyteish.interfaces import Batch
from flyteish.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
store.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
for number in range(1, 200):
    answers, called = [], threading.Event()
    event = ActionSubmitted("r1", "a1", None, 0, "k", Payload(data=b"x" * 20_000), b"")
    batch = Batch(entries=[("r1", Entry(float(number), event))])
    store.append(batch, lambda error: (answers.append(error), called.set()))
    called.wait()
    if answers[0] is not None:
        break
    print(number)
store.append(Batch(entries=()), lambda later: print(later is answers[0], type(later).__name__, later))
store.close()
"""


def test_a_full_disk_stops_the_store_and_loses_nothing(path: Path) -> None:
    """The failed batch and all later ones get one StoreError with path and cure; the rest stays."""
    with script(FILL_THE_DISK, path) as process:
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    *numbers, last = out.splitlines()
    assert last.startswith(f"True StoreError {path}: cannot write to this store")
    assert "full" in last
    assert "Free space" in last
    assert "`flyteish resume r1`" in last
    store = SqliteStore(path)
    assert [int(entry.at) for _, entry in store.read("r1")] == list(map(int, numbers))
    store.open()
    commit(store, ("r1", running(1000)))
    store.close()
    assert [number for number, _ in store.read("r1")][-1] == len(numbers) + 1


def test_a_full_disk_is_called_by_its_name(path: Path) -> None:
    """Where SQLite itself finds no room, the message says so; later batches and notes get the same error."""
    prepare_in(path)
    writer = Writer(path, power=False)
    try:
        commit(writer, ("r1", running(1)))
        writer.submit_work(lambda db: db.execute("PRAGMA max_page_count = 16").fetchall(), Answer())
        answers = [Answer() for _ in range(100)]
        for number, answer in enumerate(answers):
            big = AttemptRunning("r7", "a" * 5000, number)
            writer.submit(Batch(entries=[("r7", Entry(0.0, big))]), answer)
        error = answers[-1].error()
        assert isinstance(error, StoreError)
        assert str(error).startswith(f"{path}: disk full")
        assert "`flyteish resume r7`" in str(error)
        assert writer.failure is error
        acknowledged = sum(answer.error() is None for answer in answers)
    finally:
        writer.stop()
    assert len(list(SqliteStore(path).read("r7"))) == acknowledged


def test_nothing_follows_a_failure(path: Path, store: SqliteStore) -> None:
    """After a batch that cannot be written, later ones get its error, as do notes; closing works."""
    bad, later = Answer(), Answer()
    not_an_entry: Entry = object()  # type: ignore[assignment]
    store.append(Batch(entries=[("r1", not_an_entry)]), bad)
    store.append(Batch(entries=[("r1", running(1))]), later)
    error = bad.error()
    assert isinstance(error, StoreError)
    assert isinstance(error.__cause__, TypeError)
    assert later.error() is error
    with pytest.raises(StoreError) as caught:
        store.put_note("n", b"")
    assert caught.value is error
    store.close()
    assert list(store.read("r1")) == []


def test_a_store_that_somebody_else_keeps_locked_says_so(path: Path) -> None:
    """A lock that is not given up in time is told apart from a full disk."""
    prepare_in(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as two,
    ):
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program keeps it locked"), explained(path, "write to"):
            two.execute("BEGIN IMMEDIATE")


# -- callbacks and threads ----------------------------------------------------------------------------------


def test_a_failing_callback_costs_nobody_else_their_answer(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What a `done` raises is logged; the next batches are committed and answered."""

    def fails(error: BaseException | None) -> None:
        raise ZeroDivisionError

    store.append(Batch(entries=[("r1", running(1))]), fails)
    commit(store, ("r1", running(2)))
    assert len(list(store.read("r1"))) == 2
    assert "ZeroDivisionError" in caplog.text


def test_waiting_for_the_store_on_its_own_thread_is_refused(store: SqliteStore) -> None:
    """`close` and `delete` in a `done` raise instead of hanging, and the store stays open."""
    errors: list[str] = []
    answer = Answer()

    def done(error: BaseException | None) -> None:
        for call in (store.close, lambda: store.delete("r1")):
            try:
                call()
            except StoreError as refused:
                errors.append(str(refused))
        answer(error)

    store.append(Batch(entries=[("r1", running(n)) for n in range(1000)]), done)
    assert answer.error() is None
    assert len(errors) == 2
    assert all("wait for the store" in error for error in errors)
    commit(store, ("r1", running(1)))


def test_every_append_is_answered_once_though_the_store_closes(path: Path) -> None:
    """Batches that race with `close` are either committed or refused, and the journal has the former only."""
    store = SqliteStore(path)
    store.open()
    answers = [Answer() for _ in range(3000)]
    half_way = threading.Event()

    def append_all() -> None:
        for number, answer in enumerate(answers):
            store.append(Batch(entries=[("r1", running(number))]), answer)
            if number == 1000:
                half_way.set()

    thread = threading.Thread(target=append_all)
    thread.start()
    assert half_way.wait(LIMIT)
    store.close()
    thread.join(LIMIT)
    committed = [number for number, answer in enumerate(answers) if answer.error() is None]
    assert all(len(answer.errors) == 1 for answer in answers)
    assert [entry.at for _, entry in store.read("r1")] == committed


def test_the_log_does_not_grow_for_ever(path: Path, store: SqliteStore) -> None:
    """Checkpoints move the write-ahead log into the file while the store is open."""
    log = path.with_name("runs.db-wal")
    for number in range(1500):
        commit(store, ("r1", running(number)))
    assert log.stat().st_size < 8_000_000
    big = AttemptRunning("r1", "a" * 200_000, 1)
    for _ in range(200):
        commit(store, ("r1", Entry(0.0, big)))
    assert path.stat().st_size > 20_000_000
    assert log.stat().st_size < 17_000_000


def test_readers_on_other_threads_see_whole_batches(store: SqliteStore) -> None:
    """Threads that read while the controller writes see numbers without gaps, and finish."""
    counts: list[int] = []

    def follow() -> None:
        seen = 0
        while seen < 3000:
            numbers = [number for number, _ in store.read("r1", seen)]
            assert numbers == list(range(seen + 1, seen + len(numbers) + 1))
            seen += len(numbers)
        counts.append(seen)

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 3001, 3):
        store.append(Batch(entries=[("r1", running(n)) for n in range(number, number + 3)]), lambda error: None)
    for thread in threads:
        thread.join(LIMIT)
    assert counts == [3000] * 3


# -- segments -----------------------------------------------------------------------------------------------


def test_segments_are_bounded_and_complete() -> None:
    """However large the entries, no segment exceeds its bound unless a single entry does."""
    sizes = [10, 300_000, 10, 200_000, 100_000, *([50] * 5000), *([3000] * 500), 400_000]
    entries = [Entry(float(n), AttemptRunning("r1", "a" * size, n)) for n, size in enumerate(sizes)]
    segments = list(pack(entries))
    assert [entry for segment in segments for entry in unpack(segment)] == entries
    assert all(len(segment.data) <= MAX_BYTES or segment.length == 1 for segment in segments)
    assert len(segments) < 40


def test_a_burst_becomes_few_rows(path: Path, store: SqliteStore) -> None:
    """Ten thousand entries cost some rows, not thousands."""
    last = Answer()
    for number in range(9_999):
        store.append(Batch(entries=[("r1", running(number))]), lambda error: None)
    store.append(Batch(entries=[("r1", running(9_999))]), last)
    assert last.error() is None
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT sum(count) FROM segments").fetchone() == (10_000,)
        assert db.execute("SELECT max(length(data)) FROM segments").fetchone()[0] <= MAX_BYTES


@pytest.mark.benchmark
def test_ten_thousand_appends_take_no_time(store: SqliteStore) -> None:
    """Until 30,000 small entries in 10,000 batches are committed, both threads work 150 ms at most."""
    batches = [Batch(entries=[("r1", running(n)), ("r1", running(n)), ("r1", running(n))]) for n in range(10_000)]
    last, began = Answer(), time.process_time()
    for batch in batches[:-1]:
        store.append(batch, lambda error: None)
    store.append(batches[-1], last)
    assert last.error() is None
    assert time.process_time() - began < 0.15


# -- files --------------------------------------------------------------------------------------------------


def test_only_the_user_can_read_the_store(path: Path, store: SqliteStore) -> None:
    """The folder is created with 0700, and every file in it with 0600."""
    commit(store, ("r1", running(1)))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes.keys() >= {"runs.db", "runs.db-wal", "runs.db.lock", "runs.db.pid"}
    assert set(modes.values()) == {0o600}


def test_power_durability_waits_for_the_disk(path: Path) -> None:
    """`durability="power"` commits with synchronous=FULL (2), the default with NORMAL (1)."""
    prepare_in(path)
    for power, level in ((True, 2), (False, 1)):
        levels: list[int] = []

        def look(db: sqlite3.Connection, into: list[int] = levels) -> None:
            into.extend(db.execute("PRAGMA synchronous").fetchone())

        writer, answer = Writer(path, power=power), Answer()
        writer.submit_work(look, answer)
        assert answer.error() is None
        writer.stop()
        assert levels == [level]


def test_the_durability_is_checked(path: Path) -> None:
    """An unknown word is refused with those that are accepted."""
    with pytest.raises(ConfigurationError, match="durability: 'disk' is not accepted, only process or power"):
        SqliteStore(path, durability="disk")


def test_looking_creates_nothing(path: Path) -> None:
    """Reading a store that does not exist leaves no file behind."""
    store = SqliteStore(path)
    assert store.runs() == []
    assert store.owner() is None
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["with space", "with?question", "with#hash", "with%41percent"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """Characters that mean something in addresses are just part of the name."""
    store = SqliteStore(tmp_path / name)
    store.open()
    commit(store, ("r1", running(1)))
    assert len(list(store.read("r1"))) == 1
    store.close()
    assert (tmp_path / name).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Opening below a file fails with a StoreError that names it."""
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "runs.db")
    with pytest.raises(StoreError, match=r"cannot open this store: .*file"):
        store.open()


def test_an_interrupted_creation_is_completed(path: Path) -> None:
    """An empty file, as a process killed in the wrong moment leaves it, is as good as none."""
    path.parent.mkdir()
    path.touch()
    store = SqliteStore(path)
    assert store.runs() == []
    store.open()
    commit(store, ("r1", running(1)))
    store.close()


def test_a_link_to_the_store_is_the_same_store(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    """Whatever the way to the file, it has one owner."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    other = SqliteStore(link)
    assert other.owner() == os.getpid()
    with pytest.raises(StoreLockedError):
        other.open()


# -- damage -------------------------------------------------------------------------------------------------


def filled(path: Path) -> SqliteStore:
    """A closed store with a journal of a hundred segments."""
    store = SqliteStore(path)
    store.open()
    for number in range(1, 101):
        commit(store, ("r1", Entry(float(number), AttemptRunning("r1", "a" * 2000, number))))
    store.close()
    return store


def prepare_in(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    prepare(path)


def overwrite_the_start(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database at all")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [overwrite_the_start, cut_in_half])
def test_a_damaged_file_is_named_with_the_cure(path: Path, damage: Callable[[Path], None]) -> None:
    """Opening and reading raise StoreCorruptError, say how to set the file aside, and give the claim back."""
    store = filled(path)
    damage(path)
    before = path.read_bytes()
    for use in (
        store.open,
        store.runs,
        lambda: list(store.read("r1")),
        lambda: store.post(Command("hold", "q")),
    ):
        with pytest.raises(StoreCorruptError) as caught:
            use()
        assert f"mv {path} {path}.damaged" in str(caught.value)
    assert store.owner() is None
    assert path.read_bytes() == before


def test_setting_the_damaged_file_aside_mends_the_store(path: Path) -> None:
    """The cure that the message names works."""
    store = filled(path)
    overwrite_the_start(path)
    path.rename(path.with_name("runs.db.damaged"))
    store.open()
    commit(store, ("r1", running(1)))
    store.close()
    assert [number for number, _ in store.read("r1")] == [1]


@pytest.mark.parametrize(
    "sql, what",
    [
        (
            "UPDATE segments SET data = substr(data, 1, length(data) - 9) WHERE first = 50",
            "from entry 50.*checksum",
        ),
        ("UPDATE segments SET crc = crc + 1 WHERE first = 50", "from entry 50.*checksum"),
        ("UPDATE segments SET data = x'c1', crc = 4048714645 WHERE first = 50", "from entry 50.*"),
        ("UPDATE segments SET count = 2 WHERE first = 50", "from entry 50.*1 entries instead of 2"),
        ("DELETE FROM segments WHERE first BETWEEN 50 AND 52", "lacks entries 50 to 52"),
    ],
)
def test_a_torn_segment_is_noticed_where_it_is(path: Path, sql: str, what: str) -> None:
    """Entries before the damage are read; at it comes a StoreCorruptError that says where."""
    store = filled(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql)
    got: list[int] = []
    with pytest.raises(StoreCorruptError, match=what) as caught:
        got.extend(number for number, _ in store.read("r1"))
    assert str(path) in str(caught.value)
    reader = store.read("r1")
    assert [next(reader)[0] for _ in range(49)] == list(range(1, 50))
    with pytest.raises(StoreCorruptError):
        next(reader)


def test_a_journal_without_its_beginning_is_noticed(path: Path) -> None:
    """It is not taken for an empty one."""
    store = filled(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM segments WHERE first = 1")
    with pytest.raises(StoreCorruptError, match="lacks entries 1 to 1"):
        list(store.read("r1"))


def test_garbage_with_a_right_checksum_is_noticed() -> None:
    """Bytes that are no entries are refused even when nothing changed them."""
    segment = next(pack([msgspec.Raw(msgspec.msgpack.encode({"no": "entry"}))]))
    with pytest.raises(ValueError, match="no list of entries"):
        unpack(segment)


# -- versions -----------------------------------------------------------------------------------------------

V1_ROWS = [("r1", "main", "q", "succeeded", 1.0, 2.0, 3), ("r2", "main", "q", "running", 2.0, None, 1)]


def version_1(path: Path, entries: int = 2500, wal: bool = True) -> None:
    """A store as the first schema had it."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
        db.executescript((files("flyteish.stores") / "migrations" / "v1.sql").read_text())
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("BEGIN")
        journal = [("r1", n, msgspec.msgpack.encode(running(n))) for n in range(1, entries + 1)]
        journal += [("r2", 1, msgspec.msgpack.encode(running(7, "r2")))]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?)", journal)
        db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", V1_ROWS)
        db.execute("INSERT INTO commands (kind, target, reason) VALUES ('abort', 'r2', 'late')")
        db.execute("COMMIT")


def marks(path: Path) -> tuple[int, set[str]]:
    """The file's version and tables."""
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return db.execute("PRAGMA user_version").fetchone()[0], tables - {"sqlite_sequence"}


@pytest.mark.parametrize("wal", [True, False])
def test_an_older_store_is_migrated_with_a_backup(path: Path, wal: bool) -> None:
    """Opening a version 1 store keeps every entry, run and command, and leaves a copy of the old file."""
    version_1(path, wal=wal)
    store = SqliteStore(path)
    store.open()
    assert list(store.read("r1")) == [(n, running(n)) for n in range(1, 2501)]
    assert list(store.read("r1", 2499)) == [(2500, running(2500))]
    assert store.runs() == [RunRow(*values) for values in reversed(V1_ROWS)]
    assert store.take() == [Command("abort", "r2", "late")]
    store.put_note("n", b"1")
    commit(store, ("r2", running(8, "r2")))
    assert list(store.read("r2")) == [(1, running(7, "r2")), (2, running(8, "r2"))]
    store.close()
    backup = path.with_name("runs.db.v1.bak")
    assert marks(backup) == (1, {"entries", "runs", "commands"})
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert marks(path)[0] == VERSION
    assert not list(path.parent.glob("*.partial*"))


def test_a_backup_never_replaces_another(path: Path) -> None:
    """A store that is put back and migrated again gets a second backup beside the first."""
    version_1(path, entries=3)
    for name in ("runs.db.v1.bak", "runs.db.v1.2.bak"):
        store = SqliteStore(path)
        store.open()
        store.close()
        backup = path.with_name(name)
        assert marks(backup)[0] == 1
        path.write_bytes(backup.read_bytes())


def test_a_migrated_store_is_like_a_new_one(path: Path, tmp_path: Path) -> None:
    """Tables, columns and indexes do not depend on the way to them."""

    def shape(file: Path) -> dict[str, list]:
        with closing(sqlite3.connect(file)) as db:
            tables = sorted(marks(file)[1])
            columns = {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in tables}
            for name in tables:
                indexes = db.execute(f"PRAGMA index_list({name})").fetchall()
                columns[name] = [row[:4] for row in columns[name]] + sorted(row[1:] for row in indexes)
            return columns

    version_1(path)
    prepare(path)
    fresh = tmp_path / "fresh.db"
    prepare(fresh)
    assert shape(path) == shape(fresh)


def test_readers_leave_the_migration_to_the_owner(path: Path) -> None:
    """Reading or posting to an older store says who migrates it, and changes nothing."""
    version_1(path)
    store = SqliteStore(path)
    for use in (store.runs, lambda: list(store.read("r1")), lambda: store.post(Command("hold", "q"))):
        with pytest.raises(StoreError, match=rf"older flyteish \(schema 1, now {VERSION}\).*start or resume any run"):
            use()
    assert marks(path)[0] == 1


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    """A damaged older store stays as it is: StoreCorruptError, the backup beside it, the claim given back."""
    version_1(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM entries WHERE run = 'r1' AND number = 2000")
    store = SqliteStore(path)
    with pytest.raises(StoreCorruptError, match="journal of run r1 has a gap after entry 1000"):
        store.open()
    assert store.owner() is None
    assert marks(path) == (1, {"entries", "runs", "commands"})
    assert path.with_name("runs.db.v1.bak").exists()


def test_a_newer_store_is_left_alone(path: Path) -> None:
    """Every use of a store that a newer flyteish wrote raises StoreVersionError, and no byte changes."""
    store = filled(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    for use in (
        store.open,
        store.runs,
        lambda: list(store.read("r1")),
        lambda: store.post(Command("hold", "q")),
    ):
        with pytest.raises(StoreVersionError, match=f"newer flyteish .schema {VERSION + 1}"):
            use()
    assert store.owner() is None
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """An SQLite file that is not a store is refused, and no byte changes."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    store = SqliteStore(path)
    for use in (store.open, store.runs, lambda: store.put_note("n", b"")):
        with pytest.raises(StoreError, match="not a flyteish store"):
            use()
    assert path.read_bytes() == before


def test_a_small_batch_is_committed_at_once_when_nothing_waits(store: SqliteStore) -> None:
    """Its ``done`` is called within ``append``; behind a large one it takes its turn, and the order is kept."""
    answers: list[int] = []

    def told(number: int, error: BaseException | None) -> None:
        answers.append(number)

    store.append(Batch(entries=[("r1", running(1))]), partial(told, 1))
    assert answers == [1]
    large = Batch(entries=[("r1", running(n)) for n in range(2, 5002)])
    last = Answer()
    store.append(large, partial(told, 2))
    for number in range(3, 200):
        store.append(Batch(entries=[("r1", running(5000 + number))]), partial(told, number))
    store.append(Batch(entries=[("r1", running(9999))]), last)
    assert last.error() is None
    assert answers == [*range(1, 200)]
    assert [number for number, _ in store.read("r1")] == [*range(1, 5000 + 200)]


def test_a_busy_file_does_not_hold_the_submitter_up(store: SqliteStore, path: Path) -> None:
    """While another process writes, a batch goes to the thread, which has the patience."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = Answer()
    store.append(Batch(entries=[("r1", running(1))]), answer)
    assert not answer._called.is_set()
    other.execute("ROLLBACK")
    other.close()
    assert answer.error() is None
    assert len(list(store.read("r1"))) == 1
