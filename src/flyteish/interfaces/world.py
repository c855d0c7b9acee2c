"""Markets, prices, time and chance: what the world does, as a session or a simulation sees it.

Contracts only. Must not know whether the time that they speak of is real.
"""

from __future__ import annotations

from typing import Protocol


class Market(Protocol):
    """A spot market as a schedule: the same for real and virtual time. ``at`` is seconds since it opened."""

    def lifetime(self, at: float, number: int) -> float | None:
        """Seconds until the notice for the ``number``-th attempt (from 0) started at ``at``; None: none is planned."""

    def capacity(self, at: float) -> int | None:
        """How many attempts the pool can hold; None: as many as configured."""

    def next_change(self, at: float) -> float | None:
        """When ``capacity`` next changes after ``at``; None: never."""

    @property
    def notice_seconds(self) -> float:
        """Seconds between notice and reclaim."""


class PriceSource(Protocol):
    """What one attempt's hour costs in a pool, over time. ``at`` is seconds since the session (or simulation) opened.

    Asked on the controller's thread, so both answer at once: a source that asks somebody else does so elsewhere.
    """

    def price(self, at: float) -> float | None:
        """$ per hour; None: not known, the last one stays (0 before the first)."""

    def next_change(self, at: float) -> float | None:
        """When to ask again, after ``at``; None: never."""


class Clock(Protocol):
    """Time and chance."""

    def now(self) -> float:
        """Seconds since the epoch; never goes back."""

    def chance(self) -> float:
        """A number in [0, 1)."""
