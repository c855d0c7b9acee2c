"""A worker's end of a connection over a network: what it does while nobody listens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST, LONGEST_FROM_WORKER, Channel, FrameReader, greeting
from flyteish._worker.reconnect import NetworkConnection, address
from flyteish.interfaces import Notice

KEY = AttemptKey("r1", "a1", 1)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(20)
        yield sock


class Engine:
    """The other end, as far as it goes without an engine."""

    def __init__(self, listening: socket.socket, epoch: str = "1") -> None:
        self.channel = Channel(resumes=True, longest=LONGEST_FROM_WORKER)
        self.epoch = epoch
        self.sock, _ = listening.accept()
        self.sock.settimeout(20)
        ((_, _, body),) = FrameReader(LONGEST).feed(self.sock.recv(1 << 16))
        self.hello = msgspec.msgpack.decode(body, type=m.Hello)

    def welcome(self) -> None:
        made = m.Welcome(self.epoch, self.channel.received, None, None, "memory:", 100, 100, reconnect_seconds=20.0)
        self.sock.sendall(greeting(m.encode(made)))

    def hear(self, count: int) -> list[m.FromWorker]:
        heard: list[bytes] = []
        while len(heard) < count:
            heard += self.channel.feed(self.sock.recv(1 << 16))
        assert not self.channel.broken
        return [msgspec.msgpack.decode(body, type=m.FromWorker) for body in heard]


def connected(listening: socket.socket) -> tuple[NetworkConnection, Engine]:
    host, port = listening.getsockname()
    made = NetworkConnection(f"tcp://{host}:{port}", "token", KEY, 20.0)
    made.keep_up()
    engine = Engine(listening)
    engine.welcome()
    made.open()
    return made, engine


def test_who_is_not_heard_waits_once_too_much_is_kept(listening: socket.socket) -> None:
    """The task goes on as soon as what it said has been acknowledged; the listening thread never waits."""
    connection, engine = connected(listening)
    connection._channel._most_kept = 200
    sent: list[int] = []

    def say() -> None:
        for number in range(50):
            connection.send(m.CallWithdrawn(KEY, number, "x" * 20))
            sent.append(number)

    task = threading.Thread(target=say, name="task", daemon=True)
    task.start()
    engine.hear(3)
    task.join(0.05)
    assert task.is_alive()
    connection.send(m.Recalled([]), wait=False)
    before = len(sent)
    assert before < 50
    while task.is_alive():
        engine.sock.settimeout(0.2)
        try:
            engine.hear(1)
        except TimeoutError:
            pass
        engine.sock.sendall(engine.channel.pack_acknowledgement())
        connection.receive()
        task.join(0.01)
    assert len(sent) == 50
    connection._lose()
    engine.sock.close()


def test_a_new_engine_is_told_what_lasts_and_asked_what_is_open(listening: socket.socket) -> None:
    """Not what the old one has acknowledged, nor what was answered; its first word says how far the attempt is."""
    connection, old = connected(listening)
    connection.send(m.Ready())
    connection.send(m.Began(KEY))
    connection.send(m.Wanted(KEY, 1))
    connection.send(m.Wanted(KEY, 2))
    old.hear(4)
    old.sock.sendall(old.channel.pack(m.encode(m.SecretValues(1, {}))))
    connection.receive()
    old.sock.close()
    connection.receive()
    assert connection.sock is None
    signalled = m.Signalled(KEY, Notice("shutdown", 30.0, "sigterm"))
    connection.send(signalled)
    connection._next_try = 0.0
    connection.keep_up()
    new = Engine(listening, epoch="2")
    assert (new.hello.epoch, new.hello.stage) == ("1", "began")
    new.welcome()
    connection.receive()
    assert new.hear(2) == [signalled, m.Wanted(KEY, 2)]
    connection._lose()
    new.sock.close()


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://a:1", "tcp://a", "tcp://:1", "tcp://a:b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """The error names it and what is accepted."""
    with pytest.raises(ValueError, match="is not accepted: expected tcp://HOST:PORT"):
        address(url)
