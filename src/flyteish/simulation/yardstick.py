"""The offline optimum of a scenario, where it is one job with a deadline on one market of known capacity.

Says what the market and the prices are to ``optimum``, and what its answer is in dollars. What it leaves out (saves,
lost work, machines' own lifetimes) can only make a policy dearer. Must not know policies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flyteish._core.billing.cost_summary import on_demand_price
from flyteish._core.model.queues import SPOT, Pool
from flyteish._core.model.settings import Settings
from flyteish.interfaces import Market
from flyteish.markets.market import TraceMarket
from flyteish.simulation.optimum import optimum
from flyteish.simulation.workload import Workload

_LONGEST: Final = 400
"""Stretches of capacity; beyond, the exact search may take minutes."""


def offline_optimum(
    workloads: Sequence[Workload], settings: Settings, pools: Sequence[Pool], markets: Mapping[str, Market]
) -> float | None:
    """Dollars of the cheapest schedule that keeps the deadline; None where it is not known, or none keeps it.

    Known for one action without children or failures whose work is a number and that has a deadline, with one spot
    pool that has a fixed price and a recorded market, and on-demand pools, all with one start-up.
    """
    spot = [pool for pool in pools if pool.medium == SPOT]
    on_demand = on_demand_price(pools)
    if len(workloads) != 1 or workloads[0].count != 1 or len(spot) != 1 or not on_demand:
        return None
    model, market, spot_price = workloads[0].model, markets.get(spot[0].name), spot[0].fixed_price
    deadline, work = settings.timeout.deadline, model.work
    startups = {pool.assumed_startup if model.startup is None else model.startup for pool in pools}
    unknown = model.children or model.failure_rate or model.fails_at or not isinstance(work, float) or not work
    if unknown or deadline is None or not isinstance(market, TraceMarket) or len(startups) != 1:
        return None
    if spot_price is None or spot_price > on_demand:
        return None
    budget: Any = deadline
    start: Any = workloads[0].start
    stretches = _stretches(market, start, budget)
    if len(stretches) > _LONGEST:
        return None
    (changeover,) = startups
    best = optimum(stretches, work=work, budget=budget, changeover=float(changeover), price=spot_price / on_demand)  # type: ignore[arg-type]
    return None if best is None else best.cost * on_demand / 3600.0


def _stretches(market: Market, start: float, budget: float) -> list[tuple[float, float]]:
    """When somebody can be on a machine of the market, in seconds since the submission at ``start``.

    Who loses it may stay for as long as the notice: then the machine is his although the market has none.
    """
    found: list[tuple[float, float]] = []
    for begun, ended in _held(market, start, start + budget):
        first, last = begun - start, min(budget, ended - start + market.notice_seconds)
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _held(market: Market, start: float, end: float) -> Iterator[tuple[float, float]]:
    """When the market has a machine."""
    at = start
    begun: float | None = None
    while at < end:
        free = market.capacity(at) != 0
        if free and begun is None:
            begun = at
        elif not free and begun is not None:
            yield begun, at
            begun = None
        change = market.next_change(at)
        at = math.inf if change is None else change
    if begun is not None:
        yield begun, end
