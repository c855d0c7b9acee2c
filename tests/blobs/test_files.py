"""What the blob store of files promises about its files, and between processes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flyteish.blobs import open_blobs
from flyteish.blobs.files import BlockingFileBlobs
from flyteish.blobs.sweeping import sweep
from flyteish.errors import BlobCorruptError, BlobError, BlobMissingError


@pytest.fixture
def files(tmp_path: Path) -> BlockingFileBlobs:
    return BlockingFileBlobs(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (root / "deep" / "run.sh").chmod(0o750)
    return root


def only_file(files: BlockingFileBlobs, tmp_path: Path, kind: str = "blobs") -> Path:
    (path,) = (found for found in (tmp_path / "store" / kind).rglob("*") if found.is_file())
    return path


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "torn": lambda path: os.truncate(path, 3),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"!"),
    "rotten": lambda path: path.write_bytes(b"X" * path.stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_content_is_corrupt_until_it_is_put_again(
    files: BlockingFileBlobs, tmp_path: Path, damage: Damage
) -> None:
    """Reading damaged content raises, again and again, leaving nothing behind; putting it anew mends it."""
    address = files.put(b"content")
    damage(only_file(files, tmp_path))
    for _ in range(2):
        with pytest.raises(BlobCorruptError, match=address):
            files.get(address)
        with pytest.raises(BlobCorruptError):
            files.fetch(address, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".fetch", "target"))] == []
    assert files.put(b"content") == address
    assert bytes(files.get(address)) == b"content"


@pytest.mark.parametrize("kind", ["trees", "blobs"])
def test_damaged_trees_are_corrupt(files: BlockingFileBlobs, tmp_path: Path, kind: str) -> None:
    """Damage to the manifest or to a file of the tree fails the whole fetch, and nothing is left of it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"content")
    address = files.put_path(tmp_path / "tree")
    os.truncate(only_file(files, tmp_path, kind), 3)
    with pytest.raises(BlobCorruptError):
        files.fetch(address, tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "tree"]


def test_damaged_references_are_corrupt(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """A reference that does not match its checksum is an error, never None."""
    files.set_ref("name", b"value")
    os.truncate(only_file(files, tmp_path, "refs"), 10)
    with pytest.raises(BlobCorruptError, match="name"):
        files.get_ref("name")


def test_content_that_is_there_is_not_written_again(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """A second put leaves the file alone, but counts as written now for the next sweep."""
    files.put(b"content")
    path = only_file(files, tmp_path)
    os.utime(path, (1000, 1000))
    before = path.stat()
    files.put(b"content")
    after = path.stat()
    assert (after.st_ino, after.st_mtime > before.st_mtime) == (before.st_ino, True)


def test_nobody_else_can_read_the_store(files: BlockingFileBlobs, tmp_path: Path, tree: Path) -> None:
    """Every folder of the store has mode 0700 and every file 0600."""
    files.put_path(tree)
    files.set_ref("a/b", b"")
    store = tmp_path / "store"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [store, *store.rglob("*")] if path.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.rglob("*") if path.is_file()} == {0o600}


def test_a_store_that_vanished_is_an_error(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """Where the store's folder is gone (not mounted), nothing is said to be missing: that is an error."""
    address = files.put(b"x")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for read in (lambda: files.get(address), lambda: files.get_ref("name")):
        with pytest.raises(BlobError, match="is gone") as caught:
            read()
        assert not isinstance(caught.value, BlobMissingError)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Opening a store below a file names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(BlobError, match="file/store"):
        BlockingFileBlobs(tmp_path / "file" / "store")


@pytest.mark.parametrize("part", ["blobs", "refs", "new"])
def test_writing_where_it_cannot_be_is_an_error(files: BlockingFileBlobs, tmp_path: Path, part: str) -> None:
    """A write that fails says where, and is no success: here a file stands where a folder belongs."""
    (tmp_path / "store" / part).touch()
    with pytest.raises(BlobError, match="store/"):
        files.set_ref("name", b"x") if part == "refs" else files.put(b"x")


def test_unreadable_content_is_not_missing(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """Trouble with reading is a BlobError that names the path, neither missing nor corrupt."""
    address = files.put(b"x")
    path = only_file(files, tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(BlobError, match="Is a directory") as caught:
        files.get(address)
    assert type(caught.value) is BlobError


def test_a_full_disk_is_named(files: BlockingFileBlobs) -> None:
    """The system's refusal to write more arrives as a BlobError, and the draft is gone."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(BlobError, match=r"cannot write .*blobs") as caught:
            files.put(bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert isinstance(caught.value.__cause__, OSError)
    root = Path(files.url.removeprefix("file://"))
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["lock"]


def test_drafts_of_dead_writers_are_swept(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """What a killed process left half written goes with the next sweep, when it is old."""
    files.put(b"x")
    draft = tmp_path / "store" / "new" / "half"
    draft.write_bytes(b"12345")
    os.utime(draft, (1000, 1000))
    assert sweep(files, lambda _: True, older_than=2000).size == 5
    assert not draft.exists()


def test_a_store_can_be_opened_twice(files: BlockingFileBlobs) -> None:
    """Two stores over one folder, as in two processes, see each other's content; odd names survive."""
    again = open_blobs(files.url).blocking
    assert bytes(again.get(files.put(b"x"))) == b"x"
    odd = BlockingFileBlobs(Path(files.url.removeprefix("file://")) / "with space %41")
    assert open_blobs(odd.url).url == odd.url
