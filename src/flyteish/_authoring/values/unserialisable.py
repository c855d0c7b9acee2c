"""What cannot travel, and how people are told: which type, where in the value, why, and what to do.

Must not know how values are encoded.
"""

from __future__ import annotations

from typing import Any

from flyteish.errors import SerializationError

_CURES = {
    "coroutine": "await it before passing it on",
    "generator": "make a list of it",
    "async_generator": "make a list of it",
    "lock": "create it inside the task",
    "RLock": "create it inside the task",
    "TextIOWrapper": "pass a flyteish.io.File, or the path",
    "BufferedReader": "pass a flyteish.io.File, or the path",
    "BufferedWriter": "pass a flyteish.io.File, or the path",
}


class Unserialisable(Exception):  # noqa: N818 - travels inside this package, and becomes a SerializationError
    """Some part of a value cannot be encoded: what it is, why, and the way to it, innermost step first."""

    def __init__(self, culprit: type, why: str) -> None:
        super().__init__(why)
        self.culprit = culprit
        self.why = why
        self.steps: list[str] = []

    def as_error(self, where: str, root: str) -> SerializationError:
        """The error for people; ``root`` is what the path starts with."""
        place = f" at {root}{''.join(reversed(self.steps))}" if self.steps else ""
        cure = _CURES.get(self.culprit.__name__)
        advice = f"; {cure}" if cure else ""
        return SerializationError(f"{where} cannot be serialised: {full_name(self.culprit)}{place}: {self.why}{advice}")


def full_name(cls: type) -> str:
    """A type's name for messages: ``str``, ``numpy.float32``."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def full_name_of(value: Any) -> str:
    """What a class or function calls itself, for messages."""
    return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def serialization_error(trouble: Unserialisable | RecursionError, where: str, root: str) -> SerializationError:
    """The error for people, naming the place that was being encoded."""
    if isinstance(trouble, Unserialisable):
        return trouble.as_error(where, root)
    return SerializationError(f"{where} cannot be serialised: it contains itself, or is nested too deeply")
