"""What an engine and its worker process say to each other, and how it is framed on the socket between them.

Each message is one msgpack array behind its length in four bytes; the type says which it is. Both sides
decode into these types only: no pickle is ever read here. Must not know what either side does with a
message.
"""

from __future__ import annotations

import struct

import msgspec

from flyteish._core.model.events import CheckpointSkipped, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Call, Notice, Order, Outcome

_LENGTH = struct.Struct(">I")
#: Longer messages are refused: a length beyond this is not one of ours.
LONGEST = 2**31 - 1


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    pass


# -- to the worker -----------------------------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """The first message: how to import what the host can import, and where values lie."""

    sys_path: list[str]
    argv: list[str]
    blobs_url: str
    max_result: int
    scratch: str | None = None
    """Below it attempts have their private folders, in one named after the process; None: the system's place."""


class Run(_Message, frozen=True):
    """Do these attempts, one after the other. ``logs`` has a path (or None) for each order."""

    orders: list[Order]
    logs: list[str | None]


class Notify(_Message, frozen=True):
    """The machine under the attempt goes away."""

    key: AttemptKey
    notice: Notice


class Stop(_Message, frozen=True):
    """End the attempt: cancel it, or raise in it."""

    key: AttemptKey
    reason: str


class Recall(_Message, frozen=True):
    """Give back those of these attempts that have not begun; answered by ``Recalled``."""

    keys: list[AttemptKey]


class Answer(_Message, frozen=True):
    """The child call of that number ended."""

    number: int
    outcome: Outcome


class CheckpointAck(_Message, frozen=True):
    """The checkpoint of that number is journalled, or was refused (``why``)."""

    number: int
    why: str | None = None


class Exit(_Message, frozen=True):
    """Finish: there is no more work."""


ToWorker = Hello | Run | Notify | Stop | Recall | Answer | CheckpointAck | Exit


# -- from the worker ---------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """Start-up is over."""


class Taken(_Message, frozen=True):
    """The worker turns to this attempt; its code is still to be imported."""

    key: AttemptKey
    token: str


class Began(_Message, frozen=True):
    """User code begins."""

    key: AttemptKey
    token: str


class Ended(_Message, frozen=True):
    """The attempt is over. ``seconds`` is how long it kept the worker."""

    key: AttemptKey
    token: str
    evidence: Evidence
    seconds: float


class Recalled(_Message, frozen=True):
    """These had not begun and are no longer the worker's."""

    keys: list[AttemptKey]


class Called(_Message, frozen=True):
    """User code calls a task; ``number`` is the worker's own."""

    key: AttemptKey
    token: str
    number: int
    call: Call


class CallCancelled(_Message, frozen=True):
    """User code no longer waits for its call."""

    key: AttemptKey
    token: str
    number: int
    reason: str


class Checkpointed(_Message, frozen=True):
    """A checkpoint lies in the blob store and wants to join the chain."""

    key: AttemptKey
    token: str
    number: int
    record: CheckpointRecord


class Skipped(_Message, frozen=True):
    """Restore passed over a torn or corrupt checkpoint."""

    key: AttemptKey
    token: str
    event: CheckpointSkipped


class Traced(_Message, frozen=True):
    """A traced helper's value, for later attempts."""

    key: AttemptKey
    token: str
    name: str
    result: Payload


class Signalled(_Message, frozen=True):
    """The worker received SIGTERM, which it takes for a notice, while this attempt ran."""

    key: AttemptKey
    token: str
    notice: Notice


FromWorker = (
    Ready | Taken | Began | Ended | Recalled | Called | CallCancelled | Checkpointed | Skipped | Traced | Signalled
)

_encoder = msgspec.msgpack.Encoder()
to_worker = msgspec.msgpack.Decoder(ToWorker)
from_worker = msgspec.msgpack.Decoder(FromWorker)


class ConnectionBrokenError(Exception):
    """What arrived is not a message of this protocol."""


def frame(message: ToWorker | FromWorker) -> bytes:
    """The message with its length before it.

    Raises:
        ConnectionBrokenError: the message is longer than 2 GiB.
    """
    data = _encoder.encode(message)
    if len(data) > LONGEST:
        raise ConnectionBrokenError(f"a {type(message).__name__} of {len(data)} bytes is too long to send")
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Collects what arrives and gives back the bodies of complete messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; the bodies that are now complete, in order."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start, end = 0, len(buffer)
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > LONGEST:
                raise ConnectionBrokenError(f"a message of {length} bytes was announced")
            if end - start - 4 < length:
                break
            bodies.append(bytes(buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del buffer[:start]
        return bodies
