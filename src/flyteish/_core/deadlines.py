"""Deadline-aware placement as arithmetic: spot, on-demand or wait, and when to look again.

Policies are pure functions from a ``Situation`` to a ``Decision``; ``uniform_progress`` is the rule of "Can't Be Late:
Optimizing Spot Instance Savings under Deadlines" (NSDI 2024). Must not know actions, queues or pools: what the
situation is, is observed by others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from flyteish._core.queues import ON_DEMAND, SPOT

WAIT: Final = "wait"


class Situation(NamedTuple):
    """One action with a deadline, at one moment. All times in seconds; ``elapsed`` counts from the submission."""

    work: float
    """C(0): all of the work, on an undisturbed machine."""
    budget: float
    """R(0): from the submission to the deadline."""
    elapsed: float
    """t."""
    done: float
    """Work done by now, whether saved or not; after a preemption only what was saved is."""
    saved: float
    """Work that a sudden loss of the machine leaves."""
    on: str
    """``spot`` or ``on-demand`` where it runs; empty where it is idle."""
    spot_free: bool
    """A spot machine could be had now (or, running on spot, it has one)."""
    changeover: float
    """d: start-up and restore on another machine."""
    reserve: float = 0.0
    """What a sudden loss costs beyond ``changeover``: the usual time between two checkpoints, and the grace."""
    grace: float = 0.0
    """What a planned move takes at most before the change-over begins."""
    mean_up: float = 0.0
    """Mean seconds that spot could be had at a stretch, as far as observed; 0: not known."""
    mean_down: float = 0.0
    """Mean seconds that it could not be had at a stretch; 0: not known."""


class Decision(NamedTuple):
    """What to do now, and when to look again if nothing happens before."""

    go: str
    """``spot``, ``on-demand`` or ``wait``. The medium that it runs on means: stay."""
    rule: str
    why: str
    review: float = math.inf
    """Seconds since the submission."""


Policy = Callable[[Situation], Decision]


def uniform_progress(s: Situation) -> Decision:
    """Take spot whenever it can be had, keep pace with ``ep(t) = t * C(0)/R(0)``, and never run out of slack."""
    left, remaining = s.budget - s.elapsed, s.work - s.done
    pace = s.work / s.budget
    if s.on == SPOT:
        return _on_spot(s, left)
    if left < remaining + 2 * s.changeover + s.reserve:
        return Decision(ON_DEMAND, "deadline-safety", f"{_hours(left)} left for {_hours(remaining)} of work")
    last_call = s.budget - remaining - 2 * s.changeover - s.reserve  # idle until here, and no longer
    if s.on == ON_DEMAND:
        # Progress grows by 1 a second and ep by ``pace`` of it, so when they meet is known.
        behind = pace * (s.elapsed + 2 * s.changeover) - s.done
        if behind > 0:
            meet = math.inf if pace >= 1 else s.elapsed + behind / (1 - pace)
            return Decision(ON_DEMAND, "catch-up", "behind uniform progress", meet)
        if s.spot_free:
            return Decision(SPOT, "caught-up", "ahead of uniform progress by two change-overs: back to spot")
        return Decision(ON_DEMAND, "caught-up", "ahead of uniform progress, but no spot can be had")
    if s.spot_free:
        return Decision(SPOT, "spot-while-it-lasts", "spot can be had", last_call)
    meets = s.done / pace if pace else math.inf
    if s.elapsed >= meets:
        return Decision(ON_DEMAND, "behind", "behind uniform progress, and no spot can be had")
    return Decision(WAIT, "ahead", "ahead of uniform progress: waits for spot", min(meets, last_call))


def _on_spot(s: Situation, left: float) -> Decision:
    """Stay until preempted, as long as a sudden loss could still be made good on on-demand."""
    last_call = s.budget - (s.work - s.saved) - s.changeover - s.grace
    if s.elapsed >= last_call:
        unsaved = _hours(s.work - s.saved)
        why = f"{_hours(left)} left for {unsaved} of work not saved yet: a sudden loss would miss the deadline"
        return Decision(ON_DEMAND, "deadline-safety", why)
    return Decision(SPOT, "spot-while-it-lasts", "on spot until preempted", last_call)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h"


POLICIES: Final[Mapping[str, Policy]] = {"uniform-progress": uniform_progress}
SUMMARIES: Final[Mapping[str, str]] = {
    "uniform-progress": "spot whenever it can be had, on-demand while behind t * work / deadline, back to spot when "
    "ahead by two change-overs, and on-demand to the end when only work and two change-overs are left",
}
"""What each policy does, in a sentence, for ``plan()``."""
