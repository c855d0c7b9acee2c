"""A blob store over an object store, as far objects can be had: to keep the contract honest about what is not files.

``Objects`` knows what S3 knows: whole objects with an ETag and a time, put under a condition, deleted, listed in pages.
There is no rename, no lock, no time that can be touched, and other requests come between any two.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from flyteish.blobs import trees
from flyteish.blobs.addresses import checked_ref, chunks, content_address, split, tree_address, verify
from flyteish.blobs.on_loop import LoopBlobs
from flyteish.errors import BlobMissingError
from flyteish.interfaces import BlockingBlobs, Reference, Stored

T = TypeVar("T")
PAGE = 3


class Object(NamedTuple):
    data: bytes
    etag: str
    modified: float


class Objects:
    """The far end. Each request lets others come first."""

    def __init__(self) -> None:
        self.held: dict[str, Object] = {}

    async def put(self, key: str, data: bytes, if_none: bool = False, if_match: str | None = None) -> bool:
        await asyncio.sleep(0)
        found = self.held.get(key)
        if (if_none and found is not None) or (if_match is not None and (found is None or found.etag != if_match)):
            return False
        self.held[key] = Object(data, sha256(data).hexdigest(), time.time())
        await asyncio.sleep(0)
        return True

    async def get(self, key: str) -> Object | None:
        await asyncio.sleep(0)
        return self.held.get(key)

    async def delete(self, key: str, if_match: str | None = None) -> bool:
        await asyncio.sleep(0)
        found = self.held.get(key)
        if found is None or (if_match is not None and found.etag != if_match):
            return False
        del self.held[key]
        return True

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, Object]]:
        after = ""
        while True:
            await asyncio.sleep(0)
            page = sorted(key for key in self.held if key.startswith(prefix) and key > after)[:PAGE]
            for key in page:
                if key in self.held:
                    yield key, self.held[key]
            if len(page) < PAGE:
                return
            after = page[-1]


class ObjectBlobStore:
    """Asynchronous only; ``blocking`` goes through its loop.

    Renewing is putting again. Deleting can't be made conditional on a time, so a sweeper leaves a mark first, looks
    again, deletes, and takes the mark away; who puts looks for a mark, and then for the content, after it has put: of
    the two, one always sees the other.
    """

    def __init__(self, objects: Objects, loop: asyncio.AbstractEventLoop, prefix: str = "") -> None:
        self._objects = objects
        self._loop = loop
        self._prefix = prefix

    @property
    def url(self) -> str:
        return "object:"

    @property
    def blocking(self) -> BlockingBlobs:
        return LoopBlobs(self, self._loop)

    def space(self, name: str) -> ObjectBlobStore:
        return ObjectBlobStore(self._objects, self._loop, f"spaces/{checked_ref(name)}~/")

    # -- content -----------------------------------------------------------------------------------------------------

    async def put(self, content: Any) -> str:
        data = await asyncio.to_thread(lambda: b"".join(chunks(content)))
        return await self._put(content_address(data), data)

    async def _put(self, address: str, data: bytes) -> str:
        while True:
            await self._objects.put(self._key(address), data)
            if await self._objects.get(self._mark(address)) is None and await self._objects.get(self._key(address)):
                return address

    async def put_path(self, path: Path) -> str:
        def put(file: BinaryIO) -> str:
            return self._from_thread(self.put(file))

        def put_manifest(manifest: bytes) -> str:
            return self._from_thread(self._put(tree_address(manifest), manifest))

        return await asyncio.to_thread(trees.store, Path(path), put, put_manifest)

    async def get(self, address: str) -> memoryview:
        key = self._key(address)
        found = await self._objects.get(key)
        if found is None:
            raise BlobMissingError(f"no content at {address}: {key} does not exist")
        verify(address, sha256(found.data).hexdigest(), len(found.data), key)
        return memoryview(found.data)

    async def fetch(self, address: str, target: Path) -> Path:
        def read(address: str) -> memoryview:
            return self._from_thread(self.get(address))

        def write(address: str, path: Path) -> None:
            data = read(address)
            with trees.naming("write", path):
                path.write_bytes(data)

        return await asyncio.to_thread(trees.deliver, address, Path(target), read, write)

    # -- references --------------------------------------------------------------------------------------------------

    async def get_ref(self, name: str) -> Reference | None:
        found = await self._objects.get(self._ref(name))
        return None if found is None else Reference(found.data, found.etag, found.modified)

    async def set_ref(self, name: str, data: bytes) -> None:
        await self._objects.put(self._ref(name), data)

    async def create_ref(self, name: str, data: bytes) -> bool:
        return await self._objects.put(self._ref(name), data, if_none=True)

    async def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        return await self._objects.put(self._ref(name), data, if_match=version)

    async def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        found = await self._objects.get(self._ref(name))
        if found is None or found.modified >= written_before:
            return False
        return await self._objects.delete(self._ref(name), if_match=found.etag)

    # -- sweeping ----------------------------------------------------------------------------------------------------

    def contents(self) -> AsyncIterator[Stored]:
        return self._listed("blobs/", lambda key: key)

    def references(self) -> AsyncIterator[Stored]:
        return self._listed("refs/", lambda key: key[:-1])

    async def spaces(self) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for key, _ in self._objects.list(self._prefix + "spaces/"):
            name = key.removeprefix(self._prefix + "spaces/").partition("~/")[0]
            if name not in seen:
                seen.add(name)
                yield name

    async def delete(self, addresses: Iterable[str], written_before: float) -> int:
        freed = 0
        for address in addresses:
            key, mark = self._key(address), self._mark(address)
            found = await self._objects.get(key)
            if found is None or found.modified >= written_before:
                continue
            if not await self._objects.put(mark, b"", if_none=True):
                continue  # somebody else is at it
            found = await self._objects.get(key)
            if found is not None and found.modified < written_before and await self._objects.delete(key):
                freed += len(found.data)
            await self._objects.delete(mark)
        return freed

    async def tidy(self, before: float) -> int:
        async for key, found in self._objects.list(self._prefix + "marks/"):  # of sweepers that died
            if found.modified < before:
                await self._objects.delete(key)
        return 0

    # -- inside ------------------------------------------------------------------------------------------------------

    def _key(self, address: str) -> str:
        split(address)
        return f"{self._prefix}blobs/{address}"

    def _mark(self, address: str) -> str:
        return f"{self._prefix}marks/{address}"

    def _ref(self, name: str) -> str:
        return f"{self._prefix}refs/{checked_ref(name)}~"

    async def _listed(self, kind: str, name: Callable[[str], str]) -> AsyncIterator[Stored]:
        async for key, found in self._objects.list(self._prefix + kind):
            yield Stored(name(key.removeprefix(self._prefix + kind)), len(found.data), found.modified)

    def _from_thread(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
