"""Lets plain calls inside an ``async def`` task wait without blocking its event loop.

A ``def`` task called in an ``async def`` task returns its value without ``await``. Were the wait to block the loop,
everything else on the loop would stand still, including attempts that hold the very place that the call waits for.
So the task's coroutine is stepped inside a greenlet: a plain call deep in it switches out, the loop awaits in its
stead, and the call goes on where it was with the value. Must not know what is awaited, or for whom.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Final

from greenlet import getcurrent, greenlet

_STEPPED: Final = 0
_WAIT: Final = 1
_DONE: Final = 2
_RAISED: Final = 3
_MOST_IDLE: Final = 64


class Stepper(greenlet):
    """The greenlet that a coroutine is stepped in; its being current is what ``can_wait_here`` looks for."""


class Bridged:
    """``await Bridged(coroutine, idle)`` is ``await coroutine``, within which ``wait_here`` can be used.

    ``idle`` keeps steppers for the next coroutine on the same thread: to make one costs more than all its switches.
    """

    __slots__ = ("_coroutine", "_idle")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], idle: list[Stepper]) -> None:
        self._coroutine = coroutine
        self._idle = idle

    def __await__(self) -> Generator[Any, Any, Any]:
        stepper = self._idle.pop() if self._idle else Stepper(_step)
        # The greenlet sees, and sets, the context variables of the asyncio task that it is a part of.
        stepper.gr_context = getcurrent().gr_context or copy_context()
        kind, payload = stepper.switch(self._coroutine)
        while kind < _DONE:
            try:
                value = (yield payload) if kind == _STEPPED else (yield from payload.__await__())
            except BaseException as error:
                kind, payload = stepper.switch((None, error))
            else:
                kind, payload = stepper.switch((value, None))
        stepper.gr_context = None
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(stepper)
        if kind == _DONE:
            return payload
        try:
            raise payload
        finally:
            del payload  # or the exception and this frame would keep each other alive


def _step(coroutine: Coroutine[Any, Any, Any] | None) -> None:
    """Runs in the greenlet, for one coroutine after the other: step it, hand out what it yields, take in the answer."""
    loop = _parent()
    while coroutine is not None:
        value, error, said = None, None, None
        while said is None:
            try:
                yielded = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                said = (_DONE, stop.value)
            except BaseException as raised:
                said = (_RAISED, raised)
            else:
                error = None  # or the exception and this frame would keep each other alive
                value, error = loop.switch((_STEPPED, yielded))
        coroutine = error = value = yielded = None
        held, said = [said], None
        coroutine = loop.switch(held.pop())


def can_wait_here() -> bool:
    """Whether the running code is a plain call inside a bridged coroutine."""
    return isinstance(getcurrent(), Stepper)


def wait_here(awaitable: Awaitable[Any]) -> Any:
    """The value of ``awaitable``, awaited by the loop while this call stands still. Needs ``can_wait_here()``."""
    value, error = _parent().switch((_WAIT, awaitable))
    if error is None:
        return value
    try:
        raise error
    finally:
        del error


def _parent() -> greenlet:
    """The loop's own greenlet, which steps the running one."""
    parent = getcurrent().parent
    assert parent is not None
    return parent
