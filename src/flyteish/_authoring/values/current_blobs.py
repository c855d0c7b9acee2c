"""Where values put content that is too large to travel inline, and where they find it again.

The session decides which store that is and sets ``current_blobs`` around encoding, decoding and user code.
This module must not know what a store is made of; it moves bytes and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from flyteish.errors import SerializationError

if TYPE_CHECKING:
    from flyteish.interfaces import BlockingContent

#: Bytes. Smaller content (of an array, a frame, a pickle) travels inside the value; larger is shared by
#: address, so that a fan-out over one big array stores it once. A part of the encoding and no setting: equal values
#: have equal bytes, by which calls are known again and results are cached, however a session is configured.
INLINE_LIMIT = 64 * 1024


current_blobs: ContextVar[BlockingContent | None] = ContextVar("flyteish_current_blobs", default=None)


@contextmanager
def at_hand(blobs: BlockingContent) -> Iterator[None]:
    """Within it, values are encoded to and decoded from this store."""
    token = current_blobs.set(blobs)
    try:
        yield
    finally:
        current_blobs.reset(token)


class BlobAddress(str):
    """An address inside a value: a kind of its own on the wire, so that whoever frees storage can see it."""

    __slots__ = ()


def shelve(data: bytes) -> bytes | BlobAddress:
    """The data itself where it is small or no store is at hand, else its address."""
    blobs = current_blobs.get()
    if blobs is None or len(data) <= INLINE_LIMIT:
        return data
    return BlobAddress(blobs.put(data))


def unshelve(content: bytes | memoryview | BlobAddress) -> bytes | memoryview:
    """The data that ``shelve`` was given."""
    if type(content) is bytes or type(content) is memoryview:
        return content
    if type(content) is not BlobAddress:
        raise ValueError(f"a {type(content).__name__} stands where content or its address belongs")
    blobs = current_blobs.get()
    if blobs is None:
        raise SerializationError(
            f"part of this value lies in a blob store, at {content}, and no store is open here: "
            "read it while the session is open"
        )
    return blobs.get(content)
