"""The controller's end of the mailbox: takes each posted command once, and asks little when none came.

Decides what is new; must not know what commands ask for, nor write (the writer removes what was taken).
"""

from __future__ import annotations

import threading
from pathlib import Path

from flyteish.interfaces import Command
from flyteish.stores.schema import connect
from flyteish.stores.writer import Writer


class Inbox:
    """A connection of its own, since SQLite tells each connection when *others* changed the file.

    A command that was taken and not yet removed when the process is killed is taken again by the next
    controller; what commands ask for can be done twice. Raises sqlite3.Error.
    """

    def __init__(self, path: Path, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._last = 0  # id of the last command taken
        self._seen = -1  # the file's data version when it was last looked into
        self._db = connect(path)

    def __repr__(self) -> str:
        return f"Inbox(after command {self._last})"

    def take(self) -> list[Command]:
        """New commands, oldest first."""
        with self._lock:
            # Asked before looking, so that what is posted in between is found the next time.
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            if version == self._seen:
                return []
            query = "SELECT id, kind, target, reason FROM commands WHERE id > ? ORDER BY id"
            rows = self._db.execute(query, (self._last,)).fetchall()
            self._seen = version
            if rows:
                self._last = last = rows[-1][0]
                remove = "DELETE FROM commands WHERE id <= ?"
                self._writer.submit_work(lambda db: db.execute(remove, (last,)), lambda error: None)
            return [Command(*values) for _, *values in rows]

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._db.close()
