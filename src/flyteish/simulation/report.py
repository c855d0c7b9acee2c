"""The report of a simulation: figures by policy, as values, as a table and as JSON.

Counts and sorts what a tally holds; draws nothing (``picture`` does). Must not know how it was simulated.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyteish.simulation.tally import Tally, percentile

SHARES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class Spread(msgspec.Struct, frozen=True):
    """A distribution at a glance: percentiles by share (``"0.5"`` is the median), mean, least and most."""

    mean: float
    least: float
    most: float
    percentiles: dict[str, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there is no value."""
        if not values:
            return None
        shares = {f"{share:g}": percentile(values, share) or 0.0 for share in SHARES}
        return cls(sum(values) / len(values), min(values), max(values), shares)


class PolicyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the workloads under one policy, over all seeds."""

    policy: str
    runs: int
    succeeded: int
    failed: int
    unfinished: int
    missed: int
    """Actions that their deadline ended."""
    actions: int
    attempts: int
    preemptions: int
    moves: int
    """Planned moves of the deadline rule."""
    dollars: float
    on_demand_dollars: float | None
    """What the kept seconds would have cost on-demand."""
    spot_seconds: float
    on_demand_seconds: float
    lost_seconds: float
    finish: Spread | None
    """Seconds from submission to end, of runs that succeeded."""
    cost: Spread | None
    """Dollars by run."""
    finishes: tuple[float, ...]
    """Seconds from submission to end, ascending; at most 500, evenly chosen."""
    timeline: tuple[tuple[float, int, int, int], ...]
    """Of the last seed: seconds, attempts on spot, attempts on-demand, actions waiting."""
    events: int
    wall_seconds: float

    @property
    def attempts_per_second(self) -> float:
        """How fast it was simulated."""
        return self.attempts / self.wall_seconds if self.wall_seconds else 0.0


class Report(msgspec.Struct, frozen=True):
    """All policies, in the order in which they were named. ``print(report)`` shows the table."""

    policies: tuple[PolicyReport, ...]
    seeds: tuple[int, ...]

    def of(self, policy: str) -> PolicyReport:
        """The report of one policy. Raises KeyError: it was not simulated."""
        for report in self.policies:
            if report.policy == policy:
                return report
        raise KeyError(policy)

    def json(self) -> bytes:
        """The whole report as one JSON document."""
        return msgspec.json.format(msgspec.json.encode(self))

    def __str__(self) -> str:
        head = ("policy", "cost", "of on-demand", "finish p50", "p95", "missed", "preempted", "moved", "lost", "spot")
        rows = [head, *(_row(report) for report in self.policies)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others])


def report_of(
    policy: str, tally: Tally, *, attempts: int, events: int, unfinished: int, wall_seconds: float
) -> PolicyReport:
    """The figures of a tally."""
    finishes = sorted(tally.seconds)
    step = max(1, len(finishes) // 500)
    begun = tally.timeline[0][0] if tally.timeline else 0.0
    return PolicyReport(
        policy=policy,
        runs=tally.succeeded + tally.failed + unfinished,
        succeeded=tally.succeeded,
        failed=tally.failed,
        unfinished=unfinished,
        missed=tally.missed,
        actions=tally.actions,
        attempts=attempts,
        preemptions=tally.preemptions,
        moves=tally.moves,
        dollars=sum(tally.dollars),
        on_demand_dollars=tally.on_demand_dollars,
        spot_seconds=tally.spot_seconds,
        on_demand_seconds=tally.on_demand_seconds,
        lost_seconds=tally.lost_seconds,
        finish=Spread.of(finishes),
        cost=Spread.of(tally.dollars),
        finishes=tuple(finishes[::step]),
        timeline=tuple((at - begun, spot, on_demand, waiting) for at, spot, on_demand, waiting in tally.timeline),
        events=events,
        wall_seconds=wall_seconds,
    )


def _row(report: PolicyReport) -> tuple[str, ...]:
    billed = report.spot_seconds + report.on_demand_seconds
    share = f"{report.dollars / report.on_demand_dollars:.1%}" if report.on_demand_dollars else "-"
    return (
        report.policy,
        f"${report.dollars:,.2f}",
        share,
        _span(report.finish.percentiles["0.5"]) if report.finish else "-",
        _span(report.finish.percentiles["0.95"]) if report.finish else "-",
        f"{report.missed}",
        f"{report.preemptions}",
        f"{report.moves}",
        _span(report.lost_seconds),
        f"{report.spot_seconds / billed:.0%}" if billed else "-",
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"
