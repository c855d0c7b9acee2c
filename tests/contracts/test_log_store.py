"""What every log store keeps to: files and memory, and as far as it goes the one that keeps nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyteish._core.model.ids import AttemptKey
from flyteish.interfaces import LogStore
from flyteish.logs.files import FileLogs
from flyteish.logs.memory import MemoryLogs
from flyteish.logs.nowhere import NoLogs

PATIENCE = 20.0
ONE, TWO = AttemptKey("r1", "a0", 1), AttemptKey("r1", "0f", 12)
STRANGER = AttemptKey("r2", "a0", 1)


@pytest.fixture(params=["files", "memory"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    return FileLogs(tmp_path / "a folder" / "logs") if request.param == "files" else MemoryLogs()


def say(logs: LogStore, key: AttemptKey, *pieces: bytes) -> None:
    writer = logs.writer(key)
    for piece in pieces:
        writer.append(piece)
    writer.close()


def test_what_was_said_is_read_from_any_offset(logs: LogStore) -> None:
    """In one piece, a part of it, and nothing beyond its end."""
    say(logs, ONE, b"first\n", b"second\n")
    assert logs.read(ONE) == b"first\nsecond\n"
    assert logs.read(ONE, 6) == b"second\n"
    assert logs.read(ONE, 6, 3) == b"sec"
    assert logs.read(ONE, 13) == logs.read(ONE, 99) == b""


def test_each_attempt_has_its_own(logs: LogStore) -> None:
    """Of a run it can be asked who has said something; who did not speak has none."""
    say(logs, ONE, b"one")
    say(logs, TWO, b"two")
    say(logs, STRANGER, b"stranger")
    say(logs, AttemptKey("r1", "a9", 1))
    assert set(logs.said("r1")) == {ONE, TWO}
    assert logs.said("r3") == []
    assert (logs.read(TWO), logs.read(AttemptKey("r1", "a0", 2))) == (b"two", b"")


def test_readers_see_what_is_appended_at_once(logs: LogStore) -> None:
    """Whatever the writer has open."""
    writer = logs.writer(ONE)
    writer.append(b"now")
    assert logs.read(ONE) == b"now"
    writer.append("é".encode())
    assert logs.read(ONE, 3) == "é".encode()
    writer.close()


def test_what_is_said_after_the_end_is_dropped(logs: LogStore) -> None:
    """By a thread that outlived its attempt, for instance. Closing twice is once."""
    writer = logs.writer(ONE)
    writer.append(b"in time")
    writer.close()
    writer.append(b"late")
    writer.close()
    assert logs.read(ONE) == b"in time"


def test_a_second_writer_goes_on_after_the_first(logs: LogStore) -> None:
    """An attempt that is adopted goes on speaking through another one."""
    say(logs, ONE, b"one ")
    say(logs, ONE, b"two")
    assert logs.read(ONE) == b"one two"


def test_many_threads_may_speak_at_once(logs: LogStore) -> None:
    """Pieces stay whole."""
    writer = logs.writer(ONE)

    def speak() -> None:
        for _ in range(50):
            writer.append(b"word\n")

    threads = [threading.Thread(target=speak) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    writer.close()
    assert logs.read(ONE) == b"word\n" * 200


def test_following_gives_what_comes_until_it_is_over(logs: LogStore) -> None:
    """From the beginning, also of attempts that join later; what was said before the end is given."""
    said: dict[AttemptKey, bytes] = {}
    heard, over = threading.Condition(), threading.Event()

    def follow() -> None:
        for key, data in logs.follow(lambda: logs.said("r1"), over.is_set):
            with heard:
                said[key] = said.get(key, b"") + data
                heard.notify_all()

    def wait_for(condition: Callable[[], Any]) -> None:
        with heard:
            assert heard.wait_for(condition, PATIENCE), said

    first = logs.writer(ONE)
    first.append(b"before ")
    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: said.get(ONE) == b"before ")
    say(logs, TWO, b"another")
    first.append(b"after")
    wait_for(lambda: said == {ONE: b"before after", TWO: b"another"})
    first.append(b", and the end")
    over.set()
    thread.join(PATIENCE)
    first.close()
    assert said[ONE] == b"before after, and the end"


def test_following_reads_long_logs_in_pieces(logs: LogStore) -> None:
    """So that memory is bounded."""
    say(logs, ONE, b"x" * 3_000_000)
    pieces = [data for _, data in logs.follow(lambda: [ONE], lambda: True)]
    assert sum(map(len, pieces)) == 3_000_000
    assert max(map(len, pieces)) <= 1 << 20


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_lie_where_they_always_did(tmp_path: Path) -> None:
    """A folder for each run, a file for each attempt, for its owner only; nothing is made before the first word."""
    logs = FileLogs(tmp_path / "logs")
    logs.writer(ONE).close()
    assert not (tmp_path / "logs").exists()
    say(logs, ONE, b"text")
    file = tmp_path / "logs" / "r1" / "a0.1.log"
    assert file.read_bytes() == b"text"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert logs.where(ONE) == str(file)
    assert FileLogs(tmp_path / "logs").read(ONE) == b"text"


def test_a_process_of_this_machine_may_write_by_itself(tmp_path: Path) -> None:
    """What it puts into the file is read like any other log."""
    logs = FileLogs(tmp_path / "logs")
    file = logs.file(TWO)
    assert file is not None
    Path(file).write_bytes(b"by file descriptor")
    assert (logs.read(TWO), logs.said("r1")) == (b"by file descriptor", [TWO])


def test_a_log_that_cannot_be_kept_costs_nobody_an_attempt(tmp_path: Path) -> None:
    """A full or read-only disk: what is said is dropped."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    logs = FileLogs(tmp_path / "logs")
    say(logs, ONE, b"text")
    assert logs.file(ONE) is None


# -- nowhere --------------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is_kept() -> None:
    """Neither said, nor read, nor followed."""
    logs = NoLogs()
    say(logs, ONE, b"text")
    assert (logs.read(ONE), logs.said("r1"), logs.file(ONE), logs.where(ONE)) == (b"", [], None, "")
    assert list(logs.follow(lambda: [ONE], lambda: False)) == []
