"""Puts a session's machinery together from its configuration: store, blobs, engines, controller and their thread.

The only place that knows every implementation. Must not know runs, nor who uses the machinery.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import msgspec

from flyteish._async.feeds import Feeds
from flyteish._controller.commands import Commands
from flyteish._controller.engines import Engines
from flyteish._controller.loop import Controller
from flyteish._controller.order_factory import OrderFactory, SecretLookup
from flyteish._controller.result_cache import ResultCache
from flyteish._core.model.events import Configured
from flyteish._core.model.queues import Pool
from flyteish._core.model.settings import Scope
from flyteish._engine_kinds import by_engine
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish._learning.recorder import Keeper
from flyteish.config import Config
from flyteish.engines.inline.engine import InlineEngine
from flyteish.errors import ConfigurationError
from flyteish.interfaces import BlobStore, Clock, Engine, EngineFactory, Limits, LogStore, Mailbox, RunStore
from flyteish.logs.files import FileLogs
from flyteish.logs.nowhere import NoLogs
from flyteish.markets.followed import Markets

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anyio.from_thread import BlockingPortal

#: Attempts of a pool that its engine has for each worker, most of them ahead of time.
_SENT: Final = 64


class Machinery:
    """What an open session runs on; everything is started when this returns, and ended by ``close``.

    Args:
        config: what to build.
        clock: time and chance.
        secrets: looks up a secret's value.
        scopes: the settings that the tasks of a run inherit.
        on_change: told which runs' journals have grown; on the controller's thread.
        loop_ends: whether the event loop that a run was started on is being shut down; any thread.
        print_to_log: keep what inline tasks print.
        engines: those that the program brings: each is made anew for every cluster that its pools name.

    Raises:
        ConfigurationError, StoreLockedError, StoreVersionError, StoreCorruptError, StoreError.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        secrets: SecretLookup,
        scopes: Callable[[str], Scope],
        on_change: Callable[[str], None],
        loop_ends: Callable[[str], bool],
        print_to_log: bool,
        engines: Mapping[str, EngineFactory],
    ) -> None:
        self._config = config
        self._scratch = _scratch(config)
        self.store, self._mailbox = _stores(config)
        self._portal: BlockingPortal | None = None
        self._exit_portal: AbstractContextManager[BlockingPortal] | None = None
        self.store.open()
        try:
            self._clear_scratch()  # of a session that was killed
            self.blobs = _blobs(config)
            self.feeds = Feeds(lambda callback, arguments: self._inline.dropped(callback, arguments))
            self._inline = InlineEngine(
                feeds=self.feeds, clock=clock, inline=lambda: self.controller, max_threads=config.max_threads,
                print_to_log=print_to_log,
            )  # fmt: skip
            lifetimes = Lifetimes(config.pools)
            self.keeper = Keeper(self._mailbox, lifetimes, clock)
            orders = OrderFactory(blobs=self.blobs, clock=clock, scopes=scopes, lifetimes=lifetimes, lookup=secrets)
            pools = sized(config)
            made = _made(config, pools, {**engines, "inline": lambda: self._inline})
            self.limits = Limits(min(config.inline_limit, config.max_value_size), config.max_value_size)
            self.controller = Controller(
                configured=Configured(config.queues, pools),
                engines=Engines(made, self.blobs, self.limits, _logs(config), self._scratch),
                markets=Markets(config.pools, {pool.name: pool.market for pool in config.pools if pool.market}),
                store=self.store,
                clock=clock,
                orders=orders,
                cache=ResultCache(self.blobs, clock),
                keeper=self.keeper,
                lifetimes=lifetimes,
                stop_grace=config.stop_grace,
                loop_ends=loop_ends,
                on_change=on_change,
                on_drained=lambda queue: self.commands.keep(queue, "drained"),
            )
            self.commands = Commands(self.controller, self._mailbox, [queue.name for queue in config.queues])
            self._begin()
        except BaseException:
            self.store.close()
            raise

    def _begin(self) -> None:
        from anyio.from_thread import start_blocking_portal

        self._exit_portal = start_blocking_portal("asyncio", name="flyteish-controller")
        self._portal = self._exit_portal.__enter__()
        try:
            self._portal.call(self._open)
        except BaseException:
            self._exit_portal.__exit__(None, None, None)
            raise

    async def _open(self) -> None:
        try:
            self.keeper.open(self.controller)
            await self.controller.open()
            self.commands.open()
        except BaseException:
            await self._shut()
            raise

    async def _shut(self) -> None:
        self.commands.close()
        try:
            await self.controller.close()
        finally:
            self.keeper.close()

    def close(self) -> None:
        """Stop what runs, answer who waits, let go of the store. Bounded in time."""
        assert self._portal is not None
        assert self._exit_portal is not None
        loop = asyncio._get_running_loop()
        if loop is not None:
            self._inline.blocked_by_close(loop)
        try:
            self._portal.call(self._shut)
        finally:
            self._exit_portal.__exit__(None, None, None)
            self.controller.reject_rest()
            self._clear_scratch()  # while the store is claimed: the next session may be waiting to open
            self.store.close()

    def _clear_scratch(self) -> None:
        if self._scratch is not None and self._scratch.is_dir():
            shutil.rmtree(self._scratch, ignore_errors=True)


