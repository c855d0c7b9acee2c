"""The way to the controller from any thread: facts pile up, one wake-up per burst takes them all.

Keeps the order in which facts were posted. Must not know what they are about; after the end it rejects each one, so
that nobody waits for an answer that never comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from flyteish._controller.facts import Fact


class FactInbox:
    """Facts for one controller.

    Args:
        turn: called on the controller's loop, soon after something was posted.
        why: why the controller takes nothing any more, for those that come after its end; any thread.
    """

    __slots__ = ("_awake", "_facts", "_loop", "_turn", "_why")

    def __init__(self, turn: Callable[[], None], why: Callable[[], BaseException]) -> None:
        self._turn = turn
        self._why = why
        self._facts: deque[Fact] = deque()
        self._awake = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on posts wake the loop; those that came before are taken now."""
        self._loop = loop
        self._wake()

    def post(self, fact: Fact) -> None:
        """Have it taken in the next turn. Any thread; never blocks, never raises."""
        self._facts.append(fact)
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        if self._loop is None:
            return  # `open` does it
        self._awake = True
        try:
            self._loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # the loop is closed: nobody will ever take them
            self.reject_all()

    def take_all(self, take: Mapping[type[Fact], Callable[[Any], None]]) -> None:
        """Take what was there when the turn began: a busy sender must not keep time from passing."""
        self._awake = False
        facts = self._facts
        for _ in range(len(facts)):
            fact = facts.popleft()
            take[type(fact)](fact)
        if facts and not self._awake:
            self._wake()

    def reject_all(self) -> None:
        """After the end. Any thread, also several at once."""
        # Before the look: who posts after it finds nobody awake, and comes here by itself.
        self._awake = False
        while self._facts:
            try:
                fact = self._facts.popleft()
            except IndexError:  # another thread was faster
                return
            fact.reject(self._why())

    def __repr__(self) -> str:
        return f"<FactInbox {len(self._facts)} facts, {'awake' if self._awake else 'idle'}>"
