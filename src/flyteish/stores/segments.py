"""Journal entries as bytes: many entries to a segment, checked when they are read again.

Decides how much one segment holds and how damage is noticed; must not know where segments are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from flyteish._core.model.events import Entry

MAX_BYTES = 256 * 1024
"""A segment is larger only where a single entry is."""
_MAX_ENTRIES = 2048  # as many small entries as MAX_BYTES is likely to hold

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


class Segment(NamedTuple):
    """Consecutive entries of one run."""

    length: int
    crc: int
    data: bytes


def pack(entries: Sequence[Entry | msgspec.Raw]) -> Iterator[Segment]:
    """The entries (or the bytes of such) in segments, in order."""
    start, step = 0, _MAX_ENTRIES
    while start < len(entries):
        piece = entries[start : start + step]
        data = _encode(piece)
        if len(data) > MAX_BYTES and len(piece) > 1:
            step = max(1, min(len(piece) // 2, len(piece) * MAX_BYTES // len(data)))
            continue
        yield Segment(len(piece), crc32(data), data)
        start += len(piece)
        step = min(step * 2, _MAX_ENTRIES)


def unpack(segment: Segment) -> list[Entry]:
    """The segment's entries.

    Raises: ValueError saying what is wrong with a segment that is not what ``pack`` made.
    """
    if crc32(segment.data) != segment.crc:
        raise ValueError("its checksum does not match")
    try:
        entries = _decode(segment.data)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is no list of entries ({error})") from error
    if len(entries) != segment.length:
        raise ValueError(f"it has {len(entries)} entries instead of {segment.length}")
    return entries
