"""The explanation: what happened to an action, attempt by attempt, and what it waits for now, in words.

Told from recorded facts alone, so that ``flyteish why`` says the same of a live run and of a journal. Decides nothing
and must not know the state: what it waits for is given to it.
"""

from __future__ import annotations

from typing import Final

from flyteish._core.model.records import TERMINAL, Action, AttemptRecord, End, Phase
from flyteish._core.model.settings import Level, show
from flyteish._core.wording import counted, span

_WAITS: Final = {
    "HELD": "an operator holds the queue",
    "QUEUE_CONCURRENCY": "the queue's action_concurrency is reached",
    "RUN_CONCURRENCY": "the queue's run_concurrency is reached",
    "OVERLAP": "another run of the same task is active (overlap='queue')",
    "DEPTH": "the queue is full (depth, on_full='wait')",
    "RESOURCES": "not enough cpu, memory or gpu is free",
    "SPEND_LIMIT": "the queue's spend_limit is reached",
    "SPOT_SHARE": "the queue's spot_share is reached",
    "POOL_FULL": "every pool that it may use is full",
    "POOL_COOLING": "its pool has just reported no capacity and is left alone for its cooldown",
    "NO_CAPACITY": "no pool that it may use has capacity",
    "RETURNING_FIRST": "a parent whose children are done goes first",
    "BEHIND_OTHERS": "others are before it in line",
    "SENT_AHEAD": "it was sent to its pool ahead of time, whose machines are still busy",
    "BACKING_OFF": "it backs off before its next attempt",
    "CHILDREN": "its children",
}
SHOWN: Final = ("queue", "interruptible", "retries", "timeout", "priority", "resources", "cache")


def summary_line(action: Action) -> str:
    """An action in one line: task, phase, and what it took to get there."""
    parts = [f"{action.profile.task} ({action.key}) {_words(action.shown_phase)}"]
    if action.cached:
        parts.append("from the cache")
    elif action.attempts:
        parts.append(counted(len(action.attempts), "attempt"))
        parts.append(f"user attempt {action.user_attempt} of {action.max_attempts}")
    if action.preemptions:
        parts.append(f"preempted {_times(action.preemptions)}")
    if action.phase is Phase.FAILED and action.error is not None:
        parts.append(f"{action.error.type.rpartition('.')[2]}: {action.error.message}")
    elif action.cancel_reason and action.phase is Phase.ABORTED:
        parts.append(action.cancel_reason)
    return "; ".join(parts)


def attempt_lines(action: Action) -> list[str]:
    """The attempts, a line each, oldest first; attempts that a pool without capacity turned away are not among them."""
    return [_attempt(number, attempt) for number, attempt in enumerate(action.attempts, start=1)]


def why(action: Action, now: float, reason: tuple[str, int] | None = None) -> list[str]:
    """The whole story: summary, settings and who decided them, attempts, and what it waits for.

    Args:
        action: live, or folded from a journal.
        now: seconds since the epoch; for how long it has been waiting.
        reason: what admission says of it (``Admission.reason``): a typed reason and its place in line; None: unknown.
    """
    lines = [summary_line(action), *_settings(action)]
    if action.cached:
        lines.append("nothing ran: a recorded result for equal inputs was found in the cache")
    lines += attempt_lines(action)
    if action.denials:
        lines.append(f"turned away {_times(action.denials)} by a pool without capacity, which no budget pays for")
    if action.checkpoints:
        newest = action.checkpoints[-1]
        progress = "" if newest.progress is None else f", progress {newest.progress:.0%}"
        lines.append(f"checkpoint {newest.sequence} by generation {newest.generation}{progress} is the newest")
    lines += [f"warning: {text}" for text in action.warnings]
    if action.cancel_reason and action.phase not in TERMINAL:
        lines.append(f"told to stop: {action.cancel_reason}")
    waits = _waits(action, now, reason)
    return [*lines, waits] if waits else lines


def _settings(action: Action) -> list[str]:
    settings = action.profile.settings
    shown = [
        f"{name}={show(name, getattr(settings, name))} (from {settings.source(name)})"
        for name in SHOWN
        if name == "queue" or settings.source(name) != Level.DEFAULT.value
    ]
    return [", ".join(shown)]


