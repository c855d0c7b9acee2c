"""The figures of one policy: what came of the workloads under it, counted and sorted from a tally.

Must not know how it was simulated, how figures are shown, or what other policies came to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from flyteish.simulation.tally import Tally, percentile

SHARES: Final = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


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
    """Not over at the horizon."""
    refused: int
    """Submissions that a queue turned away; what comes of a refused run is in no other figure."""
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
    """Dollars by run, however it ended."""
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


def report_of(policy: str, tally: Tally, *, attempts: int, events: int, wall_seconds: float) -> PolicyReport:
    """The figures of a tally."""
    finishes = sorted(tally.seconds)
    step = max(1, -(-len(finishes) // 500))
    begun = tally.timeline[0][0] if tally.timeline else 0.0
    return PolicyReport(
        policy=policy,
        runs=tally.succeeded + tally.failed + tally.unfinished,
        succeeded=tally.succeeded,
        failed=tally.failed,
        unfinished=tally.unfinished,
        refused=tally.refused,
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
