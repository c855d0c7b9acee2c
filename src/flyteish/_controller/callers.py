"""Who waits for what: the calls of running attempts and of programs, and the outcomes they are owed.

Every accepted call is answered exactly once, whatever becomes of the action, the attempt that called or the
session. Must not decide anything: it matches outcomes to callers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context
from typing import TYPE_CHECKING

from flyteish._core.model.ids import ROOT_ACTION, AttemptKey
from flyteish.interfaces import CallSite, OnOutcome, Outcome

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Caller:
    """A running attempt, as one that calls tasks."""

    __slots__ = ("calls", "key")

    def __init__(self, key: AttemptKey) -> None:
        self.key = key
        self.calls: dict[int, Waiting] | None = None
        """Calls not answered yet; touched on the controller's thread only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}, {len(self.calls or ())} calls waiting>"


class Waiting:
    """One caller that waits for one action, and where it called from. Made on the caller's thread."""

    __slots__ = ("action", "also", "caller", "context", "done", "loop", "number", "task")

    def __init__(self, done: OnOutcome, loop: AbstractEventLoop | None, context: Context, task: object | None) -> None:
        self.done: OnOutcome | None = done
        """None once the caller no longer waits; where it called from still tells where the action belongs."""
        self.loop = loop
        self.context = context
        self.task = task
        self.caller: Caller | None = None
        """The calling attempt; None for a program that started a run."""
        self.number = 0
        self.action = ROOT_ACTION
        self.also: Waiting | None = None
        """An earlier caller of the same action: of an attempt that is over, or before a resumption."""

    def tell(self, outcome: Outcome, live: BaseException | None = None) -> None:
        """The answer; only the first one counts."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome, live)

    def __repr__(self) -> str:
        return f"<Waiting for {self.action}, {self.caller or 'a program'}{' no longer' if self.done is None else ''}>"


class Callers:
    """They, by what they wait for. Used on the controller's thread only, but for ``raised``."""

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
        caller = waiting.caller
        if caller is not None:
            if caller.calls is None:
                caller.calls = {}
            caller.calls[waiting.number] = waiting

    def withdraw(self, run: str, waiting: Waiting) -> None:
        """The call was not accepted: it waits for nothing."""
        if waiting.also is not None:
            self._waiting[run, waiting.action] = waiting.also
        else:
            self._waiting.pop((run, waiting.action), None)
        if waiting.caller is not None and waiting.caller.calls is not None:
            waiting.caller.calls.pop(waiting.number, None)

    def origin(self, key: AttemptKey) -> CallSite | None:
        """Where the action was last called."""
        waiting = self._waiting.get((key.run, key.action))
        return CallSite(waiting.loop, waiting.context, waiting.task) if waiting is not None else None

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
            if waiting.caller is not None and waiting.caller.calls is not None:
                waiting.caller.calls.pop(waiting.number, None)
            waiting.tell(outcome, live)
            waiting = waiting.also

    def hang_up(self, caller: Caller) -> list[str]:
        """The calling attempt is over: whatever it still waits for, it waits for nothing. Returns those actions."""
        calls, caller.calls = caller.calls, None
        left = list((calls or {}).values())
        for waiting in left:
            waiting.tell(_gone(caller, waiting))
        return [waiting.action for waiting in left]

    def everyone(self) -> Iterator[tuple[str, str, Waiting]]:
        """All who wait, with run and action; nobody is left waiting here."""
        everybody, self._waiting = self._waiting, {}
        for (run, action), first in everybody.items():
            waiting: Waiting | None = first
            while waiting is not None:
                yield run, action, waiting
                waiting = waiting.also

    def __repr__(self) -> str:
        return f"<Callers of {len(self._waiting)} actions>"


def _gone(caller: Caller, waiting: Waiting) -> Outcome:
    name = "flyteish.errors.StaleAttemptError"
    message = f"attempt {caller.key} is over; it no longer waits for {waiting.action}"
    return Outcome.refused(caller.key.run, waiting.action, name, message)
