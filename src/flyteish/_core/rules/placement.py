"""Which medium an attempt runs on, by which rule, and the words for it: all rules of placement, in order.

``RULES`` is the list; the first that holds decides, and ``why`` names it. They are asked at three moments, since not
all facts are known at once:

* When an action lines up, ``choose`` goes through the rules about its own settings and history, and
  ``where_there_is_no_spot`` looks at its queue. If spot is left, and it has a deadline that steers it, ``by_deadline``
  takes over what its deadline policy says: spot now, wait for spot, or on-demand.
* While it waits for spot, ``stock_out`` holds once its patience (``max_spot_wait``) with pools out of capacity is over.
* When it gets its place, ``spot_share`` holds if its queue may have no more on spot.

When an attempt ends, the action lines up anew, and all rules are asked again. A planned move (``relocations``) is an
end like others: what moved it decides again, with the rest.

Decides from what is given to it; who waits for what, and whether a pool has room, is known elsewhere
(``transitions/waiting``, ``admission``). Must not know queues, pools or a clock (spec: attempts, "which medium").
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.records import Action
from flyteish._core.model.settings import Settings
from flyteish._core.rules.deadline_policies import DEADLINE_SAFETY, WAIT, Decision
from flyteish._core.wording import span

STOCK_OUT: Final = "stock-out"


class Rule(NamedTuple):
    """One rule of placement."""

    name: str
    medium: str
    holds: str
    """When, for people; in the words of the documentation."""


RULES: Final = (
    Rule("not-interruptible", ON_DEMAND, "the resolved `interruptible` is false"),
    Rule("not-idempotent", ON_DEMAND, "it is marked `idempotent=False`, and `SpotPolicy(force=True)` was not said"),
    Rule("never-on-demand", SPOT, '`SpotPolicy(fallback="never")`: of the others only a deadline is asked'),
    Rule("first-preemption", ON_DEMAND, '`SpotPolicy(fallback="first-preemption")`, and it was preempted once'),
    Rule("final-attempt", ON_DEMAND, "it is the final user attempt; so without retries there is no spot at all"),
    Rule(
        "trip-wire",
        ON_DEMAND,
        "three preemptions (`preemptions_without_progress`) in a row, within this user attempt, without a new "
        "checkpoint",
    ),
    Rule("no-spot-pool", ON_DEMAND, "its queue feeds no spot pool that is large enough"),
    Rule(DEADLINE_SAFETY, ON_DEMAND, "a deadline: only on-demand, to the end, is still sure to meet it"),
    Rule("behind", ON_DEMAND, "a deadline (uniform-progress): no spot can be had, and it is behind"),
    Rule("slack-kept", ON_DEMAND, "a deadline (slack-budget): no spot can be had, and the slack is kept for later"),
    Rule("ahead", SPOT, "a deadline (uniform-progress): no spot can be had, and it is ahead: it waits"),
    Rule("slack-to-spare", SPOT, "a deadline (slack-budget): no spot can be had, and there is slack for waiting"),
    Rule("young-outage", SPOT, "a deadline (slack-budget): spot may be back before on-demand is up: it waits"),
    Rule("spot-while-it-lasts", SPOT, "a deadline that is far enough: spot can be had"),
    Rule(STOCK_OUT, ON_DEMAND, "its spot pools had no capacity for longer than `max_spot_wait` (by default it waits)"),
    Rule("spot-share", ON_DEMAND, "its queue's `spot_share` is used up when it gets its place"),
    Rule("interruptible", SPOT, "none of these"),
)


class Placement(NamedTuple):
    """A medium, the rule that chose it, and why in words."""

    medium: str
    rule: str
    why: str


_NOT_INTERRUPTIBLE: Final = Placement(ON_DEMAND, "not-interruptible", "interruptible=False")
_NOT_IDEMPOTENT: Final = Placement(
    ON_DEMAND,
    "not-idempotent",
    "idempotent=False: its effects must not happen twice (SpotPolicy(force=True) allows it)",
)
_SPOT_SHARE: Final = Placement(ON_DEMAND, "spot-share", "the queue's spot_share is used up")


# -- when it lines up ------------------------------------------------------------------------------------------------


def choose(action: Action) -> Placement:
    """The medium of the action's next attempt, by its own settings and history."""
    settings = action.profile.settings
    if settings.interruptible is None:
        return _NOT_INTERRUPTIBLE
    return place(settings, action.user_attempt, action.preemptions_in_row, action.preemptions)


def place(settings: Settings, user_attempt: int, preemptions_in_row: int, preemptions: int) -> Placement:
    """The same for a history that is given in numbers: ``plan`` asks for one in which nothing went wrong yet."""
    policy = settings.interruptible
    if policy is None:
        return Placement(ON_DEMAND, "not-interruptible", f"interruptible=False ({settings.source('interruptible')})")
    if not settings.idempotent and not policy.force:
        return _NOT_IDEMPOTENT
    if policy.fallback == "never":
        return Placement(SPOT, "never-on-demand", "SpotPolicy(fallback='never'): spot, whatever happens")
    if policy.fallback == "first-preemption":
        if preemptions:
            return Placement(ON_DEMAND, "first-preemption", "preempted once: on-demand from here on, not charged")
        return Placement(SPOT, "interruptible", "SpotPolicy(fallback='first-preemption'): spot until preempted")
    count = settings.retries.count
    if user_attempt >= count + 1:
        why = f"final user attempt (retries={count})" if count else "its only user attempt is its final one (retries=0)"
        return Placement(ON_DEMAND, "final-attempt", why)
    limit = policy.preemptions_without_progress
    if preemptions_in_row >= limit:
        return Placement(ON_DEMAND, "trip-wire", f"{preemptions_in_row} preemptions in a row without a new checkpoint")
    return _on_spot(user_attempt, count + 1)


@lru_cache(maxsize=256)
def _on_spot(user_attempt: int, of: int) -> Placement:
    return Placement(SPOT, "interruptible", f"interruptible, user attempt {user_attempt} of {of}")


def trip_wire_fired(action: Action) -> bool:
    """Whether the trip-wire sends the rest of this user attempt on-demand."""
    policy = action.profile.settings.interruptible
    return policy is not None and action.preemptions_in_row >= policy.preemptions_without_progress


def where_there_is_no_spot(chosen: Placement, settings: Settings) -> Placement:
    """What becomes of a choice in a queue that feeds no spot pool for it."""
    policy = settings.interruptible
    if chosen.medium != SPOT or (policy is not None and policy.fallback == "never"):
        return chosen
    return Placement(ON_DEMAND, "no-spot-pool", f"queue {settings.queue!r} feeds no spot pool")


def by_deadline(decision: Decision) -> Placement:
    """What the deadline policy says; who is to wait, waits for spot."""
    medium = SPOT if decision.go == WAIT else decision.go
    return Placement(medium, decision.rule, decision.why)


# -- while it waits, and when it gets its place ----------------------------------------------------------------------


def stock_out(waited: float) -> Placement:
    """Its patience is over: the spot pools reported no capacity for longer than ``max_spot_wait``."""
    return Placement(ON_DEMAND, STOCK_OUT, f"the spot pools had no capacity for {span(waited)} (max_spot_wait)")


def spot_share() -> Placement:
    """It waited for spot, and its queue may have no more there; admission gave it a place on-demand."""
    return _SPOT_SHARE
