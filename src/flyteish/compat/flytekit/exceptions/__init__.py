"""Flyte 1's exceptions, in the modules where flytekit has them.

Those that programs raise; what flyteish itself raises is in ``flyteish.errors``.
"""

from __future__ import annotations

from flyteish.compat.flytekit.exceptions import user

__all__ = ["user"]
