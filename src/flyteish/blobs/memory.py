"""A blob store in this process's memory: the twin of ``files``, for tests and sessions without a home.

Passes the same contract suite. Must not outlive its process, and no other process can open it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from flyteish.blobs import trees
from flyteish.blobs.addresses import checked_ref, chunks, content_address, split, tree_address, unchanging, verify
from flyteish.blobs.threaded import ThreadedBlobs
from flyteish.errors import BlobMissingError
from flyteish.interfaces import Reference, Stored

if TYPE_CHECKING:
    from typing_extensions import Buffer


class MemoryBlobStore(ThreadedBlobs):
    """Content in a dict.

    Args:
        wall: seconds since the epoch, for when things were written. Default: ``time.time``.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        super().__init__(BlockingMemoryBlobs(wall))


class BlockingMemoryBlobs:
    """``MemoryBlobStore`` for code that may block."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._content: dict[str, tuple[bytes, float]] = {}
        self._refs: dict[str, Reference] = {}
        self._spaces: dict[str, BlockingMemoryBlobs] = {}

    def __repr__(self) -> str:
        return f"BlockingMemoryBlobs({len(self._content)} contents, {len(self._refs)} references)"

    @property
    def url(self) -> str:
        return "memory:"

    def space(self, name: str) -> BlockingMemoryBlobs:
        with self._lock:
            return self._spaces.setdefault(checked_ref(name), BlockingMemoryBlobs(self._wall))

    # -- content ---------------------------------------------------------------------------------------------

    def put(self, content: Buffer | BinaryIO) -> str:
        if isinstance(content, bytes):
            held = content
        else:
            data = unchanging(content)
            held = b"".join(chunks(content)) if data is None else bytes(data)
        return self._put(content_address(held), held)

    def put_path(self, path: Path) -> str:
        return trees.store(Path(path), self.put, lambda manifest: self._put(tree_address(manifest), manifest))

    def get(self, address: str) -> memoryview:
        split(address)
        held = self._content.get(address)
        if held is None:
            raise BlobMissingError(f"no content at {address} in memory")
        verify(address, sha256(held[0]).hexdigest(), len(held[0]), "memory")
        return memoryview(held[0])

    def fetch(self, address: str, target: Path) -> Path:
        return trees.deliver(address, Path(target), self.get, self._write)

    # -- references ------------------------------------------------------------------------------------------

    def get_ref(self, name: str) -> Reference | None:
        return self._refs.get(checked_ref(name))

    def set_ref(self, name: str, data: bytes) -> None:
        self._keep(name, data, lambda found: True)

    def create_ref(self, name: str, data: bytes) -> bool:
        return self._keep(name, data, lambda found: found is None)

    def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        return self._keep(name, data, lambda found: found is not None and found.version == version)

    def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        with self._lock:
            found = self._refs.get(checked_ref(name))
            if found is None or found.written_at >= written_before:
                return False
            del self._refs[name]
        return True

    def _keep(self, name: str, data: bytes, may: Callable[[Reference | None], bool]) -> bool:
        reference = Reference(bytes(data), sha256(data).hexdigest(), self._wall())
        with self._lock:
            kept = may(self._refs.get(checked_ref(name)))
            if kept:
                self._refs[name] = reference
        return kept

    # -- sweeping --------------------------------------------------------------------------------------------

    def contents(self) -> Iterator[Stored]:
        with self._lock:
            found = [Stored(address, len(data), at) for address, (data, at) in self._content.items()]
        yield from found

    def references(self) -> Iterator[Stored]:
        with self._lock:
            found = [Stored(name, len(ref.data), ref.written_at) for name, ref in self._refs.items()]
        yield from found

    def spaces(self) -> Iterator[str]:
        with self._lock:
            found = [name for name, space in self._spaces.items() if space._content or space._refs]
        yield from found

    def delete(self, addresses: Iterable[str], written_before: float) -> int:
        freed = 0
        for address in addresses:
            split(address)
            with self._lock:
                held = self._content.get(address)
                if held is not None and held[1] < written_before:
                    freed += len(self._content.pop(address)[0])
        return freed

    def tidy(self, before: float) -> int:
        return 0  # a writer that dies takes the store along

    # -- inside ----------------------------------------------------------------------------------------------

    def _put(self, address: str, data: bytes) -> str:
        with self._lock:
            self._content[address] = (data, self._wall())
        return address

    def _write(self, address: str, target: Path) -> None:
        data = self.get(address)
        with trees.naming("write", target):
            target.write_bytes(data)
            target.chmod(0o600)
