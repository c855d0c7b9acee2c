"""Three spot markets: written down, drawn from a seed, and recorded. Each decides when a pool has capacity.

Pure schedules: equal questions get equal answers, in any order, and ``at`` is seconds since the market
opened, real or virtual. Must not know the pool, its attempts or a clock: reclaiming is the driver's business.

    market          lifetime of an attempt's machine        capacity over time
    ScriptedMarket  as written, attempt by attempt          as written
    RandomMarket    shifted log-normal, by seed and number  seeded outages, where asked for
    TraceMarket     until the recorded capacity drops       as recorded, over and over
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

from flyteish._core.wording import not_accepted
from flyteish.markets.price_sources import TracePrices
from flyteish.markets.traces import Trace, load_trace

#: The EC2 notice: two minutes.
NOTICE_SECONDS: Final = 120.0
#: "Most spot instances run for around 2 hours (median)", some are "reclaimed within 20 minutes".
MEDIAN_LIFETIME: Final = 7200.0
FLOOR_SHARE: Final = 1 / 6

# Far apart, so that neighbouring seeds share no attempt's fate before the thousand-millionth.
_SEED_STRIDE: Final = 1_000_000_007
#: Attempts whose fates are drawn from one source.
_BLOCK: Final = 64


class ScriptedMarket:
    """A market as written: when each attempt is noticed, and how capacity goes. For tests and demonstrations.

    Args:
        reclaims: seconds from the start of attempt 0, 1, ... of the pool to its notice; None: not reclaimed.
            Attempts after the last are not reclaimed.
        capacity: ``(at, attempts)`` in order of time: from ``at`` seconds on the pool holds so many; None
            means as many as configured, which is also what holds before the first.
        notice_seconds: between notice and reclaim. Default 120.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    def __init__(
        self,
        reclaims: Sequence[float | None] = (),
        capacity: Sequence[tuple[float, int | None]] = (),
        notice_seconds: float = NOTICE_SECONDS,
    ) -> None:
        whose = "ScriptedMarket"
        if not isinstance(reclaims, list | tuple):
            raise not_accepted(f"{whose}: reclaims", reclaims, "a list of seconds or None, one for each attempt")
        self._reclaims = tuple(
            None if seconds is None else _number(whose, f"reclaims[{i}]", seconds) for i, seconds in enumerate(reclaims)
        )
        steps = capacity if isinstance(capacity, list | tuple) else [None]
        if any(not isinstance(step, list | tuple) or len(step) != 2 for step in steps):
            raise not_accepted(f"{whose}: capacity", capacity, "pairs (at, attempts) with growing `at`")
        self._times = [_number(whose, f"capacity[{i}]", at) for i, (at, _) in enumerate(capacity)]
        self._counts = [_count(whose, f"capacity[{i}]", count) for i, (_, count) in enumerate(capacity)]
        if any(later <= earlier for earlier, later in pairwise(self._times)):
            raise not_accepted(f"{whose}: capacity", list(capacity), "pairs (at, attempts) with growing `at`")
        self._notice = _number(whose, "notice_seconds", notice_seconds)

    @property
    def notice_seconds(self) -> float:
        return self._notice

    def lifetime(self, at: float, number: int) -> float | None:
        return self._reclaims[number] if number < len(self._reclaims) else None

    def capacity(self, at: float) -> int | None:
        index = bisect_right(self._times, at)
        return self._counts[index - 1] if index else None

    def next_change(self, at: float) -> float | None:
        index = bisect_right(self._times, at)
        return self._times[index] if index < len(self._times) else None

    def __repr__(self) -> str:
        steps = list(zip(self._times, self._counts, strict=True))
        reclaims = list(self._reclaims)
        return f"ScriptedMarket(reclaims={reclaims}, capacity={steps}, notice_seconds={self._notice:g})"


class Outages(NamedTuple):
    """Times with and without capacity in turn: of exponential lengths with these means, in seconds."""

    mean_up: float
    mean_down: float
    remaining: int = 0
    """Attempts that the pool holds during an outage."""


