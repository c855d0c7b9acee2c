"""What every RunStore and Mailbox does, asked of each implementation."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    AttemptRunning,
    CheckpointCommitted,
    Entry,
    Evidence,
    RunEvent,
    RunSubmitted,
)
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload
from flyteish.errors import RunNotFoundError, StoreError, StoreLockedError
from flyteish.interfaces import Batch, Command, Mailbox, RunRow, RunStore
from flyteish.stores.memory import MemoryStore
from flyteish.stores.sqlite import SqliteStore

LIMIT = 30.0  # seconds until a wait is called hung


class Store(RunStore, Mailbox, Protocol):
    """Both contracts, which one class implements."""


@dataclass
class Shared:
    """One store, as its controller sees it and as somebody else does."""

    controller: Store
    outsider: Store


def memory(folder: Path) -> Shared:
    store = MemoryStore()
    return Shared(store, store)


def sqlite(folder: Path) -> Shared:
    path = folder / "state" / "runs.db"
    return Shared(SqliteStore(path), SqliteStore(path))


def sqlite_power(folder: Path) -> Shared:
    path = folder / "state" / "runs.db"
    return Shared(SqliteStore(path, durability="power"), SqliteStore(path))


@pytest.fixture(params=[memory, sqlite, sqlite_power], ids=lambda make: make.__name__)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    make: Callable[[Path], Shared] = request.param
    stores = make(tmp_path)
    yield stores
    stores.controller.close()
    stores.outsider.close()


@pytest.fixture
def store(shared: Shared) -> Store:
    """The controller's, open."""
    shared.controller.open()
    return shared.controller


def running(number: int, run: str = "r1") -> Entry:
    return Entry(float(number), AttemptRunning(run, "a0", number))


def row(run: str, at: float = 1.0, phase: str = "running", ended_at: float | None = None) -> RunRow:
    return RunRow(run=run, task="env.main", queue="default", phase=phase, submitted_at=at, ended_at=ended_at)


def commit(store: Store, *entries: tuple[str, Entry], rows: Sequence[RunRow] = ()) -> None:
    """Append, wait until it is durable, and raise what went wrong."""
    answers: list[BaseException | None] = []
    answered = threading.Event()

    def done(error: BaseException | None) -> None:
        answers.append(error)
        answered.set()

    store.append(Batch(entries=entries, rows=rows), done)
    assert answered.wait(LIMIT)
    if answers[0] is not None:
        raise answers[0]


# -- the journal --------------------------------------------------------------------------------------------


def test_entries_are_read_in_order_and_numbered_from_one(store: Store) -> None:
    """What batches held comes back as one numbered sequence, in the order in which it was appended."""
    commit(store, ("r1", running(1)), ("r1", running(2)))
    commit(store, ("r1", running(3)))
    assert list(store.read("r1")) == [(1, running(1)), (2, running(2)), (3, running(3))]


def test_a_burst_of_batches_keeps_its_order(store: Store) -> None:
    """Batches appended without waiting are answered, and read, in the order of their submission."""
    answered: list[int] = []
    finished = threading.Event()

    def done_with(number: int) -> Callable[[BaseException | None], None]:
        def done(error: BaseException | None) -> None:
            assert error is None
            answered.append(number)
            if number == 500:
                finished.set()

        return done

    for number in range(1, 501):
        entries = [("r1", running(number)), (f"r{number % 7 + 2}", running(number))]
        store.append(Batch(entries=entries), done_with(number))
    assert finished.wait(LIMIT)
    assert answered == list(range(1, 501))
    assert [entry for _, entry in store.read("r1")] == [running(number) for number in range(1, 501)]
    assert [entry.at for _, entry in store.read("r4")] == [n for n in range(1, 501) if n % 7 == 2]


def test_reading_goes_on_after_a_number(store: Store) -> None:
    """`after` skips what was read before, wherever the batches began and ended."""
    for first in range(1, 20, 3):
        commit(store, *(("r1", running(number)) for number in range(first, first + 3)))
    for after in range(23):
        assert [number for number, _ in store.read("r1", after)] == list(range(after + 1, 22))


def test_runs_are_numbered_apart(store: Store) -> None:
    """Each run's journal has its own numbers, though a batch mixes runs."""
    commit(store, ("r1", running(1)), ("r2", running(2)), ("r1", running(3)))
    assert list(store.read("r1")) == [(1, running(1)), (2, running(3))]
    assert list(store.read("r2")) == [(1, running(2))]


