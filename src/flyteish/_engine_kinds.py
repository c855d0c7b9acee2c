"""Which engines a pool may name, what goes for each of them, and which pools share one.

Knows engines by name only, for configuration is read before any of them is made. Must not know how they work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from flyteish._core.model.queues import Pool
from flyteish.errors import ConfigurationError

LOCAL: Final = ("inline", "processes")
"""On this machine, and at an end with this process."""
BUILT_IN: Final = (*LOCAL, "kubernetes")
ANY: Final = "*"
"""Stands for every other name, for those who only read the configuration."""
STARTUPS: Final = {"kubernetes": 180.0}
"""Seconds from an attempt's admission until its code begins, where that is far from the core's assumption."""


def engine_key(pool: Pool) -> tuple[str, str]:
    """Pools with the same kind and cluster are run by the same engine."""
    return pool.engine, "" if pool.engine in LOCAL else pool.cluster or ""


def by_engine(pools: Iterable[Pool]) -> dict[tuple[str, str], dict[str, Pool]]:
    """The pools of each engine, by its key and their names."""
    found: dict[tuple[str, str], dict[str, Pool]] = {}
    for pool in pools:
        found.setdefault(engine_key(pool), {})[pool.name] = pool
    return found


def checked(pool: Pool, others: Collection[str] = ()) -> Pool:
    """The pool, with what its engine says where it says nothing. ``others`` are engines that the program brings.

    Raises:
        ConfigurationError: there is no such engine, or it cannot do what the pool wants of it.
    """
    known = (*BUILT_IN, *others)
    if pool.engine not in known and ANY not in others:
        names = " or ".join(map(repr, known))
        raise ConfigurationError(
            f"Pool({pool.name!r}): engine={pool.engine!r} is not accepted: expected {names} "
            "(others are given to Session(engines=...))"
        )
    if pool.engine in LOCAL and pool.on_close == "detach":
        raise ConfigurationError(
            f"Pool({pool.name!r}): on_close='detach' is not accepted: expected 'stop' for engine={pool.engine!r}, "
            "whose attempts end with this process"
        )
    if pool.startup is None and pool.engine in STARTUPS:
        return msgspec.structs.replace(pool, startup=STARTUPS[pool.engine])
    return pool
