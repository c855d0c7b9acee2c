"""What Flyte 1's programs raise in their tasks.

Ordinary exceptions: every exception is retried here, so these steer nothing. ``flyteish.errors.NonRecoverableError`` is
the one that does.
"""

from __future__ import annotations


class FlyteUserException(Exception):  # noqa: N818 - flytekit's name
    """Base of what a program raises."""


class FlyteRecoverableException(FlyteUserException):
    """The task may succeed if it is tried again. Here that is so for any exception."""
