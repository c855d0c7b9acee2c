"""Tells the core, and gathers what it answers: records for the journal and orders, in one burst for each turn.

Must not know what the facts are about, nor how the orders are carried out.
"""

from __future__ import annotations

from flyteish._controller.burst import Burst
from flyteish._controller.outcomes import row_of
from flyteish._core import lifecycle
from flyteish._core.model.effects import Deliver, Record, Refuse, RunEnded, StartAttempt
from flyteish._core.model.events import Configured, Event
from flyteish._core.state import State
from flyteish.interfaces import Clock


class CoreDriver:
    """The core in real time. Used on the controller's thread only."""

    __slots__ = ("_clock", "burst", "state")

    def __init__(self, configured: Configured, clock: Clock) -> None:
        self._clock = clock
        self.state = State.configured(configured.queues, configured.pools)
        self.burst = Burst()
        """Of the current turn."""

    def apply(self, event: Event, now: float | None = None) -> Refuse | None:
        """Tell the core; its records and orders join the burst. Returns the refusal, if it was refused."""
        refusal = None
        self.state, effects = lifecycle.apply(self.state, event, self._clock.now() if now is None else now)
        burst = self.burst
        for effect in effects:
            kind = type(effect)
            if kind is Record:
                burst.entries.append(effect)  # type: ignore[arg-type]
            elif kind is Refuse:
                refusal = effect
            else:
                burst.orders.append(effect)
                if kind is RunEnded:
                    self.glance(effect.run)  # type: ignore[union-attr]
                elif kind is StartAttempt or kind is Deliver:
                    action = effect.action  # type: ignore[union-attr]
                    if action.parent is None:
                        self.glance(action.run)
        return refusal  # type: ignore[return-value]

    def glance(self, run: str) -> None:
        """The list of runs is to show the run as it is now."""
        self.burst.rows[run] = row_of(self.state.runs[run])

    def cut(self) -> Burst:
        """The burst so far; another one begins."""
        burst, self.burst = self.burst, Burst()
        return burst

    def __repr__(self) -> str:
        return f"<CoreDriver of {self.state!r}, {self.burst!r}>"
