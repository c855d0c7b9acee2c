"""A session whose spot machines are taken away on cue.

Builds it from the markets that pools use in earnest. Must not know what a test does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flyteish._core.model.queues import Pool, Queue
from flyteish.interfaces import Market
from flyteish.markets.market import ScriptedMarket
from flyteish.session import Session

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["spot_session"]


def spot_session(
    reclaims: Sequence[float | None] = (),
    *,
    market: Market | None = None,
    notice_seconds: float = 0.05,
    engine: str = "inline",
    spot_price: float = 0.3,
    on_demand_price: float = 1.0,
    home: str | Path | None = None,
) -> Session:
    """A session with one queue over a spot pool that takes machines away, and an on-demand pool that doesn't.

    Args:
        reclaims: seconds after its start at which the first, second, ... spot attempt gets its notice; None, or
            beyond the end: it is left alone.
        market: any other market, in place of ``reclaims``.
        notice_seconds: between the notice and the end, for ``reclaims``.
        engine: ``"inline"``, or ``"processes"`` for attempts that are really killed.
        spot_price, on_demand_price: $ per hour.
        home: folder for store, blobs and logs. Default: nothing is kept.
    """
    from msgspec import UNSET

    market = market or ScriptedMarket(reclaims=list(reclaims), notice_seconds=notice_seconds)
    pools = [
        Pool("spot", medium="spot", engine=engine, market=market, price_per_hour=spot_price),
        Pool("on-demand", engine=engine, price_per_hour=on_demand_price),
    ]
    kept: dict[str, Any] = {"home": home} if home is not None else {"durability": "memory"}
    return Session([Queue("default")], pools, defaults=UNSET, **kept)
