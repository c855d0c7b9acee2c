"""The journal: every event of every run, with runs at a glance, commands and notes, in one SQLite file.

How it works, and why
---------------------
*What it promises.* The controller shows no effect before its cause is on record, so all of flyteish's durability is the
moment at which ``done`` is called. After it, a batch outlives the process, killed at whichever instruction
(``durability="process"``), or the machine's power as well (``"power"``). A batch is there whole or not at all, batches
are there in the order in which they were given, and what was there stays as it is: a journal only grows. State is never
stored. It is worked out again from the events, and so it cannot disagree with them.

*Group commit.* A commit costs far more than what is in it, so one commit takes all that waits. While the writer's
thread is busy with one transaction the next burst gathers, and the more there is to do, the larger bursts become and
the less a single event costs. A small batch that finds nothing waiting is committed where it is submitted: two switches
of threads cost several times what its commit does. Both ways use one connection, by turns, and neither overtakes the
other. After a failed commit nothing is committed any more, everybody gets that error, and the controller ends:
what comes after a gap would say what never happened.

*Segments.* What one burst has for one run is a row: a MessagePack list of entries (256 KiB at most), the number of
its first, how many they are, a CRC-32. A row for each event would cost more than the event, in time and space. Numbers
run from 1 without gaps, and so a reader notices what is missing; SQLite checks the pages of its file and not what is
in them, and so the checksum notices what was changed. A damaged segment is an error at that entry, and nothing before
it is lost.

*Write-ahead log.* Readers (the command line, a dashboard) never wait for the writer, nor it for them: they see the
file as it was when they began, and read 16 segments at a time, without a transaction in between that would keep the log
from being cleared. Cleared it is by the writer, between two commits, so that nobody's commit is late for it.

*One writer.* The claim is a lock that the kernel takes back when its owner dies, so there is never one to break by
hand. It does not pass to forks; a fork of the owner can write nothing. Other processes leave commands and notes in
transactions of their own, which last for milliseconds; the journals are the owner's.

*Older and newer files.* The file says which schema it has. The owner migrates an older one forward in one transaction,
after a copy was made beside it; a newer one, or somebody else's, is refused and left as it is. Within one schema only
fields with defaults are added to events, so that old entries are read as they are.

Here the parts are put together (``claim``, ``schema``, ``writer``, ``inbox``, ``segments``), and the file is read. Must
not know what events mean, nor decide when something is written.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flyteish._core.model.events import Entry
from flyteish.errors import ConfigurationError, FlyteishError, StoreError
from flyteish.interfaces import Batch, Command, RunRow
from flyteish.stores.claim import Claim, owner
from flyteish.stores.faults import damaged, explained
from flyteish.stores.inbox import Inbox
from flyteish.stores.rules import check_after, check_limit, may_not_delete
from flyteish.stores.schema import check, connect, create, prepare
from flyteish.stores.segments import Segment, unpack
from flyteish.stores.writer import Writer

DURABILITIES = ("process", "power")
_COLUMNS = ", ".join(RunRow.__struct_fields__)
_SEGMENTS_AT_ONCE = 16  # 4 MiB at most; between reads no transaction is open, so the log can be cleared

_READ = """
    SELECT first, count, crc, data FROM segments
    WHERE run = :run
    AND first >= coalesce((SELECT max(first) FROM segments WHERE run = :run AND first <= :number), 0)
    ORDER BY first LIMIT :limit
