"""The deadline rule applied to one action: what its situation is, and what the policy says about it.

**What is observed**, and where each number comes from:

* *Work*: the author's ``SpotPolicy(work=...)``, else what earlier actions of the task took, from the careful end. It
  is kept with the action when it is first needed. As long as nobody knows, the deadline steers nothing; whoever
  succeeds first brings those that wait to know back (``unpaced``).
* *Done and saved*: progress as checkpoints report it, else the running time that they kept; after the last
  checkpoint, time since then is done but not saved. Reports that say that the work is more than was estimated correct
  the estimate.
* *Change-over*: the longest start-up and restore seen lately in any pool of its queue, assumed until one was seen.
* *Reserve*: what a sudden loss costs beyond that: the longest time between two of its checkpoints and a notice's
  grace, and for work that had to be hurried off spot before, twice as much each time, so that it does not happen for
  ever.
* *The market*: how long spot has been there, or away, as the pools remember it. Of several spot pools the one that
  has been up for the largest share speaks for the queue.
* *Whether spot is free*: a pool takes it, its queue's share and limits allow it, and the place is not already
  somebody else's who is on the way there or has waited for it. For moving on-demand the same is asked of on-demand
  pools: running on spot is better than waiting for a place.

**Who acts.** ``waiting`` asks when an action lines up and while it waits; ``relocations`` while it runs. Both are
asked again by a timer at the decision's ``review``, and where nothing says when, after ``patience``: a change-over,
longer where the deadline is far, so that nobody is looked at more than ``MOST_LOOKS`` times. A running attempt is
only moved if it has saved in this very attempt, or leaves spot for safety: that bounds the number of moves of work
that gets nowhere.

Nothing is changed here but what ``take_up_work`` keeps. Must not know what is done with an answer (spec: attempts,
"deadline-aware placement").
"""

from __future__ import annotations

import math
from itertools import islice, pairwise
from typing import Final

from flyteish._core.model.policies import SpotPolicy
from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.records import Action, AttemptRecord, Phase
from flyteish._core.rules import placement
from flyteish._core.rules.deadline_policies import DEADLINE_SAFETY, POLICIES, Decision, Situation
from flyteish._core.scheduling.pool_health import Stretches
from flyteish._core.scheduling.queue_state import PoolState, QueueState
from flyteish._core.state import State

SHORTEST_REVIEW: Final = 1e-3
"""Seconds between two looks at one action, at least."""
USUAL_PRICE: Final = 0.3
"""Of spot, as a share of on-demand's."""
HURRY: Final = 60.0
"""Half of the seconds that must be in hand beyond the safety net after a move off spot for safety; each more doubles
them. At most ``HURRY_SHARE`` of all the time."""
HURRY_SHARE: Final = 0.01
MOST_LOOKS: Final = 1000
"""Looks at one action over all its time, where nothing but patience says when."""


def is_paced(state: State, action: Action) -> bool:
    """Whether the deadline rule applies: it has a deadline, may run on spot or on-demand, and its work is known."""
    return _may_be_paced(state, action) and (action.work or _work(state, action)) > 0


def take_up_work(state: State, action: Action) -> None:
    """Keep with the action how much work it is, or remember that it waits to know: whoever succeeds first says it."""
    if not action.work and _may_be_paced(state, action):
        action.work = _work(state, action)
        if not action.work:
            state.unpaced.setdefault(action.profile.task, {})[action.key] = None


def _may_be_paced(state: State, action: Action) -> bool:
    settings = action.profile.settings
    policy = settings.interruptible
    if settings.timeout.deadline is None or policy is None or policy.deadline_policy == "off":
        return False
    # Else it is fallback="never" where nothing is safer than spot.
    return state.capacity.queues[settings.queue].takes_on_demand(settings.amounts)


def _work(state: State, action: Action) -> float:
    """C(0): the author's estimate, else what was learned from earlier actions of the task; 0: not known."""
    policy: SpotPolicy | None = action.profile.settings.interruptible
    if policy is not None and policy.work is not None:
        return float(policy.work)  # type: ignore[arg-type]
    return state.experience.work(action.profile.task) or 0.0


