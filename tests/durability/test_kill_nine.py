"""``kill -9`` of the controller at any moment, again and again, and the run still ends right.

Real processes, a real store. Half of the kills come at a chosen entry of the journal, half after a random time, most of
these once it is at work. What the journal and the program's notes say after a kill is held against what they say after
the next one.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from flyteish._core.model.records import End, Phase, RunRecord
from flyteish._core.replay import record_of
from flyteish.stores.sqlite import SqliteStore
from tests.conftest import SEED
from tests.durability import program

SEED_VARIABLE = "FLYTEISH_KILL_SEED"
"""Set to one of the printed seeds, it repeats that run only."""
RUNS = 10
RUNS_IN_WORKERS = 2
KILLS = 6
AT_ONCE = 2
PATIENCE = 60.0
"""Seconds for one life; no healthy one comes near."""
RUN = "killed"

pytestmark = pytest.mark.slow


def seeds(count: int) -> list[int]:
    one = os.environ.get(SEED_VARIABLE)
    return [int(one)] if one else random.Random(SEED).sample(range(2**32), count)


@pytest.mark.parametrize("engine, runs, enough", [("inline", RUNS, 50), ("processes", RUNS_IN_WORKERS, 8)])
def test_a_run_survives_kill_nine_at_any_moment(tmp_path: Path, engine: str, runs: int, enough: int) -> None:
    """Right result; finished children are never run again; no result is lost; none is delivered twice."""
    chosen = seeds(runs)
    print(f"seeds (repeat one with {SEED_VARIABLE}): {chosen}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        kills = sum(pool.map(lambda seed: Killed(tmp_path / str(seed), seed, engine).story(), chosen))
    print(f"{kills} kills")
    assert len(chosen) < runs or kills >= enough, f"only {kills} kills: the program got too fast for this test"


class Killed:
    """One run, killed up to ``KILLS`` times and then left to end."""

    def __init__(self, folder: Path, seed: int, engine: str) -> None:
        folder.mkdir()
        self.engine = engine
        self.chance = random.Random(seed)
        self.seed = seed
        self.home = folder / "home"
        self.store = self.home / "flyteish.db"
        self.notes = folder / "notes"
        self.life = 0
        # As of the end of the last life: executions of what had succeeded, calls of traced helpers whose value was
        # on record, the newest checkpoint of each action, and how many notes of restores there were.
        self.finished: dict[str, int] = {}
        self.traced: dict[tuple[str, ...], int] = {}
        self.saved: dict[str, int] = {}
        self.restored = 0

    def story(self) -> int:
        kills = 0
        try:
            while kills < KILLS and self._kill_one():
                kills += 1
                self._compare()
            result = self._spawn()
            out, _ = result.communicate(timeout=PATIENCE)
            assert result.returncode == 0
            assert int(out) == program.RESULT
            self._compare()
            self._judge(self._record())
        except BaseException as error:
            error.add_note(f"repeat with {SEED_VARIABLE}={self.seed} (kill {kills})")
            raise
        return kills

    # -- lives and deaths ----------------------------------------------------------------------------------------

    def _spawn(self) -> subprocess.Popen[str]:
        self.life += 1
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, program.__file__, str(self.home), str(self.notes), RUN, self.engine]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)

    def _kill_one(self) -> bool:
        """Whether it was killed before it ended."""
        before = self._entries()
        by_entry = self.chance.random() < 0.5
        target = before + self.chance.randint(1, 20)
        while_starting = self.chance.random() < 0.2
        delay = self.chance.uniform(0.0, 0.3 if while_starting else 0.1)
        process = self._spawn()
        deadline = time.monotonic() + PATIENCE
        moment = time.monotonic() + delay if while_starting else None
        while process.poll() is None:
            now = time.monotonic()
            assert now < deadline, f"life {self.life} neither ended nor came to entry {target}"
            if by_entry:
                if self._entries() >= target:
                    break
            elif moment is None and self._entries() > before:
                # This life is at work from now on; a delay from its start would mostly hit the interpreter's.
                moment = now + delay
            elif moment is not None and now >= moment:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        with process:
            return process.wait() == -signal.SIGKILL

    def _entries(self) -> int:
        if not self.store.exists():
            return 0
        try:
            with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=5)) as db:
                found = db.execute("SELECT coalesce(sum(count), 0) FROM segments WHERE run = ?", (RUN,)).fetchone()
                return int(found[0])
        except sqlite3.OperationalError:  # being made this moment
            return 0

    # -- what must hold -------------------------------------------------------------------------------------------

    def _record(self) -> RunRecord:
        record = record_of(RUN, [entry for _, entry in SqliteStore(self.store).read(RUN)])
        return record if record is not None else RunRecord(RUN, "", "", 0.0)

    def _lines(self, kind: str) -> list[tuple[str, ...]]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [tuple(words[1:]) for line in lines if (words := line.split())[0] == kind]

    def _compare(self) -> None:
        """What was final when the last life ended has not been touched by this one, and is final still."""
        record = self._record()
        executions = Counter(action for action, *_ in self._lines("executed"))
        helpers = Counter(self._lines("traced"))
        for action, count in self.finished.items():
            assert record.actions[action].phase is Phase.SUCCEEDED, f"the result of {action} was lost"
            assert executions[action] == count, f"{action} had succeeded and ran again"
        for call, count in self.traced.items():
            assert helpers[call] == count, f"{call} was traced and ran again"
        restored = self._lines("restored")
        for action, saved in self.saved.items():
            later = [int(begin) for name, begin in restored[self.restored :] if name == action]
            assert all(begin >= saved for begin in later), f"{action} lost checkpoint {saved}: restored {later}"
        self.finished = {
            each.id: executions[each.id] for each in record.actions.values() if each.phase is Phase.SUCCEEDED
        }
        self.traced = {
            call: helpers[call]
            for call in helpers
            if (traced := record.actions[call[0]].traced) and len(traced) > int(call[1])
        }
        self.saved = {each.id: each.checkpoints[-1].sequence for each in record.actions.values() if each.checkpoints}
        self.restored = len(restored)
        self._check_deliveries(record)

    def _check_deliveries(self, record: RunRecord) -> None:
        told = self._lines("delivered")
        twice = [each for each, count in Counter(line[:4] for line in told).items() if count > 1]
        assert twice == [], f"delivered twice to one attempt: {twice}"
        assert all(int(value) == 100 * int(i) + int(j) for _, _, i, j, value in told)
        for name in {parent for parent, *_ in told}:
            seen = {(i, j) for parent, _, i, j, _ in told if parent == name}
            succeeded = [
                each for each in record.actions.values() if each.parent == name and each.phase is Phase.SUCCEEDED
            ]
            assert len(seen) <= len(succeeded), "a value was delivered before its success was on record"

    def _judge(self, record: RunRecord) -> None:
        """The whole story, once the run is over."""
        actions = list(record.actions.values())
        assert len(actions) == 1 + program.PARENTS * (1 + program.CHILDREN)
        assert {each.phase for each in actions} == {Phase.SUCCEEDED}
        for each in actions:
            ends = Counter(attempt.end for attempt in each.attempts)
            failures = 1 if each.profile.task == "program.flaky" else 0
            assert ends[End.USER_ERROR] == failures, f"{each!r}: {ends}"
            assert ends[End.SUCCEEDED] == 1
            assert set(ends) <= {End.USER_ERROR, End.SUCCEEDED, End.ABANDONED}, f"{each!r}: {ends}"
            assert each.user_attempt == 1 + failures, "a kill was charged to the user's budget"
            assert each.system_used == 0, "a kill was charged to the system's budget"
            assert [a.generation for a in each.attempts] == list(range(1, len(each.attempts) + 1))
        told = self._lines("delivered")
        for each in actions:
            if each.profile.task == "program.parent":
                final = [line for line in told if line[:2] == (each.id, str(each.generation))]
                assert len(final) == program.CHILDREN
        row = SqliteStore(self.store).run(RUN)
        assert row is not None
        assert (row.phase, row.ended_at is not None) == ("succeeded", True)
