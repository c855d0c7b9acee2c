"""Where workers connect over a network: TCP, on this machine only unless told otherwise.

Lets in whoever shows the token of an attempt that is expected, and hands the connection on. Must not know what an
attempt is beyond its key, nor what becomes of it. Nothing is encrypted: beyond this machine somebody else has to see
to that. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish.engines.workers.door import Door
from flyteish.engines.workers.stream import SocketStream

#: Connections at a time whose hello has not come; the next one waits in the system's line.
_DOORS: Final = 256
#: Seconds without accepting, where the system has no descriptor left.
_PAUSE: Final = 1.0
_WRONG: Final = "no such attempt, or not its token"  # which of them is nobody's business

Digest = Callable[[AttemptKey], bytes | None]
Admit = Callable[[AttemptKey, m.Hello, SocketStream], m.Rejected | None]


def never(key: AttemptKey) -> bool:
    """No attempt will be expected that is not now."""
    return False


class WorkerListener:
    """Listens from ``open`` to ``close``.

    Args:
        digest: of the token of an attempt that is expected (sha256); None: it is not.
        admit: takes over the stream of a worker that has shown its token, or says why not.
        later: whether an attempt that is not expected may still be: it is told to come again.
        host: the address to listen at.
        port: 0: any that is free.
    """

    def __init__(
        self,
        digest: Digest,
        admit: Admit,
        later: Callable[[AttemptKey], bool] = never,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._digest = digest
        self._later = later
        self._admit = admit
        self._host = host
        self._port = port
        self._doors: set[Door] = set()
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"WorkerListener({self.url if self._socket is not None else 'closed'}, {len(self._doors)} at the door)"

    @property
    def url(self) -> str:
        """Where workers of this machine connect to: ``tcp://HOST:PORT``."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return f"tcp://{host}:{port}"

    def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: nobody can listen there.
        """
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.create_server((self._host, self._port), family=family, backlog=128)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Listen no more; connections that were handed on are not this object's."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._pause is not None:
            self._pause.cancel()
        for door in list(self._doors):
            door.close()
        self._doors.clear()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # it waits, and so do we
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(_PAUSE, self._go_on)
            return
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        door = Door(self._loop, sock, self._hello, self._left)
        self._doors.add(door)
        if len(self._doors) >= _DOORS:
            self._loop.remove_reader(self._socket)

    def _go_on(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._accept)

    def _left(self, door: Door, why: str | None) -> None:
        """Somebody was sent away, or let in."""
        self._doors.discard(door)
        if len(self._doors) == _DOORS - 1:
            self._go_on()

    def _hello(self, hello: m.Hello, stream: SocketStream) -> m.Rejected | None:
        key = hello.key
        expected = None if key is None else self._digest(key)
        shown = sha256(hello.token.encode()).digest()
        if key is not None and expected is None and self._later(key):
            return m.Rejected(_WRONG, again=True)
        if key is None or expected is None or not compare_digest(shown, expected):
            return m.Rejected(_WRONG)
        return self._admit(key, hello, stream)
