"""Which medium an attempt runs on, by which rule, and the words for it.

Decides from an action's settings and history only; whether a pool has room is ``admission``'s business
(spec: attempts, "which medium").
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.records import Action
from flyteish._core.model.settings import Settings


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


def choose(action: Action) -> Placement:
    """The medium of the action's next attempt."""
    settings = action.profile.settings
    if settings.interruptible is None:
        return _NOT_INTERRUPTIBLE
    return place(settings, action.user_attempt, action.preemptions_in_row, action.preemptions)


def place(settings: Settings, user_attempt: int, preemptions_in_row: int, preemptions: int) -> Placement:
    """Rules 1 to 3 of the spec, first match wins; rule 4 (stock-out) is added by ``stock_out``."""
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
    """Whether rule 3 holds for the rest of this user attempt."""
    policy = action.profile.settings.interruptible
    return policy is not None and action.preemptions_in_row >= policy.preemptions_without_progress


def stock_out(waited: float) -> Placement:
    """Rule 4: the spot pools reported no capacity for longer than ``max_spot_wait``."""
    return Placement(ON_DEMAND, "stock-out", f"the spot pools had no capacity for {waited:.3g} s (max_spot_wait)")


def no_spot_pool(queue: str) -> Placement:
    """The queue feeds no spot pool, so an interruptible task runs on-demand there."""
    return Placement(ON_DEMAND, "no-spot-pool", f"queue {queue!r} feeds no spot pool")
