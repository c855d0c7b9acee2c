"""Prices of a pool over time, written down and recorded. Each is a schedule in $ per hour.

Equal questions get equal answers, in any order; ``at`` is seconds since the market opened, real or virtual. Must not
know pools, nor what is paid with them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from flyteish._core.wording import not_accepted
from flyteish.errors import ConfigurationError
from flyteish.markets.traces import Trace, load_trace


class ScriptedPrices:
    """Prices as written, for tests, contracts that change at known times, and demonstrations.

    Args:
        changes: ``(at, price)`` in order of time: from ``at`` seconds on it is so many $ per hour. Before the first,
            nothing is known.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    def __init__(self, changes: Sequence[tuple[float, float]]) -> None:
        pairs = changes if isinstance(changes, list | tuple) else [None]
        if not pairs or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
            raise not_accepted("ScriptedPrices: changes", changes, "pairs (at, price) with growing `at`")
        self._times = [_number("ScriptedPrices", f"changes[{i}]", at) for i, (at, _) in enumerate(changes)]
        self._prices = [_number("ScriptedPrices", f"changes[{i}]", price) for i, (_, price) in enumerate(changes)]
        if any(later <= earlier for earlier, later in pairwise(self._times)):
            raise not_accepted("ScriptedPrices: changes", changes, "pairs (at, price) with growing `at`")

    def price(self, at: float) -> float | None:
        index = bisect_right(self._times, at) - 1
        return self._prices[index] if index >= 0 else None

    def next_change(self, at: float) -> float | None:
        index = bisect_right(self._times, at)
        return self._times[index] if index < len(self._times) else None

    def __repr__(self) -> str:
        return f"ScriptedPrices({list(zip(self._times, self._prices, strict=True))!r})"


class TracePrices:
    """The prices of a recording, over and over: after the last tick it begins again.

    Args:
        path: a trace file that has prices (see ``traces``), or a ``Trace``.
        speed: how many times faster than recorded. Default 1.
        start: seconds into the recording at which the market opens. Default 0.

    Raises:
        ConfigurationError: the file is not a trace, it has no prices, or a parameter is wrong; names it.
    """

    def __init__(self, path: str | Path | Trace, speed: float = 1.0, start: float = 0.0) -> None:
        trace = path if isinstance(path, Trace) else load_trace(path)
        if trace.prices is None:
            raise ConfigurationError(f"TracePrices: trace file {trace.name!r} has no prices")
        self._trace = trace
        self._prices = prices = trace.prices
        self._speed = _number("TracePrices", "speed", speed)
        if not self._speed:
            raise not_accepted("TracePrices: speed", speed, "a number > 0")
        self._start = _number("TracePrices", "start", start)
        self._gap = trace.gap_seconds / self._speed
        self._shift = self._start / self._speed
        # Tick 0 follows the last one: the recording goes round.
        self._changes = [tick for tick, price in enumerate(prices) if price != prices[tick - 1]]

    def price(self, at: float) -> float | None:
        return self._prices[self._tick(at) % len(self._prices)]

    def next_change(self, at: float) -> float | None:
        if not self._changes:
            return None
        rounds, tick = divmod(self._tick(at), len(self._prices))
        index = bisect_right(self._changes, tick)
        more, index = divmod(index, len(self._changes))
        return self._time((rounds + more) * len(self._prices) + self._changes[index])

    def _time(self, tick: int) -> float:
        return tick * self._gap - self._shift

    def _tick(self, at: float) -> int:
        tick = math.floor((at + self._shift) / self._gap)
        # ``_time`` decides: what it calls the time of a tick must not be taken for the moment before.
        while self._time(tick + 1) <= at:
            tick += 1
        while self._time(tick) > at:
            tick -= 1
        return tick

    def __repr__(self) -> str:
        return f"TracePrices({self._trace.name!r}, speed={self._speed:g}, start={self._start:g})"


#: By the name that configuration has for them.
PRICES: Final[dict[str, type[ScriptedPrices] | type[TracePrices]]] = {"script": ScriptedPrices, "trace": TracePrices}


def _number(whose: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise not_accepted(f"{whose}: {name}", value, "a number >= 0")
    return float(value)
