"""Flyte 1's ``flytekit``: its programs run when they import from here instead. Needs no flytekit.

Names only; modules lie where flytekit has them, as far as programs that need no cluster ask for them. With ``task``
of this module preemptions pay from ``retries``; with that of ``older`` they do not (see ``policies``).
"""

from __future__ import annotations

from flyteish.compat.flytekit import exceptions
from flyteish.compat.flytekit.context import current_context
from flyteish.compat.flytekit.mapping import map_task
from flyteish.compat.flytekit.policies import FIRST_PREEMPTION, SINGLE_BUDGET
from flyteish.compat.flytekit.resources import Resources
from flyteish.compat.flytekit.tasks import task, workflow

__all__ = [
    "FIRST_PREEMPTION",
    "SINGLE_BUDGET",
    "Resources",
    "current_context",
    "exceptions",
    "map_task",
    "task",
    "workflow",
]
