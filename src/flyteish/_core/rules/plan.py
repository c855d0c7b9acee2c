"""What will happen to a task's calls, said before anything runs: the medium of each try, what is expected, warnings.

Applies the very rules that will decide, to a history in which nothing went wrong yet. Must not change or keep anything
(spec: attempts, "say it before, say it after").
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flyteish._core.model.policies import SpotPolicy
from flyteish._core.model.queues import SPOT
from flyteish._core.model.settings import Settings
from flyteish._core.rules import placement
from flyteish._core.rules.deadline_policies import SUMMARIES
from flyteish._core.wording import span

LONG: Final = 2 * 3600.0
"""Seconds; the median life of a spot machine, beyond which work without checkpoints is more likely lost than not."""


class Known(NamedTuple):
    """What is known of a task beside its settings; None: nothing."""

    saves: bool | None = None
    """Whether its code uses checkpoints."""
    work: float | None = None
    """Careful estimate of its work from earlier runs, seconds."""
    changeover: float | None = None
    """Start-up and restore as measured or assumed in its queue's pools, seconds."""


class PlannedAttempt(NamedTuple):
    """A row of ``plan()``: what one user attempt will run on if it is reached."""

    user_attempt: int
    medium: str
    rule: str
    why: str


class Plan(NamedTuple):
    """What will happen, before anything runs: the tries, what is expected of them, and warnings worth heeding."""

    attempts: tuple[PlannedAttempt, ...]
    warnings: tuple[str, ...]
    expects: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [f"user attempt {row.user_attempt}: {row.medium}: {row.why}" for row in self.attempts]
        return "\n".join([*rows, *self.expects, *(f"warning: {text}" for text in self.warnings)])


def plan(settings: Settings, known: Known = Known()) -> Plan:  # noqa: B008 - a frozen value
    """User attempt -> medium -> why, before anything runs; what is expected; and warnings."""
    count = settings.retries.count
    rows = [PlannedAttempt(n, *placement.place(settings, n, 0, 0)) for n in range(1, count + 2)]
    on_spot = any(row.medium == SPOT for row in rows)
    policy = settings.interruptible
    expects = [] if policy is None or not on_spot else _expectations(settings, policy, known)
    warnings = [] if policy is None else [*_of_policy(settings, policy), *_of_time(settings, policy, known, on_spot)]
    return Plan(tuple(rows), (*warnings, *_of_effects(settings)), tuple(expects))


def _expectations(settings: Settings, policy: SpotPolicy, known: Known) -> list[str]:
    """What spot will do to it, and how a deadline steers it."""
    expects = []
    if policy.budget == "uncharged":
        expects.append("preemptions are not charged to retries and start again at the head of the line")
    if policy.fallback == "first-preemption":
        expects.append("after one preemption it goes on-demand")
    elif policy.fallback == "final" and policy.budget == "uncharged":
        limit = policy.preemptions_without_progress
        expects.append(f"after {limit} preemptions in a row without a new checkpoint the user attempt goes on-demand")
    deadline = _seconds(settings.timeout.deadline)
    if deadline is None or policy.deadline_policy == "off":
        return expects
    work, source = _work(policy, known)
    if work is None:
        expects.append(
            f"the deadline ({span(deadline)}) does not steer placement before its work is known: "
            "SpotPolicy(work=...), or one action that succeeded"
        )
        return expects
    slack = deadline - work
    expects.append(f"deadline in {span(deadline)}, {span(work)} of work ({source}): {span(slack)} of slack")
    expects.append(f"{policy.deadline_policy}: {SUMMARIES[policy.deadline_policy]}")
    if policy.fallback == "never":
        expects.append("the deadline goes before fallback='never': it runs on-demand where the deadline needs it")
    if known.changeover is not None and slack > 0:
        latest = slack - 2 * known.changeover
        expects.append(
            f"a change-over takes {span(known.changeover)}; without any progress it goes on-demand to the end "
            f"{span(max(0.0, latest))} after the submission"
        )
    return expects


def _work(policy: SpotPolicy, known: Known) -> tuple[float | None, str]:
    if policy.work is not None:
        return _seconds(policy.work), "SpotPolicy(work=...)"
    return known.work, "learned from earlier actions"


def _of_policy(settings: Settings, policy: SpotPolicy) -> list[str]:
    warnings = []
    if policy.fallback == "never":
        warnings.append("fallback='never': a task that is preempted before it saves a checkpoint may never finish")
    elif policy.fallback == "final" and not settings.retries.count:
        warnings.append("interruptible with retries=0 never runs on spot: its only attempt is its final one")
    if policy.budget == "single":
        warnings.append("budget='single': every preemption uses up one of the retries")
    return warnings


def _of_time(settings: Settings, policy: SpotPolicy, known: Known, on_spot: bool) -> list[str]:
    if not on_spot:
        return []
    warnings = []
    deadline = _seconds(settings.timeout.deadline)
    work, source = _work(policy, known)
    steered = deadline is not None and work is not None and policy.deadline_policy != "off"
    if deadline is not None:
        if steered and known.saves is False:
            warnings.append(
                "its code mentions no checkpoint: a preemption loses everything since its start, so it leaves spot "
                "early enough to begin anew on-demand and still meet the deadline"
            )
        elif not steered and known.saves is None:
            warnings.append("spot with a hard deadline: save checkpoints, or a late preemption may miss it")
        elif not steered and not known.saves:
            warnings.append(
                "spot with a hard deadline, and its code mentions no checkpoint: a late preemption may miss it; "
                "save with ctx().checkpoint, or say interruptible=False"
            )
        if work is not None and deadline < work:
            warnings.append(f"the deadline is {span(deadline)} away, but it has {span(work)} of work ({source})")
    length = work if work is not None else _seconds(settings.timeout.max_runtime)
    if length is not None and length > LONG and known.saves is False and not steered:
        warnings.append(
            f"it may run for {span(length)} and its code mentions no checkpoint: spot machines live about 2 h, and "
            "a preemption loses everything since its start"
        )
    return warnings


def _of_effects(settings: Settings) -> list[str]:
    if settings.idempotent:
        return []
    policy, warnings = settings.interruptible, []
    if policy is not None and policy.force:
        warnings.append("idempotent=False, forced on spot: a preempted attempt is started again, effects included")
    elif policy is not None:
        warnings.append("idempotent=False: interruptible is not followed; SpotPolicy(force=True) would")
    again = settings.retries.count or settings.retries.system_retries
    if again:
        warnings.append(
            f"idempotent=False, yet retries={settings.retries.count} and "
            f"system_retries={settings.retries.system_retries} run it again after a failure"
        )
    return warnings


def _seconds(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
