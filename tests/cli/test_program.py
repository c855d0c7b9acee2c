"""The command line as a program: pipes and terminals, Ctrl-C and resume, kill -9, two processes at one store."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import SRC, Program, Said

Start = Callable[..., Program]


@pytest.fixture
def go(program: Start) -> Callable[..., Said]:
    """Run a command to its end."""
    return lambda *argv, **variables: program(*argv, **variables).end()


def test_in_a_pipe_there_are_plain_lines_only(program: Start, flows: Path) -> None:
    """The result on standard output, progress on standard error, no control sequences in either."""
    said = program("run", flows, "main", "--data", "[1, 2]").end()
    assert (said.code, said.out) == (0, "adding\n5\n")
    assert "\x1b" not in said.err
    assert "flows.square attempt 1 starts on spot" in said.err


def test_ctrl_c_stops_cleanly_and_the_run_is_resumed(
    program: Start, go: Callable[..., Said], flows: Path, tmp_path: Path
) -> None:
    """Exit code 130 and the command to go on with; what was finished is not done again, from any folder."""
    path = tmp_path / "signal"
    running = program("run", flows, "first_then_wait", "--path", path)
    running.line("flows.wait_for attempt 1 starts")
    sent = running.signal(signal.SIGINT)
    said = running.end()
    assert said.code == 130
    assert time.monotonic() - sent < 15
    run = running.run_name()
    assert said.err.splitlines()[-1] == f"run {run} stopped; resume with: flyteish resume {run}"
    assert f"{run}  interrupted" in go("get", "runs").out
    path.touch()
    resumed = go("resume", run)
    assert (resumed.code, resumed.out) == (0, "it came after 1\n")
    assert (tmp_path / "signal.notes").read_text() == "note\n"
    assert "taken up by a new controller" in resumed.err
    assert "flows.note attempt" not in resumed.err  # old news
    assert go("resume", run).out == "it came after 1\n"


def test_sigterm_stops_cleanly_too(program: Start, flows: Path, tmp_path: Path) -> None:
    """As when the machine goes away."""
    running = program("run", flows, "wait_for", "--path", tmp_path / "never")
    running.line("attempt 1 starts")
    running.signal(signal.SIGTERM)
    said = running.end()
    assert said.code == 143
    assert "resume with: flyteish resume" in said.err


def test_a_second_ctrl_c_leaves_at_once(program: Start, flows: Path) -> None:
    """Also where a task refuses to stop."""
    running = program("run", flows, "stubborn")
    running.line("attempt 1 starts")
    running.signal(signal.SIGINT)
    running.line("not now")
    running.signal(signal.SIGINT)
    said = running.end(4)
    assert said.code == 130
    assert "resume with: flyteish resume" in said.err.splitlines()[-1]


def test_a_killed_run_is_resumed_or_aborted(
    program: Start, go: Callable[..., Said], flows: Path, tmp_path: Path
) -> None:
    """After kill -9 the run is interrupted; resume goes on with it, abort ends it."""
    path = tmp_path / "signal"
    runs = []
    for _ in range(2):
        running = program("run", flows, "first_then_wait", "--path", path)
        running.line("flows.wait_for attempt 1 starts")
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
        runs.append(running.run_name())
    assert [row["phase"] for row in json.loads(go("get", "runs", "--json").out)] == ["interrupted"] * 2
    path.touch()
    assert go("resume", runs[0]).out == "it came after 1\n"
    assert "it is marked as aborted now" in go("abort", runs[1]).out
    assert go("resume", runs[1]).code == 3


def test_another_process_looks_at_a_run_and_aborts_it(
    program: Start, go: Callable[..., Said], flows: Path, tmp_path: Path
) -> None:
    """While it runs: get, why, logs --follow, abort. The run's own process exits with 3."""
    running = program("run", flows, "first_then_wait", "--path", tmp_path / "never")
    running.line("flows.wait_for attempt 1 starts")
    run = running.run_name()
    assert f"{run}  active" in go("get", "runs", "--active").out
    assert "running" in go("get", "attempts", run).out
    following = program("logs", run, "--follow")
    assert go("abort", run, "--reason", "enough").out == f"{run} aborted\n"
    said = running.end()
    assert said.code == 3
    assert "ActionAbortedError" in said.err
    assert "enough" in said.err
    assert following.end().code == 0
    locked = program("run", flows, "main", "--data", "[]").end()
    assert locked.code == 0  # the store is free again


def test_a_stalled_run_says_what_it_waits_for(
    program: Start, go: Callable[..., Said], flows: Path, tmp_path: Path
) -> None:
    """A held queue is not mistaken for a slow task."""
    assert go("queue", "hold", "default").code == 0
    running = program("run", flows, "main", "--data", "[2]")
    assert "HELD: an operator holds the queue" in running.line("HELD")
    assert go("queue", "activate", "default").out == "queue default is active\n"
    assert running.end().out == "adding\n4\n"


def test_a_reader_that_goes_away_is_no_error(flows: Path, tmp_path: Path, go: Callable[..., Said]) -> None:
    """`flyteish ... | head -1`: no traceback."""
    (tmp_path / "flyteish.toml").write_text("\n".join(f"[queues.q{n}]" for n in range(3000)))
    command = f"{sys.executable} -W error -m flyteish get queues | head -1"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    said = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert said.stdout.startswith("QUEUE")
    assert said.stderr == ""


@pytest.mark.parametrize("no_colour", [False, True])
def test_on_a_terminal_the_media_have_colours(flows: Path, tmp_path: Path, no_colour: bool) -> None:
    """Spot and on-demand differ; NO_COLOR is respected; the last lines stay on the screen."""
    code, screen = on_a_terminal(
        tmp_path, "run", flows, "main", "--data", "[1, 2]", **({"NO_COLOR": "1"} if no_colour else {})
    )
    assert code == 0
    assert ("\x1b[36m" in screen) is not no_colour  # cyan: spot
    assert ("\x1b[35m" in screen) is not no_colour  # magenta: on-demand
    assert "attempt 1 starts on spot" in screen
    last = screen.replace("\r", "").rstrip("\n").splitlines()[-2:]
    assert re.search(r"run r\w+ succeeded after .*; 3 actions; attempts: 2 on spot, 1 on on-demand", last[0])
    assert last[1] == "5"


def test_failures_stay_on_the_terminal(flows: Path, tmp_path: Path) -> None:
    """Above what is redrawn; tables are coloured too."""
    code, screen = on_a_terminal(tmp_path, "run", flows, "fail")
    assert code == 1
    assert "\x1b[31mattempt 1 ended: user error" in screen
    assert "ValueError: no reason" in screen
    assert "\x1b[31mfailed" in on_a_terminal(tmp_path, "get", "runs")[1]


def on_a_terminal(folder: Path, *argv: object, **variables: str) -> tuple[int, str]:
    """Exit code, and everything that was written to the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"PYTHONPATH": str(SRC), "TERM": "xterm-256color", **variables}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "flyteish", *map(str, argv)],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = b""
    try:
        while chunk := os.read(ours, 65536):
            screen += chunk
    except OSError:  # what Linux says when the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(30), screen.decode()
