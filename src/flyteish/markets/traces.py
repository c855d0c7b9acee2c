"""Recorded spot capacity: reading a trace file, checking it, and saying how such a market behaves.

The format is the one that published recordings come in: ``{"metadata": {"gap_seconds": G}, "data": [n0, n1,
...], "prices": [...]}``, where ``n`` machines could be had at a tick, ticks are ``G`` seconds apart and the
prices ($ per hour, one per tick) may be missing. Must not know what is done with it; ``market`` makes a
schedule of it.
"""

from __future__ import annotations

import math
import statistics
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from flyteish.errors import ConfigurationError

_FORMAT = '{"metadata": {"gap_seconds": G}, "data": [n0, n1, ...], "prices": [...]}, "prices" being optional'


class Statistics(NamedTuple):
    """How a recorded market behaves for somebody who wants ``at_least`` so many machines (in seconds)."""

    at_least: int
    seconds: float
    """Length of the whole recording."""
    availability: float
    """Share of it, 0..1, in which that many could be had."""
    up_runs: int
    """Unbroken stretches with that many."""
    median_up_run: float
    """0 where there is none. The first and the last count as recorded, though they may have been longer."""
    mean_up_run: float
    drops: int
    """How often the count fell, by however much."""
    peak: int
    """The most that could be had."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One recording, checked."""

    name: str
    """For people: the file that it came from."""
    gap_seconds: float
    """Between ticks; > 0."""
    data: tuple[int, ...]
    """Machines to be had, one per tick; never empty."""
    prices: tuple[float, ...] | None = None
    """$ per hour, one per tick; None where they were not recorded."""

    @property
    def seconds(self) -> float:
        """Length of the recording: each tick stands for the gap after it."""
        return len(self.data) * self.gap_seconds

    @property
    def peak(self) -> int:
        """The most machines at any tick."""
        return max(self.data)

    def up_runs(self, at_least: int = 1) -> list[float]:
        """Seconds of every unbroken stretch in which ``at_least`` machines could be had, in order."""
        stretches = groupby(self.data, key=lambda count: count >= at_least)
        return [sum(1 for _ in ticks) * self.gap_seconds for up, ticks in stretches if up]

    def statistics(self, at_least: int = 1) -> Statistics:
        """The recording in a few numbers, for somebody who needs ``at_least`` machines."""
        runs = self.up_runs(at_least)
        return Statistics(
            at_least=at_least,
            seconds=self.seconds,
            availability=sum(count >= at_least for count in self.data) / len(self.data),
            up_runs=len(runs),
            median_up_run=statistics.median(runs) if runs else 0.0,
            mean_up_run=statistics.fmean(runs) if runs else 0.0,
            drops=sum(later < earlier for earlier, later in pairwise(self.data)),
            peak=self.peak,
        )

    def __repr__(self) -> str:
        priced = "with prices" if self.prices is not None else "no prices"
        return f"Trace({self.name}: {len(self.data)} ticks of {self.gap_seconds:g} s, 0..{self.peak}, {priced})"


def load_trace(path: str | Path) -> Trace:
    """Read and check a trace file.

    Raises:
        ConfigurationError: the file cannot be read or is not such a trace; names the file and what is wrong.
    """
    file = Path(path).expanduser()
    try:
        content = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"trace file {str(file)!r} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"trace file {str(file)!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _wrong(file, f"it holds a {type(content).__name__}, not an object")
    metadata = content.get("metadata")
    if not isinstance(metadata, dict) or "gap_seconds" not in metadata:
        raise _wrong(file, "metadata.gap_seconds is missing")
    gap = metadata["gap_seconds"]
    if not _is_number(gap) or not 0 < gap < math.inf:
        raise _wrong(file, f"metadata.gap_seconds={gap!r}, expected seconds > 0")
    data = _column(file, content, "data", whole=True)
    if not data:
        raise _wrong(file, "data is empty")
    prices = None
    if content.get("prices") is not None:
        prices = tuple(float(price) for price in _column(file, content, "prices", whole=False))
        if len(prices) != len(data):
            raise _wrong(file, f"data has {len(data)} ticks and prices {len(prices)}, expected as many")
    return Trace(name=file.name, gap_seconds=float(gap), data=tuple(int(count) for count in data), prices=prices)


def _column(file: Path, content: dict[str, object], name: str, whole: bool) -> list[int | float]:
    values = content.get(name)
    if not isinstance(values, list):
        raise _wrong(file, f"{name} is missing" if values is None else f"{name} is not a list")
    accepted = "an int >= 0" if whole else "$ per hour >= 0"
    for index, value in enumerate(values):
        if not _is_number(value) or not 0 <= value < math.inf or (whole and not isinstance(value, int)):
            raise _wrong(file, f"{name}[{index}]={value!r}, expected {accepted}")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(file: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"trace file {str(file)!r} is not a spot trace: {what}. The format is {_FORMAT}")