class RandomMarket:
    """A market drawn from a seed: the same seed gives the same fate to the same attempt number, always.

    The lifetime of the ``number``-th attempt's machine is a shifted log-normal variable,

        lifetime = floor + (median_lifetime - floor) * exp(shape * Z),  Z standard normal,

    the ``number % 64``-th drawn from ``random.Random(seed * 1_000_000_007 + number // 64)``. Half of the
    machines outlive ``median_lifetime``, none ends before ``floor``, and some live very long. With the defaults a
    tenth is gone after 48 minutes and a tenth lasts beyond 6 hours 20.

    Args:
        seed: any int. Default 0.
        median_lifetime: seconds; > 0. Default 7200: two hours.
        shape: the spread of the logarithm, >= 0; 0 gives every machine the median. Default 1.
        floor: seconds that every machine lasts, 0..median_lifetime. Default a sixth of the median: 20 minutes
            of two hours.
        notice_seconds: between notice and reclaim. Default 120.
        outages: times without capacity. Default None: capacity as configured, always.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        median_lifetime: float = MEDIAN_LIFETIME,
        shape: float = 1.0,
        floor: float | None = None,
        notice_seconds: float = NOTICE_SECONDS,
        outages: Outages | None = None,
    ) -> None:
        whose = "RandomMarket"
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise not_accepted(f"{whose}: seed", seed, "an int")
        self._seed = seed
        self._median = _number(whose, "median_lifetime", median_lifetime, above=0.0)
        self._shape = _number(whose, "shape", shape)
        given = self._median * FLOOR_SHARE if floor is None else floor
        self._floor = _number(whose, "floor", given)
        if self._floor > self._median:
            raise not_accepted(f"{whose}: floor", floor, f"seconds from 0 to median_lifetime={self._median:g}")
        self._notice = _number(whose, "notice_seconds", notice_seconds)
        self._outages = outages
        if outages is not None:
            if not isinstance(outages, Outages):
                raise not_accepted(f"{whose}: outages", outages, "Outages(mean_up, mean_down) or None")
            _number(whose, "outages.mean_up", outages.mean_up, above=0.0)
            _number(whose, "outages.mean_down", outages.mean_down, above=0.0)
            _count(whose, "outages.remaining", outages.remaining)
        self._changes: tuple[float, ...] = ()
        self._drawn: tuple[int, list[float]] | None = None

    @property
    def notice_seconds(self) -> float:
        return self._notice

    def reseeded(self, seed: int) -> RandomMarket:
        """A market with the same ways and another fate, for another round of a simulation."""
        return RandomMarket(
            self._seed + 7919 * seed, median_lifetime=self._median, shape=self._shape, floor=self._floor,
            notice_seconds=self._notice, outages=self._outages,
        )  # fmt: skip

    def lifetime(self, at: float, number: int) -> float | None:
        block, index = divmod(number, _BLOCK)
        drawn = self._drawn
        if drawn is None or drawn[0] != block:
            # Seeding costs as much as many draws. Replaced in one step: whoever asks meanwhile gets the same answer.
            source = random.Random(self._seed * _SEED_STRIDE + block)
            drawn = self._drawn = (block, [source.gauss(0.0, 1.0) for _ in range(_BLOCK)])
        # exp overflows past 709; nobody waits for a machine that long.
        return self._floor + (self._median - self._floor) * math.exp(min(self._shape * drawn[1][index], 700.0))

    def capacity(self, at: float) -> int | None:
        if self._outages is None:
            return None
        return self._outages.remaining if bisect_right(self._changes_past(at), at) % 2 else None

    def next_change(self, at: float) -> float | None:
        if self._outages is None:
            return None
        changes = self._changes_past(at)
        return changes[bisect_right(changes, at)]

    def _changes_past(self, at: float) -> tuple[float, ...]:
        """Times of change, from 0 to beyond ``at``: capacity goes at even indices, comes at odd ones."""
        changes = self._changes
        while not changes or changes[-1] <= at:
            # A longer tuple replaces the one before in one step, and each length follows from its index
            # alone: so whoever else asks meanwhile, on whichever thread, sees the same times.
            lengths = [self._length(index) for index in range(len(changes), 2 * len(changes) + 16)]
            start = changes[-1] if changes else 0.0
            changes = (*changes, *list(accumulate(lengths, initial=start))[1:])
            self._changes = changes
        return changes

    def _length(self, index: int) -> float:
        assert self._outages is not None  # callers ask only where there are outages
        mean = self._outages.mean_down if index % 2 else self._outages.mean_up
        # Seeded by text, so that outages and attempts draw from different streams.
        return random.Random(f"{self._seed} outages {index}").expovariate(1.0) * mean

    def __repr__(self) -> str:
        outages = f", outages={self._outages}" if self._outages else ""
        return (
            f"RandomMarket(seed={self._seed}, median_lifetime={self._median:g}, shape={self._shape:g}, "
            f"floor={self._floor:g}, notice_seconds={self._notice:g}{outages})"
        )


class TraceMarket:
    """A market as it was recorded: capacity follows the trace, and whatever exceeds it when it drops is
    reclaimed.

    After the last tick the recording begins again, so that a pool never stays empty only because the
    recording ended in a drought. Attempts have no planned lifetime: they end when capacity drops below their
    number.

    Args:
        path: a trace file (see ``traces``), or a ``Trace``.
        speed: how many times faster than recorded; tick i is at ``i * gap_seconds / speed``. Default 1. The
            notice is not shortened.
        start: seconds into the recording at which the market opens. Default 0.
        nodes: attempts that the recording's highest count stands for; lower counts in proportion, rounded
            down. Default None: one attempt for each recorded machine.
        notice_seconds: between notice and reclaim. Default 120.

    Raises:
        ConfigurationError: the file is not a trace, or a parameter is wrong; names it and what is accepted.
    """

    def __init__(
        self,
        path: str | Path | Trace,
        speed: float = 1.0,
        start: float = 0.0,
        nodes: int | None = None,
        notice_seconds: float = NOTICE_SECONDS,
    ) -> None:
        whose = "TraceMarket"
        self._trace = trace = path if isinstance(path, Trace) else load_trace(path)
        self._speed = _number(whose, "speed", speed, above=0.0)
        self._start = _number(whose, "start", start)
        self._nodes = None if nodes is None else _count(whose, "nodes", nodes)
        self._notice = _number(whose, "notice_seconds", notice_seconds)
        self._prices = None if trace.prices is None else TracePrices(trace, self._speed, self._start)
        self._gap = trace.gap_seconds / self._speed
        self._shift = self._start / self._speed
        self._period = len(trace.data) * self._gap
        counts = trace.data
        if self._nodes is not None and trace.peak:
            counts = tuple(count * self._nodes // trace.peak for count in trace.data)
        # Tick 0 follows the last one: the recording goes round.
        ticks = [i for i, count in enumerate(counts) if count != counts[i - 1]]
        self._offsets = [i * self._gap for i in ticks]
        self._counts = [counts[i] for i in ticks] or [counts[0]]

    @property
    def trace(self) -> Trace:
        """The recording."""
        return self._trace

    @property
    def notice_seconds(self) -> float:
        return self._notice

    def lifetime(self, at: float, number: int) -> float | None:
        return None

    def capacity(self, at: float) -> int | None:
        return self._counts[self._latest(at) % len(self._counts)] if self._offsets else self._counts[0]

    def next_change(self, at: float) -> float | None:
        return self._time(self._latest(at) + 1) if self._offsets else None

    def reseeded(self, seed: int) -> TraceMarket:
        """The same recording from another place in it, for another round of a simulation."""
        recorded = len(self._trace.data) * self._trace.gap_seconds
        start = (self._start + random.Random(seed).random() * recorded) % recorded
        return TraceMarket(self._trace, self._speed, start, self._nodes, self._notice)

    @property
    def price_source(self) -> TracePrices | None:
        """The recorded prices at the market's speed, for ``Pool(price_per_hour="market")``; None: there are none."""
        return self._prices

    def prices(self, at: float) -> float | None:
        """$ per hour at that time; None where the recording has no prices."""
        return None if self._prices is None else self._prices.price(at)

    def _time(self, change: int) -> float:
        """When the ``change``-th change happens, counted from the recording's beginning on."""
        rounds, index = divmod(change, len(self._offsets))
        return rounds * self._period + self._offsets[index] - self._shift

    def _latest(self, at: float) -> int:
        """The last change at or before ``at``."""
        rounds = math.floor((at + self._shift) / self._period)
        within = at + self._shift - rounds * self._period
        change = rounds * len(self._offsets) + bisect_right(self._offsets, within) - 1
        # ``_time`` decides: what it calls the time of a change must not be taken for the moment before.
        while self._time(change + 1) <= at:
            change += 1
        while self._time(change) > at:
            change -= 1
        return change

    def __repr__(self) -> str:
        nodes = "" if self._nodes is None else f", nodes={self._nodes}"
        return (
            f"TraceMarket({self._trace.name!r}, speed={self._speed:g}, start={self._start:g}{nodes}, "
            f"notice_seconds={self._notice:g})"
        )


#: By the name that configuration has for them.
MARKETS: Final[dict[str, type[ScriptedMarket] | type[RandomMarket] | type[TraceMarket]]] = {
    "random": RandomMarket,
    "trace": TraceMarket,
    "script": ScriptedMarket,
}


def _number(whose: str, name: str, value: object, least: float = 0.0, above: float | None = None) -> float:
    """``value``, if it is a finite number not below ``least`` (or greater than ``above``, where given)."""
    accepted = f"a number >= {least:g}" if above is None else f"a number > {above:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise not_accepted(f"{whose}: {name}", value, accepted)
    if value < least or (above is not None and value <= above):
        raise not_accepted(f"{whose}: {name}", value, accepted)
    return float(value)


def _count(whose: str, name: str, value: object) -> int | None:
    if value is None and name.startswith("capacity"):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise not_accepted(f"{whose}: {name}", value, "an int >= 0")
    return value