def decide(state: State, action: Action, now: float, spot_free: bool) -> Decision:
    """What the policy says; ``review`` is turned into a time on the same clock as ``now``."""
    policy: SpotPolicy | None = action.profile.settings.interruptible
    assert policy is not None
    decision = POLICIES[policy.deadline_policy](situation(state, action, now, spot_free))
    return decision._replace(review=action.submitted_at + decision.review)


def situation(state: State, action: Action, now: float, spot_free: bool) -> Situation:
    """The facts that the policy goes by."""
    assert action.deadline_at is not None
    queue = state.capacity.queues[action.profile.settings.queue]
    attempt = action.attempts[-1] if action.phase is Phase.RUNNING else None
    work, saved = _saved(action)
    done = saved + _unsaved(attempt, now)
    grace = max((pool.config.grace for pool in queue.pools), default=0.0)
    pools = [(pool.config.name, pool.config.assumed_startup) for pool in queue.pools]
    seen = _seen_of_spot(queue, now)
    # As long as it has waited, it can have seen the market; what was before is no reason for patience.
    as_it_is = seen is not None and seen.is_up is spot_free
    stretch = now - max(seen.since, action.submitted_at) if seen is not None and as_it_is else math.inf
    return Situation(
        work=max(work, done),
        budget=action.deadline_at - action.submitted_at,
        elapsed=now - action.submitted_at,
        done=done,
        saved=saved,
        on=attempt.medium if attempt is not None else "",
        spot_free=spot_free,
        changeover=state.experience.changeover(action.profile.task, pools, _longest_save(action)),
        reserve=grace + _between_checkpoints(action) + _in_hand(action),
        grace=grace,
        stretch=stretch,
        up_seconds=seen.up_seconds if seen is not None else 0.0,
        up_ended=seen.up_ended if seen is not None else 0.0,
        down_seconds=seen.down_seconds if seen is not None else 0.0,
        down_ended=seen.down_ended if seen is not None else 0.0,
        price=_price_of_spot(queue),
    )


def _seen_of_spot(queue: QueueState, now: float) -> Stretches | None:
    """What is remembered of the queue's spot: of several pools, of the one that has been up for the largest share."""
    found = [pool.memory.stretches(now) for pool in queue.spot]
    if len(found) > 1:
        found.sort(key=_absence)
    return found[0] if found else None


def _absence(seen: Stretches) -> tuple[bool, float]:
    known = seen.up_seconds + seen.down_seconds
    return seen.is_up is not True, seen.down_seconds / known if known else 1.0


def _price_of_spot(queue: QueueState) -> float:
    """As a share of on-demand's; where a price is not known, what is usual."""
    spot = min((pool.prices.latest for pool in queue.spot), default=0.0)
    on_demand = min((pool.prices.latest for pool in queue.on_demand), default=0.0)
    return min(1.0, spot / on_demand) if spot and on_demand else USUAL_PRICE


def _saved(action: Action) -> tuple[float, float]:
    """All of the work, and what of it a sudden loss would leave, in seconds of an undisturbed machine.

    Progress as reported goes before run time kept. Where both are known and say that the work is more than was
    estimated, the estimate is corrected: a deadline is not to be missed for an optimist's number.
    """
    newest = next((each for each in reversed(action.checkpoints) if each.sequence not in action.skipped), None)
    progress = newest.progress if newest is not None else None
    if progress is None:
        return action.work, action.kept
    work = max(action.work, action.kept / progress) if progress > 0 else action.work
    return work, progress * work


def _unsaved(attempt: AttemptRecord | None, now: float) -> float:
    if attempt is None or not attempt.running_at:
        return 0.0
    return max(0.0, now - max(attempt.running_at, attempt.last_checkpoint_at))


def _longest_save(action: Action) -> float:
    return max((record.save_seconds for record in action.checkpoints), default=0.0)


