"""What a spot pool has done to the work that was sent there: preemptions, stock-outs, stretches with and without
capacity.

Preemptions and stock-outs fade by half every ``half_life`` seconds; a score adds them up, and ``passed_over`` says
which pools of several are to be tried last. Must not know actions, queues or a clock: whoever tells it something says
when that was.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from flyteish._core.wording import counted, span

LEAVE: Final = 0.10
"""A pool is passed over once its score is worse than the best one's by this much: one bad minute is not enough."""
RETURN: Final = 0.05
"""... until it is worse by no more than this. The gap keeps pools that are about equal from taking turns."""
PRIOR_ASKS: Final = 4.0
"""A pool is believed to have answered so many requests before anything was seen, so that one refusal is not all."""
MOST: Final = 4.0
"""What was seen weighs at most so many times the prior: a thousand machines lost at once are one event."""
KEEP: Final = 0.9
"""What the stretches before it weigh when one more is over: about the last ten count."""
MOST_COUNTED: Final = 1000
COARSE: Final = 1 / 256
"""Fading is worked out when so much of a half-life has gone by, since most of what is told comes close together."""


class Record(NamedTuple):
    """A pool's memory at a moment, for people and for placement. Times in seconds; 0 where nothing was observed."""

    preemptions: int
    """Within the last ``half_life`` seconds, as are ``stock_outs``."""
    stock_outs: int
    score: float
    """Share of machine time lost to preemptions plus share of requests refused, as remembered; 0: nothing."""
    churn_per_hour: float
    """Preemptions for each machine-hour, as remembered."""
    mean_up: float
    mean_down: float


class Stretches(NamedTuple):
    """With capacity and without it, as remembered: seconds, the present stretch included, and how many have ended."""

    is_up: bool | None
    since: float
    up_seconds: float
    up_ended: float
    down_seconds: float
    down_ended: float


