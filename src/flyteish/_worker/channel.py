"""One end of a conversation that outlives its connections: bytes in, messages out; messages in, bytes out.

Numbers what it sends, acknowledges what it got, keeps what the other end has not acknowledged, and tells what comes
twice from what is new. Knows no sockets, threads or clocks, nor what a message means; how and why is told at the head
of ``messages``.

A frame is twenty bytes and a body:

    length of the body   4 bytes
    number               8 bytes   1, 2, 3, ... in each direction; 0: not numbered
    acknowledged         8 bytes   up to which number the sender has done with what it got

all of them big-endian. Without a number go the first message of each side, which is all body, and bare
acknowledgements, which have none.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Final

_HEADER: Final = Struct(">IQQ")
LONGEST: Final = 2**31 - 1
"""Bytes of a body at most, to a worker: an order brings along what earlier attempts traced."""
LONGEST_FROM_WORKER: Final = 256 * 1024**2
"""Bytes of a body at most, from a worker that has shown its token: what is large goes through the blob store."""
LONGEST_GREETING: Final = 16 * 1024
"""Bytes of a body at most from whoever has not shown a token yet."""
LONGEST_WELCOME: Final = 16 * 1024**2
"""Bytes of the answer to a hello at most."""
MOST_KEPT: Final = 64 * 1024**2
"""Bytes that are kept for the other end before a channel is full."""
_MOST_KEPT_MESSAGES: Final = 100_000
_ACKNOWLEDGE_AFTER: Final = (64, 256 * 1024)
# Messages, bytes: got without an occasion to acknowledge them along with something.


class NonsenseError(Exception):
    """What arrived is not this protocol, or not now; the words say what was wrong with it."""


class FrameReader:
    """Collects what arrives and gives back complete frames.

    Args:
        longest: bytes of a body at most; a longer one is refused as soon as it is announced.
    """

    __slots__ = ("_buffer", "broken", "longest")

    def __init__(self, longest: int) -> None:
        self._buffer = bytearray()
        self.longest = longest
        self.broken = ""
        """Why nothing that comes now can be read; empty: it can."""

    def __repr__(self) -> str:
        return f"FrameReader({len(self._buffer)} bytes of a frame{', broken' if self.broken else ''})"

    @property
    def rest(self) -> bytes:
        """What has come of frames that were not given out."""
        return bytes(self._buffer)

    def feed(self, data: bytes, most: int | None = None) -> list[tuple[int, int, bytes]]:
        """Add what was read; number, acknowledgement and body of each frame that is now complete, in order.

        No more of them than ``most``.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, int, bytes]] = []
        start, end = 0, len(buffer)
        while end - start >= _HEADER.size and len(frames) != most:
            length, number, acknowledged = _HEADER.unpack_from(buffer, start)
            if length > self.longest:
                self.broken = f"a message of {length} bytes was announced; at most {self.longest} are accepted"
                break
            body = start + _HEADER.size
            if end - body < length:
                break
            start = body + length
            frames.append((number, acknowledged, bytes(buffer[body:start])))
        if start:
            del buffer[:start]
        return frames


