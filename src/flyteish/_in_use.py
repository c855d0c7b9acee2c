"""Which session a program uses that names none: that of the enclosing ``with`` block, else the default one.

The one piece of process-wide state, made on demand only, since such programs need it somewhere. Must not know what a
session is beyond that it can be closed.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from importlib import import_module
from typing import Any

_current: ContextVar[Any] = ContextVar("flyteish_session", default=None)
_default: list[Any] = []  # none or one
_lock = threading.Lock()


def session_in_use(make: Callable[[], Any]) -> Any:
    """The one of the enclosing block, else the default one, which ``make`` makes at its first use."""
    session = _current.get()
    if session is None:
        with _lock:
            if not _default:
                _install(make())
            session = _default[0]
    return session


def any_session() -> Any:
    """The same for those who can't know how a session is made: the public name says it."""
    return session_in_use(import_module("flyteish").Session)


def replace_default(session: Any) -> None:
    """Make it the default, and close the one before. It is closed when the program ends."""
    with _lock:
        for old in _default:
            atexit.unregister(old.close)
            old.close()
        _default.clear()
        _install(session)


def _install(session: Any) -> None:
    _default.append(session)
    atexit.register(session.close)


def enter(session: Any) -> Token[Any]:
    """A block of this session begins."""
    return _current.set(session)


def leave(token: Token[Any]) -> None:
    """The block ends."""
    try:
        _current.reset(token)
    except ValueError:
        pass  # entered in another context (a fixture's, a framework's start-up): nothing to undo in this one
