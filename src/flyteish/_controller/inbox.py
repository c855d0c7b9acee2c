"""The way to the controller from any thread: facts pile up, one wake-up per burst takes them all.

Keeps the order in which facts were posted. Must not know what they are about; after the end it hands each one to
``refuse``, so that nobody waits for an answer that never comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

Take = Callable[..., None]


class Inbox:
    """Facts for one controller.

    Args:
        turn: called on the controller's loop, soon after something was posted.
        refuse: told of a fact that came after the end; any thread.
    """

    __slots__ = ("_awake", "_facts", "_loop", "_refuse", "_turn")

    def __init__(self, turn: Callable[[], None], refuse: Callable[[Take, tuple[Any, ...]], None]) -> None:
        self._turn = turn
        self._refuse = refuse
        self._facts: deque[tuple[Take, tuple[Any, ...]]] = deque()
        self._awake = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on posts wake the loop; those that came before are taken now."""
        self._loop = loop
        self._wake()

    def post(self, take: Take, *facts: Any) -> None:
        """Have ``take(*facts)`` run in the next turn. Any thread; never blocks, never raises."""
        self._facts.append((take, facts))
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        if self._loop is None:
            return  # `open` does it
        self._awake = True
        try:
            self._loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # the loop is closed: nobody will ever take them
            self.refuse_all()

    def take_all(self) -> None:
        """Take what was there when the turn began: a busy sender must not keep time from passing."""
        self._awake = False
        facts = self._facts
        for _ in range(len(facts)):
            take, values = facts.popleft()
            take(*values)
        if facts and not self._awake:
            self._wake()

    def refuse_all(self) -> None:
        """After the end. Any thread, also several at once."""
        # Before the look: who posts after it finds nobody awake, and comes here by itself.
        self._awake = False
        while self._facts:
            try:
                take, values = self._facts.popleft()
            except IndexError:  # another thread was faster
                return
            self._refuse(take, values)

    def __repr__(self) -> str:
        return f"<Inbox {len(self._facts)} facts, {'awake' if self._awake else 'idle'}>"
