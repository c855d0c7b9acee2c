"""Encoded values on their way: small ones inline, large ones through the blob store.

Decides by size alone. Must not know what the bytes mean, nor whose they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from flyteish._core.model.values import Payload

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._authoring.values.drafts import Draft
    from flyteish.interfaces import BlobStore, BlockingContent

_ADDRESS: Final = b"sha256:"
_SHORTEST_WITH_BLOB: Final = len(_ADDRESS) + 64
INLINE_BYTES: Final = 64 * 1024
"""Above this a value goes to the blob store; a smaller one travels inside the message and the journal."""


class Decodes(Protocol):
    """Who knows how to decode results."""

    def decode_result(self, data: bytes | memoryview) -> Any:
        """The result, made of fresh objects."""


def pack(data: bytes, blobs: BlockingContent) -> Payload:
    """The payload for these bytes; blocks while a large one is stored."""
    if len(data) <= INLINE_BYTES:
        return Payload(data, None, len(data))
    return Payload(None, blobs.put(data), len(data))


def packed(value: bytes | Draft, blobs: BlockingContent) -> Payload:
    """The payload of a value that was taken down; blocks, unless it is small."""
    return pack(value if isinstance(value, bytes) else value.finish(), blobs)


def unpack(payload: Payload, blobs: BlockingContent) -> bytes | memoryview:
    """The bytes of a payload; blocks while a large one is read."""
    if payload.blob is not None:
        return blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data


def is_light(data: bytes | memoryview | None) -> bool:
    """Whether an encoded value may be decoded on an event loop: it is small, and nothing has to be read for it."""
    if data is None:
        return False
    size = len(data)
    return size < _SHORTEST_WITH_BLOB or (size <= INLINE_BYTES and _ADDRESS not in bytes(data))


def decoded(how: Decodes, payload: Payload, blobs: BlockingContent) -> Any:
    """The value behind a payload; blocks, unless it is light."""
    return how.decode_result(unpack(payload, blobs))


async def decoded_beside(how: Decodes, payload: Payload, blobs: BlobStore, feeds: Feeds) -> Any:
    """The value behind a payload; what is not light is read and decoded on a thread beside the event loop."""
    if is_light(payload.data):
        return how.decode_result(payload.data or b"")
    from flyteish._async.feeds import beside_loop

    return await beside_loop(feeds, lambda: decoded(how, payload, blobs.blocking), "flyteish: reading a value")
