"""A store that is only to be awaited, for code that blocks: each call runs on an event loop of the store's own.

For stores whose client lives on one loop. Must not be called on that loop's thread, nor know what kind of store it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from flyteish.interfaces import BlobStore, Reference, Stored

T = TypeVar("T")

PAGE: Final = 1000
"""Entries of a listing that are brought over in one go."""


class LoopBlobs:
    """``interfaces.BlockingBlobs`` over ``interfaces.BlobStore``.

    Args:
        store: whose methods are awaited.
        loop: where; it runs on a thread of its own for as long as this is used.
    """

    def __init__(self, store: BlobStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __repr__(self) -> str:
        return f"LoopBlobs({self._store!r})"

    @property
    def url(self) -> str:
        return self._store.url

    def space(self, name: str) -> LoopBlobs:
        return LoopBlobs(self._store.space(name), self._loop)

    def put(self, content: Buffer | BinaryIO) -> str:
        return self._run(self._store.put(content))

    def put_path(self, path: Path) -> str:
        return self._run(self._store.put_path(path))

    def get(self, address: str) -> memoryview:
        return self._run(self._store.get(address))

    def fetch(self, address: str, target: Path) -> Path:
        return self._run(self._store.fetch(address, target))

    def get_ref(self, name: str) -> Reference | None:
        return self._run(self._store.get_ref(name))

    def set_ref(self, name: str, data: bytes) -> None:
        self._run(self._store.set_ref(name, data))

    def create_ref(self, name: str, data: bytes) -> bool:
        return self._run(self._store.create_ref(name, data))

    def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        return self._run(self._store.replace_ref(name, data, version))

    def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        return self._run(self._store.delete_ref(name, written_before))

    def contents(self) -> Iterator[Stored]:
        return self._pages(self._store.contents())

    def references(self) -> Iterator[Stored]:
        return self._pages(self._store.references())

    def spaces(self) -> Iterator[str]:
        return self._pages(self._store.spaces())

    def delete(self, addresses: Iterable[str], written_before: float) -> int:
        return self._run(self._store.delete(addresses, written_before))

    def tidy(self, before: float) -> int:
        return self._run(self._store.tidy(before))

    def _pages(self, entries: AsyncIterator[T]) -> Iterator[T]:
        async def page() -> list[T]:
            found: list[T] = []
            async for entry in entries:
                found.append(entry)
                if len(found) == PAGE:
                    break
            return found

        while found := self._run(page()):
            yield from found

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if asyncio._get_running_loop() is self._loop:
            work.close()
            raise RuntimeError(
                f"{self!r} was used on its own loop, which it would block for ever: await the store there"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
