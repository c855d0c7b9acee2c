"""Drives a pool's market: which attempts lose their machine now, and when to ask next.

Facts in (an attempt started, ended; the time), orders out (reclaim these). It has no clock and starts
nothing: the caller asks again at ``next_due()``, hands what ``due`` returns to the engine and what
``capacity`` returns to the core. Must not know engines, the core's state, or whether time is real.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.queues import Pool
from flyteish.interfaces import Market, Notice


class ToReclaim(NamedTuple):
    """An order to the engine: take the machine under this attempt away."""

    key: AttemptKey
    notice: Notice


class Reclaimer:
    """One pool and its market. Every ``now`` is seconds since the epoch and never less than the one before.

    An attempt is reclaimed when its machine's lifetime is over, or when capacity drops below the number of running
    attempts: then the newest go first. Attempts that had their notice are leaving already; they are neither noticed
    again nor counted against capacity.
    """

    def __init__(self, pool: Pool, market: Market) -> None:
        self._pool = pool
        self._market = market
        self._opened: float | None = None
        self._started = 0  # attempts so far: the market's number of the next one
        self._staying: dict[AttemptKey, int] = {}  # running without notice, oldest first -> the market's number
        self._ends: list[tuple[float, int, AttemptKey]] = []  # heap of planned notices; ended attempts drop out late
        self._at = 0.0  # market time that capacity has been followed to
        self._change: float | None = None  # market time of the next change of capacity after ``_at``
        self._held: int | None = None  # capacity until then
        self._leaving: dict[AttemptKey, None] = {}  # reclaimed, but not handed out yet
        self._news: float | None = None  # since when there is something that the caller has not asked for

    def opened(self, now: float) -> None:
        """The market opens; its time counts from here."""
        if self._opened is not None:
            raise RuntimeError(f"{self!r} is open already")
        self._opened = now
        self._change, self._held = self._market.next_change(0.0), self._market.capacity(0.0)

    def attempt_started(self, now: float, key: AttemptKey) -> bool:
        """The pool got one more attempt. It is not touched by what the market did before ``now``.

        Returns whether ``next_due`` may be earlier than it was.
        """
        at = self._follow(now)
        if key in self._staying:
            raise RuntimeError(f"{self!r}: attempt {key} has started already")
        number = self._started
        self._started += 1
        self._staying[key] = number
        lifetime = self._market.lifetime(at if at > 0.0 else 0.0, number)
        if lifetime is not None:
            heapq.heappush(self._ends, (now + lifetime, number, key))
        if self._held is not None:
            self._reclaim(self._excess(), now)
        return self._news is not None or (lifetime is not None and self._ends[0][1] == number)

    def attempt_ended(self, key: AttemptKey) -> None:
        """It is over, however it ended. An attempt of another pool has no effect."""
        self._staying.pop(key, None)
        self._leaving.pop(key, None)
        if len(self._ends) > 2 * len(self._staying) + 64:
            # Most planned notices belong to ended attempts: short tasks must not fill the heap for hours.
            staying = self._staying
            self._ends = [end for end in self._ends if staying.get(end[2]) == end[1]]
            heapq.heapify(self._ends)

    def next_due(self) -> float | None:
        """When ``due`` or ``capacity`` next has news; None: never, as things stand."""
        while self._ends and not self._stays(self._ends[0]):
            heapq.heappop(self._ends)
        times = [self._ends[0][0]] if self._ends else []
        if self._change is not None:
            times.append(self._origin + self._change)
        if self._news is not None:
            times.append(self._news)
        return min(times, default=None)

    def due(self, now: float) -> list[ToReclaim]:
        """The attempts to reclaim now, in the order in which they lost their machine, each named once.

        Every change of capacity up to ``now`` counts, also one that was over before anybody asked.
        """
        self._follow(now)
        keys, self._leaving, self._news = list(self._leaving), {}, None
        seconds = self._market.notice_seconds
        return [ToReclaim(key, Notice(kind="terminate", seconds=seconds)) for key in keys]

    def capacity(self, now: float) -> int | None:
        """How many attempts the market holds now; None: as many as the pool is configured for."""
        at = max(self._at, now - self._origin)
        # ``now - origin`` may fall short of the very change that ``next_due`` announced, by a rounding.
        if self._change is not None and self._origin + self._change <= now:
            at = max(at, self._change)
        return self._market.capacity(at)

    def _follow(self, now: float) -> float:
        """Take what the market did up to ``now``, in the order in which it happened; returns the market's time."""
        origin = self._origin
        while self._change is not None and origin + self._change <= now:
            # With nobody to reclaim, the changes that went by need not be gone through one by one.
            at = self._change if self._staying else max(self._change, now - origin)
            self._reclaim(self._outlived(origin + at), origin + at)
            self._at, self._change, self._held = at, self._market.next_change(at), self._market.capacity(at)
            self._reclaim(self._excess(), origin + at)
            self._tell(origin + at)
        if self._ends and self._ends[0][0] <= now:
            self._reclaim(self._outlived(now), now)
        at = now - origin
        if at > self._at:
            self._at = at
        return at

    def _reclaim(self, keys: list[AttemptKey], since: float) -> None:
        if keys:
            self._leaving.update(dict.fromkeys(keys))
            self._tell(since)

    def _tell(self, since: float) -> None:
        self._news = since if self._news is None else min(self._news, since)

    def _outlived(self, now: float) -> list[AttemptKey]:
        keys = []
        while self._ends and self._ends[0][0] <= now:
            end = heapq.heappop(self._ends)
            if self._stays(end):
                del self._staying[end[2]]
                keys.append(end[2])
        return keys

    def _excess(self) -> list[AttemptKey]:
        held = self._held
        if held is None:
            return []
        return [self._staying.popitem()[0] for _ in range(len(self._staying) - held)]

    def _stays(self, end: tuple[float, int, AttemptKey]) -> bool:
        return self._staying.get(end[2]) == end[1]

    @property
    def _origin(self) -> float:
        if self._opened is None:
            raise RuntimeError(f"{self!r} has not been opened")
        return self._opened

    def __repr__(self) -> str:
        since = "not open" if self._opened is None else f"open since {self._opened:.3f}"
        staying = f"{len(self._staying)} attempts staying"
        return f"Reclaimer(pool {self._pool.name!r}, {self._market!r}, {since}, {staying})"
