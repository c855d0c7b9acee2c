"""One run of the program whose controller is killed in every leg and started again, and what must be true of it.

A seed decides the moments, what may go on while there is no controller, and where connections break. What the journal
says is held against what the program noted while it ran.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from flyteish._core.model.events import AttemptAdmitted, AttemptEnded, Entry, RunRecovered
from flyteish._core.model.records import Action, End, Phase, RunRecord
from flyteish._core.replay import record_of
from flyteish.stores.sqlite import SqliteStore
from flyteish.testing.lasting_processes import LastingProcesses
from tests.adoption import program
from tests.adoption.proxy import Proxy

RUN = "adopted"
PATIENCE = 60.0
QUIET = 0.25
"""Seconds without any progress after which a moment that was not reached is now."""


class Story:
    """From the first start to the result; ``seed`` tells it again."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.seed = seed
        self.chance = random.Random(seed)
        self.home, self.notes, self.gates = folder / "home", folder / "notes", folder / "gates"
        self.gates.mkdir()
        self.notes.touch()
        self.store = self.home / "flyteish.db"
        self.proxy = Proxy(self._controller_address, random.Random(self.chance.random()))
        self.kills = 0
        self.lived = 0
        """Attempts that a controller found alive, or whose end it found, over all its lives."""
        self.unheard = 0
        """Attempts that left while there was no controller."""
        self.to_leave: list[int] = []
        """Legs whose leaves may end when there is a controller again."""
        self.told: list[str] = []
        """What was done, for whoever reads a failure."""

    def tell(self) -> None:
        try:
            for leg in range(program.LEGS):
                self._leg(leg)
            controller = self._start()
            out, _ = controller.communicate(timeout=PATIENCE)
            assert controller.returncode == 0, "the controller failed"
            assert int(out) == program.RESULT
            self._judge()
        except BaseException as error:
            for line in (*self.told, f"tell it again with FLYTEISH_ADOPTION_SEED={self.seed}"):
                error.add_note(line)
            raise
        finally:
            self.proxy.close()
            self._clean_up()

    # -- lives and deaths ------------------------------------------------------------------------------------------

    def _leg(self, leg: int) -> None:
        """One life: the leg begins before or after the kill, its leaves may end before it, in between or after."""
        begins, ends = self.chance.choice(
            [("before", "before")] * 2 + [("before", "between")] * 2 + [("before", "after"), ("between", "between")]
        )
        catches_up = self.chance.random() < 0.8
        by = self.chance.choice(["entries", "notes", "pieces", "seconds"])
        after = self.chance.randint(1, {"entries": 24, "notes": 14, "pieces": 60, "seconds": 60}[by])
        cut = self.chance.random() < 0.5
        self.told.append(f"leg {leg} begins {begins} and ends {ends} the kill, after {after} {by}; all cut: {cut}")
        controller = self._start()
        with controller:
            if catches_up and leg:
                self._until(controller, lambda: ("leg", str(leg - 1)) in self._delivered(), f"the end of leg {leg - 1}")
            self._open_gates(leg, begins == "before", ends == "before")
            if begins == "before" and ends == "between":
                self._until(controller, lambda: len(self._leaves(leg)) == 2, f"the leaves of leg {leg}")
            self._moment(controller, by, after)
            if cut and self.chance.random() < 0.5:
                self.proxy.cut_all()
                self._moment(controller, "pieces", self.chance.randint(1, 20))
            controller.send_signal(signal.SIGKILL)
            assert controller.wait() == -signal.SIGKILL, "it ended by itself"
        self.kills += 1
        if cut:
            self.proxy.cut_all()
        before = len(self._lines("leaves"))
        self._open_gates(leg, begins == "between", ends == "between")
        if begins == "between" or ends == "between":
            self._moment(None, "notes", self.chance.randint(1, 6))
        self.unheard += len(self._lines("leaves")) - before
        if ends == "after":
            self.to_leave.append(leg)

    def _open_gates(self, leg: int, start: bool, leave: bool) -> None:
        if start:
            (self.gates / f"start-{leg}").touch()
        if leave:
            (self.gates / f"leave-{leg}").touch()

    def _start(self) -> subprocess.Popen[str]:
        address = self.home / "remote" / "address"
        address.unlink(missing_ok=True)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [
            sys.executable, program.__file__, str(self.home), str(self.notes), str(self.gates), RUN,
            f"tcp://127.0.0.1:{self.proxy.port}",
        ]  # fmt: skip
        controller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        self._until(controller, address.exists, "its address")
        for leg in self.to_leave:
            self._open_gates(leg, start=False, leave=True)
        self.to_leave.clear()
        return controller

    def _controller_address(self) -> tuple[str, int] | None:
        try:
            url = (self.home / "remote" / "address").read_text()
        except OSError:
            return None
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def _moment(self, controller: subprocess.Popen[str] | None, by: str, after: int) -> None:
        """Come back once so much more has happened, or nothing happens any more."""
        begun = last = time.monotonic()
        before = seen = self._progress()
        while controller is None or controller.poll() is None:
            now, progress = time.monotonic(), self._progress()
            if progress != seen:
                seen, last = progress, now
            done = (now - begun) * 100 if by == "seconds" else seen[by] - before[by]
            if done >= after or (now - last > QUIET and (before != seen or now - begun > 4 * QUIET)):
                return
            assert now - begun < PATIENCE, f"no end of progress: {seen}"
            time.sleep(0.001)

    def _until(self, controller: subprocess.Popen[str], condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert controller.poll() is None, f"the controller ended before {what}"
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(0.005)

    def _leaves(self, leg: int) -> set[str]:
        """The actions below that leg which have begun."""
        return {action for action, _, _, _, *of in self._lines("executed") if of == [str(leg)]}

    def _delivered(self) -> set[tuple[str, str]]:
        return {(line[3], line[4]) for line in self._lines("delivered")}

    def _progress(self) -> dict[str, int]:
        return {
            "entries": self._entries(),
            "notes": self.notes.read_bytes().count(b"\n"),
            "pieces": self.proxy.passed,
        }

    def _entries(self) -> int:
        if not self.store.exists():
            return 0
        try:
            with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=5)) as db:
                found = db.execute("SELECT coalesce(sum(count), 0) FROM segments WHERE run = ?", (RUN,)).fetchone()
                return int(found[0])
        except sqlite3.OperationalError:  # being made this moment
            return 0

    # -- what must be true -----------------------------------------------------------------------------------------

    def _lines(self, kind: str) -> list[tuple[str, ...]]:
        """Action, generation, user attempt and the rest of each note of that kind."""
        found = [line.split() for line in self.notes.read_text().splitlines()]
        return [tuple(words[1:]) for words in found if words[0] == kind]

    def _judge(self) -> None:
        entries = [entry for _, entry in SqliteStore(self.store).read(RUN)]
        record = record_of(RUN, entries)
        assert record is not None
        self._judge_journal(entries, record)
        self._judge_executions(record)
        self._judge_answers(record)
        self._judge_what_is_left()

    def _judge_journal(self, entries: list[Entry], record: RunRecord) -> None:
        assert len(record.actions) == 2 + program.LEGS * 3
        for action in record.actions.values():
            failures = program.FAILURES.get(action.profile.task, 0)
            ends = Counter(attempt.end for attempt in action.attempts)
            assert action.phase is Phase.SUCCEEDED, f"{action!r}"
            assert (ends[End.SUCCEEDED], ends[End.USER_ERROR]) == (1, failures), f"{action!r}: {ends}"
            assert set(ends) <= {End.SUCCEEDED, End.USER_ERROR, End.ABANDONED}, (
                f"{action!r}: {[(str(attempt.end), attempt.cause) for attempt in action.attempts]}"
            )
            assert action.user_attempt == 1 + failures, "a kill was charged to the user's budget"
            assert (action.system_used, action.preemptions) == (0, 0), "a kill was charged to somebody"
            generations = [attempt.generation for attempt in action.attempts]
            assert generations == list(range(1, len(generations) + 1)), f"{action!r}: {generations}"
        events = [entry.event for entry in entries]
        told = Counter((e.action, e.generation) for e in events if isinstance(e, AttemptEnded))
        begun = Counter((e.action, e.generation) for e in events if isinstance(e, AttemptAdmitted))
        assert set(told.values()) == {1}, f"ends that are on record more than once: {told}"
        assert set(begun.values()) == {1}, f"generations that were given out more than once: {begun}"
        for action in record.actions.values():
            for attempt in action.attempts:
                expected = 0 if attempt.end is End.ABANDONED else 1
                assert told[action.id, attempt.generation] == expected, f"{action!r} {attempt}"
        recovered = [e for e in events if isinstance(e, RunRecovered)]
        assert len(recovered) <= self.kills
        self.lived = sum(len(e.living) for e in recovered)

    def _judge_executions(self, record: RunRecord) -> None:
        """What had begun went on: nothing ran twice, and nothing was given up that ran."""
        executed = Counter((action, int(generation)) for action, generation, *_ in self._lines("executed"))
        assert [key for key, count in executed.items() if count > 1] == [], "ran twice within one generation"
        for action in record.actions.values():
            for attempt in action.attempts:
                ran = executed[action.id, attempt.generation] == 1
                assert ran == (attempt.end is not End.ABANDONED), f"{action!r} {attempt}: ran is {ran}"
        left = Counter((action, generation) for action, generation, *_ in self._lines("leaves"))
        assert set(left.values()) == {1}

    def _judge_answers(self, record: RunRecord) -> None:
        """Whatever an attempt is told, it is told once; and it is what the journal says."""
        for kind in ("delivered", "traced", "saved"):
            told = Counter(self._lines(kind))
            assert [line for line, count in told.items() if count > 1] == [], f"{kind} twice"
        assert all(line[-1] == line[-2] for line in self._lines("delivered") if line[3].isdigit())
        for action, generation, _, begin in self._lines("restored"):
            assert int(begin) == (0 if self._first_try(record.actions[action], int(generation)) else program.STEPS)
        for action, _, _, step in self._lines("traced"):
            traced = record.actions[action].traced or {}
            assert len(traced) > int(step), f"{action}: a value was used that is not on record"

    @staticmethod
    def _first_try(action: Action, generation: int) -> bool:
        return action.attempts[generation - 1].user_attempt == 1

    def _judge_what_is_left(self) -> None:
        """No process, no note of one, no claim."""
        deadline = time.monotonic() + 10
        while left := [pid for pid in self._pids() if lives(pid)]:
            assert time.monotonic() < deadline, f"processes that are left: {left}"
            time.sleep(0.01)
        assert list((self.home / "remote" / "attempts").iterdir()) == []
        assert [path for path in self.home.rglob("claims") if any(each.is_file() for each in path.rglob("*"))] == []

    def _pids(self) -> list[int]:
        return [int(line[3]) for line in self._lines("executed")]

    def _clean_up(self) -> None:
        processes = LastingProcesses(self.home / "remote" / "attempts")
        for name in list(processes.names()):
            process = processes.find(name)
            if process is not None:
                process.kill()


def lives(pid: int) -> bool:
    """A process that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return (
            not Path("/proc/self").exists()
            or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (ProcessLookupError, FileNotFoundError):
        return False