def _stores(config: Config) -> tuple[RunStore, Mailbox]:
    if config.durability == "memory":
        from flyteish.stores.memory import MemoryStore

        memory = MemoryStore()
        return memory, memory
    from flyteish.stores.sqlite import SqliteStore

    config.paths.make()
    store = SqliteStore(config.paths.store, durability="power" if config.durability == "full" else "process")
    return store, store


def _blobs(config: Config) -> BlobStore:
    if config.durability == "memory" and not any(pool.engine != "inline" for pool in config.pools):
        from flyteish.blobs.memory import MemoryBlobStore

        return MemoryBlobStore()
    from flyteish.blobs.files import FileBlobStore

    return FileBlobStore(config.paths.make(config.paths.blobs))


def _logs(config: Config) -> LogStore:
    if not config.keep_logs or config.durability == "memory":
        return NoLogs()
    return FileLogs(config.paths.logs)


def _scratch(config: Config) -> Path | None:
    """Where attempts have their private files; None: this session does not touch its home."""
    if config.durability != "memory":
        return config.paths.scratch / "claimed"  # nobody else has it while the store is claimed
    if any(pool.engine != "inline" for pool in config.pools):
        return config.paths.scratch / f"memory-{os.getpid()}-{token_hex(4)}"
    return None


def _made(
    config: Config, pools: tuple[Pool, ...], factories: Mapping[str, EngineFactory]
) -> Iterator[tuple[Engine, dict[str, Pool]]]:
    """An engine for each kind and cluster, with its pools."""

    def processes() -> Engine:
        from flyteish.engines.processes.engine import ProcessesEngine

        return ProcessesEngine(max_workers=config.max_workers)

    known = {**factories, "processes": processes}
    for (kind, _), those in by_engine(pools).items():
        if kind not in known:
            raise ConfigurationError(
                f"engine={kind!r} of a Pool needs the Kubernetes engine, which is not installed"
                if kind == "kubernetes"
                else f"engine={kind!r} of a Pool is not among Session(engines=...)"
            )
        yield known[kind](), those


def sized(config: Config) -> tuple[Pool, ...]:
    """Pools of worker processes run as many attempts as there are workers; some more are sent ahead of time.

    So the workers stay busy, and the order is kept. A pool that holds no more than there are workers sends none ahead.
    """
    workers = config.max_workers
    return tuple(
        msgspec.structs.replace(pool, capacity=workers, ahead=(pool.capacity or workers * _SENT) - workers)
        if pool.engine == "processes" and (not pool.capacity or pool.capacity > workers)
        else pool
        for pool in config.pools
    )
