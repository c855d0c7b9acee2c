"""Processes that outlive whoever started them: they are found again, and never mistaken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flyteish.testing.lasting_processes import LastingProcesses, is_locked

PATIENCE = 20.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
WAITS = ("/bin/sh", "-c", "echo here; sleep 0.2")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.fixture
def processes(tmp_path: Path) -> LastingProcesses:
    return LastingProcesses(tmp_path / "processes")


def test_one_that_ends_says_how_and_what_it_said_last(processes: LastingProcesses) -> None:
    """Its exit code, for whoever started it; its last line, for anybody."""
    process = processes.start("a", ["/bin/sh", "-c", "echo one; echo two; exit 7"])
    wait_for(lambda: not process.alive, "its end")
    assert process.exit_code == 7
    found = processes.find("a")
    assert found is not None
    assert (found.pid, found.alive, found.exit_code, found.last_words()) == (process.pid, False, None, "two")
    assert list(processes.names()) == ["a"]
    found.forget()
    assert processes.find("a") is None
    assert list(processes.names()) == []


def test_what_it_is_told_is_in_no_list_of_processes(processes: LastingProcesses) -> None:
    """It reads it from its standard input, which then is at an end."""
    process = processes.start("a", ["/bin/sh", "-c", "cat"], "a secret\n")
    wait_for(lambda: not process.alive, "its end")
    assert process.last_words() == "a secret"


def test_kill_ends_it_with_what_it_started(processes: LastingProcesses) -> None:
    """One signal to its whole group."""
    process = processes.start("a", ["/bin/sh", "-c", "sleep 100 & echo $!; wait"])
    wait_for(process.last_words, "its first word")
    started = int(process.last_words())
    process.kill()
    wait_for(lambda: not process.alive, "its end")
    assert process.exit_code == -signal.SIGKILL
    wait_for(lambda: not runs(started), "the end of what it started")


def test_what_it_started_and_left_behind_ends_with_it(processes: LastingProcesses) -> None:
    """As soon as its own end is seen."""
    process = processes.start("a", ["/bin/sh", "-c", "sleep 100 & echo $!"])
    wait_for(lambda: not process.alive, "its end")
    started = int(process.last_words())
    wait_for(lambda: not runs(started), "the end of what it started")


def test_a_living_process_is_found_by_the_next_program(processes: LastingProcesses, tmp_path: Path) -> None:
    """Though whoever started it was killed."""
    program = (
        "import os, sys, time; from pathlib import Path;"
        "from flyteish.testing.lasting_processes import LastingProcesses;"
        "LastingProcesses(Path(sys.argv[1])).start('a', ['/bin/sleep', '100']);"
        "print('started', flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "processes")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        starter.kill()
    found = processes.find("a")
    assert found is not None
    assert found.alive
    os.kill(found.pid, 0)
    found.kill()
    wait_for(lambda: not found.alive, "its end")


def test_another_process_with_its_number_is_not_taken_for_it(processes: LastingProcesses, tmp_path: Path) -> None:
    """What counts is who holds the file, not the number in it."""
    (tmp_path / "processes" / "a").write_text(f"{os.getpid()}\n")
    found = processes.find("a")
    assert found is not None
    assert not found.alive
    found.kill()  # of somebody else: not done


def test_one_that_never_began_is_none(processes: LastingProcesses, tmp_path: Path) -> None:
    """Whoever was to start it died between the file and the process."""
    (tmp_path / "processes" / "a").touch()
    assert processes.find("a") is None
    assert list(processes.names()) == []


def test_one_that_is_let_go_goes_on(processes: LastingProcesses) -> None:
    """No warning of a child that nobody waits for; it can be found again."""
    process = processes.start("a", WAITS)
    process.let_go()
    del process
    found = processes.find("a")
    assert found is not None
    wait_for(lambda: not found.alive, "its end")


def test_two_living_ones_under_one_name_are_refused(processes: LastingProcesses, tmp_path: Path) -> None:
    """The first one keeps it."""
    process = processes.start("a", ["/bin/sleep", "100"])
    with pytest.raises(BlockingIOError):
        processes.start("a", ["/bin/sleep", "100"])
    assert is_locked(tmp_path / "processes" / "a")
    process.kill()
    wait_for(lambda: not process.alive, "its end")


def runs(pid: int) -> bool:
    """A process that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return (
            not Path("/proc/self").exists()
            or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (ProcessLookupError, FileNotFoundError):
        return False
