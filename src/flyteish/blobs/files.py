"""A blob store in a folder: content under its checksum, written atomically and durably, verified when read.

Several processes may use one folder at the same time. Must not know what the content means, nor decide what
may be swept: the caller does, except that what a reference mentions is always kept.

    root/blobs/ab/cdef...   bytes          root/refs/some/name~    references, each led by its checksum
    root/trees/ab/cdef...   manifests      root/new/...            drafts; those of dead writers are swept
    root/spaces/some/name~  a store of its own, laid out like this one
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from flyteish.blobs import trees
from flyteish.blobs.addresses import (
    CONTENT,
    TREE,
    checked_ref,
    content_address,
    mentioned,
    split,
    tree_address,
    verify,
)
from flyteish.errors import BlobCorruptError, BlobError, BlobMissingError

CHUNK: Final = 1 << 20
REFERENCE_USED: Final = 3600.0
"""Seconds after which reading a reference is noted again, in its file's time."""
_FOLDERS: Final = {CONTENT: "blobs", TREE: "trees"}
_REF_END: Final = "~"  # not allowed in names: `a` and `a/b` can both be references
_DIGEST_SIZE: Final = 32


class FileBlobStore:
    """Content in files below ``root``, which is made, with mode 0700, where it is missing.

    Content found damaged gets the time stamp 0: the next ``put`` of the same content writes it anew.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._parent: Path | None = None
        """Root of the store that this is a space of."""
        self._folder(self._root)

    def __repr__(self) -> str:
        return f"FileBlobStore({str(self._root)!r})"

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def space(self, name: str) -> FileBlobStore:
        found = FileBlobStore.__new__(FileBlobStore)  # nothing is made on disk before something is put there
        found._root = self._root / "spaces" / (checked_ref(name) + _REF_END)
        found._parent = self._root
        return found

    # -- content ---------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        return self._put(content_address(data), data)

    def put_path(self, path: Path) -> str:
        return trees.store(Path(path), self._put_file, lambda manifest: self._put(tree_address(manifest), manifest))

    def get(self, address: str) -> bytes:
        path = self._path(address)
        with self._opened(address, path) as file, trees.naming("read", path):
            data = file.read()
        self._verify(address, sha256(data).hexdigest(), len(data), path)
        return data

    def fetch(self, address: str, target: Path) -> Path:
        return trees.deliver(address, Path(target), self.get, self._copy_out)

    # -- references ------------------------------------------------------------------------------------------

    def set_ref(self, name: str, data: bytes) -> None:
        path = self._ref_path(name)
        with self._draft(path) as (file, draft):
            file.write(sha256(data).digest() + data)
            self._publish(file, draft, path)

    def get_ref(self, name: str) -> bytes | None:
        path = self._ref_path(name)
        with trees.naming("read", path):
            try:
                stored = path.read_bytes()
                if time.time() - path.stat().st_mtime > REFERENCE_USED:
                    os.utime(path)
            except PermissionError:
                if not os.access(path, os.R_OK):
                    raise
            except FileNotFoundError:
                self._check_root(path)
                return None
        data = stored[_DIGEST_SIZE:]
        if sha256(data).digest() != stored[:_DIGEST_SIZE]:
            raise BlobCorruptError(f"{path}: the reference {name!r} is damaged")
        return data

    # -- sweeping --------------------------------------------------------------------------------------------

    def sweep(self, keep: Callable[[str], bool], older_than: float, unused_since: float = 0.0) -> int:
        for path in self._below(self._root / "refs"):
            self._remove(path, unused_since)
        referenced = self._referenced()
        freed = self._sweep(keep, older_than, set(referenced))
        for name in self._spaces():
            space = self.space(name)
            freed += space._sweep(lambda address, name=name: keep(f"{name}/{address}"), older_than, set(referenced))  # type: ignore[misc]
            space._dissolve(older_than)
        return freed

    def _sweep(self, keep: Callable[[str], bool], older_than: float, wanted: set[str]) -> int:
        old_trees = [found for found in self._content(TREE) if not self._is_wanted(*found, keep, older_than, wanted)]
        gone = {address for address, _ in old_trees}
        for address, _ in self._content(TREE):
            if address not in gone:
                wanted |= self._members(address)
        old = [found for found in self._content(CONTENT) if not self._is_wanted(*found, keep, older_than, wanted)]
        drafts = self._root / "new"
        old += [("", path) for path in self._below(drafts) if path.parent == drafts]
        return sum(self._remove(path, older_than) for _, path in [*old_trees, *old])

    def _spaces(self) -> list[str]:
        root, found = self._root / "spaces", list[str]()
        for where, folders, _ in os.walk(root):
            spaces = [folder for folder in folders if folder.endswith(_REF_END)]
            found += [str(Path(where, space).relative_to(root))[: -len(_REF_END)] for space in spaces]
            folders[:] = [folder for folder in folders if folder not in spaces]
        return sorted(found)

    def _dissolve(self, older_than: float) -> None:
        """A space without content goes, with the folders that only led to it."""
        if any(True for kind in _FOLDERS for _ in self._content(kind)):
            return
        for path in self._below(self._root / "refs"):
            self._remove(path, older_than)
        assert self._parent is not None
        folders = [Path(where) for where, _, _ in os.walk(self._root, topdown=False)]
        if any(folder.stat().st_mtime >= older_than for folder in folders):
            return  # somebody may be about to put something there
        above = [path for path in self._root.parents if path.is_relative_to(self._parent / "spaces")]
        for folder in [*folders, *above]:
            try:
                folder.rmdir()
            except OSError:  # not empty: somebody has just put something there
                return

    def _is_wanted(
        self, address: str, path: Path, keep: Callable[[str], bool], older_than: float, wanted: set[str]
    ) -> bool:
        if address in wanted or keep(address):
            return True
        try:
            return path.stat().st_mtime >= older_than
        except FileNotFoundError:  # another process sweeps too
            return True

    def _referenced(self) -> set[str]:
        found: set[str] = set()
        for path in self._below(self._root / "refs"):
            with trees.naming("read", path):
                found |= mentioned(path.read_bytes())
        return found

    def _members(self, address: str) -> set[str]:
        try:
            return {entry.address for entry in trees.members(address, self.get(address))}
        except (BlobCorruptError, BlobMissingError):
            return set()  # nobody can unpack it any more, so it keeps nothing alive

    def _content(self, kind: str) -> Iterator[tuple[str, Path]]:
        for path in self._below(self._root / _FOLDERS[kind]):
            yield f"{kind}:{path.parent.name}{path.name}", path

    def _below(self, folder: Path) -> Iterator[Path]:
        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        with trees.naming("read", folder):
            found = [Path(where, name) for where, _, names in os.walk(folder, onerror=failed) for name in names]
        yield from sorted(found)

    def _remove(self, path: Path, older_than: float) -> int:
        """Remove it unless it was put again since it was looked at.

        First set aside, then looked at: whoever puts the same content meanwhile either made its time new before,
        and then it comes back, or does not find it and writes it anew.
        """
        aside = self._root / "new" / os.urandom(12).hex()
        with trees.naming("remove", path):
            try:
                if path.stat().st_mtime >= older_than:
                    return 0
                self._folder(aside.parent)
                os.replace(path, aside)
                status = aside.stat()
                if status.st_mtime >= older_than:
                    os.replace(aside, path)
                    return 0
                aside.unlink()
            except FileNotFoundError:  # another process sweeps too
                return 0
        return status.st_size

    # -- inside ----------------------------------------------------------------------------------------------

    def _path(self, address: str) -> Path:
        kind, digest = split(address)
        return self._root / _FOLDERS[kind] / digest[:2] / digest[2:]

    def _ref_path(self, name: str) -> Path:
        return self._root / "refs" / (checked_ref(name) + _REF_END)

    def _put(self, address: str, data: bytes) -> str:
        path = self._path(address)
        if not self._holds(path, len(data)):
            with self._draft(path) as (file, draft):
                file.write(data)
                self._publish(file, draft, path)
        return address

    def _put_file(self, source: BinaryIO) -> str:
        digest = sha256()
        with self._draft(self._root) as (file, draft):
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            address = f"{CONTENT}:{digest.hexdigest()}"
            path = self._path(address)
            if not self._holds(path, file.tell()):
                self._publish(file, draft, path)
        return address

    def _holds(self, path: Path, size: int) -> bool:
        """Whether this content is there already, as far as its size tells; then it counts as written now."""
        with trees.naming("write", path):
            try:
                status = path.stat()
                if status.st_size != size or status.st_mtime_ns == 0:
                    return False
                os.utime(path)
            except FileNotFoundError:
                return False
            except PermissionError:
                pass  # somebody else's file in a shared store: it is there all the same
        return True

    @contextmanager
    def _draft(self, wanted: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file beside the content, gone afterwards unless published; ``wanted`` is for errors."""
        drafts = self._root / "new"
        self._folder(drafts)
        draft = drafts / os.urandom(12).hex()
        with trees.naming("write", wanted):
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    yield file, draft
            finally:
                draft.unlink(missing_ok=True)

    def _publish(self, file: BinaryIO, draft: Path, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._folder(path.parent)
        os.replace(draft, path)
        _sync_folder(path.parent)

    def _folder(self, path: Path) -> None:
        if path.is_dir():
            return
        top = self._parent or self._root
        if path != top:
            self._folder(path.parent)
        with trees.naming("make the folder", path):
            path.mkdir(0o700, parents=path == top, exist_ok=True)
            _sync_folder(path.parent)

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
        self._verify(address, digest.hexdigest(), size, path)

    def _verify(self, address: str, digest: str, size: int, path: Path) -> None:
        try:
            verify(address, digest, size, path)
        except BlobCorruptError:
            try:
                os.utime(path, ns=(0, 0))
            except OSError:
                pass  # a store that can only be read: the error below says what matters
            raise


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a renamed file is not safe before that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
