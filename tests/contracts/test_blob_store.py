"""What every blob store promises of content."""

from __future__ import annotations

import array
import asyncio
import io
import mmap
import os
import random
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyteish.blobs import open_blobs, trees
from flyteish.blobs.addresses import content_address, mentioned
from flyteish.blobs.files import FileBlobStore
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.blobs.on_loop import LoopBlobs
from flyteish.errors import BlobCorruptError, BlobError, BlobMissingError, ConfigurationError, InputTypeError
from flyteish.interfaces import BlockingBlobs

NEVER = "sha256:" + "0" * 64
OUT = ["/etc/passwd", "../outside", "../../x", "deep/../../outside", "deep/../a.txt"]
LATER = 4e9  # after every test run; before it, everything is old


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


# -- every store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(3_000_000)], ids=["empty", "one", "large"])
def test_bytes_come_back_from_their_address(blobs: BlockingBlobs, data: bytes) -> None:
    """What was put is got, and the address is the content's checksum."""
    address = blobs.put(data)
    assert address == content_address(data)
    assert bytes(blobs.get(address)) == data


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "memoryview": memoryview,
    "part of a memoryview": lambda data: memoryview(b"xx" + data + b"xx")[2:-2],
    "every second": lambda data: memoryview(bytes(each for pair in zip(data, data, strict=True) for each in pair))[::2],
    "array": lambda data: array.array("H", data),
    "open file": io.BytesIO,
    "mmap": lambda data: _map(data),
}


def _map(data: bytes) -> Any:
    made = mmap.mmap(-1, max(1, len(data)))
    made[: len(data)] = data
    made.seek(len(data))  # where it stands says nothing of what it holds
    return made if data else b""


@pytest.mark.parametrize("made", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.parametrize("size", [0, 6, 2_500_000])
def test_any_buffer_and_any_open_file_is_content(blobs: BlockingBlobs, made: Callable[[bytes], Any], size: int) -> None:
    """Its bytes in order, whatever its shape, and whether or not it can be written to."""
    data = random.Random(size).randbytes(size)
    assert blobs.put(made(data)) == content_address(data)
    assert bytes(blobs.get(content_address(data))) == data


def test_a_file_is_put_from_where_it_stands(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """What was read of it before is not content."""
    (tmp_path / "f").write_bytes(b"head and the rest")
    with open(tmp_path / "f", "rb") as file:
        file.read(9)
        assert bytes(blobs.get(blobs.put(file))) == b"the rest"


@pytest.mark.parametrize("wrong", ["text", 3, None, ["x"]])
def test_what_has_no_bytes_is_refused(blobs: BlockingBlobs, wrong: Any) -> None:
    """The error says what is accepted."""
    with pytest.raises(InputTypeError, match="expected a buffer"):
        blobs.put(wrong)


def test_a_file_of_text_is_refused(blobs: BlockingBlobs) -> None:
    """It was opened in the wrong mode."""
    with pytest.raises(InputTypeError, match="gives str, not bytes"):
        blobs.put(io.StringIO("text"))  # type: ignore[arg-type]


def test_content_comes_back_read_only(blobs: BlockingBlobs) -> None:
    """A store's own bytes can't be written to, also where they are mapped."""
    for size in (10, 3_000_000):
        assert blobs.get(blobs.put(bytes(size))).readonly


def test_a_buffer_that_changes_meanwhile_gets_the_address_of_what_was_stored(blobs: BlockingBlobs) -> None:
    """Whoever writes into a buffer while it is stored never makes content that does not match its address."""
    data, stop = bytearray(4_000_000), threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            for at in range(0, len(data), 4096):
                data[at] = (data[at] + 1) % 256

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(5):
            blobs.get(blobs.put(data))  # verifies
    finally:
        stop.set()
        thread.join()


def test_equal_content_has_one_address(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """Putting content twice, as bytes or as a file, is one content."""
    (tmp_path / "f").write_bytes(b"same")
    address = content_address(b"same")
    assert [blobs.put(b"same"), blobs.put(b"same"), blobs.put_path(tmp_path / "f")] == [address] * 3
    assert [each.size for each in blobs.contents()] == [len(b"same")]


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


def test_the_url_opens_a_store(tmp_path: Path) -> None:
    """The URL of a store is accepted by ``open_blobs`` and opens one of the same kind; both faces have it."""
    for blobs in (FileBlobStore(tmp_path), MemoryBlobStore()):
        again = open_blobs(blobs.url)
        assert (type(again), again.url, again.blocking.url) == (type(blobs), blobs.url, blobs.url)


async def test_a_blocking_face_is_not_used_on_its_own_loop() -> None:
    """It would wait for itself: an error instead."""
    blobs = LoopBlobs(MemoryBlobStore(), asyncio.get_running_loop())
    with pytest.raises(RuntimeError, match="await the store there"):
        blobs.put(b"")


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
