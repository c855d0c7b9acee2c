"""What a task has seen of a traced helper is on record: ``kill -9`` at that very moment changes no value."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability import traced_program

PATIENCE = 60.0
"""Seconds for one life; no healthy one comes near."""


CASES = ("inline blocking", "inline awaiting", "inline mixed", "processes blocking", "processes awaiting")


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_after_a_draw_draws_the_same_again(tmp_path: Path, case: str) -> None:
    """Each value is chance, seen once before the controller is killed, and the same in all lives that follow."""
    notes = tmp_path / "notes"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    command = [sys.executable, traced_program.__file__, str(tmp_path / "home"), str(notes), *case.split()]
    for _ in range(traced_program.DRAWS):
        life = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=PATIENCE, check=False)
        assert life.returncode == -signal.SIGKILL, life.stderr
    last = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=PATIENCE, check=False)
    assert last.returncode == 0, last.stderr
    values: dict[str, set[float]] = {}
    for line in notes.read_text(encoding="utf-8").splitlines():
        _, number, value = line.split()
        values.setdefault(number, set()).add(float(value))
    assert {number: len(seen) for number, seen in values.items()} == {str(n): 1 for n in range(traced_program.DRAWS)}
    assert ast.literal_eval(last.stdout) == [value for seen in values.values() for value in seen]
