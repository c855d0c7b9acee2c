"""Large content by reference: files, directories and data frames as arguments and results of tasks.

A value holds an address; the bytes stay in the session's blob store until somebody opens them. Made without
a session, a value remembers the local path, and its content is stored when it first travels. Methods that end
in ``_sync`` are for ``def`` tasks and scripts; the others run them on a thread. Must not know which store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic

from flyteish._authoring.values import dataframes
from flyteish._authoring.values.current_blobs import BlobAddress, current_blobs
from flyteish._authoring.values.snapshots import PrivateCopy, snapshot
from flyteish.errors import SerializationError
from flyteish.interfaces import BlockingContent
from flyteish.io.content import Content, check_facts, on_thread
from flyteish.io.local_copies import AsyncHandle, Scratch

__all__ = ["DataFrame", "Dir", "File"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)  # `File.from_local(path)` needs no annotation then
else:
    from typing import TypeVar

    T = TypeVar("T")


class File(Content, Generic[T]):
    """A file, by reference.

    Make one with ``await File.from_local(path)``, by writing to ``File.new_remote("name")``, or for what
    exists elsewhere with ``File.from_existing_remote(uri)``. Read it with ``async with file.open("rb") as
    handle`` and ``await handle.read()``, or ``with file.open_sync("rb") as handle``; get a path with ``await
    file.download()``.
    """

    @classmethod
    def new_remote(cls, file_name: str | None = None) -> File[T]:
        """A file that is about to be written: ``async with file.open("wb") as handle``."""
        return cls(path="", name=file_name)

    @contextlib.contextmanager
    def open_sync(
        self, mode: str = "rb", *, encoding: str | None = None, newline: str | None = None
    ) -> Generator[IO[Any]]:
        """An ordinary handle. What is written (``w``, ``x``) is stored when the block ends without error."""
        if not set(mode) <= set("rwxbt") or len(set(mode) & set("rwx")) != 1:
            raise ValueError(f"mode {mode!r}: stored content is read ('rb', 'r') or written whole ('wb', 'w')")
        if "r" in mode:
            path, scratch = self._here()
            with open(path, mode, encoding=encoding, newline=newline) as handle:
                yield handle
            del scratch  # until here it kept the copy
            return
        scratch = Scratch()
        path = scratch.path / self._file_name
        with open(path, mode, encoding=encoding, newline=newline) as handle:
            yield handle
        self.path, self.name, self.size = str(path), self._file_name, path.stat().st_size
        self._unstored, self._scratch = True, scratch
        if self._blobs is not None or current_blobs.get() is not None:
            self._store()

    @contextlib.asynccontextmanager
    async def open(
        self, mode: str = "rb", *, encoding: str | None = None, newline: str | None = None
    ) -> AsyncGenerator[AsyncHandle]:
        """As ``open_sync``; the handle's methods are awaited."""
        context = self.open_sync(mode, encoding=encoding, newline=newline)
        async with on_thread(context) as handle:
            yield AsyncHandle(handle)

    @classmethod
    def _require(cls, path: Path) -> None:
        super()._require(path)
        if not path.is_file():
            raise IsADirectoryError(f"File.from_local: not a file: {path} (flyteish.io.Dir takes directories)")

    def _target(self, given: str) -> Path:
        inside = given.endswith(os.sep) or Path(given).is_dir()
        return Path(given) / self._file_name if inside else Path(given)


class Dir(Content, Generic[T]):
    """A directory tree, by reference.

    Make one with ``await Dir.from_local(path)``. Look into it with ``async for file in directory.walk()`` or
    ``await directory.get_file("config.yaml")``; get a path with ``await directory.download()``.
    """

    _copy: Scratch | None = None
    """Stored content, once it was fetched: looking into it again takes no time."""

    def walk_sync(self, recursive: bool = True, max_depth: int | None = None) -> Iterator[File[T]]:
        """Its files in order, each named by its path within the directory.

        ``max_depth=1`` gives the files at the top, as ``recursive=False``. Stored content is fetched whole.
        """
        root, scratch = self._here()
        depth = max_depth if recursive else 1
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and (depth is None or len(parts) <= depth):
                yield self._file(root, "/".join(parts), scratch)

    async def walk(self, recursive: bool = True, max_depth: int | None = None) -> AsyncIterator[File[T]]:
        """As ``walk_sync``."""
        for file in await asyncio.to_thread(lambda: list(self.walk_sync(recursive, max_depth))):
            yield file

    def list_files_sync(self) -> list[File[T]]:
        """The files at the top of the directory."""
        return list(self.walk_sync(recursive=False))

    async def list_files(self) -> list[File[T]]:
        """As ``list_files_sync``."""
        return await asyncio.to_thread(self.list_files_sync)

    def get_file_sync(self, file_name: str) -> File[T] | None:
        """The file at that path within the directory, or None."""
        root, scratch = self._here()
        inside = (root / file_name).resolve().is_relative_to(root.resolve())
        if not inside or not (root / file_name).is_file():
            return None
        return self._file(root, file_name, scratch)

    async def get_file(self, file_name: str) -> File[T] | None:
        """As ``get_file_sync``."""
        return await asyncio.to_thread(self.get_file_sync, file_name)

    def _here(self) -> tuple[Path, Scratch | None]:
        if self._copy is None or not self._copy.path.is_dir():  # it may have gone with an attempt
            path, scratch = super()._here()
            self._copy = scratch if isinstance(self.path, BlobAddress) else None
            return path, scratch
        return self._copy.path / self._file_name, self._copy

    def _file(self, root: Path, name: str, scratch: Scratch | None) -> File[T]:
        path = root / name
        # What was fetched, or is on its way to the store, must travel; what exists elsewhere stays there.
        own = scratch is not None or self._unstored
        file: File[T] = File(str(path), name, size=path.stat().st_size)
        file._blobs, file._unstored, file._scratch = self._blobs, own, scratch
        return file

    @classmethod
    def _require(cls, path: Path) -> None:
        super()._require(path)
        if not path.is_dir():
            raise NotADirectoryError(f"Dir.from_local: not a directory: {path} (flyteish.io.File takes files)")


