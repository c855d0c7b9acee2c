"""Many traced values in one action: what each costs does not grow with how many there are."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import Run, Session, TaskEnvironment

env = TaskEnvironment("many_traces")


@flyteish.trace
async def drawn(number: int) -> int:
    return number


@flyteish.trace
def drawn_here(number: int) -> int:
    return number


@env.task(retries=1)
async def draws(count: int) -> int:
    """All values twice: in the first attempt they are put on record, in the second they are found there."""
    total = sum([await drawn(number) for number in range(count)])
    if flyteish.ctx().attempt == 1:
        raise ConnectionError("once")
    return total


@env.task(retries=1)
def draws_here(count: int) -> int:
    total = sum(drawn_here(number) for number in range(count))
    if flyteish.ctx().attempt == 1:
        raise ConnectionError("once")
    return total


class Counted:
    """How many functions are called, Python's and C's, by all threads that start within the block and this one."""

    def __enter__(self) -> Counted:
        self.calls = 0
        sys.setprofile(self._count)
        threading.setprofile(self._count)
        return self

    def __exit__(self, *failure: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _count(self, frame: Any, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


def _calls(home: Path, task: Any, count: int) -> int:
    with Counted() as counted, Session(home=home) as session:
        run: Run[int] = session.run(task, count)
        assert run.result() == count * (count - 1) // 2
        assert run.why()
    return counted.calls


@pytest.mark.parametrize("task", [draws, draws_here])
def test_twice_as_many_traced_values_cost_twice_as_much(tmp_path: Path, task: Any) -> None:
    """Called, journalled, found again by the next attempt, replayed and explained: in calls of functions."""
    _calls(tmp_path / "warm", task, 5)
    few, many = (_calls(tmp_path / str(count), task, count) for count in (300, 600))
    assert many < 2.3 * few, (few, many)
