"""What things in a blob store are called: ``sha256:<hex>`` bytes, ``tree:<hex>`` directories, and references.

Checks names and checksums, the same for every store. Must not know where anything is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from mmap import mmap
from typing import TYPE_CHECKING, BinaryIO, Final

from flyteish.errors import BlobCorruptError, BlobMissingError, ConfigurationError, InputTypeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CONTENT: Final = "sha256"
TREE: Final = "tree"
NAME_LENGTH: Final = 200
CHUNK: Final = 1 << 20
"""Bytes that are read, hashed and written in one go."""

_ADDRESS: Final = re.compile(r"(sha256|tree):([0-9a-f]{64})")
_MENTION: Final = re.compile(rb"(?:sha256|tree):[0-9a-f]{64}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@-]*")


def content_address(data: Buffer) -> str:
    """The address of bytes."""
    return f"{CONTENT}:{sha256(data).hexdigest()}"


def tree_address(manifest: bytes) -> str:
    """The address of a directory, from its encoded manifest."""
    return f"{TREE}:{sha256(manifest).hexdigest()}"


def split(address: str) -> tuple[str, str]:
    """Kind and digest. Raises BlobMissingError for what no store ever gives out."""
    match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if match is None:
        raise BlobMissingError(f"no content at {address!r}: expected sha256:<64 hex digits> or tree:<64 hex digits>")
    return match[1], match[2]


def is_address(text: str) -> bool:
    """Whether a store may have given this out."""
    return _ADDRESS.fullmatch(text) is not None


def is_tree(address: str) -> bool:
    """Whether a directory is there, rather than bytes."""
    return split(address)[0] == TREE


def verify(address: str, digest: str, size: int, where: object) -> None:
    """Raise BlobCorruptError unless the ``size`` bytes found at ``where`` have the address's digest."""
    if split(address)[1] != digest:
        raise BlobCorruptError(f"{where}: the content of {address} is damaged ({size} bytes with checksum {digest})")


def is_ref(name: str) -> bool:
    """Whether a reference may be called so."""
    return len(name) <= NAME_LENGTH and all(_SEGMENT.fullmatch(segment) for segment in name.split("/"))


def checked_ref(name: str) -> str:
    """The reference's name, if it is one. Raises ConfigurationError."""
    if isinstance(name, str) and is_ref(name):
        return name
    raise ConfigurationError(
        f"name={name!r} is not accepted for a reference: expected up to {NAME_LENGTH} letters, digits and "
        "_.=+@- in segments separated by /, each beginning with a letter, a digit or _"
    )


def unchanging(content: Buffer | BinaryIO) -> memoryview | None:
    """The bytes of a buffer that nobody can write to; None for one that may change, and for a file.

    Raises InputTypeError for what is neither.
    """
    if hasattr(content, "read") and not isinstance(content, mmap):
        return None
    view = _view(content)
    return view if isinstance(view.obj, bytes) else None  # read-only views may be of what others can write to


def chunks(content: Buffer | BinaryIO) -> Iterator[bytes]:
    """The bytes of a file from where it stands, or a buffer's, in pieces that nobody can write to."""
    if isinstance(content, mmap) or not hasattr(content, "read"):
        view = _view(content)
        yield from (bytes(view[start : start + CHUNK]) for start in range(0, len(view), CHUNK))
        return
    while chunk := content.read(CHUNK):
        if not isinstance(chunk, bytes):
            raise InputTypeError(f"put(content={content!r}): the file gives {type(chunk).__name__}, not bytes")
        yield chunk


def _view(content: object) -> memoryview:
    try:
        view = memoryview(content)  # type: ignore[arg-type]  # whatever has no buffer is refused
    except TypeError:
        kind = type(content).__name__
        raise InputTypeError(
            f"put(content=...) got {kind}: expected a buffer (bytes, bytearray, memoryview, mmap) or a binary file"
        ) from None
    if view.nbytes == 0 or not view.c_contiguous:  # such views can't be cast
        return memoryview(view.tobytes())
    return view.cast("B")


def mentioned(data: Buffer) -> set[str]:
    """Every address that occurs in some bytes, whatever their encoding."""
    return {match.decode("ascii") for match in _MENTION.findall(data)}