def test_events_come_back_as_they_were(store: Store) -> None:
    """Payloads, errors with causes, evidence and checkpoint records survive the store unchanged."""
    error = ErrorDocument(
        type="ValueError", message="\u2203 no", bases=("ValueError",), cause=ErrorDocument(type="KeyError")
    )
    record = CheckpointRecord(1, 2, "sha256:ab", "bytes", 10, 5.5, progress=0.5)
    events: list[RunEvent] = [
        RunSubmitted("r1", "env.main", "default", command="flyteish run 'x y'"),
        ActionSubmitted("r1", "a0", None, 0, "k", Payload(data=b"\x00\xff", size=2), b"digest"),
        AttemptEnded("r1", "a0", 1, Evidence(error=error, exit_code=-9), chance=0.25),
        CheckpointCommitted("r1", "a0", 2, record),
    ]
    commit(store, *(("r1", Entry(1.5, event)) for event in events))
    assert [entry.event for _, entry in store.read("r1")] == events


def test_large_bursts_and_large_entries_are_kept(store: Store) -> None:
    """Neither thousands of entries at once nor an entry of a megabyte is cut."""
    big = Entry(0.0, ActionSubmitted("r1", "a1", None, 0, "k", Payload(data=b"x" * 2**20), b""))
    entries = [running(number) for number in range(5000)] + [big] + [running(number) for number in range(5000)]
    commit(store, *(("r1", entry) for entry in entries))
    assert list(store.read("r1")) == list(enumerate(entries, 1))
    assert list(store.read("r1", 5000)) == list(enumerate(entries, 1))[5000:]


def test_nothing_is_read_of_an_unknown_run(store: Store) -> None:
    """A run that the store does not know has no entries and no row."""
    assert list(store.read("r1")) == []
    assert store.run("r1") is None


def test_others_read_what_is_acknowledged(shared: Shared) -> None:
    """Reading needs no claim: somebody else sees each batch as soon as it is acknowledged."""
    shared.controller.open()
    for number in range(1, 4):
        commit(shared.controller, ("r1", running(number)), rows=[row("r1")])
        assert [n for n, _ in shared.outsider.read("r1")] == list(range(1, number + 1))
    assert shared.outsider.run("r1") == row("r1")


def test_a_reader_sees_what_comes_while_it_reads(store: Store) -> None:
    """Entries committed before the reader gets to the end belong to what it reads."""
    commit(store, ("r1", running(1)))
    reader = store.read("r1")
    assert next(reader) == (1, running(1))
    commit(store, ("r1", running(2)))
    assert list(reader) == [(2, running(2))]


def test_a_reader_can_be_left_early(store: Store) -> None:
    """A reader that is given up holds nothing: writing goes on."""
    commit(store, ("r1", running(1)), ("r1", running(2)))
    reader = store.read("r1")
    next(reader)
    del reader
    commit(store, ("r1", running(3)))
    assert len(list(store.read("r1"))) == 3


def test_an_empty_store_can_be_looked_into(shared: Shared) -> None:
    """Before any controller came, everything is empty and nobody owns it."""
    outsider = shared.outsider
    assert outsider.runs() == []
    assert outsider.run("r1") is None
    assert list(outsider.read("r1")) == []
    assert outsider.get_note("n") is None
    assert outsider.owner() is None


def test_the_number_to_read_after_is_checked(store: Store) -> None:
    """A negative number is refused at the call, by name."""
    with pytest.raises(ValueError, match="after: -1"):
        store.read("r1", -1)


# -- runs at a glance ---------------------------------------------------------------------------------------


def test_rows_are_replaced_and_listed_newest_first(store: Store) -> None:
    """The last row given for a run is the one that is listed; runs are listed by the time of submission."""
    commit(store, rows=[row("r1", 1.0), row("r3", 3.0)])
    commit(store, rows=[row("r2", 2.0), row("r1", 1.0, "failed", 9.0), row("r1", 1.0, "succeeded", 9.5)])
    assert store.runs() == [row("r3", 3.0), row("r2", 2.0), row("r1", 1.0, "succeeded", 9.5)]
    assert store.runs(limit=2) == [row("r3", 3.0), row("r2", 2.0)]
    assert store.runs(limit=0) == []
    assert store.runs(limit=1, active_only=True) == [row("r3", 3.0)]
    assert store.runs(active_only=True) == [row("r3", 3.0), row("r2", 2.0)]
    assert store.run("r1") == row("r1", 1.0, "succeeded", 9.5)


