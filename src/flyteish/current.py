"""Metaflow's habit: poll whether the file ``current.spot_termination_notice`` exists.

Asks the running attempt each time it is read and holds nothing. Everything else is on ``flyteish.ctx()``.
"""

from __future__ import annotations

from typing import Any

from flyteish._authoring.attempt import context

spot_termination_notice: str
"""Path of a file that exists once this attempt's machine is known to go away (see ``ctx().interruption``)."""


def __getattr__(name: str) -> Any:
    if name != "spot_termination_notice":
        raise AttributeError(f"flyteish.current has no {name!r}, only 'spot_termination_notice'; the rest is on ctx()")
    return context.current.spot_termination_notice
