"""Files and directories on this machine's disk that stand in for stored content: scratch copies, handles.

Must not know what the content is for, nor which store it comes from.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from flyteish._authoring.attempt.context import current_attempt
from flyteish.interfaces import BlockingContent


def temporary_folder() -> Path:
    """A new folder: of the running attempt, with which it goes, or where none runs in the system's place."""
    attempt = current_attempt()
    parent = attempt.scratch() if attempt is not None and attempt.active else None
    return Path(tempfile.mkdtemp(prefix="flyteish-", dir=parent))


class Scratch:
    """A temporary directory that lives as long as anybody refers to it, or the attempt that it was made in."""

    __slots__ = ("__weakref__", "path")

    def __init__(self) -> None:
        self.path = temporary_folder()
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __repr__(self) -> str:
        return f"Scratch({str(self.path)!r})"


class AsyncHandle:
    """An open file whose methods are awaited; each runs on a thread. Made by ``File.open``."""

    def __init__(self, raw: IO[Any]) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        return f"AsyncHandle({self._raw!r})"

    async def read(self, size: int = -1) -> Any:
        return await asyncio.to_thread(self._raw.read, size)

    async def readline(self) -> Any:
        return await asyncio.to_thread(self._raw.readline)

    async def write(self, data: Any) -> int:
        return await asyncio.to_thread(self._raw.write, data)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return await asyncio.to_thread(self._raw.seek, offset, whence)

    async def tell(self) -> int:
        return await asyncio.to_thread(self._raw.tell)

    async def flush(self) -> None:
        await asyncio.to_thread(self._raw.flush)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while line := await self.readline():
            yield line


def local_path(path: str) -> Path | None:
    """The path that a plain path or ``file://`` address means on this machine; None: it lies elsewhere."""
    if path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return None if "://" in path else Path(path)


def fetch_remote(uri: str, target: Path) -> None:
    """Copy a file or directory from somebody else's storage (``s3://...``)."""
    system, path = _remote(uri)
    system.get(path, str(target), recursive=system.isdir(path))


def remote_exists(uri: str) -> bool:
    """Whether somebody else's storage has it."""
    system, path = _remote(uri)
    return bool(system.exists(path))


def _remote(uri: str) -> tuple[Any, str]:
    try:
        fsspec = importlib.import_module("fsspec.core")
    except ImportError as error:
        raise OSError(f"{uri} needs fsspec, and its driver for {uri.partition('://')[0]}") from error
    system, path = fsspec.url_to_fs(uri)
    return system, path


def deliver(blobs: BlockingContent, address: str, target: Path) -> None:
    """Stored content at ``target``, whole or not at all. Replaces a file, but no directory with content."""
    if target.is_dir() and any(target.iterdir()):
        raise FileExistsError(f"{target} is a directory with something in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename works only within one file system.
    with tempfile.TemporaryDirectory(prefix=".flyteish-", dir=target.parent) as folder:
        arrived = Path(folder) / "content"
        blobs.fetch(address, arrived)
        arrived.replace(target)


def size_of(path: Path) -> int:
    """Bytes in a file, or in all files below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def looks_of(path: Path) -> object:
    """What tells a file, or a directory tree, from itself after somebody wrote to it; no content is read."""
    if path.is_file():
        return _looks(path.stat())
    return sorted((str(item.relative_to(path)), _looks(item.stat())) for item in path.rglob("*") if item.is_file())


def _looks(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino
