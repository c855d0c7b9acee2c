"""A store that blocks, made one to await: each call on a thread, so that no loop waits for a disk.

Must not know what kind of store it is. The threads are the store's own: a program that keeps its loop's executor busy
must not delay reading a value.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from typing_extensions import Buffer

    from flyteish.interfaces import BlockingBlobs, Reference, Stored

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS: Final = 16
"""More would not write faster to a disk; fewer would leave a far store idle."""
PAGE: Final = 1000
"""Entries of a listing that are read in one go."""


class ThreadedBlobs:
    """``interfaces.BlobStore`` over ``interfaces.BlockingBlobs``.

    Args:
        blocking: the store, which keeps its own locks.
        threads: those of the store that this is a space of. Default: its own.
    """

    def __init__(self, blocking: BlockingBlobs, threads: _Threads | None = None) -> None:
        self.blocking = blocking
        self._threads = _Threads() if threads is None else threads

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.blocking!r})"

    @property
    def url(self) -> str:
        return self.blocking.url

    def space(self, name: str) -> ThreadedBlobs:
        return ThreadedBlobs(self.blocking.space(name), self._threads)

    async def put(self, content: Buffer | BinaryIO) -> str:
        return await self._beside(self.blocking.put, content)

    async def put_path(self, path: Path) -> str:
        return await self._beside(self.blocking.put_path, path)

    async def get(self, address: str) -> memoryview:
        return await self._beside(self.blocking.get, address)

    async def fetch(self, address: str, target: Path) -> Path:
        return await self._beside(self.blocking.fetch, address, target)

    async def get_ref(self, name: str) -> Reference | None:
        return await self._beside(self.blocking.get_ref, name)

    async def set_ref(self, name: str, data: bytes) -> None:
        await self._beside(self.blocking.set_ref, name, data)

    async def create_ref(self, name: str, data: bytes) -> bool:
        return await self._beside(self.blocking.create_ref, name, data)

    async def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        return await self._beside(self.blocking.replace_ref, name, data, version)

    async def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        return await self._beside(self.blocking.delete_ref, name, written_before)

    def contents(self) -> AsyncIterator[Stored]:
        return self._pages(self.blocking.contents())

    def references(self) -> AsyncIterator[Stored]:
        return self._pages(self.blocking.references())

    def spaces(self) -> AsyncIterator[str]:
        return self._pages(self.blocking.spaces())

    async def delete(self, addresses: Iterable[str], written_before: float) -> int:
        return await self._beside(self.blocking.delete, addresses, written_before)

    async def tidy(self, before: float) -> int:
        return await self._beside(self.blocking.tidy, before)

    async def _pages(self, entries: Iterator[T]) -> AsyncIterator[T]:
        while page := await self._beside(lambda: list(islice(entries, PAGE))):
            for entry in page:
                yield entry

    async def _beside(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        from asyncio import get_running_loop  # here, since a worker that runs `def` tasks only awaits nothing

        return await get_running_loop().run_in_executor(self._threads.executor(), work, *args)


class _Threads:
    """Begin with the first call, and end when nobody has the store any more."""

    __slots__ = ("_executor", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None

    def executor(self) -> ThreadPoolExecutor:
        """Any thread."""
        with self._lock:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor

                self._executor = ThreadPoolExecutor(THREADS, "flyteish blobs")
            return self._executor
