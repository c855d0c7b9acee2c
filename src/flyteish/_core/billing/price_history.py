"""What one pool's machines cost over time: the price now, and the mean price between two moments.

Keeps the changes that it is told, so that an attempt is billed at what it cost while it lived, exactly. Must not know
where prices come from, nor what anybody does with them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

MOST: Final = 100_000
"""Changes that are remembered, at least half as many; what was before costs as much as the first of them."""


class Prices:
    """One pool's, in $ per hour. Times are seconds since the epoch; they never go back."""

    __slots__ = ("_first", "_paid", "_prices", "_times", "latest")

    def __init__(self, price: float) -> None:
        self.latest = price
        self._first = price
        """The price before the first change."""
        self._times: list[float] = []
        self._prices: list[float] = []
        """From the time of the same index on."""
        self._paid: list[float] = []
        """Price times seconds, from the first change to the time of the same index."""

    def changed(self, price: float, now: float) -> None:
        """From now on it is this one."""
        if price == self.latest:
            return
        paid = self._paid_until(now) if self._times else 0.0
        self._times.append(now)
        self._prices.append(price)
        self._paid.append(paid)
        self.latest = price
        if len(self._times) > MOST:
            half = len(self._times) // 2
            self._first = self._prices[half - 1]
            del self._times[:half], self._prices[:half], self._paid[:half]

    def was_steady(self, since: float) -> bool:
        """Whether it has been the same ever since."""
        return not self._times or self._times[-1] <= since

    def mean(self, since: float, until: float) -> float:
        """The mean price of the seconds between; where there are none, the price then."""
        if not self._times:
            return self.latest
        if until <= since:
            at = bisect_right(self._times, since) - 1
            return self._prices[at] if at >= 0 else self._first
        return (self._paid_until(until) - self._paid_until(since)) / (until - since)

    def _paid_until(self, at: float) -> float:
        index = bisect_right(self._times, at) - 1
        if index < 0:
            return (at - self._times[0]) * self._first + self._paid[0]
        return self._paid[index] + (at - self._times[index]) * self._prices[index]

    def __repr__(self) -> str:
        return f"<Prices ${self.latest:g} per hour after {len(self._times)} changes>"
