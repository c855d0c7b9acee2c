"""A store that blocks, awaited: the loop is free meanwhile, and a wait that is cancelled leaves nothing half done."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from flyteish.blobs.addresses import content_address
from flyteish.blobs.memory import BlockingMemoryBlobs
from flyteish.blobs.threaded import THREADS, ThreadedBlobs


class GatedBlobs(BlockingMemoryBlobs):
    """Putting and getting take until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.began = threading.Semaphore(0)
        self.at_work = 0
        self.most = 0

    def put(self, content: Any) -> str:
        self._wait()
        return super().put(content)

    def get(self, address: str) -> memoryview:
        self._wait()
        return super().get(address)

    def _wait(self) -> None:
        with self._lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.began.release()
        assert self.gate.wait(30)
        with self._lock:
            self.at_work -= 1


async def test_the_loop_goes_on_while_a_store_works() -> None:
    """However many values are on their way, of which a few are worked on at a time."""
    gated = GatedBlobs()
    store = ThreadedBlobs(gated)
    puts = [asyncio.create_task(store.put(b"%d" % number)) for number in range(3 * THREADS)]
    for _ in range(THREADS):
        assert await asyncio.to_thread(gated.began.acquire, timeout=30)
    assert not any(task.done() for task in puts)  # and this line is reached
    gated.gate.set()
    assert await asyncio.gather(*puts) == [content_address(b"%d" % number) for number in range(3 * THREADS)]
    assert gated.most == THREADS


async def test_a_put_that_is_no_longer_waited_for_is_whole() -> None:
    """It goes on by itself."""
    gated = GatedBlobs()
    store = ThreadedBlobs(gated)
    put = asyncio.create_task(store.put(b"content"))
    assert await asyncio.to_thread(gated.began.acquire, timeout=30)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    gated.gate.set()
    async with asyncio.timeout(30):
        while not [each async for each in store.contents()]:
            pass
    assert bytes(await store.get(content_address(b"content"))) == b"content"


async def test_spaces_share_their_stores_threads() -> None:
    """A store with a thousand spaces has no more threads than one without."""
    store = ThreadedBlobs(BlockingMemoryBlobs())
    before = threading.active_count()
    await asyncio.gather(*[store.space(f"r/{number}").put(b"x") for number in range(50)])
    assert threading.active_count() - before <= THREADS
    assert len([name async for name in store.spaces()]) == 50
