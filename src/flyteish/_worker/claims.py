"""The end of an attempt, claimed: written under a name of its own that can be written once.

For attempts that may outlive their controller: what is claimed is the attempt's end, whether or not anybody hears
of it over a connection, and whoever comes second for the same generation has no say. Must not judge what is claimed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import checks
from flyteish._worker.channel import NonsenseError
from flyteish.blobs.addresses import is_ref
from flyteish.interfaces import BlobStore, BlockingBlobs, Notice

#: Seconds before a claim is tried again that the blob store could not write, or not read.
AGAIN: Final = (0.5, 2.0, 8.0)


class ClaimedEnd(msgspec.Struct, frozen=True, array_like=True):
    """What is claimed."""

    key: AttemptKey
    evidence: WorkerEvidence
    running_at: float
    """When user code began, seconds since the epoch; 0 where it never did."""
    ended_at: float
    notice: Notice | None = None
    """What the last signal that announced the end of its machine was taken for: it may not have been told in time."""


def name_of(key: AttemptKey) -> str:
    """The reference under which this attempt's end is claimed."""
    name = f"claims/{key.run}/{key.action}/{key.generation}"
    return name if is_ref(name) else f"claims/{blake2b(repr(tuple(key)).encode(), digest_size=20).hexdigest()}"


def claim(blobs: BlockingBlobs, made: ClaimedEnd) -> bool:
    """ClaimedEnd the end; False: it was claimed already.

    Raises:
        BlobError: the store failed; nobody knows whether it is claimed.
    """
    return blobs.create_ref(name_of(made.key), msgspec.msgpack.encode(made))


async def claimed(blobs: BlobStore, key: AttemptKey, inline: int) -> ClaimedEnd | None:
    """What was claimed for this attempt, checked; None: nothing was.

    Args:
        inline: bytes of a result at most that is within the claim.

    Raises:
        NonsenseError: what stands there is no claim of this attempt.
        BlobError: the store failed.
    """
    reference = await blobs.get_ref(name_of(key))
    if reference is None:
        return None
    try:
        found = msgspec.msgpack.decode(reference.data, type=ClaimedEnd)
    except Exception as error:  # msgspec's errors, and a recursion that went too deep
        raise NonsenseError(f"the claim of {key} can't be read: {type(error).__name__}: {error}"[:500]) from None
    if found.key != key:
        raise NonsenseError(f"the claim of {key} speaks for {found.key}")
    checks.seconds("running_at", found.running_at)
    checks.seconds("ended_at", found.ended_at)
    if found.notice is not None:
        checks.notice(found.notice)
    checks.evidence(found.evidence, inline)
    return found


async def forget(blobs: BlobStore, key: AttemptKey) -> None:
    """The end is on record: its claim is not needed any more."""
    await blobs.delete_ref(name_of(key))
