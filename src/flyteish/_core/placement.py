"""Which medium an attempt runs on, by which rule, and the words for it.

Decides from an action's settings and history only; whether a pool has room is ``admission``'s business
(spec: attempts, "which medium").
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flyteish._core.actions import Action
from flyteish._core.queues import ON_DEMAND, SPOT
from flyteish._core.settings import Settings


class Placement(NamedTuple):
    """A medium, the rule that chose it, and why in words."""

    medium: str
    rule: str
    why: str


class PlannedAttempt(NamedTuple):
    """A row of ``plan()``: what one user attempt will run on if it is reached."""

    user_attempt: int
    medium: str
    rule: str
    why: str


class Plan(NamedTuple):
    """What will happen, before anything runs: the rows, and warnings worth heeding."""

    attempts: tuple[PlannedAttempt, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"user attempt {row.user_attempt}: {row.medium}: {row.why}" for row in self.attempts]
        return "\n".join(rows + [f"warning: {text}" for text in self.warnings])


_NOT_INTERRUPTIBLE: Final = Placement(ON_DEMAND, "not-interruptible", "interruptible=False")


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
    return Placement(SPOT, "interruptible", f"interruptible, user attempt {user_attempt} of {count + 1}")


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


def plan(settings: Settings) -> Plan:
    """User attempt -> medium -> why, before anything runs, with warnings."""
    count = settings.retries.count
    rows = [PlannedAttempt(n, *place(settings, n, 0, 0)) for n in range(1, count + 2)]
    return Plan(tuple(rows), tuple(_warnings(settings, rows)))


def _warnings(settings: Settings, rows: list[PlannedAttempt]) -> list[str]:
    policy = settings.interruptible
    if policy is None:
        return []
    warnings = []
    if policy.fallback == "never":
        warnings.append("fallback='never': a task that is preempted before it saves a checkpoint may never finish")
    elif policy.fallback == "final" and not settings.retries.count:
        warnings.append("interruptible with retries=0 never runs on spot: its only attempt is its final one")
    if settings.timeout.deadline is not None and rows[0].medium == SPOT:
        warnings.append("spot with a hard deadline: save checkpoints, or a late preemption may miss it")
    if policy.budget == "single":
        warnings.append("budget='single': every preemption uses up one of the retries")
    return warnings
