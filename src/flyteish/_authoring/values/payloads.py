"""Encoded values on their way: small ones inline, large ones through the blob store.

Decides by size alone. Must not know what the bytes mean, nor whose they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flyteish._core.model.values import Payload

if TYPE_CHECKING:
    from flyteish.interfaces import BlockingContent, ContentStore

INLINE_BYTES: Final = 64 * 1024
"""Above this a value goes to the blob store; a smaller one travels inside the message and the journal."""


def pack(data: bytes, blobs: BlockingContent) -> Payload:
    """The payload for these bytes; blocks while a large one is stored."""
    if len(data) <= INLINE_BYTES:
        return Payload(data, None, len(data))
    return Payload(None, blobs.put(data), len(data))


def unpack(payload: Payload, blobs: BlockingContent) -> bytes | memoryview:
    """The bytes of a payload; blocks while a large one is read."""
    if payload.blob is not None:
        return blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data


async def pack_beside(data: bytes, blobs: ContentStore) -> Payload:
    """``pack`` that leaves the event loop free while a large value is stored."""
    if len(data) <= INLINE_BYTES:
        return Payload(data, None, len(data))
    return Payload(None, await blobs.put(data), len(data))


async def unpack_beside(payload: Payload, blobs: ContentStore) -> bytes | memoryview:
    """``unpack`` that leaves the event loop free while a large value is read."""
    if payload.blob is not None:
        return await blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data
