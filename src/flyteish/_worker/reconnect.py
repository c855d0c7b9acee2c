"""The worker's end of a connection over a network, which is made again when it is lost.

What is sent meanwhile is kept, and goes out over the next connection (``channel``). One thread drives it
(``receive``, ``keep_up``); all others only send. Must not know what an attempt is beyond how far it has come, which
whoever serves it next has to be told.
"""

from __future__ import annotations

import math
import random
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

import msgspec

from flyteish._core.model.ids import AttemptKey
from flyteish._version import __version__
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST_WELCOME, FrameReader, greeting
from flyteish._worker.connection import REPLY, Connection, encoded, turned_away, vanish

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 30.0
# Seconds between two tries, before chance has its say.
_DIAL_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 10.0
#: Seconds without a sign of life from the other machine, while something is under way to it, or its answer.
_SILENT_SECONDS: Final = 30
_LASTING: Final = frozenset((m.Skipped, m.Signalled, m.Ended))
"""What an engine that knows nothing is told as well; the rest it learns from the hello, or asks for itself."""
_STAGES: Final[dict[type[m.FromWorker], str]] = {m.Ready: "ready", m.Taken: "taken", m.Began: "began"}


_Request: TypeAlias = m.Called | m.Checkpointed | m.Traced | m.Wanted


class Address(NamedTuple):
    """Where the engine listens."""

    host: str
    port: int


def address(url: str) -> Address:
    """Where ``tcp://HOST:PORT`` is, or what the file at ``file:///PATH`` says today. Raises ValueError, OSError."""
    if url.startswith("file:///"):
        url = Path(unquote(url.removeprefix("file://"))).read_text(encoding="ascii").strip()
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not port.isdecimal():
        raise ValueError(f"url={url!r} is not accepted: expected tcp://HOST:PORT, or a file:///PATH that says one")
    return Address(host, int(port))


def address_given(url: str) -> str:
    """The URL, if ``address`` can read it. Raises ValueError."""
    if not url.startswith("file:///"):  # what the file says is seen when it is needed
        address(url)
    return url