class DataFrame:
    """A data frame of pandas, polars or arrow, by reference, readable as any of them.

    Make one with ``DataFrame.from_df(frame)``; read it with ``await frame.open(pandas.DataFrame).all()``.
    """

    def __init__(self, uri: str | None = None, format: str = "parquet", hash: str | None = None) -> None:
        self.uri = uri
        self.format = format
        self.hash = hash
        self._frame: Any = None
        self._packed: list[Any] | None = None
        self._blobs: BlockingContent | None = None
        self._wanted: type | None = None

    def __repr__(self) -> str:
        if self._packed is not None:
            return f"DataFrame({self._packed[0]}.{self._packed[1]})"
        return f"DataFrame({type(self._frame).__name__ if self.uri is None else repr(self.uri)})"

    @classmethod
    def wrap_df(cls, val: Any) -> DataFrame:
        """A frame in memory; its content is stored when the value travels."""
        if not dataframes.is_frame(type(val)):
            kind = f"{type(val).__module__}.{type(val).__qualname__}"
            raise TypeError(f"DataFrame holds frames of pandas, polars or arrow, not {kind}")
        wrapped = cls()
        wrapped._frame = val
        return wrapped

    from_df = wrap_df

    @classmethod
    def from_local_sync(cls, df: Any) -> DataFrame:
        """As ``wrap_df``."""
        return cls.wrap_df(df)

    @classmethod
    async def from_local(cls, df: Any) -> DataFrame:
        """As ``wrap_df``."""
        return cls.wrap_df(df)

    @classmethod
    def from_existing_remote(cls, remote_path: str, format: str = "parquet") -> DataFrame:
        """A reference to a file that exists elsewhere; it is read by whichever library is asked for."""
        return cls(uri=remote_path, format=format)

    @property
    def val(self) -> Any:
        """The frame where it was wrapped in this process, else None."""
        return self._frame

    def open(self, dataframe_type: type) -> DataFrame:
        """The same data, to be read as this class."""
        opened = DataFrame(self.uri, self.format, self.hash)
        opened._frame, opened._packed, opened._blobs = self._frame, self._packed, self._blobs
        opened._wanted = dataframe_type
        return opened

    def all_sync(self) -> Any:
        """The whole frame, as the class given to ``open``, else as the one it was made from."""
        if self._frame is None and self._packed is None:
            if self.uri is None:
                raise SerializationError("this DataFrame holds nothing: make one with from_df")
            return dataframes.read(self.uri, self.format, self._wanted)
        frame = self._frame if self._packed is None else self._unpacked(self._packed)
        return frame if self._wanted is None else dataframes.convert(frame, self._wanted)

    async def all(self) -> Any:
        """As ``all_sync``."""
        return await asyncio.to_thread(self.all_sync)

    def _unpacked(self, packed: list[Any]) -> Any:
        *kind, content = packed
        if isinstance(content, BlobAddress) and self._blobs is not None:
            content = self._blobs.get(content)
        return dataframes.unpack([*kind, content])

    def __flyteish_snapshot__(self) -> PrivateCopy | None:
        """For whoever must not pack here and now: a copy of the frame as it is."""
        taken = None if self._packed is not None or self._frame is None else snapshot(self._frame, type(self._frame))
        if taken is None:
            return None
        copied = DataFrame(self.uri, self.format, self.hash)
        copied._frame = taken.value
        return PrivateCopy(copied, taken.size)

    def __flyteish_pack__(self) -> dict[str, Any]:
        packed = dataframes.pack(self._frame) if self._packed is None and self._frame is not None else self._packed
        if packed is None and self.uri is None:
            raise SerializationError("this DataFrame holds nothing: make one with from_df")
        return {"uri": self.uri, "format": self.format, "hash": self.hash, "packed": packed}

    @classmethod
    def __flyteish_unpack__(cls, packed: dict[str, Any]) -> DataFrame:
        check_facts(packed, {"uri": str, "format": str, "hash": str, "packed": list})
        frame = cls(packed["uri"], packed["format"], packed["hash"])
        frame._packed, frame._blobs = packed["packed"], current_blobs.get()
        return frame

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Lets pydantic models have such fields."""
        return sys.modules["pydantic_core"].core_schema.is_instance_schema(cls)