def _between_checkpoints(action: Action) -> float:
    """The longest time between two checkpoints of one attempt, of those remembered: what a sudden loss may cost."""
    pairs = pairwise(action.checkpoints)
    return max((b.saved_at - a.saved_at for a, b in pairs if a.generation == b.generation), default=0.0)


def _in_hand(action: Action) -> float:
    """Work that saves only when it is told to go would be told so again and again, for less and less."""
    if not action.hurried or action.deadline_at is None:
        return 0.0
    least = min(HURRY, HURRY_SHARE * (action.deadline_at - action.submitted_at))
    return least * 2.0 ** min(action.hurried, 60)


def spot_is_free(state: State, action: Action, now: float) -> bool:
    """Whether a spot machine could be had now, as far as is known of its queue."""
    return _is_free(state, action, SPOT, now)


def on_demand_is_free(state: State, action: Action, now: float) -> bool:
    """Whether a running action could go on-demand now: one that waits for a place there is worse off than on spot."""
    return _is_free(state, action, ON_DEMAND, now)


def _is_free(state: State, action: Action, medium: str, now: float) -> bool:
    queue = state.capacity.queues[action.profile.settings.queue]
    if queue.state == "held" or (medium == SPOT and queue.spot_share_reached()):
        return False
    leaving = 0.0
    running = action.current
    if running is not None and action.occupies:
        leaving = state.capacity.pools[action.occupies].prices.latest
    amounts = action.profile.settings.amounts
    pools = [
        pool
        for pool in (queue.spot if medium == SPOT else queue.on_demand)
        if pool.refusal(amounts, now) is None and not queue.too_dear(pool, leaving) and _places(pool) > 0
    ]
    if not pools or (not state.movers and running is None):
        return bool(pools)
    places = sum(_places(pool) for pool in pools)
    if places == math.inf:
        return True
    # One place is not for all who could use it: others are on their way there, or have waited for it.
    feeders = {feeder.config.name for pool in pools for feeder in pool.feeders}
    taken = sum(state.moves_to.get((name, medium), 0) for name in feeders)
    if running is not None and taken < places:
        taken += _waiting_for(queue, medium, int(places))
    return taken < places


def _places(pool: PoolState) -> float:
    bounds = [bound for bound in (pool.config.capacity or None, pool.available) if bound is not None]
    return min(bounds) - pool.running if bounds else math.inf


def _waiting_for(queue: QueueState, medium: str, most: int) -> int:
    """Those in line for it that its queue would let in, as far as ``most``."""
    limit = queue.config.action_concurrency
    if limit:
        most = min(most, limit - queue.running)
    lines = (line for key, line in queue.lines.items() if (key if isinstance(key, str) else key[0]) == medium)  # type: ignore[index]
    return sum(1 for _ in islice((action for line in lines for action in line), max(0, most)))


def may_leave_on_demand(state: State, action: Action, attempt: AttemptRecord) -> bool:
    """Whether moving it to spot can gain anything: it saves its progress, and nothing else keeps it on-demand.

    A planned move loses what was not saved, so only work that has saved in this very attempt is moved; that also
    bounds the number of moves of work that makes no progress.
    """
    settings = action.profile.settings
    if attempt.last_checkpoint_at == 0 or attempt.rule == DEADLINE_SAFETY or placement.choose(action).medium != SPOT:
        return False
    return state.capacity.queues[settings.queue].takes_spot(settings.amounts)


def patience(state: State, action: Action) -> float:
    """Seconds after which the world is looked at again where nothing else says when: a change-over, at least 1 s.

    Longer where the deadline is far away, so that nobody is looked at more than ``MOST_LOOKS`` times.
    """
    pools = state.capacity.queues[action.profile.settings.queue].pools
    known = [(pool.config.name, pool.config.assumed_startup) for pool in pools]
    budget = action.deadline_at - action.submitted_at if action.deadline_at is not None else 0.0
    return max(1.0, budget / MOST_LOOKS, state.experience.changeover(action.profile.task, known))


def stays(attempt: AttemptRecord) -> bool:
    """Whether nothing will move it any more."""
    return attempt.medium == ON_DEMAND and attempt.rule == DEADLINE_SAFETY
