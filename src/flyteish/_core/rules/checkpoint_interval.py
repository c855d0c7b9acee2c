"""How much work to do between two checkpoints, so that the least time is lost to saving and to redoing.

Plain arithmetic on two figures: what a save costs, and how long machines last. Must not know who saves what, nor
where the figures come from.
"""

from __future__ import annotations

import math
from typing import Final

FIRST_SAVE_SECONDS: Final = 30.0
"""A first save is due at the latest after this, so that the cost of a save gets known."""
FIRST_SAVE_SHARE: Final = 0.01
"""The same as a share of the machine's lifetime, for pools that live minutes."""


def interval(cost: float | None, lifetime: float) -> float:
    """Seconds of work between two saves, where a save costs ``cost`` seconds and machines last ``lifetime``.

    Young's first-order optimum is ``sqrt(2 * cost * lifetime)`` ("A first order approximation to the optimum
    checkpoint interval", CACM 17(9), 1974). This is Daly's refinement of it, which stays good where a save costs a
    sizeable share of the lifetime ("A higher order estimate of the optimum checkpoint interval for restart dumps",
    FGCS 22(3), 2006, equation 37)::

        sqrt(2 C L) * (1 + sqrt(C / 2L) / 3 + (C / 2L) / 9) - C      if C < 2 L, else L

    Never longer than the lifetime. A cost of None is not known yet: then soon, so that it gets known.
    """
    if cost is None:
        return min(FIRST_SAVE_SECONDS, lifetime * FIRST_SAVE_SHARE)
    if cost >= 2 * lifetime or math.isinf(cost):
        return lifetime
    if math.isinf(lifetime):
        return math.inf
    share = cost / (2 * lifetime)
    return min(lifetime, math.sqrt(2 * cost * lifetime) * (1 + math.sqrt(share) / 3 + share / 9) - cost)