class PoolMemory:
    """One pool's. ``now`` is seconds since the epoch and never goes back."""

    __slots__ = (
        "_asked", "_at", "_down", "_downs", "_lost", "_machine", "_preempted", "_preemptions", "_refused", "_since",
        "_stock_outs", "_up", "_ups", "half_life", "held_until", "is_up",
    )  # fmt: skip

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        """Seconds, and also the machine-seconds without a preemption that it is believed to have had before anything
        was seen. 0: it remembers nothing but stretches."""
        self.held_until = 0.0
        """Until when anything may be held against it; a pool with nothing bad on record is never asked for more."""
        self._at = 0.0
        """Up to when the following four have faded."""
        self._machine = 0.0
        """Machine-seconds of attempts that are over."""
        self._lost = 0.0
        """Those of them whose work, or whose start-up, preemptions have wasted."""
        self._asked = 0.0
        """Requests for machines that were answered, either way."""
        self._refused = 0.0
        self._preempted = 0.0
        self._preemptions: list[float] = []
        """When they happened, the latest ``MOST_COUNTED``."""
        self._stock_outs: list[float] = []
        self.is_up: bool | None = None
        """Whether spot could be had, last that was heard; None: nobody has tried."""
        self._since = 0.0
        self._up = 0.0
        """Seconds of finished stretches with capacity, and their number; older ones weigh less."""
        self._ups = 0.0
        self._down = 0.0
        self._downs = 0.0

    # -- what happens -------------------------------------------------------------------------------------------

    def got(self, now: float) -> None:
        """A machine was to be had."""
        if self.half_life:
            self._fade(now)
            self._asked += 1.0
            if self._asked > MOST * PRIOR_ASKS:
                self._bound_asked()
        if self.is_up is not True:
            self.came(now)

    def refused(self, now: float) -> None:
        """A machine was asked for and there was none. The refusals of one burst are one stock-out: say it once."""
        if self.half_life:
            self._fade(now)
            self._asked += 1.0
            self._refused += 1.0
            self._bound_asked()
            _append(self._stock_outs, now)
            self._hold(now)
        self.went(now)

    def came(self, now: float) -> None:
        """There is capacity, without anybody having asked."""
        if self.is_up is False:
            self._down = KEEP * self._down + now - self._since
            self._downs = KEEP * self._downs + 1.0
        if self.is_up is not True:
            self.is_up, self._since = True, now

    def went(self, now: float) -> None:
        """There is no capacity any more."""
        if self.is_up is True:
            self._up = KEEP * self._up + now - self._since
            self._ups = KEEP * self._ups + 1.0
        if self.is_up is not False:
            self.is_up, self._since = False, now

    def ended(self, now: float, seconds: float) -> None:
        """An attempt used a machine for so long, and was not preempted."""
        if self.half_life:
            self._fade(now)
            self._machine += seconds
            if self._machine > MOST * self.half_life:
                self._bound_machine()

    def preempted(self, now: float, seconds: float, lost: float) -> None:
        """An attempt lost its machine after ``seconds``; ``lost`` of them (and more, with a new start-up) were in
        vain."""
        if self.half_life:
            self._fade(now)
            self._machine += seconds
            self._lost += min(lost, seconds)
            self._preempted += 1.0
            self._bound_machine()
            _append(self._preemptions, now)
            self._hold(now)

    def _fade(self, now: float) -> None:
        passed = now - self._at
        if passed > self.half_life * COARSE:
            kept = 0.5 ** min(passed / self.half_life, 1000.0)
            self._at = now
            self._machine *= kept
            self._lost *= kept
            self._preempted *= kept
            self._asked *= kept
            self._refused *= kept

    def _bound_machine(self) -> None:
        if self._machine > MOST * self.half_life:
            down = MOST * self.half_life / self._machine
            self._machine *= down
            self._lost *= down
            self._preempted *= down

    def _bound_asked(self) -> None:
        if self._asked > MOST * PRIOR_ASKS:
            down = MOST * PRIOR_ASKS / self._asked
            self._asked *= down
            self._refused *= down

    def _hold(self, now: float) -> None:
        # score(t) <= kept(t) * worst, which is below RETURN when kept(t) is below RETURN / worst.
        worst = self._lost / self.half_life + self._refused / PRIOR_ASKS
        if worst > RETURN:
            self.held_until = now + self.half_life * (math.log2(worst / RETURN) + COARSE)

    # -- what it comes to ---------------------------------------------------------------------------------------

    def score(self, now: float) -> float:
        """The loss to expect there: the share of machine time, plus the share of requests; 0 to 2."""
        if not self.half_life:
            return 0.0
        kept: float = 0.5 ** ((now - self._at) / self.half_life)
        lost = self._lost * kept / (self._machine * kept + self.half_life)
        return lost + self._refused * kept / (self._asked * kept + PRIOR_ASKS)

    def mean_up(self, now: float) -> float:
        """Seconds for which spot could be had at a stretch, on average; the stretch that goes on counts as far as it
        has come. 0: none is over yet, so nothing is known."""
        going = now - self._since if self.is_up is True else 0.0
        return (self._up + going) / self._ups if self._ups else 0.0

    def mean_down(self, now: float) -> float:
        """As ``mean_up``, for stretches without."""
        going = now - self._since if self.is_up is False else 0.0
        return (self._down + going) / self._downs if self._downs else 0.0

    def stretches(self, now: float) -> Stretches:
        """What ``mean_up`` and ``mean_down`` are made of, and since when it is as it is."""
        going = now - self._since if self.is_up is not None else 0.0
        return Stretches(
            self.is_up, self._since, self._up + (going if self.is_up else 0.0), self._ups,
            self._down + (0.0 if self.is_up else going), self._downs,
        )  # fmt: skip

    def churn_per_hour(self) -> float:
        """Preemptions for each machine-hour; 0: none is remembered."""
        # Both fade alike, so it does not matter when this is asked.
        return 3600.0 * self._preempted / self._machine if self._machine else 0.0

    def counts(self, now: float) -> tuple[int, int]:
        """Preemptions and stock-outs of the last ``half_life`` seconds (at most ``MOST_COUNTED`` of each)."""
        since = now - self.half_life
        preemptions, stock_outs = self._preemptions, self._stock_outs
        return len(preemptions) - bisect_right(preemptions, since), len(stock_outs) - bisect_right(stock_outs, since)

    def record(self, now: float) -> Record:
        """Everything, at a moment."""
        return Record(*self.counts(now), self.score(now), self.churn_per_hour(), self.mean_up(now), self.mean_down(now))

    def words(self, now: float) -> str:
        """``3 preemptions and 2 stock-outs there in the last hour``: what is held against it."""
        preemptions, stock_outs = self.counts(now)
        told = [_count(preemptions, "preemption")] if preemptions else []
        told += [_count(stock_outs, "stock-out")] if stock_outs else []
        if told:
            return f"{' and '.join(told)} there in the last {span(self.half_life)}"
        return f"what happened there before the last {span(self.half_life)} is not forgotten yet"

    def __repr__(self) -> str:
        up = {True: "up", False: "down", None: "unknown"}[self.is_up]
        return f"<PoolMemory {len(self._preemptions)} preemptions, {len(self._stock_outs)} stock-outs, {up}>"


def passed_over(memories: Sequence[PoolMemory], already: Collection[PoolMemory], now: float) -> list[PoolMemory]:
    """Those of several pools that are to be tried last, the least bad first; mostly none.

    Args:
        memories: of the pools to choose from.
        already: those passed over at the last choice; they come back later than others go.
    """
    for memory in memories:
        if now < memory.held_until and memory.score(now) > RETURN:
            break  # else no score is: it is RETURN at most once nothing may be held against a pool any more
    else:
        return []
    scores = [memory.score(now) for memory in memories]
    least = min(scores)
    found = [
        (score, place)
        for place, (memory, score) in enumerate(zip(memories, scores, strict=True))
        if score > least + (RETURN if memory in already else LEAVE)
    ]
    found.sort()
    return [memories[place] for _, place in found]


def _append(times: list[float], now: float) -> None:
    times.append(now)
    if len(times) > MOST_COUNTED:
        del times[0]


def _count(number: int, what: str) -> str:
    return f"at least {counted(number, what)}" if number >= MOST_COUNTED else counted(number, what)
