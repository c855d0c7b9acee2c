"""What is raised by and for a running attempt: that none runs here, and that it leaves before its end.

Must not know what an attempt is, nor who catches them.
"""

from __future__ import annotations

from flyteish.errors import FlyteishError


class OutsideTaskError(FlyteishError, RuntimeError, AttributeError):
    """Something of the running attempt was asked for where none runs; ``name`` says what."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class AttemptLeft(BaseException):
    """Raised by ``ctx().interruption.leave()``: the attempt ends as preempted. No ``Exception``: handlers let it be."""
