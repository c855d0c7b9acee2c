"""What every blob store promises, and what the one of files promises about its files."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from flyteish.blobs import open_blobs, trees
from flyteish.blobs.addresses import content_address, mentioned
from flyteish.blobs.files import BlockingFileBlobs, FileBlobStore
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.blobs.on_loop import LoopBlobs
from flyteish.blobs.sweeping import sweep
from flyteish.errors import BlobCorruptError, BlobError, BlobMissingError, ConfigurationError
from flyteish.interfaces import BlobStore, BlockingBlobs

NEVER = "sha256:" + "0" * 64
OUT = ["/etc/passwd", "../outside", "../../x", "deep/../../outside", "deep/../a.txt"]
BAD_NAMES = ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a~", "a b", "-x", "x\n", "a" * 201]
LATER = 4e9  # after every test run; before it, everything is old


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loop of a store")
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


STORES: dict[str, Callable[[Path], BlobStore]] = {
    "files": lambda folder: FileBlobStore(folder / "store"),
    "memory": lambda folder: MemoryBlobStore(),
}


@pytest.fixture(params=[(store, face) for store in STORES for face in ("blocking", "awaited")], ids=" ".join)
def blobs(request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.AbstractEventLoop) -> BlockingBlobs:
    """Every store, as threads use it; and through what is awaited, as loops do."""
    store, face = request.param
    made = STORES[store](tmp_path)
    return made.blocking if face == "blocking" else LoopBlobs(made, loop)


@pytest.fixture
def files(tmp_path: Path) -> BlockingFileBlobs:
    return BlockingFileBlobs(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with everything that a directory may have."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("a")
    (root / "deep" / "er" / "b.bin").write_bytes(b"\0\1")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "deep" / "link").symlink_to("../a.txt")
    (root / "deep" / "ümläut").write_text("name")
    return root


def picture(root: Path) -> dict[str, object]:
    """What is in a directory: names, contents, link targets, who may execute."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode) & 0o111)
    return found


def said(blobs: BlockingBlobs, name: str) -> bytes | None:
    found = blobs.get_ref(name)
    return None if found is None else found.data


# -- every store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(3_000_000)], ids=["empty", "one", "large"])
def test_bytes_come_back_from_their_address(blobs: BlockingBlobs, data: bytes) -> None:
    """What was put is got, and the address is the content's checksum."""
    address = blobs.put(data)
    assert address == content_address(data)
    assert bytes(blobs.get(address)) == data


