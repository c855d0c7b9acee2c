"""Encoded values on their way: small ones inline, large ones through the blob store, huge ones not at all.

Decides by size alone. Where the limits lie is the session's to say (``interfaces.Limits``), for inputs, results and
traced values alike, in this process and in workers; only how much may be worked on where an event loop runs is fixed.
Must not know what the bytes mean, nor whose they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard

from flyteish._core.model.values import Payload
from flyteish._core.wording import size
from flyteish.errors import SerializationError

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._authoring.values.drafts import Draft
    from flyteish.interfaces import BlobStore, BlockingContent, Limits

#: Bytes. More are hashed, packed, stored, read and decoded on a thread beside the event loop.
ON_LOOP: Final = 64 * 1024
_ADDRESS: Final = b"sha256:"
#: Bytes. Shorter values are light: no address of a blob has room in them.
SURELY_LIGHT: Final = len(_ADDRESS) + 64


class Decodes(Protocol):
    """Who knows how to decode results."""

    def decode_result(self, data: bytes | memoryview) -> Any:
        """The result, made of fresh objects."""


def pack(data: bytes, inline_limit: int, blobs: BlockingContent) -> Payload:
    """The payload for these bytes; blocks while one beyond the limit is stored."""
    if len(data) <= inline_limit:
        return Payload(data, None, len(data))
    return Payload(None, blobs.put(data), len(data))


def may_stay(value: bytes | Draft, inline_limit: int) -> TypeGuard[bytes]:
    """Whether what was taken down is packed already, and travels as it is: nothing is left to do on a thread."""
    return isinstance(value, bytes) and len(value) <= ON_LOOP and len(value) <= inline_limit


def packed(value: bytes | Draft, task: str, what: str, limits: Limits, blobs: BlockingContent) -> Payload:
    """The payload of a value that was taken down; blocks, unless it ``may_stay``.

    Raises SerializationError where it is larger than what the session accepts.
    """
    data = value if isinstance(value, bytes) else value.finish()
    check_size(task, what, data, limits)
    return pack(data, limits.inline, blobs)


def unpack(payload: Payload, blobs: BlockingContent) -> bytes | memoryview:
    """The bytes of a payload; blocks while a large one is read."""
    if payload.blob is not None:
        return blobs.get(payload.blob)
    return b"" if payload.data is None else payload.data


def is_light(data: bytes | memoryview | None) -> bool:
    """Whether an encoded value may be decoded on an event loop: it is small, and nothing has to be read for it."""
    if data is None:
        return False
    length = len(data)
    return length < SURELY_LIGHT or (length <= ON_LOOP and _ADDRESS not in bytes(data))


def decoded(how: Decodes, payload: Payload, blobs: BlockingContent) -> Any:
    """The value behind a payload; blocks, unless it is light."""
    return how.decode_result(unpack(payload, blobs))


async def decoded_beside(how: Decodes, payload: Payload, blobs: BlobStore, feeds: Feeds) -> Any:
    """The value behind a payload; what is not light is read and decoded on a thread beside the event loop."""
    if is_light(payload.data):
        return how.decode_result(payload.data or b"")
    from flyteish._async.feeds import done_on

    return await done_on(feeds.values, lambda: decoded(how, payload, blobs.blocking), feeds)


def check_size(task: str, what: str, data: bytes, limits: Limits) -> None:
    """Raises SerializationError where a value is larger than what the session accepts."""
    if len(data) > limits.value:
        raise SerializationError(
            f"{task}(): {what} of {size(len(data))}, more than the {size(limits.value)} accepted (max_value_size); "
            "use a flyteish.io.File or Dir, which travel by reference"
        )
