"""What attempts cost, what was lost with them, and what on-demand machines would have cost for the same work.

Arithmetic on seconds and prices that others observed. Must not know queues' rules, why an attempt ended, or
what time it is: for an attempt that still runs the caller gives the present as its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from flyteish._core.queues import ON_DEMAND, SPOT, Medium, Pool


class AttemptCost(msgspec.Struct, frozen=True, gc=False):
    """One attempt, as far as money is concerned. Times are seconds on one clock, whichever it is.

    Args:
        medium: ``"spot"`` or ``"on-demand"``.
        price_per_hour: $ per hour of the pool that it ran in, >= 0.
        started_at: when it was admitted; start-up is billed.
        ended_at: when it ended, or now for one that still runs; not before ``started_at``.
        last_checkpoint_at: when its last checkpoint was committed. Default None: it committed none.
        kept: its work counts to its end: it succeeded, or it still runs. Default False.

    Raises:
        ValueError: it ends before it starts, or a number is not one; names the field.
    """

    medium: Medium
    price_per_hour: float
    started_at: float
    ended_at: float
    last_checkpoint_at: float | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        if self.medium not in (SPOT, ON_DEMAND):
            raise ValueError(f"AttemptCost.medium={self.medium!r} is not accepted: expected {SPOT!r} or {ON_DEMAND!r}")
        if not 0 <= self.price_per_hour < math.inf:
            raise ValueError(f"AttemptCost.price_per_hour={self.price_per_hour!r} is not accepted: expected $ >= 0")
        if not -math.inf < self.started_at <= self.ended_at < math.inf:
            raise ValueError(
                f"AttemptCost.ended_at={self.ended_at!r} is not accepted: expected a time that is not before "
                f"started_at={self.started_at!r}"
            )

    @property
    def seconds(self) -> float:
        """Billed seconds: from admission to the end."""
        return self.ended_at - self.started_at

    @property
    def lost_seconds(self) -> float:
        """Billed seconds whose work is gone: after the last checkpoint of an attempt that was not kept."""
        if self.kept:
            return 0.0
        saved = self.started_at if self.last_checkpoint_at is None else self.last_checkpoint_at
        # A commit may be recorded a moment after the attempt's end; that makes the loss nothing, not less
        # than it.
        return self.ended_at - min(max(saved, self.started_at), self.ended_at)

    @property
    def dollars(self) -> float:
        """What it cost."""
        return self.seconds * self.price_per_hour / 3600.0


class CostSummary(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What some attempts cost together, and the on-demand alternative.

    ``on_demand_dollars`` is what the kept work (billed seconds less lost seconds) would have cost on an
    undisturbed on-demand machine, and ``saved`` how much less was paid; it is negative where spot was the
    dearer choice. Both are None where no on-demand price is known.
    """

    spot_seconds: float
    on_demand_seconds: float
    lost_seconds: float
    dollars: float
    on_demand_dollars: float | None
    saved: float | None

    @property
    def seconds(self) -> float:
        """Billed seconds on either medium."""
        return self.spot_seconds + self.on_demand_seconds


def summarize(attempts: Iterable[AttemptCost], on_demand_price: float | None) -> CostSummary:
    """The costs of ``attempts`` together; the same in whichever order they come.

    Args:
        attempts: those of an action, a run, or whatever is to be added up.
        on_demand_price: $ per hour of the on-demand machine that would have been used; None: unknown.
    """
    known = list(attempts)
    spot = math.fsum(a.seconds for a in known if a.medium == SPOT)
    on_demand = math.fsum(a.seconds for a in known if a.medium == ON_DEMAND)
    lost = math.fsum(a.lost_seconds for a in known)
    dollars = math.fsum(a.dollars for a in known)
    alternative = None
    if on_demand_price is not None:
        # Per attempt, not total less lost: a difference of sums may come out a hair below nothing.
        kept = math.fsum(a.seconds - a.lost_seconds for a in known)
        alternative = kept * on_demand_price / 3600.0
    return CostSummary(
        spot_seconds=spot,
        on_demand_seconds=on_demand,
        lost_seconds=lost,
        dollars=dollars,
        on_demand_dollars=alternative,
        saved=None if alternative is None else alternative - dollars,
    )


def on_demand_price(pools: Iterable[Pool]) -> float | None:
    """The lowest price of the on-demand pools that have one, $ per hour; None where none has."""
    return min((p.price_per_hour for p in pools if p.medium == ON_DEMAND and p.price_per_hour > 0), default=None)
