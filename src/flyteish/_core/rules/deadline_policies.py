"""Deadline-aware placement as arithmetic: spot, on-demand or wait, and when to look again.

**The problem.** A task has C seconds of work left and R seconds to its deadline. Spot costs a fraction of on-demand,
comes and goes without asking, and takes what was not saved with it. Each change of machine costs a change-over of d
seconds (start-up, and reading a checkpoint back). Spend as little as possible, and never miss a deadline that
on-demand from here on would have met.

**The safety net**, the same for every policy, is what keeps that promise. *Slack* is the time to the deadline that
the remaining work does not need, less what a sudden loss costs (``reserve``). Idle time takes it second for second,
each change-over takes d. Spot is begun only with 2 d of slack (and a second, for what comes with the deadline is
late): one to start, one to start on-demand after a loss. Idling is for those who could still begin spot. With less,
an action goes on-demand and stays there (``deadline-safety``), which needs d and the remaining work. On spot the same
is asked of what is *saved*: once a loss at this moment could not be made good on on-demand, it is moved while it can
still save. So a deadline that on-demand alone would keep is kept, whatever the market does, and whatever a policy
thinks.

**Between the net and the deadline** a policy has a choice to make in two situations only, for on spot every one of
them stays until preempted, and takes spot whenever it can be had:

* *Idle, and no spot*: wait for it, or run on-demand meanwhile? ``uniform_progress`` (the rule of "Can't Be Late:
  Optimizing Spot Instance Savings under Deadlines", NSDI 2024) compares with an even pace, ep(t) = t C(0)/R(0): ahead
  of it wait, behind it run. ``slack_budget`` asks what the slack will be needed for later, and waits with the rest.
* *On on-demand, and spot is back*: move, at the price of change-overs? ``uniform_progress`` once it is ahead by two
  of them, ``slack_budget`` once spot has stayed for as long as makes the move likely to pay.

**How it is driven.** A policy is a pure function from a ``Situation`` to a ``Decision``: what to do, by which rule,
why, and ``review``: when the answer may change if nothing happens before. Whoever acts on it asks again then, and
whenever something does happen (spot comes or goes, a checkpoint is committed, an attempt ends): ``deadline_pacing``
observes the situation, ``waiting`` and ``relocations`` act. A ``review`` is never this very moment, or it would be
one for ever.

Must not know actions, queues or pools: what the situation is, is observed by others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.wording import span

WAIT: Final = "wait"
DEADLINE_SAFETY: Final = "deadline-safety"
"""The rule that sends an action on-demand to the end."""
_ROUNDING: Final = 1e-3
"""Seconds: two times this close are the same, so that no review is asked for at the moment of the decision."""
_IN_HAND: Final = 1.0
"""Seconds: what comes with the deadline is late, so the safety net aims at this much before it, where that is no more
than ``_OF_BUDGET`` of all the time."""
_OF_BUDGET: Final = 0.01
_FAIR: Final = 0.4
"""Share of an even spending of slack that is kept for later: 0 spends all on the first outage, 1 keeps pace."""
_SEEN: Final = 4
"""Stretches of each kind that count as seen from the start, so that the first ones do not decide alone."""
_USUAL: Final = 3600.0
"""Their length in seconds."""
_LOOK: Final = 60.0
"""Seconds between two looks while waiting, unless the safety net asks for one sooner."""


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
    stretch: float = math.inf
    """For how long ``spot_free`` has been what it is, counted from the submission at most; inf: not observed."""
    up_seconds: float = 0.0
    """Seconds in which spot could be had, since the submission; the present stretch counts."""
    up_ended: float = 0.0
    """Stretches with spot that have ended since. A memory of the pool may be added to these four numbers."""
    down_seconds: float = 0.0
    """Seconds in which it could not be had; the present stretch counts."""
    down_ended: float = 0.0
    """Stretches without spot that have ended."""
    price: float = 0.3
    """Of spot, as a share of on-demand's."""


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
    pace = s.work / s.budget
    if s.on == SPOT:
        return _on_spot(s)
    spare = _slack(s) - 2 * s.changeover - _in_hand(s)
    if spare <= _ROUNDING:
        return _to_the_end(s)
    last_call = s.elapsed + spare  # idle until here, and no longer
    if s.on == ON_DEMAND:
        # Progress grows by 1 a second and ep by ``pace`` of it, so when they meet is known.
        behind = pace * (s.elapsed + 2 * s.changeover) - s.done
        if behind > _ROUNDING:
            meet = math.inf if pace >= 1 else s.elapsed + behind / (1 - pace)
            return Decision(ON_DEMAND, "catch-up", "behind uniform progress", meet)
        if s.spot_free:
            return Decision(SPOT, "caught-up", "ahead of uniform progress by two change-overs: back to spot")
        return Decision(ON_DEMAND, "caught-up", "ahead of uniform progress, but no spot can be had")
    if s.spot_free:
        return Decision(SPOT, "spot-while-it-lasts", "spot can be had", last_call)
    meets = s.done / pace if pace else math.inf
    if s.elapsed >= meets - _ROUNDING:
        return Decision(ON_DEMAND, "behind", "behind uniform progress, and no spot can be had")
    return Decision(WAIT, "ahead", "ahead of uniform progress: waits for spot", min(meets, last_call))


