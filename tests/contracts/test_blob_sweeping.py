"""What every blob store lists and deletes, and what a sweep over it keeps."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import msgspec
import pytest

from flyteish.blobs import on_loop, threaded
from flyteish.blobs.addresses import content_address
from flyteish.blobs.sweeping import Swept, supersede, sweep
from flyteish.errors import BlobMissingError
from flyteish.interfaces import BlockingBlobs
from tests.contracts.test_blob_references import after, at_once, said
from tests.contracts.test_blob_store import LATER, NEVER, picture


def test_everything_is_listed(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """Content and references with size and time, and spaces, whose own are not among them."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"content")
    begun = time.time()
    addresses = {blobs.put(b"12345"): 5, blobs.put_path(tmp_path / "tree"): None, content_address(b"content"): 7}
    blobs.set_ref("a", b"123")
    blobs.set_ref("a/b", b"")
    for name in ("r1/a0", "r1/a1", "s"):
        blobs.space(name).put(b"of a space")
    blobs.space("s").set_ref("own", b"")
    contents = {each.name: each.size for each in blobs.contents()}
    assert contents == {address: contents[address] if size is None else size for address, size in addresses.items()}
    assert {each.name: each.size for each in blobs.references()} == {"a": 3, "a/b": 0}
    assert sorted(blobs.spaces()) == ["r1/a0", "r1/a1", "s"]
    times = [each.written_at for each in [*blobs.contents(), *blobs.references()]]
    assert begun <= min(times) <= max(times) <= time.time()
    assert [each.name for each in blobs.space("s").references()] == ["own"]
    assert list(blobs.space("s").spaces()) == []


def test_a_long_listing_is_whole(blobs: BlockingBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is paged."""
    for module in (threaded, on_loop):
        monkeypatch.setattr(module, "PAGE", 7)
    for count in (14, 15):
        names = {blobs.put(b"%d" % number) for number in range(count)}
        assert len(names) == count
        assert {each.name for each in blobs.contents()} == names


def test_delete_removes_what_was_not_written_since(blobs: BlockingBlobs) -> None:
    """Bytes freed are counted; what is not there is passed over."""
    old = blobs.put(b"old")
    between = after(time.time())
    new = blobs.put(b"new!")
    assert blobs.delete([old, new, NEVER], between) == 3
    assert [each.name for each in blobs.contents()] == [new]
    assert blobs.delete([old, new], LATER) == 4


def test_putting_old_content_renews_it(blobs: BlockingBlobs, tmp_path: Path) -> None:
    """As bytes, from a file, as a file and within a directory: it counts as written then."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"content")
    address = blobs.put(b"content")
    for again in (
        lambda: blobs.put(b"content"),
        lambda: blobs.put(bytearray(b"content")),
        lambda: blobs.put_path(tmp_path / "tree" / "f"),
        lambda: blobs.put_path(tmp_path / "tree"),
    ):
        since = after(max(each.written_at for each in blobs.contents()))
        again()
        assert blobs.delete([address], since) == 0
        assert bytes(blobs.get(address)) == b"content"


def test_what_was_just_put_survives_every_sweep(blobs: BlockingBlobs) -> None:
    """Threads that put old content again, while others delete what is old, find it, always."""
    data = [b"first", b"second"]
    addresses = [blobs.put(each) for each in data]
    over = threading.Event()

    def work(number: int) -> None:
        if number < 2:
            try:
                for _ in range(40):
                    blobs.put(data[number])
                    found = next(each for each in blobs.contents() if each.name == addresses[number])
                    blobs.put(data[number])
                    assert bytes(blobs.get(addresses[number])) == data[number]
                    # From here on it may go again: whoever sweeps takes its time for old.
                    newest[number] = after(found.written_at)
            finally:
                newest[number] = -math.inf
                if newest == [-math.inf, -math.inf]:
                    over.set()
        else:
            while not over.is_set():
                for address, before in zip(addresses, list(newest), strict=True):
                    blobs.delete([address], before)

    newest = [0.0, 0.0]
    at_once(work, 4)


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


def test_a_dry_run_says_what_a_sweep_would_do(blobs: BlockingBlobs, tree: Path) -> None:
    """Count and size, spaces included, and nothing goes."""
    blobs.put(b"x" * 10)
    blobs.put_path(tree)
    blobs.space("s").put(b"y" * 10)
    before = list(blobs.contents())
    said_before = sweep(blobs, lambda _: False, LATER, dry_run=True)
    assert list(blobs.contents()) == before
    assert said_before == sweep(blobs, lambda _: False, LATER)
    assert said_before.contents == len(before) + 1


def test_references_that_are_to_be_forgotten_go_first(blobs: BlockingBlobs) -> None:
    """And with them what only they mention; the others keep theirs."""
    old, new = blobs.put(b"old"), blobs.put(b"new")
    blobs.set_ref("old", old.encode())
    between = after(time.time())
    blobs.set_ref("new", new.encode())
    assert sweep(blobs, lambda _: False, LATER).size == 0
    for dry_run in (True, False):
        assert (
            sweep(blobs, lambda _: False, LATER, forget=lambda ref: ref.written_at < between, dry_run=dry_run).size == 3
        )
    assert (said(blobs, "old"), said(blobs, "new")) == (None, new.encode())


def test_a_space_is_asked_for_by_its_name(blobs: BlockingBlobs) -> None:
    """The store's references keep content of its spaces; a space that is empty loses its own references."""
    kept, published, gone = (blobs.space(name).put(name.encode()) for name in ("kept", "published", "gone"))
    blobs.set_ref("key", published.encode())
    blobs.space("gone").set_ref("key", gone.encode())
    asked: list[str] = []

    def keep(address: str) -> bool:
        asked.append(address)
        return address.startswith("kept/")

    assert sweep(blobs, keep, LATER) == Swept(1, 4)
    assert sorted(asked) == sorted([f"kept/{kept}", f"gone/{gone}"])
    assert sorted(blobs.spaces()) == ["kept", "published"]


def test_superseding_goes_by_the_stores_own_clock(blobs: BlockingBlobs) -> None:
    """All that was written before the newest goes, but for what is kept, or mentioned by a reference."""
    space = blobs.space("r1/a0")
    named, _, kept, newest = (space.put(each) for each in (b"named", b"old", b"kept", b"newest"))
    after(time.time())
    later = space.put(b"of somebody else, later")
    space.set_ref("key", named.encode())
    assert supersede(space, [kept], newest) == len(b"old")
    assert {each.name for each in space.contents()} == {named, kept, newest, later}
