"""Calls of tasks with a cache wait here until the cache was asked, and what their callers say after them behind them.

The store may be far away, so it is asked beside the loop; facts of one caller are taken in the order in which they were
posted all the same. Facts of callers that call nothing cached never come here. Must not know what is done with a fact.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any

from flyteish._controller.facts import CallMade, Fact, LookedUp
from flyteish._controller.result_cache import ResultCache, is_read
from flyteish._core.model.values import Payload
from flyteish.interfaces import Call

_log = logging.getLogger(__name__)


class BesideLoop:
    """Work on the running loop that nobody waits for, kept from being forgotten half done."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin it soon."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Nobody needs it any more."""
        for task in self._tasks:
            task.cancel()

    def __repr__(self) -> str:
        return f"<BesideLoop {len(self._tasks)} tasks>"


class LookUps:
    """Used on the controller's thread only.

    Args:
        post: takes the fact that a look-up is over.
    """

    __slots__ = ("_beside", "_cache", "_post", "waiting")

    def __init__(self, cache: ResultCache, post: Callable[[Fact], None]) -> None:
        self._cache = cache
        self._post = post
        self._beside = BesideLoop()
        self.waiting: dict[Hashable, deque[_Held]] = {}
        """Facts by who posted them (an attempt's key, or a run), the first of each a call that is looked up."""

    def __repr__(self) -> str:
        return f"<LookUps {len(self.waiting)} callers wait>"

    def hold(self, who: Hashable, fact: Fact, call: Call | None = None) -> bool:
        """Keep the fact back if the cache may have its result, or if an earlier one of the same caller is kept back."""
        looks = call is not None and is_read(call.profile)
        held = self.waiting.get(who)
        if held is None and not looks:
            return False
        mine = _Held(fact, looks)
        self.waiting.setdefault(who, deque()).append(mine)
        if call is not None and looks:
            self._beside.start(self._look_up(who, mine, call), f"flyteish cache of {call.profile.task}")
        return True

    def withdraw(self, who: Hashable, number: int) -> CallMade | None:
        """The caller no longer waits for this call: it need not be made, if it waits here."""
        held = self.waiting.get(who, deque())
        for mine in held:
            if isinstance(mine.fact, CallMade) and mine.fact.waiting.number == number:
                held.remove(mine)
                return mine.fact
        return None

    def ready(self, who: Hashable) -> Iterator[tuple[Fact, Payload | None]]:
        """What may be taken by now, in order, with the cached result of what was looked up."""
        held = self.waiting.get(who, deque())  # gone: an earlier look-up of the caller found all of them over
        while held and not held[0].looking:
            mine = held.popleft()
            yield mine.fact, mine.found
        if not held:
            self.waiting.pop(who, None)

    def reject_all(self, why: BaseException) -> None:
        """The controller ends."""
        self._beside.cancel()
        everybody, self.waiting = self.waiting, {}
        for held in everybody.values():
            for mine in held:
                mine.fact.reject(why)

    async def _look_up(self, who: Hashable, mine: _Held, call: Call) -> None:
        try:
            mine.found = await self._cache.find(call.profile, call.cache_digest or call.digest)
        except Exception as error:  # a defect: the call must be taken all the same
            _log.error("the cache of %s could not be asked", call.profile.task, exc_info=error)
        mine.looking = False
        self._post(LookedUp(who))


class _Held:
    __slots__ = ("fact", "found", "looking")

    def __init__(self, fact: Fact, looking: bool) -> None:
        self.fact = fact
        self.looking = looking
        self.found: Payload | None = None
