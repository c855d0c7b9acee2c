"""The blob store of files between threads that interleave and processes that are killed."""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from flyteish.blobs import disk
from flyteish.blobs.addresses import content_address
from flyteish.blobs.files import BlockingFileBlobs
from flyteish.errors import BlobMissingError

OLD = 1000.0
"""A time before every test run."""


@pytest.fixture
def files(tmp_path: Path) -> BlockingFileBlobs:
    return BlockingFileBlobs(tmp_path / "store")


@contextmanager
def process(code: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another Python with ``store`` open over the same folder; it is killed at the end, if it still runs."""
    head = "import os, sys\nfrom pathlib import Path\nfrom flyteish.blobs.files import BlockingFileBlobs\n"
    head += "store = BlockingFileBlobs(Path(sys.argv[1]))\n"
    program = [sys.executable, "-c", head + code, str(root)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def tell(started: subprocess.Popen[str], text: str) -> None:
    assert started.stdin is not None
    started.stdin.write(text + "\n")
    started.stdin.flush()


def path_of(root: Path, address: str) -> Path:
    digest = address.partition(":")[2]
    return root / "blobs" / digest[:2] / digest[2:]


# -- sweeping beside putting -------------------------------------------------------------------------------------------


class Interleaved(BlockingFileBlobs):
    """Before it takes its lock for the ``turn``-th time, something else is done."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)
    turn = 0

    def _locked(self, alone: bool) -> AbstractContextManager[None]:
        self.turn -= 1
        if self.turn == 0:
            self.meanwhile()
        return super()._locked(alone)


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("there", [True, False])
def test_putting_is_not_hurt_by_a_delete_at_any_point(tmp_path: Path, turn: int, there: bool) -> None:
    """Whatever step the writer is at when old content is deleted, afterwards its content is there."""
    store, sweeper = Interleaved(tmp_path / "store"), BlockingFileBlobs(tmp_path / "store")
    address = content_address(b"content")
    if there:
        store.put(b"content")
        os.utime(path_of(tmp_path / "store", address), (OLD, OLD))
    cutoff = time.time()
    while time.time() <= cutoff:
        pass
    store.turn, store.meanwhile = turn, lambda: sweeper.delete([address], cutoff)
    store.put(b"content")
    sweeper.delete([address], cutoff)
    assert bytes(sweeper.get(address)) == b"content"


@pytest.mark.parametrize("put_first", [True, False])
def test_deleting_spares_what_is_put_at_any_point(tmp_path: Path, put_first: bool) -> None:
    """Whatever step the sweeper is at when content is put again, the content stays."""
    sweeper, store = Interleaved(tmp_path / "store"), BlockingFileBlobs(tmp_path / "store")
    address = store.put(b"content")
    os.utime(path_of(tmp_path / "store", address), (OLD, OLD))
    cutoff = time.time()
    while time.time() <= cutoff:
        pass
    if put_first:
        store.put(b"content")
    else:
        sweeper.turn, sweeper.meanwhile = 1, lambda: store.put(b"content")
    assert sweeper.delete([address], cutoff) == 0
    assert bytes(store.get(address)) == b"content"


def test_nothing_is_put_between_looking_and_deleting(
    files: BlockingFileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who puts content that is about to go waits until it has gone, and writes it anew."""
    address = files.put(b"content")
    os.utime(path_of(tmp_path / "store", address), (OLD, OLD))
    writer = threading.Thread(target=files.put, args=(b"content",))
    unlink = Path.unlink

    def late(path: Path, missing_ok: bool = False) -> None:
        if path == path_of(tmp_path / "store", address):
            writer.start()
            writer.join(0.2)  # it can't get ahead, however long it is given
            assert writer.is_alive()
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", late)
    assert files.delete([address], OLD + 1) == len(b"content")
    writer.join(30)
    assert bytes(files.get(address)) == b"content"


def test_a_sweep_in_another_process_never_takes_what_was_just_put(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """One process deletes all the while what is old; what this one puts again, however old it was, it finds."""
    data = [b"%d" % number for number in range(5)]
    sweeps = """
import time
cutoff = time.time() - 100
print("begun", flush=True)
while True:
    store.delete([each.name for each in store.contents()], cutoff)
"""
    gone = 0
    with process(sweeps, tmp_path / "store") as sweeper:
        assert line(sweeper) == "begun"
        for _ in range(80):
            for each in data:
                address = files.put(each)
                assert bytes(files.get(address)) == each
                os.utime(path_of(tmp_path / "store", address), (OLD, OLD))
            for each in data:
                try:
                    files.get(content_address(each))
                except BlobMissingError:
                    gone += 1
        assert sweeper.poll() is None
    assert gone > 0  # it did delete


def test_folders_that_are_tidied_up_are_no_trouble_for_writers(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """Empty spaces are removed by one process while this one puts content into them."""
    tidies = """
print("begun", flush=True)
while True:
    store.tidy(float("inf"))
"""
    with process(tidies, tmp_path / "store") as sweeper:
        assert line(sweeper) == "begun"
        drafts_lost = 0
        for number in range(60):
            space = files.space(f"r/{number % 3}")
            address = space.put(b"%d" % number)
            assert bytes(space.get(address)) == b"%d" % number
            space.set_ref("name", b"value")
            drafts_lost += space.get_ref("name") is None
            space.delete_ref("name")
            space.delete([address], float("inf"))
        assert sweeper.poll() is None
    assert drafts_lost == 0


# -- references between processes --------------------------------------------------------------------------------------

COUNTS = """
print("begun", flush=True)
for _ in range(int(sys.stdin.readline())):
    while True:
        found = store.get_ref("count")
        if store.replace_ref("count", b"%d" % (int(found.data) + 1), found.version):
            break
print("done", flush=True)
"""


def counted(files: BlockingFileBlobs) -> int:
    found = files.get_ref("count")
    assert found is not None
    return int(found.data)


def test_two_processes_count_together(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """No replacement is lost, and none made twice."""
    files.set_ref("count", b"0")
    with process(COUNTS, tmp_path / "store") as one, process(COUNTS, tmp_path / "store") as other:
        for each in (one, other):
            assert line(each) == "begun"
        for each in (one, other):
            tell(each, "100")
        assert [line(one), line(other)] == ["done"] * 2
    assert counted(files) == 200


def test_a_process_that_is_killed_while_it_counts_is_no_trouble(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """The value is whole, and others go on from it."""
    files.set_ref("count", b"0")
    with process(COUNTS, tmp_path / "store") as counting:
        assert line(counting) == "begun"
        tell(counting, "1000000")
        until(lambda: counted(files) > 20)
        counting.send_signal(signal.SIGKILL)
        counting.wait(30)
    found = files.get_ref("count")
    assert found is not None
    assert files.replace_ref("count", b"%d" % (int(found.data) + 1), found.version)


def test_of_two_processes_one_creates(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """Both try every name at the same time; each name is got by one of them."""
    creates = """
print("begun", flush=True)
sys.stdin.readline()
print(sum(store.create_ref(f"claims/{n}", sys.argv[1].encode()) for n in range(100)), flush=True)
"""
    with process(creates, tmp_path / "store") as one, process(creates, tmp_path / "store") as other:
        for each in (one, other):
            assert line(each) == "begun"
        for each in (one, other):
            tell(each, "")
        assert int(line(one)) + int(line(other)) == 100
    assert len(list(files.references())) == 100


# -- processes that are killed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["", "r1/a0"])
def test_a_writer_that_is_killed_leaves_a_draft_and_nothing_else(
    files: BlockingFileBlobs, tmp_path: Path, into: str
) -> None:
    """Half of a stream is no content; it is removed once it is old, and the same content can be put."""
    store = files.space(into) if into else files
    root = Path(store.url.removeprefix("file://"))
    space = f".space({into!r})" if into else ""
    with process(f"print('begun', flush=True)\nstore{space}.put(sys.stdin.buffer)", tmp_path / "store") as writer:
        assert line(writer) == "begun"
        assert writer.stdin is not None
        writer.stdin.write("x" * 3_000_000)
        writer.stdin.flush()
        until(lambda: any(path.stat().st_size > 1_000_000 for path in (root / "new").glob("*")))
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    assert list(store.contents()) == []
    assert store.tidy(OLD) == 0
    assert store.tidy(time.time() + 1) > 1_000_000
    assert list((root / "new").glob("*")) == []
    assert bytes(store.get(store.put(b"x" * 3_000_000))) == b"x" * 3_000_000


def test_a_process_that_is_killed_with_the_lock_gives_it_back(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """However it dies, whoever waits for the lock goes on."""
    holds = """
with store._locked(alone=True):
    print("held", flush=True)
    sys.stdin.readline()
"""
    put = threading.Event()
    with process(holds, tmp_path / "store") as holder:
        assert line(holder) == "held"

        def work() -> None:
            files.put(b"content")
            put.set()

        waiting = threading.Thread(target=work)
        waiting.start()
        assert not put.is_set()
        holder.send_signal(signal.SIGKILL)
        waiting.join(30)
    assert put.is_set()


# -- large content, old stores -----------------------------------------------------------------------------------------


def test_large_content_is_never_in_memory_as_a_whole(files: BlockingFileBlobs, tmp_path: Path) -> None:
    """Putting and fetching a file, and mapping its content, take a few MiB, however large it is."""
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(100 << 20)
    files.put(b"warm up")
    tracemalloc.start()
    try:
        address = files.put_path(large)
        with open(large, "rb") as file:
            assert files.put(file) == address
        files.fetch(address, tmp_path / "copy")
        view = files.get(address)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(view) == 100 << 20
    assert peak < 8 << 20
    files.delete([address], float("inf"))
    assert bytes(view[:3]) == b"\0\0\0"  # what is mapped outlives its file's name


def test_maps_leave_descriptors_for_others(files: BlockingFileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of maps that are in use, content is read; once they are gone, it is mapped again."""
    monkeypatch.setattr(disk, "MAPS", 2)
    address = files.put(bytes(disk.MAPPED))
    views = [files.get(address) for _ in range(3)]
    assert [type(view.obj) for view in views] == [mmap.mmap, mmap.mmap, bytes]
    views.clear()
    assert isinstance(files.get(address).obj, mmap.mmap)


def test_a_store_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its references have versions, too, and its content is swept by the same rules."""
    root = tmp_path / "old"
    content, digest = b"content", hashlib.sha256(b"content").hexdigest()
    for path, data in (
        (root / "blobs" / digest[:2] / digest[2:], content),
        (root / "refs" / "some" / "name~", hashlib.sha256(b"value").digest() + b"value"),
        (root / "spaces" / "r1" / "a0~" / "blobs" / digest[:2] / digest[2:], content),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    store = BlockingFileBlobs(root)
    assert bytes(store.get(f"sha256:{digest}")) == content
    found = store.get_ref("some/name")
    assert found is not None
    assert found.data == b"value"
    assert not store.create_ref("some/name", b"")
    assert store.replace_ref("some/name", b"new", found.version)
    assert list(store.spaces()) == ["r1/a0"]
    assert store.space("r1/a0").delete([f"sha256:{digest}"], float("inf")) == len(content)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