class NetworkConnection(Connection):
    """Connects to the engine, again and again.

    Args:
        url: where it listens, as ``address`` reads it; asked anew at each try.
        token: shown in each hello.
        key: the attempt that this worker is there for.
        limit: seconds that a lost connection is tried again, until the engine says otherwise.
    """

    def __init__(
        self,
        url: str,
        token: str,
        key: AttemptKey,
        limit: float,
    ) -> None:
        super().__init__(None, token, resumes=True)
        self._url = url
        self._key = key
        self._limit = limit
        self._ends_at = math.inf
        """Seconds since the epoch: from then on nobody wants the attempt any more."""
        self._open: dict[int, _Request] = {}
        """What was asked and not answered, for an engine that does not know of it."""
        self._cancelled: dict[int, m.CallWithdrawn] = {}
        self._changed = threading.Condition(self._lock)
        """The engine listens again, or has acknowledged something."""
        self._greeting: FrameReader | None = None
        """Set between hello and welcome: what is said in between would miss both."""
        self._talking = False
        self._epoch = ""
        self._stage = ""
        self._tries = 0
        self._lost_at = time.monotonic()
        self._next_try = self._answer_by = self._lost_at
        self._welcome: m.Welcome | None = None

    # -- from any thread -----------------------------------------------------------------------------------

    def hold(self, message: m.FromWorker) -> None:
        """Send it, where somebody listens now; else with the next connection, if this process lives until then."""
        self.send(message, wait=False)

    def send(self, message: m.FromWorker, *, wait: bool = True) -> None:
        """Send now, or as soon as there is a connection. Waits while too much is kept already."""
        body = encoded(message)
        kind = type(message)
        with self._lock:
            while wait and (self._greeting is not None or self._channel.full):
                self._changed.wait()
            self._stage = _STAGES.get(kind, self._stage)
            self._remember(message)
            self._write(self._channel.pack(body, lasts=kind in _LASTING))

    def _remember(self, message: m.FromWorker) -> None:
        match message:
            case m.Called() | m.Checkpointed() | m.Traced() | m.Wanted():
                self._open[message.number] = message
            case m.CallWithdrawn():
                self._cancelled[message.number] = message
            case m.Ended():
                self._open.clear()
                self._cancelled.clear()

    def ordered(self) -> None:
        with self._lock:
            self._stage = "ordered"

    def give_up_at(self, at: float) -> None:
        self._ends_at = min(self._ends_at, at)

    def settle(self) -> None:
        with self._lock:
            while not self._channel.settled:
                self._changed.wait()

    def _write(self, data: bytes) -> None:
        if not self._talking or self.sock is None:
            return
        try:
            self.sock.sendall(data)
        except OSError:
            self._talking = False
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # which the reading thread notices

    # -- on the reading thread -----------------------------------------------------------------------------

    def open(self) -> m.Welcome:
        """Connect for the first time. This process ends where nobody answers, or nobody wants it."""
        while self._welcome is None:
            self.keep_up()
            if self.sock is None:
                time.sleep(max(0.0, self._next_try - time.monotonic()))
            else:
                self._early += self.receive()
        return self._welcome

    def patience(self) -> float | None:
        """Seconds until ``keep_up`` has something to do; None: not before something comes."""
        if self.sock is None:
            return max(0.0, self._next_try - time.monotonic())
        return None if self._greeting is None else max(0.0, self._answer_by - time.monotonic())

    def keep_up(self) -> None:
        """Connect, where it is time to; this process ends where that has no more use."""
        now = time.monotonic()
        if self._greeting is not None and now > self._answer_by:
            self._lose()
        if self.sock is not None:
            return
        if now - self._lost_at > self._limit or time.time() > self._ends_at:
            sys.stderr.write(f"flyteish worker: no connection to {self._url}\n")
            vanish()
        if now < self._next_try:
            return
        try:
            sock = socket.create_connection(address(self._url), _DIAL_SECONDS)
        except (OSError, ValueError):
            self._wait_longer()
            return
        _watch(sock)
        sock.settimeout(_ANSWER_SECONDS)
        self._answer_by = now + _ANSWER_SECONDS
        with self._lock:
            self._greeting = FrameReader(LONGEST_WELCOME)
            hello = m.Hello(
                m.PROTOCOL, __version__, self._token, self._key, self._epoch, self._channel.received, self._stage
            )
        self.sock = sock
        try:
            sock.sendall(greeting(m.encode(hello)))
        except OSError:
            self._lose()

    def receive(self) -> list[m.ToWorker]:
        """What has come; nothing where the connection was lost."""
        if self.sock is None:
            return []
        try:
            data = self.sock.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._lose()
            return []
        if self._greeting is not None:
            return self._answered(self._greeting, data)
        return self._messages(data)

    def _messages(self, data: bytes) -> list[m.ToWorker]:
        with self._lock:
            messages = super()._messages(data)
            for message in messages:
                if isinstance(message, m.Answer | m.Recorded | m.SecretValues):
                    self._open.pop(message.number, None)
                    self._cancelled.pop(message.number, None)
            if self._channel.owes:
                self._write(self._channel.pack_acknowledgement())
            self._changed.notify_all()
        return messages

    def _answered(self, reader: FrameReader, data: bytes) -> list[m.ToWorker]:
        frames = reader.feed(data, 1)
        try:
            answer = REPLY.decode(frames[0][2]) if frames else None
        except msgspec.MsgspecError:
            reader.broken = "no answer to a hello"
        if reader.broken:  # whoever has that port now is no engine; the engine may come back
            self._lose()
            return []
        if answer is None:
            return []
        if isinstance(answer, m.Rejected):
            if not answer.again:
                turned_away(answer.why)
            self._lose()
            return []
        assert self.sock is not None
        self.sock.settimeout(None)
        with self._lock:
            if answer.epoch == self._epoch:
                again = self._channel.resume(answer.received)
            else:
                again = self._channel.restart()
                unanswered = [*self._open.values(), *self._cancelled.values()]
                again += b"".join([self._channel.pack(m.encode(request), lasts=False) for request in unanswered])
            self._epoch, self._limit, self._welcome = answer.epoch, answer.reconnect_seconds, answer
            self._greeting, self._talking, self._tries = None, True, 0
            self._write(again)
            self._changed.notify_all()
        return self._messages(reader.rest) if reader.rest else []

    def _lose(self) -> None:
        with self._lock:
            if self.sock is not None:
                self.sock.close()
            if self._talking or self._greeting is None:
                self._lost_at = time.monotonic()
            self.sock, self._greeting, self._talking = None, None, False
            self._changed.notify_all()
        self._wait_longer()

    def _wait_longer(self) -> None:
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        # By chance, so that a thousand workers do not come back at once.
        self._next_try = time.monotonic() + wait * random.uniform(0.5, 1.5)


def _watch(sock: socket.socket) -> None:
    """Have the system notice when the other machine is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _SILENT_SECONDS // 2),
        ("TCP_KEEPINTVL", _SILENT_SECONDS // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _SILENT_SECONDS * 1000),
    ):
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
