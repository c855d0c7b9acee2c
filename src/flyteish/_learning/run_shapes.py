"""The shape of a run: which tasks called which, how often, at once or in turn, and what was the callers' own work.

Read off a run that is over. Must not know what anybody makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from flyteish._core.model.records import Action, Phase, RunRecord
from flyteish._core.rules.experience import KEPT
from flyteish._learning.documents import Child, Shape

PARENTS: Final = 16
"""Actions of one task that are looked at in one run."""
CHILDREN: Final = 32
"""Different tasks that one calls."""
IN_TURN: Final = 0.8
"""Children whose times add up to no more than this little beyond the time that they took together ran in turn."""


def learn(record: RunRecord, shapes: dict[str, Shape]) -> None:
    """Take in a run that is over."""
    children: dict[str, list[Action]] = {}
    for action in record.actions.values():
        if action.parent is not None:
            children.setdefault(action.parent, []).append(action)
    seen: dict[str, int] = {}
    for name, called in children.items():
        parent = record.actions[name]
        task = parent.profile.task
        seen[task] = seen.get(task, 0) + 1
        if parent.phase is Phase.SUCCEEDED and parent.attempts and seen[task] <= PARENTS:
            _take(parent, called, shapes)


def _take(parent: Action, called: Sequence[Action], shapes: dict[str, Shape]) -> None:
    shape = shapes.pop(parent.profile.task, None) or Shape()
    shapes[parent.profile.task] = shape  # the latest is last
    together, added = _together(parent, called)
    attempt = parent.attempts[-1]
    ran = attempt.ended_at - (attempt.running_at or attempt.placed_at)
    shape.own.append(max(0.0, ran - together))
    del shape.own[:-KEPT]
    shape.in_turn = len(called) > 1 and together >= IN_TURN * added
    counts: dict[str, list[Action]] = {}
    for action in called:
        if not action.cached:
            counts.setdefault(action.profile.key, []).append(action)
    some = sorted(counts.values(), key=len, reverse=True)[:CHILDREN]
    shape.children = tuple(
        Child(each[0].profile.task, msgspec.structs.replace(each[0].profile.settings, env_vars={}), len(each))
        for each in some
    )


def _together(parent: Action, called: Sequence[Action]) -> tuple[float, float]:
    """Seconds in which at least one child was under way during the last attempt, and the seconds of all added up."""
    begun, over = parent.attempts[-1].placed_at, parent.attempts[-1].ended_at
    times = sorted((max(begun, action.submitted_at), min(over, action.ended_at)) for action in called)
    together = added = 0.0
    until = begun
    for start, end in times:
        if end > start:
            added += end - start
            together += max(0.0, end - max(until, start))
            until = max(until, end)
    return together, added
