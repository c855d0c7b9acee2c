"""Environment variables that only one attempt sees, while others run in the same process.

``os.environ`` belongs to the process, so for as long as an attempt with variables of its own runs, lookups are
made to heed a context variable first; everybody else reads what they always read, and nothing is written to the
process's environment. Child processes started without ``env=`` don't see the variables: for that, use worker
processes. Must not know what the variables are for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_OVERLAY: ContextVar[Mapping[str, str] | None] = ContextVar("flyteish_environment", default=None)
_lock = threading.Lock()
_users: set[object] = set()  # attempts with variables of their own, right now; empty: os.environ is untouched
_Plain: Any = type(os.environ)


class _Scoped(_Plain):  # type: ignore[misc]
    """``os.environ`` with the running attempt's variables on top. Writes go to the process, as always."""

    def __getitem__(self, key: str) -> str:
        overlay = _OVERLAY.get()
        if overlay is not None and key in overlay:
            return overlay[key]
        return str(super().__getitem__(key))

    def __iter__(self) -> Iterator[str]:
        overlay = _OVERLAY.get() or {}
        yield from overlay
        yield from (key for key in super().__iter__() if key not in overlay)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self) -> dict[str, str]:
        return dict(self)


@contextmanager
def scoped(variables: Mapping[str, str]) -> Iterator[None]:
    """Within the block, and in context copies taken from it, ``os.environ`` has these variables too."""
    if not variables:
        yield
        return
    user = object()
    with _lock:
        _users.add(user)
        os.environ.__class__ = _Scoped
    token = _OVERLAY.set({**(_OVERLAY.get() or {}), **variables})
    try:
        yield
    finally:
        _OVERLAY.reset(token)
        with _lock:
            _users.discard(user)
            if not _users:
                os.environ.__class__ = _Plain
