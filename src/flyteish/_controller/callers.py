"""Who waits for what: the calls of running attempts, and the outcomes they are owed.

Every accepted call is answered exactly once, whatever becomes of the action, the attempt that called or the
session. Must not decide anything: it matches outcomes to callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from flyteish._core.model.events import CheckpointCommitted, CheckpointSkipped, ValueTraced
from flyteish._core.model.ids import ROOT_ACTION, AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Call, OnJournalled, OnOutcome, Origin, Outcome

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from flyteish._controller.loop import Controller


class AttemptLink:
    """``interfaces.InlineLink`` for one attempt; what it asks is fenced by the attempt's generation.

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
        waiting = Waiting(done, controller.caller_loop(), copy_context(), task)
        waiting.link, waiting.number = self, number
        controller.post(controller.take_call, self, waiting, call)
        return number

    def cancel(self, number: int, reason: str) -> None:
        controller = self._controller
        # An ending program cancels every task on its loop. That is no decision about what they wait for: the run can
        # be resumed, and an action that was cancelled would have lost its checkpoints.
        take = controller.take_farewell if controller.loop_ends(self.key.run) else controller.take_cancel
        controller.post(take, self, number, reason)

    def commit_checkpoint(self, record: CheckpointRecord, done: OnJournalled) -> None:
        event = CheckpointCommitted(self.key.run, self.key.action, self.key.generation, record)
        self._controller.post(self._controller.take_to_confirm, event, done)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._controller.post(self._controller.take_fact, event)

    def traced(self, key: str, result: Payload, done: OnJournalled | None = None) -> None:
        event = ValueTraced(self.key.run, self.key.action, self.key.generation, key, result)
        if done is None:
            self._controller.post(self._controller.take_fact, event)
        else:
            self._controller.post(self._controller.take_to_confirm, event, done)

    def __repr__(self) -> str:
        return f"<AttemptLink {self.key} {len(self.calls or ())} calls waiting>"


class RemoteLink:
    """``interfaces.Link`` for one attempt: the same for an engine that speaks for an attempt elsewhere."""

    __slots__ = ("_link", "cancel", "checkpoint_skipped", "commit_checkpoint", "traced")

    def __init__(self, link: AttemptLink) -> None:
        self._link = link
        self.cancel = link.cancel
        self.commit_checkpoint = link.commit_checkpoint
        self.checkpoint_skipped = link.checkpoint_skipped
        self.traced = link.traced

    def call(self, call: Call, done: Callable[[Outcome], None]) -> int:
        return self._link.call(call, lambda outcome, _: done(outcome))

    def __repr__(self) -> str:
        return f"<RemoteLink of {self._link!r}>"


class Waiting:
    """One caller that waits for one action, and where it called from. Made on the caller's thread."""

    __slots__ = ("action", "also", "context", "done", "link", "loop", "number", "task")

    def __init__(self, done: OnOutcome, loop: AbstractEventLoop | None, context: Context, task: object | None) -> None:
        self.done: OnOutcome | None = done
        """None once the caller no longer waits; where it called from still tells where the action belongs."""
        self.loop = loop
        self.context = context
        self.task = task
        self.link: AttemptLink | None = None
        """Of the calling attempt; None for a program that started a run."""
        self.number = 0
        self.action = ROOT_ACTION
        self.also: Waiting | None = None
        """An earlier caller of the same action: of an attempt that is over, or before a resumption."""

    def tell(self, outcome: Outcome, live: BaseException | None = None) -> None:
        """The answer; only the first one counts."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome, live)


class Desk:
    """The callers by what they wait for. Used on the controller's thread only."""

    __slots__ = ("_raised", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._raised: dict[AttemptKey, BaseException] = {}
        """Exceptions as they were raised in this process, until it is known whether their actions end by them."""

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

    def origin(self, key: AttemptKey) -> Origin | None:
        """Where the action was last called."""
        waiting = self._waiting.get((key.run, key.action))
        return Origin(waiting.loop, waiting.context, waiting.task) if waiting is not None else None

    def raised(self, key: AttemptKey, error: BaseException) -> None:
        """The exception with which an attempt in this process ends. Any thread, before the end is reported."""
        self._raised[key] = error

    def spare(self, key: AttemptKey) -> None:
        """The attempt's exception is not its action's end: nobody will get it."""
        if self._raised:
            self._raised.pop(key, None)

    def answer(self, outcome: Outcome, generation: int) -> None:
        """The action has ended, with the attempt of this generation: everybody who waits hears of it."""
        waiting = self._waiting.pop((outcome.run, outcome.action), None)
        live = None
        if self._raised:
            live = self._raised.pop(AttemptKey(outcome.run, outcome.action, generation), None)
        while waiting is not None:
            if waiting.link is not None and waiting.link.calls is not None:
                waiting.link.calls.pop(waiting.number, None)
            waiting.tell(outcome, live)
            waiting = waiting.also

    def hang_up(self, link: AttemptLink) -> list[str]:
        """The calling attempt is over: whatever it still waits for, it waits for nothing. Returns those actions."""
        calls, link.calls = link.calls, None
        left = list((calls or {}).values())
        for waiting in left:
            waiting.tell(_gone(link, waiting))
        return [waiting.action for waiting in left]

    def everyone(self) -> Iterator[tuple[str, str, Waiting]]:
        """All who wait, with run and action; nobody is left waiting here."""
        everybody, self._waiting = self._waiting, {}
        for (run, action), first in everybody.items():
            waiting: Waiting | None = first
            while waiting is not None:
                yield run, action, waiting
                waiting = waiting.also


def _gone(link: AttemptLink, waiting: Waiting) -> Outcome:
    name = "flyteish.errors.StaleAttemptError"
    message = f"attempt {link.key} is over; it no longer waits for {waiting.action}"
    return Outcome.refused(link.key.run, waiting.action, name, message)
