"""A blob store in this process's memory: the twin of ``files``, for tests and sessions without a home.

Passes the same contract suite. Must not outlive its process, and no other process can open it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from flyteish.blobs import trees
from flyteish.blobs.addresses import (
    checked_ref,
    content_address,
    is_tree,
    mentioned,
    split,
    tree_address,
    verify,
)
from flyteish.errors import BlobMissingError


class MemoryBlobStore:
    """Content in a dict.

    Args:
        wall: seconds since the epoch, for ``sweep``. Default: ``time.time``.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._content: dict[str, tuple[bytes, float]] = {}
        self._refs: dict[str, bytes] = {}
        self._used: dict[str, float] = {}
        self._spaces: dict[str, MemoryBlobStore] = {}

    def __repr__(self) -> str:
        return f"MemoryBlobStore({len(self._content)} contents, {len(self._refs)} references)"

    @property
    def url(self) -> str:
        return "memory:"

    def put(self, data: bytes) -> str:
        return self._put(content_address(data), data)

    def put_path(self, path: Path) -> str:
        return trees.store(
            Path(path),
            lambda file: self.put(file.read()),
            lambda manifest: self._put(tree_address(manifest), manifest),
        )

    def get(self, address: str) -> bytes:
        split(address)
        held = self._content.get(address)
        if held is None:
            raise BlobMissingError(f"no content at {address} in memory")
        verify(address, sha256(held[0]).hexdigest(), len(held[0]), "memory")
        return held[0]

    def fetch(self, address: str, target: Path) -> Path:
        return trees.deliver(address, Path(target), self.get, self._write)

    def set_ref(self, name: str, data: bytes) -> None:
        with self._lock:
            self._refs[checked_ref(name)] = bytes(data)
            self._used[name] = self._wall()

    def get_ref(self, name: str) -> bytes | None:
        with self._lock:
            data = self._refs.get(checked_ref(name))
            if data is not None:
                self._used[name] = self._wall()
        return data

    def space(self, name: str) -> MemoryBlobStore:
        with self._lock:
            return self._spaces.setdefault(checked_ref(name), MemoryBlobStore(self._wall))

    def sweep(self, keep: Callable[[str], bool], older_than: float, unused_since: float = 0.0) -> int:
        with self._lock:
            for name in [name for name, used in self._used.items() if used < unused_since]:
                del self._refs[name], self._used[name]
            referenced = {address for data in self._refs.values() for address in mentioned(data)}
            spaces = dict(self._spaces)
        freed = self._sweep(keep, older_than, set(referenced))
        for name, space in spaces.items():
            freed += space._sweep(lambda address, name=name: keep(f"{name}/{address}"), older_than, set(referenced))  # type: ignore[misc]
        return freed

    def _sweep(self, keep: Callable[[str], bool], older_than: float, wanted: set[str]) -> int:
        content = dict(self._content)
        wanted |= {a for a, (_, written) in content.items() if a not in wanted and (written >= older_than or keep(a))}
        for address in [address for address in wanted if address in content and is_tree(address)]:
            wanted.update(entry.address for entry in trees.members(address, content[address][0]))
        freed = 0
        with self._lock:
            for address in content.keys() - wanted:
                if self._content[address][1] < older_than:  # not put again meanwhile
                    freed += len(self._content.pop(address)[0])
        return freed

    def _put(self, address: str, data: bytes) -> str:
        with self._lock:
            self._content[address] = (bytes(data), self._wall())
        return address

    def _write(self, address: str, target: Path) -> None:
        data = self.get(address)
        with trees.naming("write", target):
            target.write_bytes(data)
            target.chmod(0o600)
