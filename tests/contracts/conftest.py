"""Every blob store, in both its faces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyteish.blobs.files import FileBlobStore
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.blobs.on_loop import LoopBlobs
from flyteish.interfaces import BlobStore, BlockingBlobs
from tests.contracts.object_store import ObjectBlobStore, Objects


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


Made = Callable[[Path, asyncio.AbstractEventLoop], BlobStore]
STORES: dict[str, Made] = {
    "files": lambda folder, loop: FileBlobStore(folder / "store"),
    "memory": lambda folder, loop: MemoryBlobStore(),
    "objects": lambda folder, loop: ObjectBlobStore(Objects(), loop),
}
FACES = ["files blocking", "files awaited", "memory blocking", "memory awaited", "objects awaited"]


@pytest.fixture(params=FACES)
def blobs(request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.AbstractEventLoop) -> BlockingBlobs:
    """Every store, as threads use it; and through what is awaited, as loops do."""
    store, face = request.param.split()
    made = STORES[store](tmp_path, loop)
    return made.blocking if face == "blocking" else LoopBlobs(made, loop)


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