def _attempt(number: int, attempt: AttemptRecord) -> str:
    name = f"attempt {number}"
    if number != attempt.generation:
        name += f" (generation {attempt.generation})"
    if not attempt.pool:
        told = f"{name} of user attempt {attempt.user_attempt} never started: {attempt.cause}"
    elif not attempt.placed_at:
        got = " and got no machine" if attempt.ended_at else ""
        where = f"was sent ahead to {attempt.medium} pool {attempt.pool!r}{got}"
        told = f"{name} {where}, user attempt {attempt.user_attempt}: {attempt.why}; {_ending(attempt)}"
    else:
        verb = "ran" if attempt.ended_at else "is" if attempt.running_at else "starts"
        where = f"{verb} {'on ' if attempt.medium == 'spot' else ''}{attempt.medium} in pool {attempt.pool!r}"
        told = f"{name} {where}, user attempt {attempt.user_attempt}: {attempt.why}; {_ending(attempt)}"
    facts = [f"rule {attempt.rule}", *_machine(attempt)] if attempt.pool else []
    return f"{told} [{', '.join([*facts, *_times_of(attempt)])}]"


def _machine(attempt: AttemptRecord) -> list[str]:
    """Which machine it has, as far as its engine has said."""
    facts = attempt.engine_facts
    if facts is None:
        return []
    named = (("node", facts.node), ("zone", facts.zone), ("", facts.instance_type))
    return [f"{what} {name}".strip() for what, name in named if name]


def _ending(attempt: AttemptRecord) -> str:
    if attempt.end is None:
        told = f" (told to stop: {attempt.stop.replace('_', ' ')})" if attempt.stop else ""
        noticed = f" (got a {attempt.notice} notice)" if attempt.notice else ""
        facts = attempt.engine_facts
        pending = f" (has no machine yet: {facts.pending})" if facts is not None and facts.pending else ""
        return f"not over{pending}{told}{noticed}"
    if attempt.end is End.SUCCEEDED:
        return "succeeded"
    paid = _PAID.get(attempt.charged, "no budget pays")
    verb = _VERBS.get(attempt.end) or f"ended: {attempt.end.value}"
    cause = attempt.cause if attempt.cause not in ("", attempt.end.value) else ""
    return f"{verb} ({cause}, {paid})" if cause else f"{verb} ({paid})"


_VERBS: Final = {End.PREEMPTED: "was preempted", End.RELOCATED: "was moved"}
_PAID: Final = {
    "retries": "1 charged to retries",
    "system_retries": "1 charged to system_retries",
    "preemptions": "1 uncharged",
}


def _times_of(attempt: AttemptRecord) -> list[str]:
    parts = []
    waited_until = attempt.placed_at or attempt.ended_at
    if attempt.queued_at and waited_until:
        parts.append(f"queued {_lasted(attempt.queued_at, waited_until)}")
    if attempt.running_at:
        parts.append(f"start-up {_lasted(attempt.placed_at, attempt.running_at)}")
        if attempt.ended_at:
            parts.append(f"running {_lasted(attempt.running_at, attempt.ended_at)}")
    elif attempt.placed_at and attempt.ended_at:
        parts.append(f"start-up and running {_lasted(attempt.placed_at, attempt.ended_at)}")
    return parts


def _waits(action: Action, now: float, reason: tuple[str, int] | None) -> str:
    if reason is None and action.waits_for_machine:
        reason = ("SENT_AHEAD", 0)  # which the journal says, too
    if reason is None or action.phase in TERMINAL or action.shown_phase is Phase.RUNNING:
        return "" if action.phase is not Phase.DORMANT else "waits for its resumed parent to call it again"
    name, place = reason
    since = action.queued_at or action.submitted_at  # a journal does not say when the first wait began
    waiting = f" for {_lasted(since, now)}" if action.shown_phase in (Phase.QUEUED, Phase.ENTERING) else ""
    line = f", place {place} in line" if place else ""
    wanted = f"; wants {action.wanted}: {action.why}" if action.stands == "line" and action.why else ""
    return f"waits{waiting}{line}: {name!s}: {_WAITS.get(str(name), 'unknown')}{wanted}"


def _words(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _lasted(since: float, until: float) -> str:
    """Never less than nothing, though a clock may be set back between the two."""
    return span(max(0.0, until - since))
