"""What writes a store: a thread that takes everything that is waiting and commits it as one transaction.

A small batch that finds nothing waiting is committed where it is submitted: handing it to another thread and back
costs several times what the commit does. Decides how bursts become transactions, in order, and what happens after a
failed one: nothing more is committed (``sqlite`` tells why).
Must not know the claim, the migrations, or what entries mean.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from flyteish._core.model.events import Entry
from flyteish.errors import StoreError
from flyteish.interfaces import Batch, RunRow
from flyteish.stores.faults import store_error
from flyteish.stores.schema import connect
from flyteish.stores.segments import pack

_log = logging.getLogger(__name__)

Done = Callable[[BaseException | None], None]
Work = Callable[[sqlite3.Connection], object]
# A batch to commit, or other work on the connection. A plain tuple: 10,000 of them are made in a burst.
_Item = tuple[Batch | None, Work | None, Done]

_PATIENCE = 60.0  # seconds: a poster is done in milliseconds; a person's SQLite shell may take longer
_CHECKPOINT_BYTES = 4 * 1024 * 1024
_COMMIT_BYTES = 16 * 1024  # the pages that even the smallest commit adds to the log
_WAL_BYTES_KEPT = 16 * 1024 * 1024
_SMALL = 64  # entries; more are worth a thread of their own, which encodes them while the submitter goes on

_INSERT_SEGMENT = "INSERT INTO segments VALUES (?, ?, ?, ?, ?)"
_NEXT_NUMBER = "SELECT first + count FROM segments WHERE run = ? ORDER BY first DESC LIMIT 1"
_ROW_FIELDS = RunRow.__struct_fields__
_UPSERT_RUN = f"""
    INSERT INTO runs ({", ".join(_ROW_FIELDS)}) VALUES ({", ".join("?" * len(_ROW_FIELDS))})
    ON CONFLICT (run) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ROW_FIELDS[1:])}
