"""Where values, checkpoints and files are kept, by content. Which kind of store it is, its address tells.

Loads a store's module only when one is opened. Must not know what is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyteish.errors import ConfigurationError

if TYPE_CHECKING:
    from flyteish.interfaces import BlobStore

__all__ = ["open_blobs"]


def open_blobs(url: str) -> BlobStore:
    """Open the store at ``file:///absolute/path``, or a new, private one in ``memory:``.

    Raises:
        ConfigurationError: the URL is of no known kind.
        BlobError: the folder can't be made.
    """
    if url == "memory:":
        from flyteish.blobs.memory import MemoryBlobStore

        return MemoryBlobStore()
    if isinstance(url, str) and url.startswith("file:///"):
        from pathlib import Path
        from urllib.parse import unquote

        from flyteish.blobs.files import FileBlobStore

        return FileBlobStore(Path(unquote(url.removeprefix("file://"))))
    raise ConfigurationError(
        f"url={url!r} is not accepted for a blob store: expected 'file:///absolute/path' or 'memory:'"
    )
