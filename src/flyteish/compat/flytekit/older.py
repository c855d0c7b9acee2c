"""Flyte 1 as its older pages describe it: a task that is preempted goes on-demand, and that pays from nothing.

The same names as in ``flyteish.compat.flytekit``; only what ``interruptible=True`` means to ``task`` differs. Decides
nothing else.
"""

from __future__ import annotations

from typing import Final

from flyteish.compat.flytekit import exceptions
from flyteish.compat.flytekit.context import current_context
from flyteish.compat.flytekit.mapping import map_task
from flyteish.compat.flytekit.policies import FIRST_PREEMPTION
from flyteish.compat.flytekit.resources import Resources
from flyteish.compat.flytekit.tasks import TaskDecorators, workflow

__all__ = ["Resources", "current_context", "exceptions", "map_task", "task", "workflow"]

task: Final = TaskDecorators(FIRST_PREEMPTION)