def slack_budget(s: Situation) -> Decision:
    """Spend slack on waiting while more of it is left than what is still to come will need.

    On-demand bought today is money spent for certain; work put off may yet be done by spot. So waiting comes first, but
    slack that is gone can neither be waited with nor pay for the change-overs of later spot, and a job that has none
    runs on-demand past all the spot there is. So this much is kept back from waiting:

    * for the safety net, 2 d;
    * for change-overs: an outage bridged by on-demand takes 2 d, and as many are to be expected as the mean stretches
      with and without spot, of those seen so far, fit into the time that is left. Half of it: some are waited out;
    * for outages to come: two fifths of the slack that would be left if it were spent evenly over the time;
    * for the outage being a long one: half of what it has lasted. One that has lasted is likely to last.

    What is left over is waited with; then on-demand runs, but not for an outage so young that spot may be back before
    on-demand is up: the first d * d / mean outage of it, at most d.

    Running on-demand, spot is taken once it has been there for a while: a stretch that ends at once costs two
    change-overs and brings nothing. The while is d times the sum of two shares: how much of the slack the change-overs
    to come would take, and how much of what a mean stretch saves a move back and forth would cost.

    Four stretches of an hour of each kind count as seen from the start. Nothing here moves the safety net, so a wrong
    estimate costs money and never the deadline.
    """
    d = s.changeover
    if s.on == SPOT:
        return _on_spot(s)
    slack = _slack(s)
    spare = slack - 2 * d - _in_hand(s)
    if spare <= _ROUNDING:
        return _to_the_end(s)
    up, down = _mean(s.up_seconds, s.up_ended), _mean(s.down_seconds, s.down_ended)
    left = s.budget - s.elapsed
    changeovers = 2 * d * left / (up + down)
    if s.on == ON_DEMAND:
        if not s.spot_free:
            return Decision(ON_DEMAND, "outage", "on-demand through an outage of spot")
        return _back_to_spot(s, up, changeovers / slack)
    if s.spot_free:
        return Decision(SPOT, "spot-while-it-lasts", "spot can be had", s.elapsed + spare)
    fair = max(0.0, s.budget - s.work) * left / s.budget
    waited = s.stretch if s.stretch < math.inf else 0.0
    waiting = spare - changeovers / 2 - _FAIR * fair - waited / 2
    if waiting > _ROUNDING:
        why = f"{span(slack)} of slack, more than later spot needs: waits for it"
        return Decision(WAIT, "slack-to-spare", why, s.elapsed + min(spare, max(_LOOK, waiting / 1.5)))
    young = d * min(1.0, d / down) - s.stretch
    if young > _ROUNDING:
        return Decision(WAIT, "young-outage", "spot may be back before on-demand is up", s.elapsed + min(spare, young))
    why = f"{span(slack)} of slack, kept for later spot: on-demand through the outage"
    return Decision(ON_DEMAND, "slack-kept", why)


def _back_to_spot(s: Situation, up: float, crowding: float) -> Decision:
    """From on-demand to spot: when it is likely to stay, and there is work enough left to make the move worthwhile."""
    d, saving = s.changeover, 1 - s.price
    there_and_back = d * (1 + s.price)
    if saving * (s.work - s.done) <= there_and_back:
        return Decision(ON_DEMAND, "nearly-done", "what is left is not worth a move to spot")
    proof = d * (crowding + there_and_back / (saving * max(up - d, d, _ROUNDING)))
    if s.stretch >= proof - _ROUNDING:
        return Decision(SPOT, "spot-has-stayed", "spot has been there long enough: back to it")
    why = f"spot is to stay for {span(proof)} before a move"
    return Decision(ON_DEMAND, "spot-too-young", why, s.elapsed + max(1.0, proof - s.stretch))


def _mean(seconds: float, ended: float) -> float:
    return (seconds + _SEEN * _USUAL) / (ended + _SEEN)


def _slack(s: Situation) -> float:
    """Seconds that the remaining work does not need, even if what is not saved were lost at once."""
    return s.budget - s.elapsed - max(s.work - s.done + s.reserve, s.work - s.saved)


def _in_hand(s: Situation) -> float:
    return min(_IN_HAND, _OF_BUDGET * s.budget)


def _to_the_end(s: Situation) -> Decision:
    why = f"{span(s.budget - s.elapsed)} left for {span(s.work - s.done)} of work"
    return Decision(ON_DEMAND, DEADLINE_SAFETY, why)


def _on_spot(s: Situation) -> Decision:
    """Stay until preempted, as long as a sudden loss could still be made good on on-demand."""
    last_call = s.budget - (s.work - s.saved) - s.changeover - s.grace - _in_hand(s)
    if s.elapsed >= last_call:
        left, unsaved = span(s.budget - s.elapsed), span(s.work - s.saved)
        why = f"{left} left for {unsaved} of work not saved yet: a sudden loss would miss the deadline"
        return Decision(ON_DEMAND, DEADLINE_SAFETY, why)
    return Decision(SPOT, "spot-while-it-lasts", "on spot until preempted", last_call)


POLICIES: Final[Mapping[str, Policy]] = {
    "slack-budget": slack_budget,
    "uniform-progress": uniform_progress,
}
SUMMARIES: Final[Mapping[str, str]] = {
    "slack-budget": "spot whenever it can be had, waiting while there is more slack than later change-overs and "
    "outages are likely to need, else on-demand, back to spot that has stayed for a while, and on-demand to the end "
    "when only work and two change-overs are left",
    "uniform-progress": "spot whenever it can be had, on-demand while behind t * work / deadline, back to spot when "
    "ahead by two change-overs, and on-demand to the end when only work and two change-overs are left",
}
"""What each policy does, in a sentence, for ``plan()``."""
