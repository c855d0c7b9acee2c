"""Who waits for what: the calls of running attempts, and the outcomes they are owed.

Every accepted call is answered exactly once, whatever becomes of the action, the attempt that called or the
session. Must not decide anything: it matches outcomes to callers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING

from flyteish._core.events import CheckpointSkipped
from flyteish._core.ids import AttemptKey
from flyteish._core.values import CheckpointRecord, ErrorDocument, Payload
from flyteish.interfaces import Call, OnOutcome, Origin, Outcome

if TYPE_CHECKING:
    from flyteish._controller.loop import Controller


class AttemptLink:
    """``interfaces.Link`` for one attempt; what it asks is fenced by the attempt's generation.

    A link is made for every attempt, so it is small; the controller learns of it with its first request.
    """

    __slots__ = ("_controller", "_numbers", "calls", "key")

    def __init__(self, controller: Controller, key: AttemptKey) -> None:
        self._controller = controller
        self._numbers = itertools.count(1)
        self.key = key
        self.calls: dict[int, Waiting] = {}
        """Calls not answered yet; touched on the controller's thread only."""

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        number = next(self._numbers)
        origin = Origin(self._controller.caller_loop(), copy_context(), task)
        self._controller.post(self._controller.take_call, self, number, call, origin, done)
        return number

    def cancel(self, number: int, reason: str) -> None:
        self._controller.post(self._controller.take_cancel, self, number, reason)

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        self._controller.post(self._controller.take_checkpoint, self.key, record, done)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._controller.post(self._controller.take_fact, event)

    def traced(self, key: str, result: Payload) -> None:
        self._controller.post(self._controller.take_traced, self.key, key, result)

    def __repr__(self) -> str:
        return f"<AttemptLink {self.key} {len(self.calls)} calls waiting>"


class Waiting:
    """One caller that waits for one action."""

    __slots__ = ("action", "done", "link", "number")

    def __init__(self, link: AttemptLink | None, number: int, action: str, done: OnOutcome) -> None:
        self.link = link
        self.number = number
        self.action = action
        self.done = done


class Desk:
    """The callers by what they wait for. Used on the controller's thread only."""

    __slots__ = ("_origins", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[Waiting]] = {}
        self._origins: dict[tuple[str, str], Origin] = {}

    def wait(self, run: str, waiting: Waiting, origin: Origin | None) -> None:
        """A caller waits for an action."""
        key = (run, waiting.action)
        known = self._waiting.get(key)
        if known is None:
            self._waiting[key] = [waiting]
        else:
            known.append(waiting)
        if waiting.link is not None:
            waiting.link.calls[waiting.number] = waiting
        if origin is not None:
            self._origins[key] = origin

    def origin(self, run: str, action: str) -> Origin | None:
        """Where the action was last called."""
        return self._origins.get((run, action))

    def answer(self, outcome: Outcome, live: BaseException | None) -> None:
        """The action has ended: everybody who waits hears of it."""
        key = (outcome.run, outcome.action)
        self._origins.pop(key, None)
        for waiting in self._waiting.pop(key, ()):
            if waiting.link is not None:
                waiting.link.calls.pop(waiting.number, None)
            waiting.done(outcome, live)

    def hang_up(self, link: AttemptLink) -> None:
        """The calling attempt is over: whatever it still waits for, it waits for nothing."""
        for waiting in list(link.calls.values()):
            self._drop(link.key.run, waiting)
            waiting.done(_gone(link, waiting), None)
        link.calls.clear()

    def withdraw(self, run: str, waiting: Waiting) -> None:
        """The call was not accepted: it waits for nothing."""
        if waiting.link is not None:
            waiting.link.calls.pop(waiting.number, None)
        self._drop(run, waiting)

    def _drop(self, run: str, waiting: Waiting) -> None:
        known = self._waiting.get((run, waiting.action))
        if known is not None and waiting in known:
            known.remove(waiting)
            if not known:
                del self._waiting[run, waiting.action]

    def everyone(self) -> Iterator[tuple[str, Waiting]]:
        """All who wait, with their run; leaves nobody waiting."""
        waiting, self._waiting = self._waiting, {}
        self._origins.clear()
        for (run, _), callers in waiting.items():
            for caller in callers:
                yield run, caller


def _gone(link: AttemptLink, waiting: Waiting) -> Outcome:
    name = "flyteish.errors.StaleAttemptError"
    message = f"attempt {link.key} is over; it no longer waits for {waiting.action}"
    return Outcome(link.key.run, waiting.action, "refused", error=ErrorDocument(type=name, message=message))

