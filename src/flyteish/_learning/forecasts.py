"""Forecasts as values: when something will finish and what it will cost, how it came out, and how well several fit.

Arithmetic on percentiles, and the words for people. Must not know how a forecast is made or where it is kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, TypedDict

import msgspec

from flyteish._core.model.settings import Settings
from flyteish._core.wording import money, span

STEPS: Final = 20
"""A distribution is kept as its percentiles 0, 5, 10, ... 100."""
LOW: Final = 0.05
HIGH: Final = 0.95


class ForecastOptions(TypedDict, total=False):
    """What ``task.forecast`` takes."""

    work: Any
    count: int
    rounds: int
    seed: int
    checkpoint_every: Any
    ahead: int | None


class Percentiles(msgspec.Struct, frozen=True):
    """A distribution: percentiles 0, 5, 10, ... 100, and the mean."""

    values: tuple[float, ...]
    mean: float

    @classmethod
    def of(cls, drawn: Iterable[float]) -> Percentiles | None:
        """None where there is no value."""
        ordered = sorted(drawn)
        if not ordered:
            return None
        steps = tuple(_between(ordered, step / STEPS) for step in range(STEPS + 1))
        return cls(steps, sum(ordered) / len(ordered))

    def at(self, share: float) -> float:
        """The value below which ``share`` (0..1) of all lie, interpolated. Raises ValueError for another share."""
        if not 0 <= share <= 1:
            raise ValueError(f"share={share!r} is not accepted: expected a number from 0 to 1")
        return _between(self.values, share)

    @property
    def p5(self) -> float:
        """One in twenty is less."""
        return self.at(LOW)

    @property
    def p50(self) -> float:
        """The median."""
        return self.at(0.5)

    @property
    def p90(self) -> float:
        """Nine in ten are less."""
        return self.at(0.9)

    @property
    def p95(self) -> float:
        """One in twenty is more."""
        return self.at(HIGH)

    def rank(self, value: float) -> float:
        """The share of the distribution that lies below ``value``: 0 at or below its beginning, 1 beyond its end.

        Where many are equal to the value it is the middle of them.
        """
        values = self.values
        low, high = bisect_left(values, value), bisect_right(values, value)
        if low == len(values):
            return 1.0
        if high == 0:
            return 0.0
        if low < high:
            return (low + high - 1) / 2 / STEPS
        below, above = values[low - 1], values[low]
        return (low - 1 + (value - below) / (above - below)) / STEPS

    def __repr__(self) -> str:
        return f"Percentiles(p5={self.p5:g}, p50={self.p50:g}, p90={self.p90:g}, p95={self.p95:g})"


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When a task will finish and what it will cost, as many simulated runs of it came out. ``print`` shows it."""

    task: str
    queue: str
    digest: str
    """Stands for the settings that matter to it; a run is compared with a forecast of the same ones."""
    made_at: float
    """Seconds since the epoch."""
    count: int = 1
    """Runs of the task that are started together; finish is when the last of them ends, dollars are for all."""
    rounds: int
    """Simulated."""
    finish: Percentiles | None
    """Seconds from submission to the end, of the rounds that succeeded; None where none did."""
    dollars: Percentiles | None
    """Of all rounds; None where no pool has a price."""
    on_demand_seconds: float | None
    """Median finish without spot; None where the queue feeds no on-demand pool."""
    on_demand_dollars: float | None
    """Mean cost without spot; None where that, or the price, is not known."""
    preemptions: float
    """Expected, as are the next two."""
    lost_seconds: float
    spot_share: float
    """Of the machine time, 0..1."""
    deadline: float | None
    """Seconds from submission; None: it has none."""
    misses: float
    """Share of the rounds that the deadline ended."""
    fails: float
    """Share of the rounds that ended without success otherwise, or not at all."""
    based_on: tuple[str, ...]
    """What is known, in words."""
    assumed: tuple[str, ...]
    """What is not, and what was taken instead."""

    def finish_at(self, share: float = 0.5, start: datetime | None = None) -> datetime:
        """The wall-clock time before which it finishes with this likelihood (0..1), if it is submitted at ``start``.

        Args:
            share: default 0.5, the median.
            start: default: when the forecast was made.

        Raises:
            ValueError: no round of the forecast finished, or the share is not accepted.
        """
        if self.finish is None:
            raise ValueError(f"no round of the forecast of {self.task} finished")
        begun = datetime.fromtimestamp(self.made_at).astimezone() if start is None else start
        return begun + timedelta(seconds=self.finish.at(share))

    def json(self) -> bytes:
        """All of it as one JSON document."""
        return msgspec.json.encode(self)

    def __str__(self) -> str:
        return "\n".join(_told(self))


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is over, beside the forecast that was made of it."""

    run: str
    task: str
    digest: str
    made_at: float
    """When the forecast was made, seconds since the epoch."""
    submitted_at: float
    phase: str
    """How the run ended."""
    missed: bool
    """Its deadline ended it."""
    interrupted: bool
    """Its controller died on the way, so the time that it took says little."""
    seconds: float
    """From submission to end."""
    finish: Percentiles | None
    rank: float | None
    """Share of the forecast's rounds that finished earlier; None where it did not succeed."""
    cost: float
    """$ that the run cost."""
    dollars: Percentiles | None
    cost_rank: float | None
    preemptions: int
    preemptions_expected: float
    misses: float
    """The forecast's share of rounds that missed the deadline."""

    @property
    def counts(self) -> bool:
        """Whether it says how good the forecast was."""
        return self.rank is not None and not self.interrupted

    @property
    def within(self) -> bool:
        """Whether it finished between the forecast's p5 and p95."""
        return self.finish is not None and self.rank is not None and self.finish.p5 <= self.seconds <= self.finish.p95


