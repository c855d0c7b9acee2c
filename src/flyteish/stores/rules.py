"""What all stores agree on besides the contract: what arguments it accepts, which runs may be deleted.

Decides on values alone; must not know how a store keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flyteish._core.wording import did_you_mean
from flyteish.errors import FlyteishError, RunNotFoundError, StoreError
from flyteish.interfaces import RunRow


def check_after(after: int) -> None:
    """Raises: ValueError unless it is the number of an entry, or 0."""
    if after < 0:
        raise ValueError(f"after: {after} is not accepted; it is the number of the last entry already read, or 0")


def check_limit(limit: int) -> None:
    """Raises: ValueError unless it is a number of rows."""
    if limit < 0:
        raise ValueError(f"limit: {limit} is not accepted; it is how many runs to list at most")


def may_not_delete(
    run: str, row: RunRow | None, has_journal: bool, owned: bool, names: Callable[[], Iterable[str]]
) -> FlyteishError | None:
    """Why the run may not be deleted, or None.

    One that has not ended may be deleted when no controller owns the store: nobody is left to work on it.
    ``names`` gives the runs there are, for suggestions.
    """
    if row is None and not has_journal:
        return RunNotFoundError(f"the store knows no run {run!r}{did_you_mean(run, names())}")
    if row is not None and row.ended_at is None and owned:
        return StoreError(f"run {run} is {row.phase}, and its controller lives: abort it before it is deleted")
    return None
