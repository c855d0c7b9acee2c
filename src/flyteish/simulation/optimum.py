"""The cheapest schedule that keeps a deadline, for somebody who knows the whole market in advance: the yardstick.

Exact and in continuous time: what no policy can beat, because none knows the future. Must not know policies, actions or
pools; it is told when spot could be had, and answers with a cost and the schedule that has it.

Why it is exact. With spot no dearer than on-demand, none of these exchanges makes a schedule dearer or later:

* spot in a stretch of capacity begins where the stretch begins and lasts until it ends: what else would run there is no
  cheaper, and its change-over is paid once either way. So a stretch is used as a whole or not at all;
* between two used stretches there is at most one on-demand session, and it may have the whole gap between them, running
  through the stretches that are not used;
* what is then done too much is cut off again: from on-demand, second for second and wherever it runs, and from spot
  only where no on-demand is left.

So the choice is: which stretches, and which gaps. Of such a choice only three sums matter. *Slack*, time without
progress, is the length of the idle gaps and one change-over per session; it must not exceed the time to spare.
*Change-overs* are paid at the price of their medium. *Spot work* saves the difference of the prices, up to all of the
work. A walk over the moments at which capacity comes and goes, which keeps every choice that no other beats in all
three, finds the cheapest. Recorded markets take milliseconds; hundreds of short random stretches may take minutes.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from flyteish._core.model.queues import ON_DEMAND, SPOT

_EPSILON: Final = 1e-6  # seconds: the same stretches summed in another order


class MachineUse(NamedTuple):
    """One machine from its start to its end, change-over included; seconds since the submission."""

    medium: str
    """``spot`` or ``on-demand``."""
    start: float
    end: float


class Optimum(NamedTuple):
    """The cheapest schedule."""

    cost: float
    """In seconds of an on-demand machine: 3600 is what one costs for an hour."""
    schedule: tuple[MachineUse, ...]
    """In order; nothing runs, and nothing is paid, between two."""


class _Choice(NamedTuple):
    """One way to have come to a moment; of two that agree elsewhere, less is better in each of the first three."""

    slack: float
    value: float
    """Paid for change-overs, less what spot work saved: may be below zero."""
    paid: float
    """Paid for change-overs alone: what counts once spot does all of the work."""
    medium: str
    """What was begun at ``start`` and lasts until the next choice; empty: nothing."""
    start: float
    before: _Choice | None


def optimum(
    stretches: Iterable[tuple[float, float]], *, work: float, budget: float, changeover: float, price: float
) -> Optimum | None:
    """The cheapest way to do ``work`` within ``budget``, knowing when spot can be had.

    Args:
        stretches: when spot can be had: (start, end) in seconds since the submission, in order and not touching. What
            lies outside 0..``budget`` is left out.
        work: seconds on an undisturbed machine, > 0.
        budget: seconds from the submission to the deadline.
        changeover: seconds at the start of every session that are paid for and bring nothing, >= 0.
        price: of spot, as a share of on-demand's, 0..1.

    Returns:
        Cost and schedule, or None where not even on-demand from the first second on keeps the deadline.
    """
    if budget - work < changeover - _EPSILON:
        return None
    usable = [(max(a, 0.0), min(b, budget)) for a, b in stretches if b > 0 and a < budget and b > a]
    best = _Search(usable, work, budget, changeover, price).best()
    schedule = _schedule(best, work, budget, changeover)
    cost = sum((price if each.medium == SPOT else 1.0) * (each.end - each.start) for each in schedule)
    return Optimum(cost, schedule)


class _Search:
    """The walk over the moments, and what it needs at each step."""

    def __init__(
        self, usable: Sequence[tuple[float, float]], work: float, budget: float, changeover: float, price: float
    ) -> None:
        self._usable, self._budget = usable, budget
        self._spare, self._changeover, self._price = budget - work + _EPSILON, changeover, price
        self._all_saved = (1 - price) * work
        # Spot cannot do all of the work: then what was saved says everything, and fewer choices need keeping.
        self._scarce = sum(max(0.0, b - a - changeover) for a, b in usable) <= work
        self._hope = _hopes([self._worth(b - a) for a, b in usable])
        self._least = math.inf

    def best(self) -> _Choice:
        """The choice with the lowest cost that keeps the deadline."""
        idle, running = [_Choice(0.0, 0.0, 0.0, "", 0.0, None)], list[_Choice]()
        for start, end, number, later in self._segments():
            length, d = end - start, self._changeover
            started = [_Choice(c.slack + d, c.value + d, c.paid + d, ON_DEMAND, start, c) for c in idle]
            taken = list[_Choice]()
            if number is not None and length > d:
                worth, paid = self._worth(length), self._price * d
                taken = [
                    _Choice(c.slack + d, c.value - worth, c.paid + paid, SPOT, start, c) for c in (*idle, *running)
                ]
            stopped = [_Choice(c.slack + length, c.value, c.paid, "", start, c) for c in running]
            waited = [self._wait(c, start, length) for c in idle]
            running = self._front(running + started, later, 0.0)
            idle = self._front(taken + stopped + waited, later, d)
        return min((*idle, *running), key=self._cost)

    def _segments(self) -> Iterable[tuple[float, float, int | None, int]]:
        """(start, end, number of the stretch or None, number of the next), without gaps from 0 to the deadline."""
        moment = 0.0
        for number, (a, b) in enumerate(self._usable):
            if a > moment:
                yield moment, a, None, number
            yield a, b, number, number + 1
            moment = b
        if moment < self._budget:
            yield moment, self._budget, None, len(self._usable)

    def _worth(self, length: float) -> float:
        return (1 - self._price) * (length - self._changeover) - self._price * self._changeover

    def _wait(self, c: _Choice, start: float, length: float) -> _Choice:
        """Nothing runs: a spot session has ended with its stretch, and idling goes on as it is."""
        if c.medium:
            return _Choice(c.slack + length, c.value, c.paid, "", start, c)
        return c._replace(slack=c.slack + length)

    def _cost(self, c: _Choice) -> float:
        """Beyond the bare work on on-demand. Where spot does all of the work, more of it saves nothing more."""
        return max(c.value, c.paid - self._all_saved)

    def _front(self, choices: list[_Choice], later: int, finish: float) -> list[_Choice]:
        """Those in time, not beaten by another one, and with a chance against the best that is certain so far.

        ``finish`` is the change-over of going on-demand from here to the end: certain, where the slack for it is left.
        """
        spare, d = self._spare, self._changeover
        for c in choices:
            if c.slack + finish <= spare:
                self._least = min(self._least, self._cost(c) + finish)
        limit = self._least + _EPSILON
        hope = self._hope[later]
        choices.sort(key=lambda c: c[:3])
        kept, stairs = list[_Choice](), list[tuple[float, float]]()
        for c in choices:
            left = spare - c.slack
            if left < 0:
                break
            uses = len(hope) - 1 if d == 0 else min(int(left / d), len(hope) - 1)
            if c.value - hope[uses] > limit:
                continue
            paid = 0.0 if self._scarce else c.paid
            # The stairs hold (value, paid) of the kept ones, value rising and paid falling: the last one that is no
            # worse in value is the best in paid among those.
            place = bisect_right(stairs, (c.value, math.inf))
            if place and stairs[place - 1][1] <= paid:
                continue
            while place < len(stairs) and stairs[place][1] >= paid:
                del stairs[place]
            insort(stairs, (c.value, paid))
            kept.append(c)
        return kept


def _hopes(worths: Sequence[float]) -> list[list[float]]:
    """For each number of a next stretch: the most that 0, 1, 2, ... uses from there on could save."""
    found = []
    later = list[float]()
    for worth in reversed((*worths, 0.0)):
        if worth > 0:
            insort(later, worth)
        found.append([0.0, *accumulate(reversed(later))])
    return found[::-1]


def _schedule(best: _Choice, work: float, budget: float, changeover: float) -> tuple[MachineUse, ...]:
    """The uses of a choice, less what would be done too much: on-demand first, the last ones first."""
    uses = list[MachineUse]()
    end, at = budget, best
    while True:
        if at.medium:
            uses.append(MachineUse(at.medium, at.start, end))
        if at.before is None:
            break
        end, at = at.start, at.before
    excess = sum(each.end - each.start - changeover for each in uses) - work
    for medium in (ON_DEMAND, SPOT):
        for place, each in enumerate(uses):
            if each.medium == medium and excess > 0:
                cut = min(excess, each.end - each.start - changeover)
                excess -= cut
                uses[place] = each._replace(end=each.end - cut)
    return tuple(each for each in reversed(uses) if each.end - each.start > changeover + _EPSILON)
