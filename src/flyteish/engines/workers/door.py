"""A connection of which it is not known yet who is at the other end.

Hears one short message, the hello; whoever has other things to say, or nothing, is sent away. Must not know which
workers there are: that is asked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from flyteish._core.wording import span
from flyteish._version import __version__
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST_GREETING, FrameReader, NonsenseError, greeting
from flyteish.engines.workers.stream import SocketStream

#: Seconds within which the hello must be there.
_HELLO_SECONDS: Final = 10.0
_HELLO: Final[msgspec.msgpack.Decoder[m.Hello]] = msgspec.msgpack.Decoder(m.Hello)

Admit = Callable[[m.Hello, SocketStream], m.Rejected | None]
"""Takes the stream over, or says why it does not. Raises NonsenseError for what nobody can mean."""


class Door:
    """One connection, until somebody takes it over or it is closed.

    Args:
        admit: asked when the hello is there and speaks this protocol.
        left: told when nobody is at the door any more, and why nobody took it over; empty: whoever it was hung up
            without a word; None: somebody took it over.
        patience: seconds within which the hello must be there.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        admit: Admit,
        left: Callable[[Door, str | None], None],
        patience: float = _HELLO_SECONDS,
    ) -> None:
        self._admit = admit
        self._left = left
        self._reader = FrameReader(LONGEST_GREETING)
        self._timer = loop.call_later(patience, self._close, f"no hello within {span(patience)}")
        self.stream = SocketStream(loop, sock, self._take, self._ended)

    def __repr__(self) -> str:
        return f"Door({self.stream})"

    def close(self) -> None:
        """Send whoever is there away."""
        self._timer.cancel()
        self.stream.close()

    def _ended(self) -> None:
        self._close("")

    def _close(self, why: str) -> None:
        self.close()
        self._left(self, why)

    def _take(self, data: bytes) -> None:
        frames = self._reader.feed(data, 1)
        if not frames and not self._reader.broken:
            return
        self._timer.cancel()
        try:
            rejected = self._answer(frames)
        except NonsenseError as error:
            rejected = m.Rejected(str(error))
        if rejected is not None:
            self.stream.send(greeting(m.encode(rejected)))
            self._close(rejected.why)
        else:
            self._left(self, None)

    def _answer(self, frames: list[tuple[int, int, bytes]]) -> m.Rejected | None:
        if self._reader.broken:
            raise NonsenseError(self._reader.broken)
        ((number, acknowledged, body),) = frames
        if number or acknowledged or self._reader.rest:
            raise NonsenseError("the first message must be a hello, and nothing may follow before it is answered")
        try:
            hello = _HELLO.decode(body)
        except Exception as error:  # msgspec's errors, and a recursion that went too deep
            raise NonsenseError(f"{type(error).__name__}: {error}"[:500]) from None
        return _unsuited(hello) or self._admit(hello, self.stream)


def _unsuited(hello: m.Hello) -> m.Rejected | None:
    """Why that worker and this engine can't understand each other; None: they can."""
    if hello.protocol != m.PROTOCOL:
        return m.Rejected(f"the worker speaks protocol {hello.protocol}, the controller {m.PROTOCOL}: {_CURE}")
    ours, theirs = __version__, hello.version
    if ours.split(".")[:2] != theirs.split(".")[:2]:
        return m.Rejected(f"the worker has flyteish {theirs[:40]}, the controller {ours}: {_CURE}")
    return None


_CURE: Final = "install the same version of flyteish where the worker runs"
