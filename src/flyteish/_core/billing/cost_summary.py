"""What costs are: spot and on-demand seconds, what was lost, dollars, and what on-demand machines would have cost.

Arithmetic on seconds and prices that others observed. Must not know queues' rules, why an attempt ended, or what time
it is; ``bills`` adds up.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from flyteish._core.model.queues import ON_DEMAND, Pool


def lost_seconds(started_at: float, ended_at: float, last_checkpoint_at: float) -> float:
    """What is gone of an attempt that was not kept; ``last_checkpoint_at`` is 0 where it committed none."""
    # A commit may be recorded a moment after the attempt's end; that makes the loss nothing, not less than it.
    return ended_at - min(max(last_checkpoint_at, started_at), ended_at)


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


def on_demand_price(pools: Iterable[Pool]) -> float | None:
    """The lowest fixed price of the on-demand pools that have one, $ per hour; None where none has."""
    return min((p.fixed_price for p in pools if p.medium == ON_DEMAND and p.fixed_price), default=None)