def test_rows_keep_every_field(store: Store) -> None:
    """Nothing of a row is lost or mixed up."""
    full = RunRow("r1", "env.main", "gpu", "failed", 1.25, 2.5, 17, "flyteish run 'a b'", "main.py:main")
    commit(store, rows=[full])
    assert store.run("r1") == full


def test_the_limit_is_checked(store: Store) -> None:
    """A negative limit is refused by name."""
    with pytest.raises(ValueError, match="limit: -1"):
        store.runs(limit=-1)


# -- deleting -----------------------------------------------------------------------------------------------


def test_a_deleted_run_is_gone_and_others_stay(store: Store) -> None:
    """Journal and row go; a run of the same name would begin at 1 again."""
    commit(store, ("r1", running(1)), ("r2", running(1)), rows=[row("r1", ended_at=2.0), row("r2")])
    store.delete("r1")
    assert list(store.read("r1")) == []
    assert [found.run for found in store.runs()] == ["r2"]
    assert len(list(store.read("r2"))) == 1
    commit(store, ("r1", running(7)))
    assert list(store.read("r1")) == [(1, running(7))]


def test_others_may_delete_an_ended_run_while_the_controller_lives(shared: Shared) -> None:
    """The controller notices: its numbering of that run begins anew as well."""
    shared.controller.open()
    commit(shared.controller, ("r1", running(1)), ("r2", running(1)), rows=[row("r1", ended_at=2.0)])
    commit(shared.controller, ("r1", running(2)))
    shared.outsider.delete("r1")
    commit(shared.controller, ("r1", running(3)), ("r2", running(2)))
    assert list(shared.outsider.read("r1")) == [(1, running(3))]
    assert [number for number, _ in shared.outsider.read("r2")] == [1, 2]


def test_an_active_run_is_not_deleted_under_its_controller(shared: Shared) -> None:
    """Only once no controller owns the store can a run be deleted that never ended."""
    shared.controller.open()
    commit(shared.controller, ("r1", running(1)), rows=[row("r1")])
    with pytest.raises(StoreError, match=r"r1 is running.*abort it"):
        shared.outsider.delete("r1")
    with pytest.raises(StoreError, match=r"r1 is running.*abort it"):
        shared.controller.delete("r1")
    commit(shared.controller, ("r1", running(2)))
    shared.controller.close()
    shared.outsider.delete("r1")
    assert shared.outsider.runs() == []


def test_deleting_an_unknown_run_suggests_near_names(store: Store) -> None:
    """The error is a LookupError that names what was perhaps meant."""
    commit(store, rows=[row("r0abc123", ended_at=2.0)])
    with pytest.raises(RunNotFoundError, match="no run 'r0abc12'; did you mean r0abc123"):
        store.delete("r0abc12")


# -- opening and closing ------------------------------------------------------------------------------------


def test_closing_commits_what_is_waiting(shared: Shared) -> None:
    """Everything appended before `close` is answered, and is there afterwards."""
    shared.controller.open()
    answers: list[BaseException | None] = []
    for number in range(1, 201):
        shared.controller.append(Batch(entries=[("r1", running(number))]), answers.append)
    shared.controller.close()
    assert answers == [None] * 200
    assert len(list(shared.outsider.read("r1"))) == 200


def test_closing_twice_and_never_opening_are_fine(shared: Shared) -> None:
    """`close` of a store that is not open does nothing."""
    shared.controller.close()
    shared.controller.open()
    shared.controller.close()
    shared.controller.close()


@pytest.mark.parametrize("opened_before", [False, True])
def test_a_closed_store_takes_nothing(shared: Shared, opened_before: bool) -> None:
    """`append` to a store that is not open answers with a StoreError, and nothing is written."""
    if opened_before:
        shared.controller.open()
        shared.controller.close()
    with pytest.raises(StoreError, match="not open"):
        commit(shared.controller, ("r1", running(1)))
    assert list(shared.controller.read("r1")) == []


def test_the_next_controller_continues_the_numbers(shared: Shared) -> None:
    """After closing, another may open the store and append where the first stopped."""
    shared.controller.open()
    commit(shared.controller, ("r1", running(1)), ("r1", running(2)))
    shared.controller.close()
    shared.outsider.open()
    commit(shared.outsider, ("r1", running(3)))
    assert [number for number, _ in shared.controller.read("r1")] == [1, 2, 3]


