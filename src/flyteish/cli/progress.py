"""What there is to tell of a run while it goes on: news worth a line, and counts by phase and medium.

Folds the journal as it grows, the way a resumed controller would. Must not know how it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from flyteish._core.lifecycle import replay
from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptAdmitted,
    AttemptEnded,
    AttemptNoticed,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    ControllerRestarted,
    Entry,
    LimitReached,
    RunEvent,
    RunRecovered,
)
from flyteish._core.model.records import TERMINAL, Action, End, Phase
from flyteish._core.replay import describe
from flyteish._core.state import ReplayState

_ORDINARY: Final = (AttemptAdmitted, CheckpointCommitted)
_UNUSUAL: Final = (AttemptNoticed, CheckpointSkipped, LimitReached, CancelRequested, ControllerRestarted, RunRecovered)


class News(NamedTuple):
    """Something that happened, for one line."""

    at: float
    action: str
    task: str
    text: str
    word: str
    """What colours it: a medium, or how something ended."""
    unusual: bool
    """Worth telling however much goes on: failures, preemptions, notices."""


class Progress:
    """The run so far."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._state = ReplayState()
        self._kinds: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        """Actions by kind: ``waiting``, ``spot``, ``on-demand`` (running there), and the phases of ended ones."""
        self.seen = 0
        """Number of the last entry taken in."""
        self.preemptions = 0
        self.attempts: Counter[str] = Counter()
        """Attempts begun, by medium."""

    def take(self, entries: Iterable[tuple[int, Entry]]) -> list[News]:
        """Take in what was journalled since; what of it is worth telling, in order."""
        news: list[News] = []
        for number, entry in entries:
            self.seen = number
            event = entry.event
            before = self._action(event)
            ending = before.current if before is not None and isinstance(event, AttemptEnded) else None
            self._state = replay(self._state, event, entry.at)
            action = self._action(event)
            if action is None:
                if isinstance(event, ControllerRestarted | RunRecovered):
                    news.append(News(entry.at, "", "", describe(event)[1], "interrupted", True))
                continue
            if isinstance(event, AttemptAdmitted):
                self.attempts[event.medium] += 1
            told = _ended(action, ending.generation) if ending is not None else _happened(event)
            self._count(action)
            if told is not None:
                text, word, unusual = told
                self.preemptions += word == "preempted"
                news.append(News(entry.at, action.id, action.profile.task, text, word, unusual))
        return news

    def recount(self) -> None:
        """Count all again: an end takes descendants along of which no entry of their own speaks."""
        record = self._state.runs.get(self._run)
        for action in record.actions.values() if record is not None else ():
            self._count(action)

    def stalled(self) -> str | None:
        """The first action that waits, where nothing runs and something does; else None."""
        if not self.counts["waiting"] or self.counts["spot"] or self.counts["on-demand"]:
            return None
        return next(action for action, kind in self._kinds.items() if kind == "waiting")

    @property
    def actions(self) -> int:
        """Actions so far."""
        return len(self._kinds)

    def _action(self, event: RunEvent) -> Action | None:
        record = self._state.runs.get(self._run)
        return record.actions.get(getattr(event, "action", "")) if record is not None else None

    def _count(self, action: Action) -> None:
        kind = _kind(action)
        known = self._kinds.get(action.id)
        if kind != known:
            self._kinds[action.id] = kind
            self.counts[kind] += 1
            if known is not None:
                self.counts[known] -= 1


def _kind(action: Action) -> str:
    if action.phase in TERMINAL:
        return action.phase.value
    attempt = action.current
    return "waiting" if attempt is None or not attempt.placed_at else attempt.medium


def _happened(event: RunEvent) -> tuple[str, str, bool] | None:
    if isinstance(event, _ORDINARY):
        return describe(event)[1], getattr(event, "medium", ""), False
    if isinstance(event, _UNUSUAL):
        return describe(event)[1], "", True
    if isinstance(event, ActionSubmitted) and event.cached is not None:
        return "succeeded: its result was in the cache", "succeeded", False
    return None


def _ended(action: Action, generation: int) -> tuple[str, str, bool]:
    attempt = next((each for each in reversed(action.attempts) if each.generation == generation), None)
    if attempt is None or attempt.end is None:
        return f"attempt {generation}: its pool had no capacity", "", False
    if attempt.end is End.SUCCEEDED:
        return f"attempt {generation} succeeded", "succeeded", False
    text = f"attempt {generation} ended: {attempt.end.value}"
    if attempt.cause and attempt.cause != attempt.end.value:
        text += f" ({attempt.cause.splitlines()[0]})"
    if action.phase is Phase.FAILED:
        text += "; failed for good"
    elif action.phase not in TERMINAL:
        text += "; tried again" + ("" if attempt.charged == "retries" else ", not charged to retries")
    word = "preempted" if attempt.end is End.PREEMPTED else "failed" if action.phase is Phase.FAILED else ""
    return text, word, True
