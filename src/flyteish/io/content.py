"""What files and directories have in common: content that is on this disk, in the blob store, or elsewhere.

Must not know which store it is, nor what the content is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from flyteish._authoring.values.current_blobs import INLINE_LIMIT, BlobAddress, current_blobs
from flyteish._authoring.values.kind_checks import shown
from flyteish._authoring.values.snapshots import PrivateCopy
from flyteish.errors import SerializationError
from flyteish.interfaces import BlockingContent
from flyteish.io.local_copies import (
    Scratch,
    deliver,
    fetch_remote,
    looks_of,
    remote_exists,
    size_of,
    temporary_folder,
)
from flyteish.io.local_copies import (
    local_path as as_local,
)

T = TypeVar("T")
ContentT = TypeVar("ContentT", bound="Content")


class Content:
    """The base of ``File`` and ``Dir``."""

    # Not a dataclass: pydantic would take one apart instead of asking it for its schema.

    def __init__(
        self,
        path: str,
        name: str | None = None,
        format: str = "",
        hash: str | None = None,
        size: int | None = None,
    ) -> None:
        self.path = path
        """Where the content is: an address in the blob store once it is stored, else a local path or a URI."""
        self.name = name
        self.format = format
        self.hash = hash
        self.size = size
        """Bytes; None where nobody has looked."""
        self._blobs: BlockingContent | None = None
        self._unstored = False
        """Content at ``path`` is this value's own, and is stored when the value first travels."""
        self._sent: Content | None = None
        """What ``__flyteish_snapshot__`` gave out and may not be stored yet."""
        self._seen: object = None
        """In such a copy: what the content looked like when it was made."""
        self._storing = threading.Lock()
        """Of a copy, which several calls may have."""
        self._scratch: Scratch | None = None
        """Keeps a temporary directory that ``path`` lies in."""

    def __repr__(self) -> str:
        known = {name: value for name, value in self._facts().items() if value not in (None, "")}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in known.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and type(other) is type(self) and other._facts() == self._facts()

    __hash__ = None  # type: ignore[assignment] # a file that is being written changes

    def _facts(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "name": self.name,
            "format": self.format,
            "hash": self.hash,
            "size": self.size,
        }

    @classmethod
    def from_existing_remote(cls: type[ContentT], remote_path: str) -> ContentT:
        """A reference to what is stored elsewhere (a mounted path, ``s3://...``); nothing is copied."""
        return cls(path=remote_path, name=PurePosixPath(remote_path).name)

    @classmethod
    def from_local_sync(cls: type[ContentT], local_path: str | os.PathLike[str]) -> ContentT:
        """Content from this disk: stored now, or when it first travels where no session is open yet."""
        path = Path(local_path).absolute()
        cls._require(path)
        content = cls(path=str(path), name=path.name, size=size_of(path))
        content._unstored = True
        if current_blobs.get() is not None:
            content._store()
        return content

    @classmethod
    async def from_local(cls: type[ContentT], local_path: str | os.PathLike[str]) -> ContentT:
        """As ``from_local_sync``."""
        return await asyncio.to_thread(cls.from_local_sync, local_path)

    def download_sync(self, local_path: str | os.PathLike[str] | None = None) -> str:
        """A copy on this machine's disk; returns its path.

        ``local_path`` may be a directory to put it in. Without it, content that is on this disk already stays
        where it is, and other content goes to a new temporary directory, which is then yours to remove.
        """
        here = None if isinstance(self.path, BlobAddress) else as_local(self.path)
        if local_path is None:
            if here is not None:
                return str(here.absolute())
            local_path = temporary_folder() / self._file_name
        target = self._target(os.fspath(local_path)).absolute()
        if here is None or here.absolute() != target:
            self._copy_to(target)
        return str(target)

    async def download(self, local_path: str | os.PathLike[str] | None = None) -> str:
        """As ``download_sync``."""
        return await asyncio.to_thread(self.download_sync, local_path)

    def exists_sync(self) -> bool:
        """Whether there is content: always for stored content, which nothing but clean-up removes."""
        if isinstance(self.path, BlobAddress):
            return True
        if (here := as_local(self.path)) is not None:
            return self.path != "" and here.exists()
        return remote_exists(self.path)

    async def exists(self) -> bool:
        """As ``exists_sync``."""
        return await asyncio.to_thread(self.exists_sync)

    @classmethod
    def _require(cls, path: Path) -> None:
        """Refuse a path of the wrong sort."""
        if not path.exists():
            raise FileNotFoundError(f"{cls.__name__}.from_local: no such path: {path}")

    @property
    def _file_name(self) -> str:
        return PurePosixPath(self.name or self.path).name or "content"

    def _target(self, given: str) -> Path:
        return Path(given)

    def _access(self) -> BlockingContent:
        blobs = self._blobs if self._blobs is not None else current_blobs.get()
        if blobs is None:
            raise SerializationError(
                f"{self!r} needs a blob store, and no session is open here: use it inside a task or a session"
            )
        return blobs

    def _store(self) -> None:
        blobs = self._access()
        here = Path(self.path)
        self.size = size_of(here)
        address = BlobAddress(blobs.put_path(here))
        if self._seen is not None and self._seen != looks_of(here):
            raise SerializationError(f"{self!r} changed between the call that it was given to and being stored")
        self.path = address
        self._blobs, self._unstored, self._scratch = blobs, False, None

    def _copy_to(self, target: Path) -> None:
        if isinstance(self.path, BlobAddress):
            deliver(self._access(), self.path, target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if (here := as_local(self.path)) is None:
            fetch_remote(self.path, target)
        elif here.is_dir():
            shutil.copytree(here, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(here, target)

    def _here(self) -> tuple[Path, Scratch | None]:
        """The content on this disk, and what keeps it there."""
        if not isinstance(self.path, BlobAddress) and (here := as_local(self.path)) is not None:
            return here, self._scratch
        scratch = Scratch()
        self._copy_to(scratch.path / self._file_name)
        return scratch.path / self._file_name, scratch

    def __flyteish_snapshot__(self) -> PrivateCopy | None:
        """For whoever must not store here and now: a copy that is stored as the content is now, or not at all."""
        if self._unstored and self._sent is not None and not self._sent._unstored:
            sent, self._sent = self._sent, None
            self.path, self.size, self._blobs = sent.path, sent.size, sent._blobs
            self._unstored, self._scratch = False, None
        if not self._unstored:
            return None
        here = Path(self.path)
        if here.is_file() and here.stat().st_size <= INLINE_LIMIT:
            return None
        seen = looks_of(here)
        if self._sent is None or self._sent._seen != seen:
            self._sent = self.__copy__()
            self._sent._seen, self._sent._storing = seen, threading.Lock()
        return PrivateCopy(self._sent, 0)

    def __flyteish_pack__(self) -> dict[str, Any]:
        with self._storing:
            if self._unstored:
                self._store()
        if not self.path:
            raise SerializationError(f"nothing was written to {self!r}")
        return self._facts()

    @classmethod
    def __flyteish_unpack__(cls: type[ContentT], packed: dict[str, Any]) -> ContentT:
        check_facts(packed, {"path": str, "name": str, "format": str, "hash": str, "size": int})
        content = cls(**packed)
        content._blobs = current_blobs.get()
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        # Within a pickled object it must still travel as a reference.
        return type(self).__flyteish_unpack__, (self.__flyteish_pack__(),)

    def __copy__(self: ContentT) -> ContentT:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self: ContentT, memo: object) -> ContentT:
        return self.__copy__()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Lets pydantic models have such fields."""
        return sys.modules["pydantic_core"].core_schema.is_instance_schema(cls)


def check_facts(packed: Any, kinds: dict[str, type]) -> None:
    """Refuse what cannot have been packed by such a value: it may come from anywhere."""
    if type(packed) is not dict or packed.keys() - kinds.keys():
        raise ValueError("a reference to content needs to be a dict of " + ", ".join(kinds))
    for name, value in packed.items():
        if value is not None and type(value) is not BlobAddress and type(value) is not kinds[name]:
            raise ValueError(f"a reference to content cannot have {name} = {shown(value)}")


@contextlib.asynccontextmanager
async def on_thread(context: contextlib.AbstractContextManager[T]) -> AsyncGenerator[T]:
    """An ordinary context manager, entered and left on threads."""
    value = await asyncio.to_thread(context.__enter__)
    try:
        yield value
    except BaseException:
        if not await asyncio.to_thread(context.__exit__, *sys.exc_info()):
            raise
    else:
        await asyncio.to_thread(context.__exit__, None, None, None)
