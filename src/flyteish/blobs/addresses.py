"""What things in a blob store are called: ``sha256:<hex>`` bytes, ``tree:<hex>`` directories, and references.

Checks names and checksums, the same for every store. Must not know where anything is kept.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from flyteish.errors import BlobCorruptError, BlobMissingError, ConfigurationError

CONTENT: Final = "sha256"
TREE: Final = "tree"
NAME_LENGTH: Final = 200

_ADDRESS: Final = re.compile(r"(sha256|tree):([0-9a-f]{64})")
_MENTION: Final = re.compile(rb"(?:sha256|tree):[0-9a-f]{64}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@-]*")


def content_address(data: bytes) -> str:
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
    """Whether a store might have given this out."""
    return _ADDRESS.fullmatch(text) is not None


def is_tree(address: str) -> bool:
    """Whether a directory is there, rather than bytes."""
    return split(address)[0] == TREE


def verify(address: str, digest: str, size: int, where: object) -> None:
    """Raise BlobCorruptError unless the ``size`` bytes found at ``where`` have the address's digest."""
    if split(address)[1] != digest:
        raise BlobCorruptError(f"{where}: the content of {address} is damaged ({size} bytes with checksum {digest})")


def checked_ref(name: str) -> str:
    """The reference's name, if it is one. Raises ConfigurationError."""
    if (
        isinstance(name, str)
        and len(name) <= NAME_LENGTH
        and all(_SEGMENT.fullmatch(segment) for segment in name.split("/"))
    ):
        return name
    raise ConfigurationError(
        f"name={name!r} is not accepted for a reference: expected up to {NAME_LENGTH} letters, digits and "
        "_.=+@- in segments separated by /, each beginning with a letter, a digit or _"
    )


def mentioned(data: bytes) -> set[str]:
    """Every address that occurs in some bytes, whatever their encoding."""
    return {match.decode("ascii") for match in _MENTION.findall(data)}