def test_a_second_controller_is_refused(shared: Shared) -> None:
    """Even in one process a store has one controller; the error names the process, and the first goes on."""
    shared.controller.open()
    for other in (shared.controller, shared.outsider):
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            other.open()
    commit(shared.controller, ("r1", running(1)))
    shared.controller.close()
    shared.outsider.open()
    commit(shared.outsider, ("r1", running(2)))


def test_the_owner_is_known_while_it_lives(shared: Shared) -> None:
    """`owner` is the process id of the open store's controller, and None before and after."""
    assert shared.outsider.owner() is None
    shared.controller.open()
    assert shared.outsider.owner() == os.getpid()
    assert shared.controller.owner() == os.getpid()
    shared.controller.close()
    assert shared.outsider.owner() is None


def test_a_batch_with_nothing_in_it_is_acknowledged(store: Store) -> None:
    """`done` is called for an empty batch too."""
    commit(store)


# -- the mailbox --------------------------------------------------------------------------------------------

ABORT = Command("abort", "r1", "too slow")
HOLD = Command("hold", "gpu")


def test_commands_are_taken_once_in_order(shared: Shared) -> None:
    """Whoever posts them, the controller gets each command once, oldest first."""
    shared.controller.open()
    assert shared.controller.take() == []
    shared.outsider.post(ABORT)
    shared.controller.post(HOLD)
    assert shared.controller.take() == [ABORT, HOLD]
    assert shared.controller.take() == []
    commit(shared.controller, ("r1", running(1)))
    assert shared.controller.take() == []
    shared.outsider.post(ABORT)
    assert shared.controller.take() == [ABORT]


def test_commands_wait_for_a_controller(shared: Shared) -> None:
    """What is posted while nobody owns the store is taken by the next controller, and by none after it."""
    shared.outsider.post(ABORT)
    shared.controller.open()
    assert shared.controller.take() == [ABORT]
    shared.controller.close()
    shared.controller.open()
    assert shared.controller.take() == []


def test_only_the_controller_takes(shared: Shared) -> None:
    """A store that is not open refuses to take, and the commands stay."""
    shared.outsider.post(ABORT)
    with pytest.raises(StoreError, match="not open"):
        shared.outsider.take()
    shared.controller.open()
    assert shared.controller.take() == [ABORT]


def test_notes_are_replaced_and_seen_by_all(shared: Shared) -> None:
    """A note is there for its writer at once, for others soon, whoever wrote it; the last one counts."""
    shared.outsider.put_note("queues", b"1")
    assert shared.outsider.get_note("queues") == b"1"
    shared.controller.open()
    assert shared.controller.get_note("queues") == b"1"
    shared.controller.put_note("queues", b"2")
    shared.controller.put_note("queues", b"3")
    shared.controller.put_note("other", b"\x00")
    assert shared.controller.get_note("queues") == b"3"
    commit(shared.controller)
    assert shared.outsider.get_note("queues") == b"3"
    assert shared.outsider.get_note("other") == b"\x00"
    shared.outsider.put_note("queues", b"4")
    assert shared.controller.get_note("queues") == b"4"


def test_notes_outlive_the_controller(shared: Shared) -> None:
    """Closing commits notes as well."""
    shared.controller.open()
    shared.controller.put_note("queues", b"held")
    shared.controller.close()
    assert shared.outsider.get_note("queues") == b"held"
    assert shared.outsider.get_note("nothing") is None


def test_posting_while_the_controller_writes(shared: Shared) -> None:
    """Commands and notes get through beside a busy writer, and nothing is lost on either side."""
    shared.controller.open()
    errors: list[BaseException | None] = []

    def post() -> None:
        for number in range(50):
            shared.outsider.post(Command("hold", str(number)))

    posted = threading.Thread(target=post)
    posted.start()
    for number in range(2000):
        shared.controller.append(Batch(entries=[("r1", running(number))]), errors.append)
    posted.join(LIMIT)
    assert not posted.is_alive()
    assert [command.target for command in shared.controller.take()] == [str(n) for n in range(50)]
    shared.controller.close()
    assert errors == [None] * 2000


def test_a_store_says_what_it_is(shared: Shared) -> None:
    """Its repr tells open from closed."""
    assert "closed" in repr(shared.controller)
    shared.controller.open()
    assert "open" in repr(shared.controller)
