"""Metaflow's habit: poll whether the file ``current.spot_termination_notice`` exists.

The module is what ``from flyteish import current`` gives. It asks the running attempt each time it is read and holds
nothing. Everything else is on ``flyteish.ctx()``.
"""

from __future__ import annotations

from typing import Any

from flyteish._authoring.attempt.context import current_attempt
from flyteish._authoring.attempt.signals import OutsideTaskError

spot_termination_notice: str
"""Path of a file that exists once this attempt's machine is known to go away (see ``ctx().interruption``)."""


class _Current:
    """What functions that were pickled by the first version hold in place of this module."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return __getattr__(name)


def __getattr__(name: str) -> Any:
    if name != "spot_termination_notice":
        raise AttributeError(f"flyteish.current has no {name!r}, only 'spot_termination_notice'; the rest is on ctx()")
    attempt = current_attempt()
    if attempt is None:
        raise OutsideTaskError(f"current.{name} is only available inside a running task", name=name)
    return str(attempt.interruption.file)
