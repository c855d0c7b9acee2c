"""A blob store in a folder: content under its checksum, written atomically and durably, verified when read.

Several processes may use one folder at the same time. Must not know what the content means, nor what may be swept.

    root/blobs/ab/cdef...   bytes          root/refs/some/name~    references, each led by its checksum
    root/trees/ab/cdef...   manifests      root/new/...            drafts; those of dead writers are tidied up
    root/spaces/some/name~  a store of its own, laid out like this one
    root/lock               see ``_locked``

What is written is a draft first, made durable, then renamed to where it belongs. A file's time is when its content was
last put. Content found damaged gets the time 0: the next ``put`` of the same content writes it anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from weakref import WeakSet

from flyteish.blobs import trees
from flyteish.blobs.addresses import (
    CHUNK,
    CONTENT,
    TREE,
    checked_ref,
    chunks,
    content_address,
    is_address,
    split,
    tree_address,
    unchanging,
    verify,
)
from flyteish.blobs.disk import locked, mapped, sync_folder, touch
from flyteish.blobs.threaded import ThreadedBlobs
from flyteish.errors import BlobCorruptError, BlobError, BlobMissingError
from flyteish.interfaces import Reference, Stored

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FOLDERS: Final = {CONTENT: "blobs", TREE: "trees"}
_REF_END: Final = "~"  # not allowed in names: `a` and `a/b` can both be references
_DIGEST_SIZE: Final = 32


class FileBlobStore(ThreadedBlobs):
    """Content in files below ``root``, which is made, with mode 0700, where it is missing."""

    def __init__(self, root: Path) -> None:
        super().__init__(BlockingFileBlobs(root))


class BlockingFileBlobs:
    """``FileBlobStore`` for code that may block."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._parent: Path | None = None
        """Root of the store that this is a space of."""
        self._maps: WeakSet[mmap] = WeakSet()
        self._folder(self._root)

    def __repr__(self) -> str:
        return f"BlockingFileBlobs({str(self._root)!r})"

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def space(self, name: str) -> BlockingFileBlobs:
        found = BlockingFileBlobs.__new__(BlockingFileBlobs)  # nothing is made on disk before something is put there
        found._root = self._root / "spaces" / (checked_ref(name) + _REF_END)
        found._parent = self._root
        found._maps = self._maps
        return found

    # -- content ---------------------------------------------------------------------------------------------

    def put(self, content: Buffer | BinaryIO) -> str:
        data = unchanging(content)
        return self._put_chunks(chunks(content)) if data is None else self._put(content_address(data), data)

    def put_path(self, path: Path) -> str:
        return trees.store(
            Path(path),
            lambda file: self._put_chunks(chunks(file)),
            lambda manifest: self._put(tree_address(manifest), manifest),
        )

    def get(self, address: str) -> memoryview:
        path = self._path(address)
        with self._opened(address, path) as file:
            with trees.naming("read", path):
                data = mapped(file, self._maps) or file.read()
            self._verify(address, sha256(data).hexdigest(), len(data), path, file)
        return memoryview(data)

    def fetch(self, address: str, target: Path) -> Path:
        return trees.deliver(address, Path(target), self.get, self._copy_out)

    # -- references ------------------------------------------------------------------------------------------

    def get_ref(self, name: str) -> Reference | None:
        path = self._ref_path(name)
        with trees.naming("read", path):
            try:
                with open(path, "rb") as file:
                    stored, written_at = file.read(), os.fstat(file.fileno()).st_mtime
            except FileNotFoundError:
                self._check_root(path)
                return None
        digest, data = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
        if sha256(data).digest() != digest:
            raise BlobCorruptError(f"{path}: the reference {name!r} is damaged")
        return Reference(data, digest.hex(), written_at)

    def set_ref(self, name: str, data: bytes) -> None:
        self._keep(name, data, lambda: True)

    def create_ref(self, name: str, data: bytes) -> bool:
        return self._keep(name, data, lambda: not self._ref_path(name).exists())

    def replace_ref(self, name: str, data: bytes, version: str) -> bool:
        def unchanged() -> bool:
            found = self.get_ref(name)
            return found is not None and found.version == version

        return self._keep(name, data, unchanged)

    def delete_ref(self, name: str, written_before: float = math.inf) -> bool:
        path = self._ref_path(name)
        removed = self._remove(path, written_before) is not None
        if removed:
            with trees.naming("remove", path):
                sync_folder(path.parent)
        return removed

    # -- sweeping --------------------------------------------------------------------------------------------

    def contents(self) -> Iterator[Stored]:
        for kind, folder in _FOLDERS.items():
            for path in self._below(self._root / folder):
                address = f"{kind}:{path.parent.name}{path.name}"
                if is_address(address):
                    yield from _stored(address, path)

    def references(self) -> Iterator[Stored]:
        root = self._root / "refs"
        for path in self._below(root):
            if path.name.endswith(_REF_END):
                yield from _stored(str(path.relative_to(root))[: -len(_REF_END)], path, _DIGEST_SIZE)

    def spaces(self) -> Iterator[str]:
        root = self._root / "spaces"
        for where, folders, _ in os.walk(root):
            found = sorted(folder for folder in folders if folder.endswith(_REF_END))
            yield from (str(Path(where, space).relative_to(root))[: -len(_REF_END)] for space in found)
            folders[:] = sorted(folder for folder in folders if folder not in found)

    def delete(self, addresses: Iterable[str], written_before: float) -> int:
        return sum(self._remove(self._path(address), written_before) or 0 for address in addresses)

    def tidy(self, before: float) -> int:
        drafts = self._root / "new"
        freed = sum(self._remove(path, before) or 0 for path in self._below(drafts) if path.parent == drafts)
        for name in list(self.spaces()):
            self.space(name)._dissolve(before)
        return freed

    def _dissolve(self, before: float) -> None:
        """Remove the folders of a space that has no files, and those that only led to it."""
        assert self._parent is not None
        above = [path for path in self._root.parents if path.is_relative_to(self._parent / "spaces")]
        with trees.naming("remove", self._root), self._locked(alone=True):
            folders = [Path(where) for where, _, _ in os.walk(self._root, topdown=False)]
            if any(folder.stat().st_mtime >= before for folder in folders):
                return  # somebody may still be about to put something there
            for folder in [*folders, *above]:
                try:
                    folder.rmdir()
                except OSError:  # not empty
                    return

    def _below(self, folder: Path) -> Iterator[Path]:
        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        with trees.naming("read", folder):
            for where, folders, names in os.walk(folder, onerror=failed):
                folders.sort()
                yield from (Path(where, name) for name in sorted(names))

    def _remove(self, path: Path, written_before: float) -> int | None:
        """Remove it unless it was written since; its size, None where it stays or is not there."""
        with trees.naming("remove", path):
            try:
                if path.stat().st_mtime >= written_before:
                    return None
                with self._locked(alone=True):  # now nobody is putting it
                    status = path.stat()
                    if status.st_mtime >= written_before:
                        return None
                    path.unlink()
            except FileNotFoundError:  # another process sweeps too
                return None
        return status.st_size

    # -- inside ----------------------------------------------------------------------------------------------

    def _path(self, address: str) -> Path:
        kind, digest = split(address)
        return self._root / _FOLDERS[kind] / digest[:2] / digest[2:]

    def _ref_path(self, name: str) -> Path:
        return self._root / "refs" / (checked_ref(name) + _REF_END)

    def _put(self, address: str, data: Buffer) -> str:
        path = self._path(address)
        if not self._renewed(path, len(memoryview(data))):
            with self._draft(path) as (file, draft):
                file.write(data)
                self._publish(file, draft, path)
        return address

    def _put_chunks(self, source: Iterator[bytes]) -> str:
        digest = sha256()
        with self._draft(self._root) as (file, draft):
            for chunk in source:
                digest.update(chunk)
                file.write(chunk)
            address = f"{CONTENT}:{digest.hexdigest()}"
            path = self._path(address)
            if not self._renewed(path, file.tell()):
                self._publish(file, draft, path)
        return address

    def _renewed(self, path: Path, size: int) -> bool:
        """Whether this content is there already, as far as its size tells; then it counts as written now."""
        with trees.naming("write", path):
            try:
                status = path.stat()  # without the lock: mostly it is not there
                with self._locked(alone=False):
                    status = path.stat()
                    whole = status.st_size == size and status.st_mtime_ns != 0
                    if whole:
                        touch(path)
            except FileNotFoundError:
                return False
            except PermissionError:  # somebody else's file in a shared store: it is there all the same
                return status.st_size == size and status.st_mtime_ns != 0
        return whole

    def _locked(self, alone: bool) -> AbstractContextManager[None]:
        """Keep deleting apart from putting, and changes of references from each other; for moments only.

        Shared by all who put content, for one alone who deletes, or compares and replaces: what was found old is
        still old when it goes. The kernel takes the lock back from a process that dies.
        """
        return locked((self._parent or self._root) / "lock", alone)

    @contextmanager
    def _draft(self, wanted: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file beside the content, gone afterwards unless published; ``wanted`` is for errors."""
        drafts = self._root / "new"
        draft = drafts / os.urandom(12).hex()
        self._folder(self._parent or self._root)
        with trees.naming("write", wanted):
            with self._locked(alone=False):  # nobody removes a folder that is empty before there is something in it
                self._folder(drafts)
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    yield file, draft
            finally:
                draft.unlink(missing_ok=True)

    def _keep(self, name: str, data: bytes, may: Callable[[], bool]) -> bool:
        path = self._ref_path(name)
        with self._draft(path) as (file, draft):
            file.write(sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())
            with self._locked(alone=True):
                self._folder(path.parent)
                kept = may()
                if kept:
                    touch(draft)
                    os.replace(draft, path)
            sync_folder(path.parent)  # also of what somebody else has written, for whoever hears "no" goes by it
        return kept

    def _publish(self, file: BinaryIO, draft: Path, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        with self._locked(alone=False):
            self._folder(path.parent)
            touch(draft)  # a long stream's last bytes may be older than a sweep allows
            os.replace(draft, path)
        sync_folder(path.parent)

    def _folder(self, path: Path) -> None:
        if path.is_dir():
            return
        top = self._parent or self._root
        if path != top:
            self._folder(path.parent)
        with trees.naming("make the folder", path):
            path.mkdir(0o700, parents=path == top, exist_ok=True)
            sync_folder(path.parent)

    @contextmanager
    def _opened(self, address: str, path: Path) -> Iterator[BinaryIO]:
        with trees.naming("read", path):
            try:
                file = open(path, "rb")  # noqa: SIM115 - closed below; only opening may say "missing"
            except FileNotFoundError as error:
                self._check_root(path)
                raise BlobMissingError(f"no content at {address}: {path} does not exist") from error
        with file:
            yield file

    def _check_root(self, path: Path) -> None:
        """A store that is not there (a volume that is not mounted) is an error, not an empty store."""
        root = self._parent or self._root
        if not root.is_dir():
            raise BlobError(f"cannot read {path}: the blob store's folder {root} is gone")

    def _copy_out(self, address: str, target: Path) -> None:
        path, digest, size = self._path(address), sha256(), 0
        with self._opened(address, path) as source:
            with trees.naming("write", target):
                copy = open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")  # noqa: SIM115
            with copy:
                while True:
                    with trees.naming("read", path):
                        chunk = source.read(CHUNK)
                    if not chunk:
                        break
                    digest.update(chunk)
                    size += len(chunk)
                    with trees.naming("write", target):
                        copy.write(chunk)
            self._verify(address, digest.hexdigest(), size, path, source)

    def _verify(self, address: str, digest: str, size: int, path: Path, file: BinaryIO) -> None:
        try:
            verify(address, digest, size, path)
        except BlobCorruptError:
            try:
                os.utime(file.fileno(), ns=(0, 0))  # of what was read: it may have been mended meanwhile
            except OSError:
                pass  # a store that can only be read: the error below says what matters
            raise


def _stored(name: str, path: Path, head: int = 0) -> Iterator[Stored]:
    """The entry of a listing, unless the file has gone meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    yield Stored(name, max(0, status.st_size - head), status.st_mtime)
