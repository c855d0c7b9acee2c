"""A connected socket on an event loop: bytes in, bytes out, and word of its end.

Must not know what the bytes mean. Lives on one loop: every method is called there, and ``take`` and ``ended`` are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

_READ: Final = 1 << 18


class SocketStream:
    """The socket becomes this object's own.

    Args:
        take: called with what was read; may be replaced.
        ended: called once, when the other end has closed the connection or it broke; not after ``close``.
    """

    __slots__ = ("_loop", "_outgoing", "_socket", "_writing", "ended", "take")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        take: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self.take = take
        self.ended = ended
        self._outgoing = bytearray()
        self._writing = False
        sock.setblocking(False)
        loop.add_reader(sock, self._readable)

    def __repr__(self) -> str:
        return (
            f"SocketStream({'closed' if self.closed else self._socket.fileno()}, {len(self._outgoing)} bytes to send)"
        )

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._socket.fileno() < 0

    def send(self, data: bytes) -> None:
        """Send soon, in order. To nobody, where the connection is broken: ``ended`` tells."""
        if self._socket.fileno() < 0:
            return
        if not self._writing:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)
        self._outgoing += data

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.take(data)
            return
        self._loop.remove_reader(self._socket)
        self.ended()

    def drain(self) -> None:
        """Take what has arrived until now."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_READ)
            except OSError:
                return
            if not data:
                return
            self.take(data)

    def stop_reading(self) -> None:
        """Nothing that comes is of interest any more; nor is the end."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)

    def close(self) -> None:
        """Hang up."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
