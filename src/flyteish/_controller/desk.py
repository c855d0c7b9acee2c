"""Who waits for what: the calls of running attempts, and the outcomes they are owed.

Every accepted call is answered exactly once, whatever becomes of the action, the attempt that called or the
session. Must not decide anything: it matches outcomes to callers.
"""

from __future__ import annotations

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

    __slots__ = ("_controller", "calls", "key")

    def __init__(self, controller: Controller, key: AttemptKey) -> None:
        self._controller = controller
        self.key = key
        self.calls: dict[int, Waiting] | None = None
        """Calls not answered yet; touched on the controller's thread only."""

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        controller = self._controller
        number = next(controller.numbers)
        origin = Origin(controller.caller_loop(), copy_context(), task)
        controller.post(controller.take_call, self, number, call, origin, done)
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
        return f"<AttemptLink {self.key} {len(self.calls or ())} calls waiting>"


class Waiting:
    """One caller that waits for one action, and where it called from."""

    __slots__ = ("action", "also", "done", "link", "number", "origin")

    def __init__(
        self, link: AttemptLink | None, number: int, action: str, done: OnOutcome, origin: Origin | None
    ) -> None:
        self.link = link
        self.number = number
        self.action = action
        self.done: OnOutcome | None = done
        """None once the caller no longer waits; its origin still tells where the action belongs."""
        self.origin = origin
        self.also: Waiting | None = None
        """An earlier caller of the same action: of an attempt that is over, or before a resumption."""


class Desk:
    """The callers by what they wait for. Used on the controller's thread only."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Waiting] = {}

    def wait(self, run: str, waiting: Waiting) -> None:
        """A caller waits for an action."""
        key = (run, waiting.action)
        waiting.also = self._waiting.get(key)
        self._waiting[key] = waiting
        link = waiting.link
        if link is not None:
            if link.calls is None:
                link.calls = {}
            link.calls[waiting.number] = waiting

    def withdraw(self, run: str, waiting: Waiting) -> None:
        """The call was not accepted: it waits for nothing."""
        if waiting.also is not None:
            self._waiting[run, waiting.action] = waiting.also
        else:
            self._waiting.pop((run, waiting.action), None)
        if waiting.link is not None and waiting.link.calls is not None:
            waiting.link.calls.pop(waiting.number, None)

    def origin(self, run: str, action: str) -> Origin | None:
        """Where the action was last called."""
        waiting = self._waiting.get((run, action))
        return waiting.origin if waiting is not None else None

    def answer(self, outcome: Outcome, live: BaseException | None) -> None:
        """The action has ended: everybody who waits hears of it."""
        waiting = self._waiting.pop((outcome.run, outcome.action), None)
        while waiting is not None:
            done, waiting.done = waiting.done, None
            if waiting.link is not None and waiting.link.calls is not None:
                waiting.link.calls.pop(waiting.number, None)
            if done is not None:
                done(outcome, live)
            waiting = waiting.also

    def hang_up(self, link: AttemptLink) -> None:
        """The calling attempt is over: whatever it still waits for, it waits for nothing."""
        calls, link.calls = link.calls, None
        for waiting in (calls or {}).values():
            done, waiting.done = waiting.done, None
            if done is not None:
                done(_gone(link, waiting), None)

    def everyone(self) -> Iterator[tuple[str, str, OnOutcome]]:
        """All who wait: run, action and whom to tell; leaves nobody waiting."""
        everybody, self._waiting = self._waiting, {}
        for (run, action), first in everybody.items():
            waiting: Waiting | None = first
            while waiting is not None:
                done, waiting.done = waiting.done, None
                if done is not None:
                    yield run, action, done
                waiting = waiting.also


def _gone(link: AttemptLink, waiting: Waiting) -> Outcome:
    name = "flyteish.errors.StaleAttemptError"
    message = f"attempt {link.key} is over; it no longer waits for {waiting.action}"
    return Outcome(link.key.run, waiting.action, "refused", error=ErrorDocument(type=name, message=message))