"""


class SqliteStore:
    """A RunStore and a Mailbox in the file at ``path``, created (0600, in a folder of 0700) when needed.

    ``durability="process"`` (the default): what was acknowledged outlives ``kill -9``, and all but the last
    moments outlive a power failure, without damage. ``"power"``: every acknowledged batch is on disk, and
    each burst waits for that. Only ``append`` and ``take`` need ``open``. Any thread may call any method.
    """

    def __init__(self, path: Path, *, durability: str = "process") -> None:
        if durability not in DURABILITIES:
            raise ConfigurationError(f"durability: {durability!r} is not accepted, only {' or '.join(DURABILITIES)}")
        self._path = path.resolve()  # one store has one claim, whatever the way to it
        self._durability = durability
        self._lock = threading.Lock()  # guards what is opened, and the overlay of notes
        self._opened: _Opened | None = None
        self._notes_on_their_way: dict[str, bytes] = {}

    def __repr__(self) -> str:
        state = "closed" if self._opened is None else f"open, {self._opened.writer!r}"
        return f"SqliteStore({str(self._path)!r}, durability={self._durability!r}, {state})"

    # -- RunStore ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Claim the store. Raises: StoreLockedError, StoreVersionError, StoreCorruptError, StoreError."""
        with explained(self._path, "open"):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim = Claim(self._path)
        try:
            with explained(self._path, "open"):
                prepare(self._path)
                opened = _Opened(self._path, claim, power=self._durability == "power")
        except BaseException:
            claim.release()
            raise
        self._opened = opened

    def append(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        """Commit the batch, now or in its turn. Where the store is not open, ``done`` gets a StoreError at once."""
        opened = self._opened_here()
        if opened is None:
            done(self._not_open("append to"))
        else:
            opened.writer.submit(batch, done)

    def read(self, run: str, after: int = 0) -> Iterator[tuple[int, Entry]]:
        """Entries in order, those committed by the time the last one is reached; none for unknown runs.

        Raises: StoreCorruptError at the first entry that is damaged, StoreVersionError, StoreError.
        """
        check_after(after)
        return self._read(run, after)

    def _read(self, run: str, after: int) -> Iterator[tuple[int, Entry]]:
        number = after + 1
        with self._reading() as db:
            while db is not None:
                asked = {"run": run, "number": number, "limit": _SEGMENTS_AT_ONCE}
                with explained(self._path, "read"):
                    rows = db.execute(_READ, asked).fetchall()
                before = number
                for first, *segment in rows:
                    if first > number:
                        raise damaged(self._path, f"the journal of run {run} lacks entries {number} to {first - 1}")
                    for entry in self._unpack(run, first, Segment(*segment))[number - first :]:
                        yield number, entry
                        number += 1
                if number == before:
                    return

    def runs(self, limit: int = 100, active_only: bool = False) -> list[RunRow]:
        """Newest first; ``active_only``: those that have not ended. Raises: StoreError."""
        check_limit(limit)
        which = "WHERE ended_at IS NULL" if active_only else ""
        query = f"SELECT {_COLUMNS} FROM runs {which} ORDER BY submitted_at DESC, run DESC LIMIT ?"
        with self._reading() as db, explained(self._path, "read"):
            return [] if db is None else [RunRow(*row) for row in db.execute(query, (limit,))]

    def run(self, run: str) -> RunRow | None:
        """One of them, or None. Raises: StoreError."""
        with self._reading() as db, explained(self._path, "read"):
            return None if db is None else _row(db, run)

    def delete(self, run: str) -> None:
        """Forget a run that has ended, or that no live controller can end any more.

        Raises: RunNotFoundError, StoreError where the run is still active.
        """
        owned = self.owner() is not None
        refusals: list[FlyteishError] = []

        def work(db: sqlite3.Connection) -> None:
            refusal = _delete(db, run, owned)
            if refusal is not None:
                refusals.append(refusal)  # not raised here: it is no failure of the store's

        opened = self._opened_here()
        if opened is not None:
            opened.writer.do(work, forgetting=run)
        else:
            with self._writing("delete from") as db:
                work(db)
        if refusals:
            raise refusals[0]

    def close(self) -> None:
        """Commit what is waiting and give the claim back; does nothing where the store is not open.

        Raises: StoreError where it is called in a ``done``, which it would have to wait for.
        """
        with self._lock:
            opened = self._opened_here()
            if opened is not None:
                opened.writer.check_may_wait()
            self._opened = None
        if opened is not None:
            opened.close()

    # -- Mailbox ----------------------------------------------------------------------------------

    def post(self, command: Command) -> None:
        """Leave a command; it is there when this returns. Raises: StoreError."""
        values = (command.kind, command.target, command.reason)
        with self._writing("post to") as db:
            db.execute("INSERT INTO commands (kind, target, reason) VALUES (?, ?, ?)", values)

    def take(self) -> list[Command]:
        """New commands, oldest first; a look at one number where nothing was written. Raises: StoreError."""
        opened = self._opened_here()
        if opened is None:
            raise self._not_open("take commands from")
        with explained(self._path, "read"):
            return opened.inbox.take()

    def put_note(self, name: str, value: bytes) -> None:
        """Keep a note. Where this store is open it is committed soon, and ``get_note`` sees it at once.

        Raises: StoreError (where the store is open: one that already happened).
        """
        opened = self._opened_here()
        if opened is None:
            with self._writing("write to") as db:
                _put_note(db, name, value)
            return
        if opened.writer.failure is not None:
            raise opened.writer.failure
        with self._lock:
            self._notes_on_their_way[name] = value

        def done(error: BaseException | None) -> None:
            with self._lock:
                if self._notes_on_their_way.get(name) is value:
                    del self._notes_on_their_way[name]

        opened.writer.submit_work(lambda db: _put_note(db, name, value), done)

    def get_note(self, name: str) -> bytes | None:
        """What was kept, or None. Raises: StoreError."""
        with self._lock:
            if name in self._notes_on_their_way:
                return self._notes_on_their_way[name]
        with self._reading() as db, explained(self._path, "read"):
            if db is None:
                return None
            found = db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
            return None if found is None else bytes(found[0])

    def owner(self) -> int | None:
        """Process id of the live controller that has the store open, or None. Raises: StoreError."""
        return owner(self._path)

    def _opened_here(self) -> _Opened | None:
        """What is open; None in a fork of the process that opened it, which must not touch any of it."""
        opened = self._opened
        return opened if opened is not None and opened.pid == os.getpid() else None

    # -- connections: one for each call, so that none is ever shared -------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A read-only connection; None where there is nothing to read yet."""
        db = None
        with explained(self._path, "read"):
            if self._path.exists():
                db = connect(self._path)
        if db is None:
            yield None
            return
        with closing(db):
            with explained(self._path, "read"):
                holds_something = check(db, self._path)
            yield db if holds_something else None

    @contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A transaction beside that of the controller's writer, which lasts for milliseconds."""
        if self._opened is not None and self._opened_here() is None:
            raise self._not_open(doing)  # SQLite's locks do not work across a fork
        with explained(self._path, doing):
            create(self._path)
            with closing(connect(self._path, write=True)) as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")  # closing without it rolls back

    def _unpack(self, run: str, first: int, segment: Segment) -> list[Entry]:
        try:
            return unpack(segment)
        except ValueError as error:
            what = f"the journal of run {run} cannot be read from entry {first}: {error}"
            raise damaged(self._path, what) from error

    def _not_open(self, doing: str) -> StoreError:
        forked_from = self._opened
        if forked_from is not None:
            why = f"opened by process {forked_from.pid}, not by this fork of it"
        else:
            why = "not open (or closed already)"
        return StoreError(f"{self._path}: cannot {doing} this store, which is {why}")


class _Opened:
    """What a store has while it is open. Raises sqlite3.Error."""

    def __init__(self, path: Path, claim: Claim, *, power: bool) -> None:
        self.pid = os.getpid()
        self.claim = claim
        self.writer = Writer(path, power=power)
        try:
            self.inbox = Inbox(path, self.writer)
        except BaseException:
            self.writer.stop()
            raise

    def close(self) -> None:
        """In this order: while something may still be written, the claim is held."""
        try:
            self.inbox.close()
            self.writer.stop()
        finally:
            self.claim.release()


def _row(db: sqlite3.Connection, run: str) -> RunRow | None:
    found = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE run = ?", (run,)).fetchone()
    return None if found is None else RunRow(*found)


def _put_note(db: sqlite3.Connection, name: str, value: bytes) -> None:
    db.execute(
        "INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def _delete(db: sqlite3.Connection, run: str, owned: bool) -> FlyteishError | None:
    """Delete the run, or say why not."""
    (has_journal,) = db.execute("SELECT EXISTS (SELECT 1 FROM segments WHERE run = ?)", (run,)).fetchone()
    names = (name for (name,) in db.execute("SELECT run FROM runs ORDER BY submitted_at DESC LIMIT 1000"))
    refusal = may_not_delete(run, _row(db, run), bool(has_journal), owned, lambda: names)
    if refusal is None:
        db.execute("DELETE FROM segments WHERE run = ?", (run,))
        db.execute("DELETE FROM runs WHERE run = ?", (run,))
    return refusal
