"""The worker's end of its connection to the engine: whole messages, from any thread.

``Connection`` is over a socket that was inherited, and ends with it; ``reconnect`` has the one that goes on over
another. Must not know what a message means.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Final, NoReturn

import msgspec

from flyteish._version import __version__
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST, LONGEST_FROM_WORKER, Channel, FrameReader, NonsenseError, greeting
from flyteish.errors import SerializationError

REPLY: Final[msgspec.msgpack.Decoder[m.Welcome | m.Rejected]] = msgspec.msgpack.Decoder(m.Welcome | m.Rejected)
_TO_WORKER: Final[msgspec.msgpack.Decoder[m.ToWorker]] = msgspec.msgpack.Decoder(m.ToWorker)


class Connection:
    """A socket to the engine.

    Args:
        sock: connected; becomes this object's own.
        token: shown in the hello.

    Invariant: messages that were held back are sent before any later one.
    """

    def __init__(self, sock: socket.socket | None, token: str, *, resumes: bool = False) -> None:
        self.sock = sock
        """None while there is no connection."""
        self._token = token
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._channel = Channel(resumes=resumes, longest=LONGEST)
        self._early: list[m.ToWorker] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._channel}, {'lost' if self.sock is None else 'connected'})"

    @property
    def busy(self) -> bool:
        """Whether some thread is half way through a message and must not be torn out of it."""
        return self._lock.locked()

    def hold(self, message: m.FromWorker) -> None:
        """Send it together with the next one: a system call less for each small task."""
        self._held.append(encoded(message))

    def send(self, message: m.FromWorker, *, wait: bool = True) -> None:
        """Send now. Where the engine is gone, this process ends.

        Args:
            wait: whether this may wait for the engine to listen; False on the thread that listens to it.
        """
        body = encoded(message)
        with self._lock:
            if self._held:
                self._held.append(body)
                self._write(self._packed())
            else:
                self._write(self._channel.pack(body))

    def flush(self) -> None:
        """Send what was held back."""
        if not self._held:
            return
        with self._lock:
            self._write(self._packed())

    def _packed(self) -> bytes:
        data = b"".join([self._channel.pack(body) for body in self._held])
        self._held.clear()
        return data

    def _write(self, data: bytes) -> None:
        assert self.sock is not None
        try:
            self.sock.sendall(data)
        except OSError:
            vanish()

    def open(self) -> m.Welcome:
        """Say hello, and wait for the answer. This process ends where nobody wants it."""
        assert self.sock is not None
        self._write(greeting(m.encode(m.Hello(m.PROTOCOL, __version__, self._token))))
        reader = FrameReader(LONGEST)
        frames: list[tuple[int, int, bytes]] = []
        while not frames:
            frames = reader.feed(self._read(), 1)
            if reader.broken:
                raise NonsenseError(reader.broken)
        answer = REPLY.decode(frames[0][2])
        if isinstance(answer, m.Rejected):
            turned_away(answer.why)
        self._early = self._messages(reader.rest)
        return answer

    def early(self) -> list[m.ToWorker]:
        """What came right behind the answer to our hello."""
        return self._early

    def patience(self) -> float | None:
        """Seconds until ``keep_up`` has something to do; None: it has nothing to do."""
        return None

    def keep_up(self) -> None:
        """Keep the connection up, where that can be done."""

    def ordered(self) -> None:
        """An attempt's order has come."""

    def give_up_at(self, at: float) -> None:
        """From then on (epoch) nobody wants the attempt any more."""

    def settle(self) -> None:
        """Wait until the engine has done with everything that was sent, where that can be known."""

    def receive(self) -> list[m.ToWorker]:
        """What has come. Where the engine is gone, this process ends."""
        return self._messages(self._read())

    def _messages(self, data: bytes) -> list[m.ToWorker]:
        bodies = self._channel.feed(data)
        if self._channel.broken:
            raise NonsenseError(self._channel.broken)
        return [_TO_WORKER.decode(body) for body in bodies]

    def _read(self) -> bytes:
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            vanish()
        return data


def encoded(message: m.FromWorker) -> bytes:
    """The message's body.

    Raises:
        SerializationError: it is longer than an engine accepts.
    """
    body = m.encode(message)
    if len(body) > LONGEST_FROM_WORKER:
        raise SerializationError(
            f"{type(message).__name__} would be a message of {len(body)} bytes; at most {LONGEST_FROM_WORKER} are "
            "sent: return or raise less, or a flyteish.io.File, which travels by reference"
        )
    return body


def turned_away(why: str) -> NoReturn:
    """The engine does not want this worker."""
    raise SystemExit(f"flyteish worker: {why}")


def vanish() -> NoReturn:
    """The engine is gone: end at once, with every process that user code started and left in this group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
