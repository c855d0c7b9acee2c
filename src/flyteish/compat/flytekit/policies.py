"""Flyte 1's two rules for tasks that are preempted, as values for ``interruptible=``.

Its older and its newer pages say different things, so both are here and a program picks one. How a rule is applied is
decided by placement and retries, as for any other policy.
"""

from __future__ import annotations

from typing import Final

from flyteish._core.model.policies import SpotPolicy

FIRST_PREEMPTION: Final = SpotPolicy(fallback="first-preemption")
"""The older pages: on spot until it is preempted, then on-demand. The preemption does not count as a retry."""

SINGLE_BUDGET: Final = SpotPolicy(budget="single")
"""The newer pages: the first ``retries`` attempts on spot, the final one on-demand. A preemption counts as a retry."""