class Calibration(msgspec.Struct, frozen=True):
    """How well forecasts fit what happened. ``print`` shows it."""

    runs: int
    """That succeeded without their controller dying on the way; the others do not count here."""
    within: int
    """Those that finished between p5 and p95; nine in ten would be right."""
    median_error: float | None
    """Of the time, against p50: 0.04 is 4% longer than forecast. None: no run counts."""
    median_cost_error: float | None
    """The same of dollars; None where none were forecast."""
    misses: int
    """Deadlines missed, of all runs."""
    misses_expected: float

    @classmethod
    def of(cls, comparisons: Iterable[Comparison]) -> Calibration:
        """That of some runs."""
        every = list(comparisons)
        counted = [each for each in every if each.counts]
        return cls(
            len(counted),
            sum(each.within for each in counted),
            _median([each.seconds / each.finish.p50 - 1 for each in counted if each.finish and each.finish.p50]),
            _median([each.cost / each.dollars.p50 - 1 for each in counted if each.dollars and each.dollars.p50]),
            sum(each.missed for each in every),
            sum(each.misses for each in every),
        )

    def __str__(self) -> str:
        if not self.runs:
            return "no run has been compared with a forecast yet"
        parts = [f"of {self.runs} runs {self.within} ({self.within / self.runs:.0%}) ended within p5..p95"]
        if self.median_error is not None:
            parts.append(f"median error {self.median_error:+.0%}")
        if self.median_cost_error is not None:
            parts.append(f"of the cost {self.median_cost_error:+.0%}")
        if self.misses or self.misses_expected >= 0.5:
            parts.append(f"{self.misses} deadlines missed, {self.misses_expected:.1f} expected")
        return "; ".join(parts)


def settings_digest(settings: Settings) -> str:
    """Stands for the settings by which the time and the cost of a run may differ."""
    matter = (settings.queue, settings.interruptible, settings.retries, settings.timeout, settings.resources)
    return blake2b(msgspec.msgpack.encode((*matter, settings.priority)), digest_size=8).hexdigest()


# -- words -----------------------------------------------------------------------------------------------------------


def compared(forecast: Forecast, comparison: Comparison | None) -> str:
    """A forecast, and how it came out, in a line."""
    if forecast.finish is None:
        said = "forecast: not to finish"
    else:
        said = f"forecast: {span(forecast.finish.p50)} (p50), {span(forecast.finish.p90)} (p90)"
    if comparison is None:
        return said
    took = f"{said}; took {span(comparison.seconds)}"
    return took if comparison.rank is None else f"{took}, longer than {comparison.rank:.0%} of what was simulated"


def _told(forecast: Forecast) -> list[str]:
    several = f" x {forecast.count}" if forecast.count > 1 else ""
    lines = [f"forecast of {forecast.task}{several} in queue {forecast.queue} ({forecast.rounds} simulated runs)"]
    finish, dollars = forecast.finish, forecast.dollars
    if finish is None:
        lines.append("  finish       in no simulated run")
    else:
        shares = ((LOW, "p5"), (0.5, "p50"), (0.9, "p90"), (HIGH, "p95"))
        lines.append("  finish       " + "   ".join(f"{span(finish.at(share))} ({name})" for share, name in shares))
        when = [f"{forecast.finish_at(share):%a %H:%M} ({name})" for share, name in shares[1:3]]
        lines.append("  started now  " + "   ".join(when))
    if dollars is not None:
        shown = ((LOW, "p5"), (0.5, "p50"), (0.9, "p90"), (HIGH, "p95"))
        lines.append("  cost         " + "   ".join(f"{money(dollars.at(share))} ({name})" for share, name in shown))
    if forecast.on_demand_seconds is not None:
        price = "" if forecast.on_demand_dollars is None else f" for {money(forecast.on_demand_dollars)}"
        lines.append(f"  on-demand    {span(forecast.on_demand_seconds)}{price}")
    lines.append(
        f"  on spot      {forecast.spot_share:.0%} of the time; {forecast.preemptions:.1f} preemptions, "
        f"{span(forecast.lost_seconds)} of work lost"
    )
    if forecast.deadline is not None:
        lines.append(f"  deadline     {span(forecast.deadline)}: missed in {forecast.misses:.1%}")
    if forecast.fails:
        lines.append(f"  no success   in {forecast.fails:.1%}, apart from the deadline")
    lines.append(f"  based on     {'; '.join(forecast.based_on) or 'nothing that was seen'}")
    lines += [f"  assumed      {text}" for text in forecast.assumed]
    return lines


def _between(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    if low + 1 >= len(ordered):
        return ordered[-1]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (place - low)


def _median(values: list[float]) -> float | None:
    return _between(sorted(values), 0.5) if values else None
