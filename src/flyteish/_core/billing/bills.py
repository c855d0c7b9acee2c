"""The cost ledger: what attempts cost, added up by attempt, action, task, queue, pool or run.

Reads records; the arithmetic of one attempt is ``cost_summary``'s. A finished run's costs are a few lines (one for
each task, queue and pool in it), kept beside its journal, so that adding up many runs reads no journal. Must not know
where records are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from flyteish._core.billing.cost_summary import CostSummary, lost_seconds
from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import Action, AttemptRecord, End, RunRecord


class CostLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What some attempts of one task, in one queue and pool, cost together. Fields are only ever appended."""

    queue: str
    task: str
    pool: str
    medium: str
    attempts: int
    seconds: float
    """Billed: from when it had its machine to the end, start-up included."""
    lost_seconds: float
    dollars: float
    on_demand_dollars: float | None
    """What the kept seconds would have cost on-demand; None where that price is not known."""


class Billed(NamedTuple):
    """A line with what it is of."""

    run: str
    action: str
    attempt: int
    """Generation; 0 where the line is of several."""
    line: CostLine


#: How costs can be told apart -> the keys of a row.
BY: Final[dict[str, tuple[str, ...]]] = {
    "attempt": ("run", "action", "attempt", "task", "queue", "pool", "medium"),
    "action": ("run", "action", "task", "queue"),
    "task": ("task",),
    "queue": ("queue",),
    "pool": ("pool", "medium"),
    "run": ("run",),
}


def billed(actions: Iterable[Action], now: float, on_demand_price: float | None = None) -> Iterator[Billed]:
    """A line for each attempt that had a machine; cached results and attempts that never started cost nothing.

    Args:
        actions: whose attempts; their own, not their descendants'.
        now: seconds since the epoch, the end so far of what still runs.
        on_demand_price: $ per hour, for attempts that did not record one; None: not known.
    """
    for action in actions:
        settings, task = action.profile.settings, action.profile.task
        for attempt in action.attempts:
            if attempt.placed_at:
                line = _line(settings.queue, task, attempt, now, on_demand_price)
                yield Billed(action.run, action.id, attempt.generation, line)


def _line(queue: str, task: str, attempt: AttemptRecord, now: float, fallback: float | None) -> CostLine:
    seconds, lost = _measure(attempt, now)
    price = attempt.on_demand_price or fallback
    alternative = None if price is None else (seconds - lost) * price / 3600.0
    dollars = seconds * attempt.price_per_hour / 3600.0
    return CostLine(queue, task, attempt.pool, attempt.medium, 1, seconds, lost, dollars, alternative)


def _measure(attempt: AttemptRecord, now: float) -> tuple[float, float]:
    """Billed and lost seconds."""
    started, ended = attempt.placed_at, attempt.ended_at
    if not ended:
        return max(0.0, now - started), 0.0
    lost = 0.0 if attempt.end is End.SUCCEEDED else lost_seconds(started, ended, attempt.last_checkpoint_at)
    return ended - started, lost


def lines_of(record: RunRecord, now: float) -> tuple[CostLine, ...]:
    """A run's costs in few lines: one for each task, queue, pool and medium in it.

    Done once for each run, by the controller: so it makes no object for an attempt.
    """
    sums: dict[tuple[str, str, str, str], _Sum] = {}
    for action in record.actions.values():
        settings, task = action.profile.settings, action.profile.task
        for attempt in action.attempts:
            if attempt.placed_at:
                key = (settings.queue, task, attempt.pool, attempt.medium)
                found = sums.get(key)
                if found is None:
                    found = sums[key] = _Sum()
                found.bill(attempt, now)
    return tuple(
        CostLine(*key, s.attempts, s.seconds, s.lost, s.dollars, s.on_demand_dollars) for key, s in sums.items()
    )


class _Sum:
    __slots__ = ("attempts", "dollars", "lost", "on_demand_dollars", "seconds")

    def __init__(self) -> None:
        self.attempts = 0
        self.seconds = self.lost = self.dollars = 0.0
        self.on_demand_dollars: float | None = 0.0

    def bill(self, attempt: AttemptRecord, now: float) -> None:
        seconds, lost = _measure(attempt, now)
        self.attempts += 1
        self.seconds += seconds
        self.lost += lost
        self.dollars += seconds * attempt.price_per_hour / 3600.0
        if self.on_demand_dollars is not None and seconds > lost:
            price = attempt.on_demand_price
            self.on_demand_dollars = self.on_demand_dollars + (seconds - lost) * price / 3600.0 if price else None

    def add(self, line: CostLine) -> None:
        self.attempts += line.attempts
        self.seconds += line.seconds
        self.lost += line.lost_seconds
        self.dollars += line.dollars
        if self.on_demand_dollars is not None and line.seconds > line.lost_seconds:
            more = line.on_demand_dollars
            self.on_demand_dollars = None if more is None else self.on_demand_dollars + more


class CostRow(NamedTuple):
    """A row of the ledger: what it is of, how many attempts, and what they cost."""

    of: dict[str, str | int]
    attempts: int
    cost: CostSummary


def rows(lines: Iterable[Billed], by: str) -> list[CostRow]:
    """The lines added up, in the order in which they come first.

    Args:
        by: a key of ``BY``.
    """
    keys = BY[by]
    take: list[Callable[[Billed], str | int]] = [_TAKE[key] for key in keys]
    found: dict[tuple[str | int, ...], tuple[_Sum, _Sum]] = {}
    for each in lines:
        key = tuple([read(each) for read in take])
        sums = found.get(key)
        if sums is None:
            sums = found[key] = (_Sum(), _Sum())
        sums[each.line.medium != SPOT].add(each.line)
    return [
        CostRow(dict(zip(keys, key, strict=True)), spot.attempts + other.attempts, _summary(spot, other))
        for key, (spot, other) in found.items()
    ]


def total(lines: Iterable[Billed]) -> CostSummary:
    """All of them together; nothing costs nothing."""
    sums = (_Sum(), _Sum())
    for each in lines:
        sums[each.line.medium != SPOT].add(each.line)
    return _summary(*sums)


_TAKE: Final[dict[str, Callable[[Billed], str | int]]] = {
    "run": lambda each: each.run,
    "action": lambda each: each.action,
    "attempt": lambda each: each.attempt,
    "task": lambda each: each.line.task,
    "queue": lambda each: each.line.queue,
    "pool": lambda each: each.line.pool,
    "medium": lambda each: each.line.medium,
}


def _summary(spot: _Sum, on_demand: _Sum) -> CostSummary:
    dollars = spot.dollars + on_demand.dollars
    alternative = None
    if spot.on_demand_dollars is not None and on_demand.on_demand_dollars is not None:
        alternative = spot.on_demand_dollars + on_demand.on_demand_dollars
    return CostSummary(
        spot_seconds=spot.seconds,
        on_demand_seconds=on_demand.seconds,
        lost_seconds=spot.lost + on_demand.lost,
        dollars=dollars,
        on_demand_dollars=alternative,
        saved=None if alternative is None else alternative - dollars,
    )


def with_descendants(record: RunRecord, action: Action) -> list[Action]:
    """An action and everything below it."""
    below: dict[str, list[Action]] = {}
    for each in record.actions.values():
        if each.parent is not None:
            below.setdefault(each.parent, []).append(each)
    found = [action]
    for each in found:  # grows while it is walked
        found += below.get(each.id, ())
    return found
