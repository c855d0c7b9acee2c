"""What becomes of an attempt, at a test's word; and what is on record of a run's root."""

from __future__ import annotations

from flyteish import Run, ctx
from flyteish._core.model.records import Action

PATIENCE = 30.0


class Ends:
    """Called by a task: its first, second, ... attempt ends as written.

    ``preempted`` waits for the notice and is gone, ``fails`` raises, ``succeeds`` goes on; so do those beyond the end.
    """

    def __init__(self, *ends: str) -> None:
        self.ends = ends

    def __call__(self) -> None:
        generation = ctx().generation
        end = self.ends[generation - 1] if generation <= len(self.ends) else "succeeds"
        if end == "preempted":
            assert ctx().interruption.wait_sync(PATIENCE) is not None
            raise InterruptedError("the machine is gone")
        if end == "fails":
            raise RuntimeError("does not work")


def reclaims(*ends: str) -> list[float | None]:
    """For ``spot_session``: when each spot attempt gets its notice so that it can end as written."""
    return [0.0 if end == "preempted" else None for end in ends]


def root(run: Run) -> Action:
    """The root's record, once the run is over."""
    return run.wait(PATIENCE).actions()[0]


def media(run: Run) -> list[str]:
    return [attempt.medium for attempt in root(run).attempts]


def charged(run: Run) -> list[str]:
    return [attempt.charged for attempt in root(run).attempts]


def ends(run: Run) -> list[str]:
    return [str(attempt.end) for attempt in root(run).attempts]
