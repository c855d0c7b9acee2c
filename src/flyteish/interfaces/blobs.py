"""Where content is kept: values, checkpoints, files, by address or under a name.

Three small contracts, content, references and sweeping, and a store that keeps all of them. They are asynchronous, for
a store may be far away; ``BlobStore.blocking`` is the same store for threads and ``def`` tasks. Nothing here wants
a file system: content is put whole or not at all, whatever that takes; what is put again counts as written anew; times
are the store's own. Contracts only; tests/contracts runs over every implementation. Must not know what the content
means.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


USED_EVERY: Final = 3600.0
"""Seconds within which using a reference again needs no note."""


class Reference(NamedTuple):
    """What is kept under a name."""

    data: bytes
    version: str
    """For ``replace_ref``. Equal data may have equal versions."""
    written_at: float
    """Epoch."""

    def is_stale(self, now: float) -> bool:
        """Whether who uses it now should write it again: references that nobody uses may be removed by their age."""
        return now - self.written_at > USED_EVERY


class Stored(NamedTuple):
    """Content, or a reference, as a listing has it."""

    name: str
    """Address or name."""
    size: int
    """In bytes."""
    written_at: float
    """Epoch; content that was put again while it was there counts as written then."""


class ContentStore(Protocol):
    """Content by address: ``sha256:<hex>``, or ``tree:<hex>`` for directories.

    Reads verify the checksum. Raises BlobMissingError, BlobCorruptError, BlobError.
    """

    async def put(self, content: Buffer | BinaryIO) -> str:
        """Store the bytes of a buffer or of a file that is open for reading, durably; returns their address.

        Neither may change before this returns; if it does, what was stored is still what the address says.
        """

    async def put_path(self, path: Path) -> str:
        """Store a file or a directory tree, in bounded memory."""

    async def get(self, address: str) -> memoryview:
        """The bytes at an address, read-only: mapped into memory rather than read, where they are large."""

    async def fetch(self, address: str, target: Path) -> Path:
        """Write the file or directory tree to ``target`` (which must not exist), whole or not at all."""


class ReferenceStore(Protocol):
    """Small values under names; each change is atomic and durable, between processes too."""

    async def get_ref(self, name: str) -> Reference | None:
        """The value, or None where there is none. An unreadable one is an error, never None."""

    async def set_ref(self, name: str, data: bytes) -> None:
        """Keep a value, whatever was there before."""

    async def create_ref(self, name: str, data: bytes) -> bool:
        """Keep a value where there is none; False: there is one. Of several that try, one gets True."""

    async def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        """Keep a value in place of the one with this version; False: that is no longer there."""

    async def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        """Remove it, unless it was written since; whether it was removed."""


class SweepableStore(Protocol):
    """Lists and deletes, for whoever knows what is wanted (``flyteish.blobs.sweeping``)."""

    def contents(self) -> AsyncIterator[Stored]:
        """All content, but for that of its spaces."""

    def references(self) -> AsyncIterator[Stored]:
        """All references, but for those of its spaces."""

    def spaces(self) -> AsyncIterator[str]:
        """The names of its spaces in which there is anything."""

    async def delete(self, addresses: Iterable[str], written_before: float) -> int:
        """Remove content, except what was written since; returns the bytes freed.

        What somebody puts again meanwhile is there once his ``put`` returns, and from then on.
        """

    async def tidy(self, before: float) -> int:
        """Remove what writers that died before then (epoch) left half written, and empty spaces; bytes freed."""


class BlobStore(ContentStore, ReferenceStore, SweepableStore, Protocol):
    """A store that keeps everything."""

    def space(self, name: str) -> BlobStore:
        """A store within this one that shares nothing with the rest, so that its owner may sweep it alone.

        ``name`` is one for a reference; nothing is made before something is put there. Not nested.
        """

    @property
    def url(self) -> str:
        """From which another process can open the same store."""

    @property
    def blocking(self) -> BlockingBlobs:
        """The same store for code that may block: threads, ``def`` tasks, commands."""


class BlockingContent(Protocol):
    """``ContentStore`` for code that may block. Thread-safe."""

    def put(self, content: Buffer | BinaryIO) -> str: ...
    def put_path(self, path: Path) -> str: ...
    def get(self, address: str) -> memoryview: ...
    def fetch(self, address: str, target: Path) -> Path: ...


class BlockingReferences(Protocol):
    """``ReferenceStore`` for code that may block. Thread-safe."""

    def get_ref(self, name: str) -> Reference | None: ...
    def set_ref(self, name: str, data: bytes) -> None: ...
    def create_ref(self, name: str, data: bytes) -> bool: ...
    def replace_ref(self, name: str, data: bytes, version: str) -> bool: ...
    def delete_ref(self, name: str, written_before: float = math.inf) -> bool: ...


class BlockingSweepable(Protocol):
    """``SweepableStore`` for code that may block. Thread-safe."""

    def contents(self) -> Iterator[Stored]: ...
    def references(self) -> Iterator[Stored]: ...
    def spaces(self) -> Iterator[str]: ...
    def delete(self, addresses: Iterable[str], written_before: float) -> int: ...
    def tidy(self, before: float) -> int: ...


class BlockingBlobs(BlockingContent, BlockingReferences, BlockingSweepable, Protocol):
    """``BlobStore`` for code that may block. Thread-safe."""

    def space(self, name: str) -> BlockingBlobs: ...
    @property
    def url(self) -> str: ...
