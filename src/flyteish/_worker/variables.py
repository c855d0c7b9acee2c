"""Gives an attempt its environment variables, and takes them back when it is over; the working directory, too.

Touches the process's environment, since a worker process runs one attempt at a time. Must not show a value: some
are secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from flyteish.interfaces import Order

TOKEN_VARIABLE: Final = "FLYTEISH_WORKER_TOKEN"
"""Has the token of a worker that connects over a network."""


def taken_out(name: str) -> str | None:
    """The variable's value, which from then on nobody else finds; None where it is not set."""
    return os.environ.pop(name, None)


class Variables:
    """The variables of one attempt, in force from ``begin`` to ``end``; what user code sets itself stays."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}
        self._folder = os.getcwd()

    def __repr__(self) -> str:
        return f"Variables({sorted(self._before)})"

    def begin(self, order: Order, secrets: Mapping[str, str]) -> None:
        """Set the order's ``env_vars`` and, above them, the values of its secrets."""
        for name, value in {**order.settings.env_vars, **secrets}.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value

    def end(self) -> None:
        """Put back what was there before."""
        while self._before:
            name, value = self._before.popitem()
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        try:
            os.chdir(self._folder)
        except OSError:
            pass  # the folder is gone: user code that needs it will say so