"""


class Writer:
    """Owns the connection that writes. ``submit`` and ``submit_work`` may be called from any thread.

    ``done`` is called in the order of submission, after the commit: on the writer's thread, or within ``submit``; once
    the writer has ended, on the caller's. ``power`` waits for the disk in every commit. Raises sqlite3.Error.
    """

    def __init__(self, path: Path, *, power: bool) -> None:
        self._path = path
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._next: dict[str, int] = {}  # run -> number of its next entry, for runs that are being written
        self._data_version = -1
        self._unchecked = 0  # about how many bytes the log got since the last checkpoint
        self._failure: StoreError | None = None
        self._ended = False
        self._direct = not power  # a commit that waits for the disk would hold the submitter up
        self._turn = threading.Lock()  # held by whoever uses the connection
        self._counting = threading.Lock()
        self._queued = 0  # batches and works that were given to the thread; guarded by ``_counting``
        self._finished = 0  # of these, how many it is done with; changed by the thread only
        self._db = connect(path, write=True, patience=_PATIENCE)
        try:
            _configure(self._db, power)
        except BaseException:
            self._db.close()
            raise
        # A daemon: a program that forgets to close its session must not hang at its end.
        self._thread = threading.Thread(target=self._main, name=f"flyteish-store-{path.name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "failed" if self._failure else "writing"
        return f"Writer({str(self._path)!r}, {state}, {self._waiting.qsize()} waiting)"

    @property
    def failure(self) -> StoreError | None:
        """Why nothing more is committed, or None while all is well."""
        return self._failure

    def submit(self, batch: Batch, done: Done) -> None:
        """Commit the batch, which must not change any more: here and now, or soon, at a microsecond's cost."""
        if self._direct and len(batch.entries) <= _SMALL and self._commits_here(batch, done):
            _call(done, self._failure)
            return
        self._put((batch, None, done))

    def _commits_here(self, batch: Batch, done: Done) -> bool:
        """Whether it was committed (or failed for good): not if others are before it, or the file is busy."""
        if self._queued != self._finished or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._ended or self._failure is not None or self._queued != self._finished:
                return False
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False  # another process is writing, or worse: the thread has the patience, and the words
            self._commit_begun([(batch, None, done)])
        finally:
            self._turn.release()
        if self._unchecked >= _CHECKPOINT_BYTES:
            self.submit_work(lambda db: None, lambda error: None)
        return True

    def submit_work(self, work: Work, done: Done) -> None:
        """Do something else than journalling within the writer's transactions, in its turn.

        What ``work`` raises is taken for a failure of the store. It must leave journals alone.
        """
        self._put((None, work, done))

    def do(self, work: Work, *, forgetting: str) -> None:
        """Like ``submit_work``, and wait for the commit; the journal of the run ``forgetting`` may change.

        Raises: StoreError.
        """
        outcome: list[BaseException | None] = []
        finished = threading.Event()

        def work_and_forget(db: sqlite3.Connection) -> None:
            work(db)
            self._next.pop(forgetting, None)

        def done(error: BaseException | None) -> None:
            outcome.append(error)
            finished.set()

        self.check_may_wait()
        self.submit_work(work_and_forget, done)
        finished.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def check_may_wait(self) -> None:
        """Raises: StoreError on the writer's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise StoreError(f"{self._path}: cannot wait for the store in a `done`, on the store's own thread")

    def stop(self) -> None:
        """Commit what is waiting, let go of the connection and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _put(self, item: _Item) -> None:
        with self._counting:
            self._queued += 1
        self._waiting.put(item)
        # The flag is looked at after the put, and set before the writer's last look at the queue: so one of
        # the two sees the item.
        if self._ended:
            self._refuse_leftovers()

    def _refuse_leftovers(self) -> None:
        closed = StoreError(f"{self._path}: the store is closed; nothing more is written to it")
        while True:
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return
            if item is not None:
                _call(item[2], closed)

    # -- on the writer's thread -------------------------------------------------------------------

    def _main(self) -> None:
        try:
            going_on = True
            while going_on:
                items = [self._waiting.get()]
                items += [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
                burst = [item for item in items if item is not None]
                going_on = len(burst) == len(items)
                with self._turn:
                    self._commit(burst)
                # Counted only once all were told: a batch that its submitter commits must not be told of before them.
                for _, _, done in burst:
                    _call(done, self._failure)
                self._finished += len(burst)
                with self._turn:
                    self._checkpoint()
        finally:
            with self._turn:
                self._ended = True
                self._refuse_leftovers()
                self._db.close()

    def _commit(self, burst: list[_Item]) -> None:
        if self._failure is not None or not burst:
            return
        try:
            self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}").fetchall()
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("PRAGMA busy_timeout = 0").fetchall()
        except BaseException as error:
            self._fail(burst, error)
        else:
            self._commit_begun(burst)

    def _commit_begun(self, burst: list[_Item]) -> None:
        try:
            self._forget_numbers_if_others_wrote()
            self._write(burst)
            self._db.execute("COMMIT")
            self._unchecked += _COMMIT_BYTES
        except BaseException as error:  # whatever it is, it must reach those who wait for `done`
            self._fail(burst, error)

    def _fail(self, burst: list[_Item], error: BaseException) -> None:
        run = next((run for batch, _, _ in burst if batch for run, _ in batch.entries), "RUN")
        self._failure = store_error(error, self._path, "write to", run)
        self._failure.__cause__ = error if error is not self._failure else None
        self._roll_back()

    def _write(self, burst: list[_Item]) -> None:
        journal: dict[str, list[Entry]] = {}
        rows: dict[str, RunRow] = {}
        for batch, work, _ in burst:
            if batch is not None:
                for run, entry in batch.entries:
                    if run in journal:
                        journal[run].append(entry)
                    else:
                        journal[run] = [entry]
                for row in batch.rows:
                    rows[row.run] = row
            if work is not None:
                # What came before the work must be there when it looks.
                self._write_journal(journal, rows)
                journal, rows = {}, {}
                work(self._db)
        self._write_journal(journal, rows)

    def _write_journal(self, journal: dict[str, list[Entry]], rows: dict[str, RunRow]) -> None:
        for run, entries in journal.items():
            number = self._next_number(run)
            for segment in pack(entries):
                self._db.execute(_INSERT_SEGMENT, (run, number, *segment))
                number += segment.length
                self._unchecked += len(segment.data)
            self._next[run] = number
        for row in rows.values():
            self._db.execute(_UPSERT_RUN, [getattr(row, name) for name in _ROW_FIELDS])
            if row.ended_at is not None:
                self._next.pop(row.run, None)  # bounds the memory; a late entry looks its number up again

    def _next_number(self, run: str) -> int:
        number = self._next.get(run)
        if number is None:
            found = self._db.execute(_NEXT_NUMBER, (run,)).fetchone()
            number = 1 if found is None else found[0]
        return number

    def _forget_numbers_if_others_wrote(self) -> None:
        # Another process may have deleted a run, whose numbers would begin anew.
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._next.clear()
            self._data_version = version

    def _checkpoint(self) -> None:
        # Here and not within a commit, so that nobody waits for it to be told of theirs.
        if self._unchecked < _CHECKPOINT_BYTES or self._failure is not None:
            return
        self._unchecked = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            # All is safe in the log; if the disk really is at its end, the next commit says so and why.
            _log.warning("%s: checkpoint put off", self._path, exc_info=True)

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            # The failure that led here is what is reported, and closing rolls back too.
            _log.warning("%s: roll-back failed", self._path, exc_info=True)


def _configure(db: sqlite3.Connection, power: bool) -> None:
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    # NORMAL: a commit is in the hands of the operating system, and outlives the process; FULL: it is on disk.
    db.execute(f"PRAGMA synchronous = {'FULL' if power else 'NORMAL'}")
    db.execute(f"PRAGMA fullfsync = {int(power)}")  # macOS: its fsync does not reach the platter
    db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}").fetchall()
    db.execute("PRAGMA busy_timeout = 0").fetchall()  # only the writer's thread has time to wait


def _call(done: Done, error: BaseException | None) -> None:
    try:
        done(error)
    except BaseException:
        # A caller's mistake (a cancelled future's, too) must not cost the others their answer.
        _log.exception("a store's done callback failed: %r", done)