def test_equal_content_has_one_address(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """Putting content twice, as bytes or as a file, is one content."""
    (tmp_path / "f").write_bytes(b"same")
    address = content_address(b"same")
    assert [blobs.put(b"same"), blobs.put(b"same"), blobs.put_path(tmp_path / "f")] == [address] * 3
    assert sweep(blobs, lambda _: False, older_than=LATER).size == len(b"same")


def test_files_are_fetched(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """A file is written to the target, which is returned."""
    target = tmp_path / "copy"
    assert blobs.fetch(blobs.put(b"content"), target) == target
    assert target.read_bytes() == b"content"


def test_directories_come_back_as_they_were(blobs: BlockingBlobs, tree: Path, tmp_path: Path) -> None:
    """Names, contents, empty directories, links and permissions survive, and equal trees are one content."""
    address = blobs.put_path(tree)
    assert address.startswith("tree:")
    assert address == blobs.put_path(blobs.fetch(address, tmp_path / "copy"))
    assert picture(tmp_path / "copy") == picture(tree)


def test_a_read_only_directory_can_be_restored(blobs: BlockingBlobs, tree: Path, tmp_path: Path) -> None:
    """Permissions that the owner took from itself do not get in the way of unpacking."""
    (tree / "deep").chmod(0o500)
    address = blobs.put_path(tree)
    (tree / "deep").chmod(0o700)
    copy = blobs.fetch(address, tmp_path / "copy")
    assert picture(copy) == picture(tree)
    assert stat.S_IMODE((copy / "deep").stat().st_mode) == 0o700


def test_a_named_link_is_followed(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """A link that is itself the path to store stands for what it points to."""
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    assert blobs.put_path(tmp_path / "link") == content_address(b"content")


@pytest.mark.parametrize("target", OUT)
def test_links_that_lead_out_are_refused(blobs: BlockingBlobs, tree: Path, target: str) -> None:
    """A link out of the directory is refused by name, and so is one that might lead out through another."""
    (tree / "bad").symlink_to(target)
    with pytest.raises(BlobError, match=r"tree/bad.*leads out"):
        blobs.put_path(tree)


def test_pipes_are_refused(blobs: BlockingBlobs, tree: Path) -> None:
    """What is neither file nor directory nor link is an error, and nothing waits for the pipe's other end."""
    os.mkfifo(tree / "pipe")
    with pytest.raises(BlobError, match=r"pipe.*neither a file nor a directory"):
        blobs.put_path(tree)


def test_names_must_be_text(blobs: BlockingBlobs, tree: Path) -> None:
    """A name that is not UTF-8 is refused with a clear error."""
    try:
        os.close(os.open(os.fsencode(tree) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    with pytest.raises(BlobError, match="not UTF-8"):
        blobs.put_path(tree)


def test_a_missing_source_is_named(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """Storing what is not there names the path."""
    with pytest.raises(BlobError, match="nothing-here"):
        blobs.put_path(tmp_path / "nothing-here")


@pytest.mark.parametrize("address", [NEVER, NEVER.replace("sha256", "tree"), "sha256:../../etc", "x", ""])
def test_missing_content_is_said_to_be_missing(blobs: BlockingBlobs, address: str, tmp_path: Path) -> None:
    """An address without content, or that no store gives out, is missing; nothing is written."""
    with pytest.raises(BlobMissingError):
        blobs.get(address)
    with pytest.raises(BlobMissingError):
        blobs.fetch(address, tmp_path / "target")
    assert list(tmp_path.glob(".fetch-*")) == []
    assert not (tmp_path / "target").exists()


def test_fetch_never_overwrites(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """An existing target, also a link to nowhere, is left alone."""
    address = blobs.put(b"new")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(BlobError, match="it exists"):
            blobs.fetch(address, tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_fetch_makes_no_folders(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """A target in a folder that is gone is an error that names it: the folder isn't made again."""
    with pytest.raises(BlobError, match="gone/target"):
        blobs.fetch(blobs.put(b"x"), tmp_path / "gone" / "target")
    assert not (tmp_path / "gone").exists()


def test_references_hold_the_last_value(blobs: BlockingBlobs) -> None:
    """A reference has the value set last; one that was never set is None, and an empty value is a value."""
    assert blobs.get_ref("a/b") is None
    blobs.set_ref("a/b", b"1")
    blobs.set_ref("a/b", b"2")
    blobs.set_ref("a", b"")
    assert (said(blobs, "a/b"), said(blobs, "a")) == (b"2", b"")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_reference_names_are_refused(blobs: BlockingBlobs, name: str) -> None:
    """A name that could leave the store or hide in it is refused, both ways."""
    with pytest.raises(ConfigurationError, match="is not accepted for a reference"):
        blobs.set_ref(name, b"")
    with pytest.raises(ConfigurationError, match="is not accepted for a reference"):
        blobs.get_ref(name)


def test_sweep_removes_what_is_old_and_unwanted(blobs: BlockingBlobs) -> None:
    """The bytes freed are counted; wanted and recent content stays."""
    wanted, unwanted = blobs.put(b"wanted"), blobs.put(b"unwanted")
    assert sweep(blobs, lambda address: address == wanted, older_than=1.0).size == 0
    assert sweep(blobs, lambda address: address == wanted, older_than=LATER).size == len(b"unwanted")
    assert bytes(blobs.get(wanted)) == b"wanted"
    with pytest.raises(BlobMissingError):
        blobs.get(unwanted)


def test_sweep_keeps_the_members_of_kept_trees(blobs: BlockingBlobs, tree: Path, tmp_path: Path) -> None:
    """Wanting a directory is wanting what is in it."""
    address = blobs.put_path(tree)
    sweep(blobs, lambda candidate: candidate == address, older_than=LATER)
    assert picture(blobs.fetch(address, tmp_path / "copy")) == picture(tree)


def test_sweep_keeps_what_references_mention(blobs: BlockingBlobs, tree: Path, tmp_path: Path) -> None:
    """An address inside a reference's value, whatever its encoding, keeps its content."""
    address = blobs.put_path(tree)
    blobs.set_ref("checkpoints/x", msgspec.msgpack.encode({"blob": address}))
    sweep(blobs, lambda _: False, older_than=LATER)
    assert picture(blobs.fetch(address, tmp_path / "copy")) == picture(tree)


def test_threads_share_a_store(blobs: BlockingBlobs) -> None:
    """Many threads putting the same and different content at once all find theirs."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(10):
                for data in (b"common", f"{number} {step}".encode()):
                    assert bytes(blobs.get(blobs.put(data))) == data
                blobs.set_ref("last", data)
                assert blobs.get_ref("last") is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_url_opens_a_store(blobs: BlockingBlobs) -> None:
    """The URL of a store is accepted by ``open_blobs`` and opens one of the same kind."""
    again = open_blobs(blobs.url)
    assert again.url == blobs.url
    assert type(again) is (FileBlobStore if blobs.url.startswith("file:") else MemoryBlobStore)


# -- not trusting what is read ----------------------------------------------------------------------

FILE, FOLDER, LINK = stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700, stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    "entries",
    [
        [("/tmp/x", FILE, 0, NEVER)],
        [("../x", FILE, 0, NEVER)],
        [("a", FOLDER, 0, ""), ("a/../../x", FILE, 0, NEVER)],
        [("a", LINK, 0, "/etc")],
        [("a", LINK, 0, "..")],
        [("a", LINK, 0, "b"), ("a/x", FILE, 0, NEVER)],
        [("a", FOLDER, 0, ""), ("a", LINK, 0, "b")],
        [("missing/x", FILE, 0, NEVER)],
        [("", FILE, 0, NEVER)],
        [(".", FILE, 0, NEVER)],
        [("a//b", FILE, 0, NEVER)],
        [("a\0", FILE, 0, NEVER)],
        [("pipe", stat.S_IFIFO | 0o600, 0, "")],
    ],
)
def test_hostile_manifests_are_refused(entries: list[tuple[str, int, int, str]], tmp_path: Path) -> None:
    """A manifest that would write or link outside its directory is corrupt, whatever its checksum says."""
    manifest = msgspec.msgpack.encode(entries)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(BlobCorruptError, match="not safe"):
        trees.deliver("tree:" + "0" * 64, inside / "target", lambda _: manifest, lambda _, path: path.touch())
    assert list(tmp_path.rglob("*")) == [inside]


def test_a_manifest_that_is_none_is_corrupt(tmp_path: Path) -> None:
    """Bytes that are no manifest are corrupt."""
    with pytest.raises(BlobCorruptError, match="can't be read"):
        trees.members("tree:" + "0" * 64, b"\xc1")


def test_mentions_are_found_in_any_encoding() -> None:
    """Addresses are seen inside other bytes; what only looks like one is not."""
    assert mentioned(b"\0x" + NEVER.encode() + b"\xff sha256:12") == {NEVER}


@pytest.mark.parametrize("url", ["", "/tmp/x", "file://host/x", "file:x", "s4://bucket", "memory"])
def test_unknown_urls_are_refused(url: str) -> None:
    """The error names the URL and what is accepted."""
    with pytest.raises(ConfigurationError, match="expected 'file:///absolute/path' or 'memory:'"):
        open_blobs(url)


# -- the store of files -----------------------------------------------------------------------------


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
