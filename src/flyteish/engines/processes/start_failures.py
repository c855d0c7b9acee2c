"""Workers that failed to start: how many in a row, what that says of attempts, and when to stop trying.

Must not start or end anything.
"""

from __future__ import annotations

import sys
from typing import Final

from flyteish._core.model.events import Evidence

#: Failures one after the other before starting workers is taken to be hopeless.
_HOPELESS: Final = 3
_CURE: Final = f"`{sys.executable} -P -c 'import flyteish._worker.__main__'` should run without an error"


class StartFailures:
    """The failures since the last worker that did start."""

    def __init__(self) -> None:
        self._evidence: list[Evidence] = []

    def __repr__(self) -> str:
        return f"StartFailures({len(self._evidence)} in a row)"

    @property
    def hopeless(self) -> bool:
        """Whether another try is not worth it."""
        return len(self._evidence) >= _HOPELESS

    def refused(self, error: OSError) -> None:
        """The operating system gives out no process: hopeless for now."""
        self._evidence += [Evidence(vanished=f"no worker process could be started: {error}")] * _HOPELESS

    def exited(self, code: int, last_words: str) -> None:
        """One ended before it was ready."""
        words = f"worker processes do not start (exit code {code}: {last_words or 'not a word'})"
        # Killed by a signal is somebody else's doing, and may go better next time; an exit is ours.
        self._evidence.append(Evidence(vanished=words) if code < 0 else Evidence(unmendable=f"{words}; {_CURE}"))

    def clear(self) -> None:
        """One has started."""
        self._evidence.clear()

    def take(self) -> Evidence:
        """How the attempts end that have nobody to run them; then it may be tried anew."""
        last = self._evidence[-1]
        self._evidence.clear()
        return last
