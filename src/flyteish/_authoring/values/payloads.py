"""Encoded values on their way: small ones inline, large ones through the blob store, huge ones not at all.

Decides by size alone. Where the limits lie is the session's to say (``interfaces.Limits``), for inputs, results and
traced values alike, in this process and in workers. Must not know what the bytes mean, nor whose they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyteish._core.model.values import Payload
from flyteish._core.wording import size
from flyteish.errors import SerializationError

if TYPE_CHECKING:
    from flyteish.interfaces import BlockingContent, ContentStore, Limits


def pack(data: bytes, inline_limit: int, blobs: BlockingContent) -> Payload:
    """The payload for these bytes; blocks while one beyond the limit is stored."""
    if len(data) <= inline_limit:
        return Payload(data, None, len(data))
    return Payload(None, blobs.put(data), len(data))


def unpack(payload: Payload, blobs: BlockingContent) -> bytes | memoryview:
    """The bytes of a payload; blocks while a large one is read."""
    if payload.blob is not None:
        return blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data


async def pack_beside(data: bytes, inline_limit: int, blobs: ContentStore) -> Payload:
    """``pack`` that leaves the event loop free while a large value is stored."""
    if len(data) <= inline_limit:
        return Payload(data, None, len(data))
    return Payload(None, await blobs.put(data), len(data))


async def unpack_beside(payload: Payload, blobs: ContentStore) -> bytes | memoryview:
    """``unpack`` that leaves the event loop free while a large value is read."""
    if payload.blob is not None:
        return await blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data


def check_size(task: str, what: str, data: bytes, limits: Limits) -> None:
    """Raises SerializationError where a value is larger than what the session accepts."""
    if len(data) > limits.value:
        raise SerializationError(
            f"{task}(): {what} of {size(len(data))}, more than the {size(limits.value)} accepted (max_value_size); "
            "use a flyteish.io.File or Dir, which travel by reference"
        )
