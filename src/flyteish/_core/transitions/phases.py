"""The lifecycle as data, and the one place where an action's phase changes.

``MOVES`` is the table (its diagram in the docs is made from it); ``move`` refuses what the table does not know, and
keeps the count of those who wait or run. Must not know why anything moves.
"""

from __future__ import annotations

from typing import Final

from flyteish._core.model.records import TERMINAL, Action, Phase
from flyteish._core.state import State
from flyteish._core.story import attempt_lines

_ENDS: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT)
_GIVEN_UP: Final = frozenset((Phase.ABORTED, Phase.TIMED_OUT))
_ATTEMPT_OVER: Final = TERMINAL | {Phase.QUEUED, Phase.BACKING_OFF, Phase.DORMANT}

#: Which phase may follow which. An action begins as ENTERING.
MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    # SUCCEEDED: its result was found in the cache. FAILED: it waited too long at the door, too often.
    Phase.ENTERING: frozenset((Phase.QUEUED, Phase.SUCCEEDED, Phase.FAILED, Phase.DORMANT)) | _GIVEN_UP,
    Phase.QUEUED: frozenset((Phase.RUNNING, Phase.BACKING_OFF, Phase.FAILED, Phase.DORMANT)) | _GIVEN_UP,
    Phase.BACKING_OFF: frozenset((Phase.QUEUED, Phase.DORMANT)) | _GIVEN_UP,
    Phase.RUNNING: frozenset((Phase.PARKED,)) | _ATTEMPT_OVER,
    Phase.PARKED: frozenset((Phase.RETURNING,)) | _ATTEMPT_OVER,
    Phase.RETURNING: frozenset((Phase.RUNNING, Phase.PARKED)) | _ATTEMPT_OVER,
    Phase.DORMANT: frozenset((Phase.QUEUED,)) | _GIVEN_UP,
    **dict.fromkeys(_ENDS, frozenset()),
}

#: Who counts to a queue's ``depth``: those who wait in it or run. A parent that waits for its children does not.
COUNTED: Final = frozenset((Phase.QUEUED, Phase.BACKING_OFF, Phase.RUNNING, Phase.RETURNING))


def move(state: State, action: Action, phase: Phase) -> None:
    """Change the phase. Nobody else does.

    Raises:
        AssertionError: the table does not know this move; tells the action's story.
    """
    if phase not in MOVES[action.phase]:
        known = ", ".join(sorted(MOVES[action.phase])) or "nothing: it is over"
        story = "\n  ".join(attempt_lines(action))
        raise AssertionError(f"{action!r} cannot become {phase}; from there it may become {known}\n  {story}")
    action.phase = phase
    counts = phase in COUNTED
    if counts is not action.counted:
        state.capacity.count(action, counts)
