"""Directories as content: a manifest, and the way in and out of a store that keeps only bytes.

Nothing leads out of a tree: links that do are refused on the way in, and manifests are not trusted on the way
out. Must not know where content is kept; the store passes in how it reads and writes.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from flyteish.blobs.addresses import is_tree
from flyteish.errors import BlobCorruptError, BlobError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a directory tree."""

    path: str
    """Relative to the tree, with ``/``."""
    mode: int
    """As in ``stat``: the kind (file, directory or link) and the permissions."""
    size: int
    """In bytes; 0 for directories and links."""
    address: str
    """Of a file's content; a link's target; empty for directories."""


@contextmanager
def naming(doing: str, path: object) -> Iterator[None]:
    """Turn an OSError into a BlobError that names the path."""
    try:
        yield
    except OSError as error:
        raise BlobError(f"cannot {doing} {path}: {error.strerror or error}") from error


# -- in ----------------------------------------------------------------------------------------------------


def store(path: Path, put: Callable[[BinaryIO], str], put_manifest: Callable[[bytes], str]) -> str:
    """Store a file or a directory tree with the two functions given; returns its address."""
    with naming("read", path):
        real = path.resolve(strict=True)  # a link that was named on purpose is followed; those below are not
        is_directory = real.is_dir()
    if not is_directory:
        return _store_file(real, put)[0]
    return put_manifest(msgspec.msgpack.encode(list(_scan(real, PurePosixPath(), put))))


def _scan(folder: Path, place: PurePosixPath, put: Callable[[BinaryIO], str]) -> Iterator[Member]:
    with naming("read", folder), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        here, path = str(place / entry.name), Path(entry.path)
        try:
            here.encode()
        except UnicodeEncodeError as error:
            raise BlobError(f"cannot store {entry.path!r}: its name is not UTF-8") from error
        with naming("read", path):
            mode = entry.stat(follow_symlinks=False).st_mode
            target = os.readlink(path) if stat.S_ISLNK(mode) else ""
        if stat.S_ISLNK(mode):
            if not _stays_inside(here, target):
                raise BlobError(f"cannot store {path}: it is a link that leads out of the directory, to {target}")
            yield Member(here, mode, 0, target)
        elif stat.S_ISDIR(mode):
            yield Member(here, mode, 0, "")
            yield from _scan(path, PurePosixPath(here), put)
        else:
            address, mode, size = _store_file(path, put)
            yield Member(here, mode, size, address)


def _store_file(path: Path, put: Callable[[BinaryIO], str]) -> tuple[str, int, int]:
    # Between look and open a file may become a link or a pipe: neither is followed, neither blocks.
    with naming("read", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BlobError(f"cannot store {path}: it is neither a file nor a directory")
        address = put(file)
        return address, status.st_mode, file.tell()


# -- out -----------------------------------------------------------------------------------------------------


def members(address: str, manifest: Buffer) -> list[Member]:
    """A manifest's entries, checked: unpacking them can't touch anything outside. Raises BlobCorruptError."""
    try:
        entries = msgspec.msgpack.decode(manifest, type=list[Member])
    except msgspec.MsgspecError as error:
        raise BlobCorruptError(f"the manifest of {address} can't be read: {error}") from error
    folders, seen = {"."}, {"."}
    for entry in entries:
        path = PurePosixPath(entry.path)
        is_link = stat.S_ISLNK(entry.mode)
        if (
            str(path) != entry.path
            or path.is_absolute()
            or ".." in path.parts
            or "\0" in entry.path
            or entry.path in seen
            or str(path.parent) not in folders  # a real directory, never a link
            or (is_link and not _stays_inside(entry.path, entry.address))
            or not (is_link or stat.S_ISDIR(entry.mode) or stat.S_ISREG(entry.mode))
        ):
            raise BlobCorruptError(f"the manifest of {address} has an entry that is not safe: {entry.path!r}")
        seen.add(entry.path)
        if stat.S_ISDIR(entry.mode):
            folders.add(entry.path)
    return entries


def deliver(address: str, target: Path, read: Callable[[str], Buffer], write: Callable[[str, Path], None]) -> Path:
    """Write a file or a tree to ``target``, whole or not at all; ``write`` makes one file."""
    if os.path.lexists(target):
        raise BlobError(f"cannot write {target}: it exists")
    if not target.parent.is_dir():
        raise BlobError(f"cannot write {target}: there is no such folder")
    fresh = target.parent / f".fetch-{os.urandom(8).hex()}"
    try:
        if is_tree(address):
            _unpack(members(address, read(address)), fresh, write)
        else:
            write(address, fresh)
        with naming("write", target):
            os.rename(fresh, target)
    except BaseException:
        _discard(fresh)
        raise
    return target


def _unpack(entries: list[Member], root: Path, write: Callable[[str, Path], None]) -> None:
    with naming("write", root):
        root.mkdir(0o700)
        # Directories first and links last, so that nothing is ever written through a link.
        for entry in entries:
            if stat.S_ISDIR(entry.mode):
                (root / entry.path).mkdir(0o700)
    for entry in entries:
        if stat.S_ISREG(entry.mode):
            write(entry.address, root / entry.path)
    with naming("write", root):
        for entry in entries:
            if stat.S_ISLNK(entry.mode):
                (root / entry.path).symlink_to(entry.address)
            else:
                # The owner can always read and remove the copy; setuid and the like are not restored.
                kept = 0o700 if stat.S_ISDIR(entry.mode) else 0o400
                (root / entry.path).chmod(entry.mode & 0o777 | kept)


def _stays_inside(place: str, target: str) -> bool:
    """Whether a link at ``place`` stays in its tree: only leading ``..``, no more than it lies deep.

    Every directory above it is a real one, so leading ``..`` mean what they say; after a name they might not.
    """
    parts = target.split("/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    depth = len(PurePosixPath(place).parts) - 1
    return bool(target) and not target.startswith("/") and climbs <= depth and ".." not in parts[climbs:]


def _discard(path: Path) -> None:
    """Remove what a failed fetch left; of the failure the caller must hear, not of trouble with the rest."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # see above
