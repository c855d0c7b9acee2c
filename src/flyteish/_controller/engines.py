"""The engines of a session by the pools that they run: opened, found, and closed together.

There is one for each kind and cluster, which the assembly has made. Must not know any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from flyteish._core.model.queues import Pool
from flyteish.interfaces import BlobStore, Engine, Limits, LogStore, Opening, Reports


class Engines:
    """All of them. Lives on the controller's loop.

    Args:
        engines: each with the pools that it runs; every pool is run by exactly one.
        blobs: where values are.
        limits: how large values may be.
        logs: where the output of attempts goes.
        scratch: for the attempts' private files.
    """

    def __init__(
        self,
        engines: Iterable[tuple[Engine, Mapping[str, Pool]]],
        blobs: BlobStore,
        limits: Limits,
        logs: LogStore,
        scratch: Path | None,
    ) -> None:
        self._all = tuple(engines)
        self._of = {pool: engine for engine, pools in self._all for pool in pools}
        self._blobs = blobs
        self._limits = limits
        self._logs = logs
        self._scratch = scratch

    def of(self, pool: str) -> Engine:
        """The one that runs a pool."""
        return self._of[pool]

    def find(self, pool: str) -> Engine | None:
        """The same, or None where the pool was configured away."""
        return self._of.get(pool)

    @property
    def any_outlives(self) -> bool:
        """Whether attempts of an earlier controller may live."""
        return any(engine.outlives for engine, _ in self._all)

    @property
    def outliving(self) -> frozenset[str]:
        """The pools whose attempts may live."""
        return frozenset(pool for engine, pools in self._all if engine.outlives for pool in pools)

    async def open(self, reports: Reports) -> None:
        """Open them all; where one refuses, those that are open are closed by ``close``."""
        for engine, pools in self._all:
            # It is cleared when a session opens or closes: not from under attempts that go on.
            scratch = None if engine.outlives else self._scratch
            await engine.open(Opening(pools, reports, self._blobs, self._limits, self._logs, scratch))

    def close(self) -> list[asyncio.Future[None]]:
        """Begin to close them all at once."""
        return [asyncio.ensure_future(engine.close()) for engine, _ in self._all]

    def __repr__(self) -> str:
        return f"<Engines {', '.join(f'{engine!r}: {list(pools)}' for engine, pools in self._all)}>"
