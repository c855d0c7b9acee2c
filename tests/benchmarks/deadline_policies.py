"""Deadline policies side by side on recorded spot markets: what a job costs, and whether it ever comes late.

The setting is that of "Can't Be Late" (NSDI 2024): 48 h of work, deadlines of 52 h and 70 h, change-overs of 3 and 12
minutes, spot at a fixed share of on-demand's price. A machine that changes over is paid for and makes no progress.
Costs are shares of on-demand alone, which needs the work and one change-over.

A ``Job`` asks its policy at every change of capacity and at the times at which it wants to look again, and tells it
only what the controller could have seen by then. The optimum beside it knows the whole market in advance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.rules.deadline_policies import POLICIES, WAIT, Decision, Policy, Situation
from flyteish.markets.traces import Trace, load_trace
from flyteish.simulation.optimum import optimum

TRACES: Final = Path(__file__).parents[2] / "../shared/spot-traces"
HOUR: Final = 3600.0
WORK: Final = 48 * HOUR
DEADLINES: Final = (52 * HOUR, 70 * HOUR)
CHANGEOVERS: Final = (180.0, 720.0)
PRICE: Final = 0.3
OFFSETS: Final = 150

Stretches = Sequence[tuple[float, float]]


class Outcome(NamedTuple):
    """One job under one policy."""

    cost: float
    """In seconds of an on-demand machine."""
    finished: float
    """Seconds since the submission."""
    preemptions: int
    changeovers: int
    decisions: int


class Job:
    """One job on one market, which does as its policy says."""

    def __init__(
        self, stretches: Stretches, work: float, budget: float, changeover: float,
        price: float = PRICE, interval: float = 0.0, grace: float = 0.0,
    ) -> None:  # fmt: skip
        """Saves every ``interval`` seconds of progress (0: always); a planned move saves too and takes ``grace``."""
        self.work, self.budget, self.changeover, self.price = work, budget, changeover, price
        self.interval, self.grace = interval, grace
        self.edges = [edge for stretch in stretches for edge in stretch]
        self.free = bool(self.edges) and self.edges[0] <= 0
        self.edges = [*self.edges[self.free :], math.inf]
        self.edge = 0
        self.now = self.done = self.saved = self.base = self.ready = self.since = self.cost = 0.0
        self.on = ""
        self.seconds, self.ended = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        self.preemptions = self.changeovers = self.decisions = 0

    def situation(self) -> Situation:
        """What its policy may know."""
        stretch = self.now - self.since
        seconds = {**self.seconds, self.free: self.seconds[self.free] + stretch}
        return Situation(
            work=self.work, budget=self.budget, elapsed=self.now, done=self.done, saved=self.saved,
            on=self.on, spot_free=self.free, changeover=self.changeover,
            reserve=self.interval + self.grace, grace=self.grace, stretch=stretch,
            up_seconds=seconds[True], up_ended=self.ended[True],
            down_seconds=seconds[False], down_ended=self.ended[False], price=self.price,
        )  # fmt: skip

    def run(self, policy: Policy) -> Outcome:
        """To the end of the work."""
        while self.done < self.work - 1e-6:
            self.decisions += 1
            assert self.decisions < 100_000, f"the policy looks again and again: {self.situation()}"
            decision = policy(self.situation())
            go = "" if decision.go == WAIT else decision.go
            if go != self.on:
                self._move(go)
            if go == self.on:  # else capacity was lost on the way, or the move is over: it is asked again
                self._advance(self._until(decision))
        return Outcome(self.cost, self.now, self.preemptions, self.changeovers, self.decisions)

    def _move(self, go: str) -> None:
        if self.on:  # the grace goes by on the old machine, without progress, and ends with all of it saved
            self.ready = math.inf
            until = self.now + self.grace
            while self.on and self.now < until:
                self._advance(min(until, self.edges[self.edge]))
            if self.on:
                self.saved = self.done
            self.on = ""
            return
        assert go != SPOT or self.free, "spot was chosen where there is none"
        self.on, self.base, self.ready = go, self.done, self.now + self.changeover
        self.changeovers += 1

    def _until(self, decision: Decision) -> float:
        moments = [self.edges[self.edge]]
        # With all saved at all times the last call on spot recedes as fast as time goes by.
        if self.on != SPOT or self.interval or self.now < self.ready:
            moments.append(max(decision.review, self.now + 1e-4))
        if self.on:
            moments.append(max(self.ready, self.now) + self.work - self.done)
        until = min(moments)
        assert until < math.inf, f"nothing would ever happen again: {decision}"
        return until

    def _advance(self, until: float) -> None:
        self.cost += (until - self.now) * {SPOT: self.price, ON_DEMAND: 1.0, "": 0.0}[self.on]
        if self.on and until > self.ready:
            self.done += until - max(self.now, self.ready)
            whole = math.floor((self.done - self.base) / self.interval + 1e-9) * self.interval if self.interval else 0.0
            self.saved = self.base + whole if self.interval else self.done
        self.now = until
        if until < self.edges[self.edge]:
            return
        self.edge += 1
        self.seconds[self.free] += until - self.since
        self.ended[self.free] += 1
        self.since, self.free = until, not self.free
        if self.on == SPOT and not self.free and self.done < self.work - 1e-6:
            self.on, self.done = "", self.saved
            self.preemptions += 1


def on_demand(s: Situation) -> Decision:
    """No spot at all: the measure of cost."""
    return Decision(ON_DEMAND, "on-demand", "always")


def greedy(s: Situation) -> Decision:
    """Spot or nothing, until the safety net; then on-demand to the end."""
    last_call = s.budget - (s.work - s.saved) - s.changeover - s.grace
    spare = s.budget - s.elapsed - (s.work - s.done) - 2 * s.changeover - s.reserve
    if s.on == SPOT and s.elapsed < last_call:
        return Decision(SPOT, "greedy", "on spot", last_call)
    if s.on or spare <= 1e-3:
        return Decision(ON_DEMAND, "greedy", "to the end")
    return Decision(SPOT if s.spot_free else WAIT, "greedy", "while there is slack", s.elapsed + spare)


ALL_POLICIES: Final[Mapping[str, Policy]] = {"greedy": greedy, **POLICIES}


def stretches_of(trace: Trace, offset: float, horizon: float) -> list[tuple[float, float]]:
    """When at least one machine could be had, from ``offset`` on; the recording is followed by itself."""
    found = list[tuple[float, float]]()
    ticks = len(trace.data)
    tick = int(offset // trace.gap_seconds)
    while (start := tick * trace.gap_seconds - offset) < horizon:
        if trace.data[tick % ticks]:
            end = min(start + trace.gap_seconds, horizon)
            if found and found[-1][1] >= start - 1e-6:
                found[-1] = (found[-1][0], end)
            else:
                found.append((max(start, 0.0), end))
        tick += 1
    return found


class Row(NamedTuple):
    """One trace, deadline and change-over: the mean over all offsets, as a share of on-demand alone."""

    name: str
    costs: dict[str, float]
    optimum: float | None
    misses: dict[str, int]
    changeovers: dict[str, float]


def compare(
    traces: Sequence[Trace], offsets: int = OFFSETS, phase: float = 0.0, price: float = PRICE, bound: bool = True
) -> Iterator[Row]:
    """All policies on all traces, deadlines and change-overs, from the same ``offsets`` evenly spread starts."""
    for trace in traces:
        for budget in DEADLINES:
            starts = [(index + phase) * trace.seconds / offsets for index in range(offsets)]
            markets = [stretches_of(trace, start, budget + HOUR) for start in starts]
            for changeover in CHANGEOVERS:
                alone = WORK + changeover
                ran = {
                    name: [Job(market, WORK, budget, changeover, price).run(policy) for market in markets]
                    for name, policy in ALL_POLICIES.items()
                }
                best = None
                if bound:
                    best = 0.0
                    for market in markets:
                        known = optimum(market, work=WORK, budget=budget, changeover=changeover, price=price)
                        assert known is not None
                        best += known.cost / alone / offsets
                yield Row(
                    f"{trace.name.removesuffix('.json')} {budget / HOUR:.0f} h {changeover / 60:.0f} min",
                    {name: sum(each.cost for each in each_ran) / alone / offsets for name, each_ran in ran.items()},
                    best,
                    {name: sum(each.finished > budget + 1e-3 for each in each_ran) for name, each_ran in ran.items()},
                    {name: sum(each.changeovers for each in each_ran) / offsets for name, each_ran in ran.items()},
                )


def recorded() -> list[Trace]:
    """The recordings beside the checkout, in the order of their paths; none where there are none."""
    return [load_trace(file) for file in sorted(TRACES.rglob("*.json"))]


def table(rows: Sequence[Row]) -> str:
    """For people: cost as a share of on-demand alone, change-overs in brackets."""
    names = list(rows[0].costs)
    head = "".join(f"{name:>24}" for name in names)
    lines = [f"{'cost / on-demand alone (change-overs)':36}{head}{'optimum':>10}"]
    for row in rows:
        cells = (f"{row.costs[name]:.3f} ({row.changeovers[name]:4.1f})" for name in names)
        bound = f"{row.optimum:10.3f}" if row.optimum is not None else ""
        lines.append(f"{row.name:36}" + "".join(f"{cell:>24}" for cell in cells) + bound)
    lines.append(f"{'missed deadlines':36}" + "".join(f"{sum(row.misses[name] for row in rows):>24}" for name in names))
    return "\n".join(lines)
