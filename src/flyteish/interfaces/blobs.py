"""Where content is kept: values, checkpoints, files, by address or under a name.

Contracts only; tests/contracts runs over every implementation. Must not know what the content means.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class BlobStore(Protocol):
    """Content by address (``sha256:<hex>``; ``tree:<hex>`` for directories), and small named references.

    Synchronous and thread-safe: callers on a loop use a thread. Reads verify the checksum.
    Raises BlobMissingError, BlobCorruptError, BlobError.
    """

    def put(self, data: bytes) -> str:
        """Store bytes, atomically and durably; returns their address."""

    def put_path(self, path: Path) -> str:
        """Store a file or a directory tree."""

    def get(self, address: str) -> bytes:
        """The bytes at an address."""

    def fetch(self, address: str, target: Path) -> Path:
        """Write the file or directory tree to ``target`` (which must not exist), whole or not at all."""

    def set_ref(self, name: str, data: bytes) -> None:
        """Keep a small value under a name, atomically replacing the one before."""

    def get_ref(self, name: str) -> bytes | None:
        """The value, or None where there is none. An unreadable one is an error, never None."""

    def space(self, name: str) -> BlobStore:
        """A store within this one that shares no content with the rest, so that its owner may sweep it alone.

        ``name`` is one for a reference; nothing is made before something is put there. Not nested.
        """

    def sweep(self, keep: Callable[[str], bool], older_than: float, unused_since: float = 0.0) -> int:
        """Remove content last written before ``older_than`` (epoch) that ``keep`` does not want; bytes freed.

        Spaces are swept along: for their content ``keep`` is asked by the space's name, ``/`` and the address.
        What a reference of the swept store mentions is kept; references that were neither read nor written since
        ``unused_since`` (epoch; an hour more or less) go first.
        """

    @property
    def url(self) -> str:
        """From which another process can open the same store."""