class Channel:
    """One end. Not thread-safe.

    Args:
        resumes: whether the conversation goes on over another connection when one is lost. Where it does not, nothing
            is kept, and nothing is acknowledged except in passing.
        longest: bytes of a body that is accepted.
        by_hand: whether the user says when it has done with a message (``done``); else each counts as done with when
            ``feed`` gives it out.
        most_kept: bytes that are kept before ``full``.
    """

    __slots__ = (
        "_acknowledged", "_by_hand", "_done", "_done_early", "_kept", "_kept_bytes", "_longest", "_most_kept",
        "_reader", "_sent", "_told", "_untold_bytes", "broken", "received", "resumes",
    )  # fmt: skip

    def __init__(self, *, resumes: bool, longest: int, by_hand: bool = False, most_kept: int = MOST_KEPT) -> None:
        self.resumes = resumes
        self._longest = longest
        self._by_hand = by_hand
        self._most_kept = most_kept
        self._reader = FrameReader(longest)
        self._sent = 0
        """Number of the last message that was packed."""
        self._acknowledged = 0
        """Up to here the other end has done with what we sent; what comes after is ``_kept``, in order."""
        self._kept: deque[tuple[bytes, bool]] = deque()
        self._kept_bytes = 0
        self.received = 0
        """Number of the last message that came."""
        self._done = 0
        """Up to here we have done with what came: what we acknowledge. At most ``received``."""
        self._done_early: set[int] = set()
        """Done with, though one before it is not."""
        self._told = 0
        """What we acknowledged last."""
        self._untold_bytes = 0
        self.broken = ""
        """Why nothing that comes now can be read; empty: it can."""

    def __repr__(self) -> str:
        return f"Channel({self._sent} sent, {len(self._kept)} of them kept, {self.received} received)"

    # -- out -----------------------------------------------------------------------------------------------

    def pack(self, body: bytes, lasts: bool = True) -> bytes:
        """A numbered frame around a message; kept until it is acknowledged.

        Args:
            lasts: whether a new other end is to be told as well (see ``restart``).
        """
        self._sent = number = self._sent + 1
        if self.resumes:
            self._kept.append((body, lasts))
            self._kept_bytes += len(body)
            self._told, self._untold_bytes = self._done, 0
        return _HEADER.pack(len(body), number, self._done) + body

    def pack_acknowledgement(self) -> bytes:
        """A frame that only acknowledges."""
        self._told, self._untold_bytes = self._done, 0
        return _HEADER.pack(0, 0, self._done)

    @property
    def full(self) -> bool:
        """Whether so much is kept that nothing more should be packed before the other end has acknowledged some."""
        return self._kept_bytes >= self._most_kept or len(self._kept) >= _MOST_KEPT_MESSAGES

    @property
    def settled(self) -> bool:
        """Whether the other end has done with everything that was sent."""
        return not self._kept

    @property
    def owes(self) -> bool:
        """Whether a bare acknowledgement is due, since much came and nothing was sent that would have carried it."""
        messages, size = _ACKNOWLEDGE_AFTER
        return self.resumes and (
            self._done - self._told >= messages or (self._untold_bytes >= size and self._done > self._told)
        )

    # -- in ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; the messages that are now complete and have not come before, in order.

        What came before something that is wrong is still given out; ``broken`` then says what was wrong.
        """
        new: list[bytes] = []
        try:
            for number, acknowledged, body in self._reader.feed(data):
                if acknowledged != self._acknowledged:
                    self._forget(acknowledged)
                if number == self.received + 1:
                    self.received = number
                    new.append(body)
                    if self.resumes:
                        self._untold_bytes += len(body)
                elif number == 0:
                    if body:
                        raise NonsenseError("a message without a number came after the first one")
                elif number > self.received:
                    raise NonsenseError(f"message {number} came after message {self.received}")
        except NonsenseError as error:
            self.broken = str(error)
        else:
            self.broken = self._reader.broken
        if not self._by_hand:
            self._done = self.received
        return new

    def done(self, number: int) -> None:
        """That message needs not come again."""
        if number > self._done + 1:
            self._done_early.add(number)
        elif number == self._done + 1:
            self._done = number
            while self._done + 1 in self._done_early:
                self._done += 1
                self._done_early.remove(self._done)

    def _forget(self, acknowledged: int) -> None:
        """The other end has done with everything up to this number."""
        if not self._acknowledged <= acknowledged <= self._sent:
            raise NonsenseError(
                f"message {acknowledged} was acknowledged; expected one from {self._acknowledged} to {self._sent}"
            )
        if self.resumes:
            for _ in range(acknowledged - self._acknowledged):
                self._kept_bytes -= len(self._kept.popleft()[0])
        self._acknowledged = acknowledged

    # -- another connection --------------------------------------------------------------------------------

    def resume(self, received: int) -> bytes:
        """There is a new connection to the same other end, which has got our messages up to ``received``: the frames
        that it has not got.

        Raises:
            NonsenseError: it can't have.
        """
        if not self._acknowledged <= received <= self._sent:
            raise NonsenseError(f"{received} messages received; expected from {self._acknowledged} to {self._sent}")
        self._reader = FrameReader(self._longest)
        # What came but is not done with is still kept here: only an acknowledgement says that it may be forgotten.
        first = self._acknowledged + 1
        return b"".join(
            _HEADER.pack(len(body), number, self._done) + body
            for number, (body, _) in enumerate(self._kept, first)
            if number > received
        )

    def restart(self) -> bytes:
        """There is a new connection to a new other end, which knows nothing: everything that lasts and that the old one
        has not acknowledged, numbered anew."""
        self._kept = deque(each for each in self._kept if each[1])
        self._kept_bytes = sum(len(body) for body, _ in self._kept)
        self._reader = FrameReader(self._longest)
        self.received = self._done = self._told = self._untold_bytes = self._acknowledged = 0
        self._done_early.clear()
        self._sent = len(self._kept)
        return b"".join(_HEADER.pack(len(body), number, 0) + body for number, (body, _) in enumerate(self._kept, 1))


def greeting(body: bytes) -> bytes:
    """The frame of the first message of a side."""
    return _HEADER.pack(len(body), 0, 0) + body
