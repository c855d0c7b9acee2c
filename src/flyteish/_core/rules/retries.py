"""Who pays for an ended attempt, and what follows: another try, when, or the end.

The table ``PAYS`` is the rule; ``decide`` applies it to one action's facts. Must not know media, queues or
how an end was recognised (spec: attempts, "who pays for an ended attempt").
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from flyteish._core.model.policies import SYSTEM_BACKOFF, SpotPolicy, matches_retry_on
from flyteish._core.model.records import Action, End
from flyteish._core.model.values import ErrorDocument
from flyteish._core.rules.attempt_ends import EXITED_BEFORE_RETURNING

Budget = Literal["retries", "system_retries", "preemptions", "none", "fails", "ends"]

PAYS: Final[dict[End, Budget]] = {
    End.SUCCEEDED: "ends",
    End.USER_ERROR: "retries",
    End.MAX_RUNTIME: "retries",
    End.QUEUE_TIMEOUT: "retries",
    End.OUT_OF_MEMORY: "retries",
    End.FINAL_ERROR: "fails",
    End.PREEMPTED: "preemptions",
    End.INFRASTRUCTURE: "system_retries",
    End.UNMENDABLE: "fails",
    End.CANCELLED: "ends",
    End.DEADLINE: "ends",
    End.NO_CAPACITY: "none",
    End.REJECTED: "none",
    End.RELOCATED: "none",
    End.ABANDONED: "none",
}


class Verdict(NamedTuple):
    """What follows from an end that was not a success."""

    again: bool
    charged: str
    """``retries``, ``system_retries``, ``preemptions`` or nothing."""
    next_user_attempt: bool = False
    delay: float = 0.0
    """Seconds before it lines up again."""
    at_head: bool = False
    """Lines up at the head of its priority class."""
    spent: str = ""
    """For people: why there is no other try."""


def decide(end: End, action: Action, medium: str, error: ErrorDocument | None, chance: float) -> Verdict:
    """Apply the table; ``medium`` is the ended attempt's, ``chance`` in [0, 1) serves the jitter."""
    budget = PAYS[end]
    if budget == "preemptions":
        policy = action.profile.settings.interruptible
        if medium != "spot":
            budget = "system_retries"  # preempted on-demand: there is no safer place left
        elif policy is not None and policy.budget == "single":
            budget = "retries"
        else:
            return Verdict(True, "preemptions", at_head=True)
    if budget == "none":
        return Verdict(True, "", at_head=True)
    if budget == "retries":
        return _from_retries(end, action, error, chance)
    if budget == "system_retries":
        return _from_system(action, chance)
    return Verdict(False, "", spent="no retry can mend it" if budget == "fails" else end.value)


def _from_retries(end: End, action: Action, error: ErrorDocument | None, chance: float) -> Verdict:
    strategy = action.profile.settings.retries
    raised = end in (End.USER_ERROR, End.OUT_OF_MEMORY) and error is not None
    if raised and error is not None and not matches_retry_on(strategy, error.bases or (error.type,)):
        return Verdict(False, "", spent=f"{error.type} is not in retry_on={list(strategy.retry_on)}")
    if action.is_final_user_attempt:
        spent = f"retries={strategy.count} spent" if strategy.count else "retries=0"
        return Verdict(False, "retries", spent=spent)
    preempted = end is End.PREEMPTED
    delay = strategy.backoff.delay(action.user_attempt - 1, chance) if strategy.backoff and not preempted else 0.0
    return Verdict(True, "retries", next_user_attempt=True, delay=delay, at_head=preempted)


def _from_system(action: Action, chance: float) -> Verdict:
    allowed = action.profile.settings.retries.system_retries
    if action.system_used >= allowed:
        return Verdict(False, "system_retries", spent=f"system_retries={allowed} spent in this user attempt")
    return Verdict(True, "system_retries", delay=SYSTEM_BACKOFF.delay(action.system_used, chance))


_NAMES: Final = {
    End.MAX_RUNTIME: "TaskTimeoutError",
    End.QUEUE_TIMEOUT: "TaskTimeoutError",
    End.OUT_OF_MEMORY: "OOMError",
    End.PREEMPTED: "PreemptedError",
    End.INFRASTRUCTURE: "SystemRetriesExhaustedError",
    End.UNMENDABLE: "NonRecoverableError",
}
_OWN: Final = frozenset((End.USER_ERROR, End.FINAL_ERROR, End.OUT_OF_MEMORY))


def final_error(end: End, cause: str, verdict: Verdict, error: ErrorDocument | None) -> ErrorDocument:
    """What the caller gets when there is no other try: the task's own exception, or one that says what ended it."""
    if error is not None and end in _OWN:
        return error
    exited = "ExitedBeforeReturningError" if cause == EXITED_BEFORE_RETURNING else "WorkerCrashedError"
    name = f"flyteish.errors.{_NAMES.get(end, exited)}"
    return ErrorDocument(
        type=name, message=f"{cause} ({verdict.spent})", bases=(name,), cause=error, final=end is End.UNMENDABLE
    )


def most_attempts(retries: int, policy: SpotPolicy | None, system_retries: int) -> int | None:
    """The most attempts an action without progress can have; None where its policy sets no bound."""
    if policy is not None and policy.fallback == "never" and policy.budget != "single":
        return None
    in_row = policy.preemptions_without_progress if policy is not None else 0
    return (retries + 1) * (in_row + 1 + system_retries)
