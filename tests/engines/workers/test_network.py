"""Workers that connect over TCP: real processes, real sockets, connections that break."""

# Files are how the tests and the tasks in other processes meet.
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, merge
from flyteish._worker import claims
from flyteish._worker import messages as m
from flyteish._worker.channel import FrameReader, NonsenseError, greeting
from flyteish._worker.variables import TOKEN_VARIABLE
from flyteish.blobs import open_blobs
from flyteish.engines.workers.listener import WorkerListener
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.engines.workers.stream import SocketStream
from flyteish.interfaces import Order
from tests.engines.processes import jobs
from tests.engines.processes.recording import Orders, success
from tests.engines.workers.conversation import Asked, Told, Wire

TOKEN = "a token"


class NetworkPeer(Told):
    """One worker that is expected over a network."""

    def __init__(self, order: Order, welcome: m.Welcome) -> None:
        super().__init__(resumes=True, welcome=welcome)
        self.order = order
        self.links[order.key] = Asked(order.key)
        self.changed = asyncio.Event()

    def attempt(self, key: AttemptKey) -> PeerAttempt:
        return PeerAttempt(self.order, self.links[key])

    def hear(self, data: bytes) -> None:
        super().hear(data)
        self.changed.set()

    def did(self, what: str) -> bool:
        return any(each[0] == what for each in self.heard)

    @property
    def link(self) -> Asked:
        return self.links[self.order.key]


class Engine:
    """As little of an engine as a worker needs: a listener, and one attempt that it knows."""

    def __init__(self, folder: Path, order: Order, epoch: str = "1", port: int = 0, patience: float = 20.0) -> None:
        self.blobs = open_blobs((folder / "blobs").as_uri())
        welcome = m.Welcome(
            epoch, 0, list(sys.path), None, self.blobs.url, 1 << 18, 1 << 30, reconnect_seconds=patience
        )
        self.peer = NetworkPeer(order, welcome)
        self.hellos: list[m.Hello] = []
        self.loses_welcome = False
        self.expects = True
        self.listener = WorkerListener(self._digest, self._admit, port=port)
        self.listener.open()
        self.port = int(self.listener.url.rpartition(":")[2])

    def _digest(self, key: AttemptKey) -> bytes | None:
        return sha256(TOKEN.encode()).digest() if self.expects and key == self.peer.order.key else None

    def _admit(self, key: AttemptKey, hello: m.Hello, stream: SocketStream) -> m.Rejected | None:
        self.hellos.append(hello)
        if self.loses_welcome:
            self.loses_welcome = False
            stream.close()
            rejected = self.peer.attach(Wire(), hello)  # type: ignore[arg-type] # nobody reads what it is sent
            self.peer.detach()
            return rejected
        stream.ended = self.peer.detach
        return self.peer.attach(stream, hello)

    def close(self) -> None:
        self.listener.close()
        self.peer.detach()

    def cut(self) -> None:
        """The network does what networks do."""
        self.peer.detach()

    async def until(self, reached: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(20):
                while not (found := reached()):
                    self.peer.changed.clear()
                    await self.peer.changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"{self.peer.heard} {self.peer.nonsense} {self.hellos}") from None


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engines: list[Engine] = []
        self.workers: list[asyncio.subprocess.Process] = []
        self.orders = Orders()

    def engine(self, task: Any, *args: Any, order: dict[str, Any] | None = None, **more: Any) -> Engine:
        made = Engine(self.folder, self.orders(task, *args, order=order), **more)
        self.engines.append(made)
        return made

    def again(self, engine: Engine, port: int | None = None) -> Engine:
        """The engine died; another one takes its place, and knows what is on record."""
        engine.close()
        made = Engine(self.folder, engine.peer.order, epoch="2", port=engine.port if port is None else port)
        made.peer.expect(made.peer.attempt(engine.peer.order.key))
        self.engines.append(made)
        return made

    async def worker(
        self, engine: Engine, token: str = TOKEN, patience: float = 20.0, url: str = ""
    ) -> asyncio.subprocess.Process:
        run, action, generation = engine.peer.order.key
        where = url or engine.listener.url
        command = ["-P", "-m", "flyteish._worker", "--connect", where, "--patience", str(patience)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--attempt", run, action, str(generation),
            env={**os.environ, TOKEN_VARIABLE: token}, stdout=-1, stderr=-1,
        )  # fmt: skip
        self.workers.append(process)
        return process

    async def exists(self, name: str) -> None:
        async with asyncio.timeout(20):
            while not (self.folder / name).exists():
                await asyncio.sleep(0.002)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for engine in made.engines:
        engine.close()
    for worker in made.workers:
        if worker.returncode is None:
            worker.kill()
        await worker.communicate()


async def ended(worker: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Exit code, and what it said."""
    async with asyncio.timeout(20):
        _, said = await worker.communicate()
    return worker.returncode, said.decode()


async def test_an_attempt_over_tcp_claims_its_end_and_tells_it(bench: Bench) -> None:
    """The result is claimed under the attempt's generation, heard over the connection, and the process ends."""
    engine = bench.engine(jobs.variable, TOKEN_VARIABLE)
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("ended"))
    assert (await ended(worker))[0] == 0
    (said,) = [each[2] for each in engine.peer.heard if each[0] == "ended"]
    assert said.result is not None
    assert jobs.variable.signature.decode_result(said.result.data) is None  # the token was taken out at once
    claim = await claims.claimed(engine.blobs, engine.peer.order.key, 1 << 18)
    assert claim is not None
    assert claim.evidence == said
    assert claim.running_at <= claim.ended_at


async def test_a_wrong_token_is_turned_away(bench: Bench) -> None:
    """The worker says why and ends; nobody says whether there is such an attempt."""
    engine = bench.engine(jobs.mute)
    code, said = await ended(await bench.worker(engine, token="a guess"))
    assert (code, said.strip()) == (1, "flyteish worker: no such attempt, or not its token")
    assert engine.hellos == []


async def test_lost_connections_lose_nothing(bench: Bench) -> None:
    """The connection breaks after every word; calls arrive once and in order, answers too."""
    engine = bench.engine(jobs.many_calls, 6)
    link = engine.peer.link
    link.patient = True
    worker = await bench.worker(engine)
    for number in range(1, 7):
        await engine.until(lambda: len(link.open))
        assert list(link.open) == [number]
        if number % 2:
            engine.cut()
        link.open.pop(number)(success(jobs.double, number))
        if not number % 2:
            engine.cut()
    assert (await ended(worker))[0] == 0
    assert len(link.calls) == 6
    assert len(engine.hellos) >= 3
    # The last cut may have kept it from telling.
    claim = await claims.claimed(engine.blobs, engine.peer.order.key, 1 << 18)
    assert claim is not None
    assert claim.evidence.result is not None
    assert claim.evidence.result.data is not None
    assert jobs.many_calls.signature.decode_result(claim.evidence.result.data) == [1, 2, 3, 4, 5, 6]


async def test_a_new_engine_is_asked_what_the_old_one_did_not_answer(bench: Bench) -> None:
    """It learns how far the attempt is, and gets the open call, under the same identity; the attempt goes on."""
    first = bench.engine(jobs.many_calls, 2)
    first.peer.link.patient = True
    worker = await bench.worker(first)
    await first.until(lambda: len(first.peer.link.open))
    first.peer.link.open.pop(1)(success(jobs.double, 1))
    await first.until(lambda: len(first.peer.link.open))
    second = bench.again(first)
    second.peer.link.patient = True
    await second.until(lambda: len(second.peer.link.open))
    assert second.hellos[-1].stage == "began"
    assert second.peer.link.calls == first.peer.link.calls[1:]
    second.peer.link.open.pop(1)(success(jobs.double, 2))
    await second.until(lambda: second.peer.did("ended"))
    assert (await ended(worker))[0] == 0
    assert second.peer.nonsense == []


async def test_an_engine_that_listens_elsewhere_is_found_by_its_file(bench: Bench) -> None:
    """The file is read at every try; one that is not there is another try that failed."""
    file = bench.folder / "where it is"
    first = bench.engine(jobs.many_calls, 1)
    first.peer.link.patient = True
    worker = await bench.worker(first, url=file.as_uri())
    file.write_text(first.listener.url)
    await first.until(lambda: len(first.peer.link.open))
    second = bench.again(first, port=0)
    second.peer.link.patient = True
    assert second.listener.url != file.read_text()
    file.write_text(second.listener.url)
    await second.until(lambda: len(second.peer.link.open))
    second.peer.link.open.pop(1)(success(jobs.double, 1))
    await second.until(lambda: second.peer.did("ended"))
    assert (await ended(worker))[0] == 0


async def test_an_attempt_that_may_be_expected_later_is_told_to_come_again(bench: Bench) -> None:
    """It is not turned away by an engine that has not taken up its run yet."""
    engine = bench.engine(jobs.mute)
    key, engine.expects = engine.peer.order.key, False
    engine.listener.close()
    asked: list[AttemptKey] = []

    def later(key: AttemptKey) -> bool:
        asked.append(key)
        return True

    engine.listener = WorkerListener(engine._digest, engine._admit, later)
    engine.listener.open()
    worker = await bench.worker(engine)
    async with asyncio.timeout(20):
        while not asked:
            await asyncio.sleep(0.002)
    engine.expects = True
    await engine.until(lambda: engine.peer.did("ended"))
    assert (await ended(worker))[0] == 0
    assert set(asked) == {key}


async def test_a_welcome_that_is_lost_is_given_again(bench: Bench) -> None:
    """A worker that has not heard the new engine's says once more how far it has come, and is believed once more."""
    first = bench.engine(jobs.many_calls, 2)
    first.peer.link.patient = True
    worker = await bench.worker(first)
    await first.until(lambda: len(first.peer.link.open))
    second = bench.again(first)
    second.peer.link.patient = True
    second.loses_welcome = True
    for number in (1, 2):
        await second.until(lambda: len(second.peer.link.open))
        second.peer.link.open.pop(number)(success(jobs.double, number))
    await second.until(lambda: second.peer.did("ended"))
    assert (await ended(worker))[0] == 0
    assert [(hello.epoch, hello.stage) for hello in second.hellos] == [("1", "began")] * 2
    assert second.peer.nonsense == []


async def test_a_new_engine_gives_the_order_where_none_has_come(bench: Bench) -> None:
    """A worker that was ready and had nothing to do is given it by whoever comes next."""
    first = bench.engine(jobs.mute)
    first.peer.give = lambda *_: None  # type: ignore[method-assign]
    worker = await bench.worker(first)
    await first.until(lambda: first.peer.did("ready"))
    second = bench.again(first)
    await second.until(lambda: second.peer.did("ended"))
    assert (await ended(worker))[0] == 0


async def test_who_has_committed_its_end_waits_for_nobody(bench: Bench) -> None:
    """Without an engine the attempt goes on, claims its end and exits; the next engine reads it."""
    engine = bench.engine(jobs.wait_for, str(bench.folder / "gate"))
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("began"))
    engine.close()
    (bench.folder / "gate").touch()
    assert (await ended(worker))[0] == 0
    claim = await claims.claimed(engine.blobs, engine.peer.order.key, 1 << 18)
    assert claim is not None
    assert claim.evidence.result is not None
    again = claims.ClaimedEnd(engine.peer.order.key, claim.evidence, 0.0, 1.0)
    assert not claims.claim(engine.blobs.blocking, again)  # the first one counts
    await claims.forget(engine.blobs, engine.peer.order.key)
    assert await claims.claimed(engine.blobs, engine.peer.order.key, 1 << 18) is None


async def test_who_has_committed_its_end_does_not_wait_for_an_answer_either(bench: Bench) -> None:
    """It has said hello again, and nobody has answered: its end is claimed, so it goes."""
    engine = bench.engine(jobs.wait_for, str(bench.folder / "gate"))
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("began"))
    engine.close()
    met = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        met.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", engine.port), asyncio.timeout(5):
        await met.wait()
        (bench.folder / "gate").touch()
        assert (await ended(worker))[0] == 0


async def test_a_worker_that_nobody_wants_any_more_ends(bench: Bench) -> None:
    """After the limit that the engine set it gives up, with what it started."""
    engine = bench.engine(jobs.asleep, str(bench.folder / "asleep"), str(bench.folder / "tidied"), patience=0.3)
    worker = await bench.worker(engine)
    await bench.exists("asleep")
    engine.close()
    code, said = await ended(worker)
    assert code == 1
    assert "no connection to tcp://127.0.0.1" in said


async def test_the_deadline_ends_the_waiting_too(bench: Bench) -> None:
    """Where a try takes a limited time, nobody waits for what comes later."""
    settings = merge([(Level.TASK, opinions(Level.TASK, "a test", {"timeout": 0.6}))])
    more = {"settings": settings}
    engine = bench.engine(jobs.asleep, str(bench.folder / "asleep"), str(bench.folder / "tidied"), order=more)
    worker = await bench.worker(engine)
    await bench.exists("asleep")
    engine.close()
    code, said = await ended(worker)
    assert code == 1
    assert "no connection to tcp://127.0.0.1" in said


async def test_a_stranger_at_the_engines_port_is_none(bench: Bench) -> None:
    """The worker waits until it is an engine again that answers there."""
    first = bench.engine(jobs.wait_for, str(bench.folder / "gate"))
    worker = await bench.worker(first)
    await first.until(lambda: first.peer.did("began"))
    first.close()
    met = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        met.set()

    async with await asyncio.start_server(answer, "127.0.0.1", first.port), asyncio.timeout(20):
        await met.wait()
    second = bench.again(first)
    (bench.folder / "gate").touch()
    assert (await ended(worker))[0] == 0
    assert await claims.claimed(second.blobs, second.peer.order.key, 1 << 18) is not None


async def test_a_signal_is_told_when_somebody_listens_again(bench: Bench) -> None:
    """SIGTERM while there is no connection reaches the task at once, and the engine after the reconnect."""
    engine = bench.engine(jobs.saves_on_notice)
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("began"))
    engine.cut()
    worker.send_signal(signal.SIGTERM)
    await engine.until(lambda: engine.peer.did("signal") and engine.peer.link.records)


async def test_a_signal_that_could_not_be_told_is_in_the_claim(bench: Bench) -> None:
    """Whoever reads how it ended learns that its machine was going away."""
    engine = bench.engine(jobs.returns_on_notice)
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("began"))
    engine.close()
    worker.send_signal(signal.SIGTERM)
    assert (await ended(worker))[0] == 0
    claim = await claims.claimed(engine.blobs, engine.peer.order.key, 1 << 18)
    assert claim is not None
    assert claim.notice is not None
    assert (claim.notice.kind, claim.notice.source) == ("shutdown", "sigterm")


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x40\x01" + bytes(16), bytes(19), b"\x00\x00\x00\x05" + bytes(16) + b"hello"],
    ids=["a browser", "too long", "half a frame", "no hello"],
)
async def test_strangers_at_the_door_are_sent_away(bench: Bench, said: bytes) -> None:
    """Whatever they say, the listener goes on; nothing of them is kept."""
    engine = bench.engine(jobs.mute)
    reader, writer = await asyncio.open_connection(*engine.listener._socket.getsockname())  # type: ignore[union-attr]
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()
    worker = await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("ended"))
    assert (await ended(worker))[0] == 0
    assert not engine.listener._doors


async def test_a_second_worker_for_one_attempt_is_turned_away(bench: Bench) -> None:
    """Whoever has the token but is another process than the one that is at it has no say."""
    engine = bench.engine(jobs.wait_for, str(bench.folder / "gate"))
    await bench.worker(engine)
    await engine.until(lambda: engine.peer.did("began"))
    code, said = await ended(await bench.worker(engine))
    assert code == 1
    assert "another process is at this already" in said
    (bench.folder / "gate").touch()
    await engine.until(lambda: engine.peer.did("ended"))


@pytest.mark.parametrize(
    "hello, why",
    [
        (m.Hello(99, "0.1.0", TOKEN), "speaks protocol 99"),
        (m.Hello(m.PROTOCOL, "0.2.0", TOKEN), "has flyteish 0.2.0, the controller 0.1.0: install the same version"),
        (m.Hello(m.PROTOCOL, "0.1.7", TOKEN), "no such attempt"),
    ],
)
async def test_other_versions_are_turned_away(bench: Bench, hello: m.Hello, why: str) -> None:
    """Before anything else is said: both would only guess."""
    engine = bench.engine(jobs.mute)
    with socket.create_connection(engine.listener._socket.getsockname()) as sock:  # type: ignore[union-attr]
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, greeting(m.encode(hello)))
        ((_, _, body),) = FrameReader(1 << 20).feed(await loop.sock_recv(sock, 10_000))
    answer = msgspec.msgpack.decode(body, type=m.Welcome | m.Rejected)
    assert isinstance(answer, m.Rejected)
    assert why in answer.why


async def test_a_claim_of_somebody_else_is_nonsense(tmp_path: Path) -> None:
    """What stands under an attempt's name is checked like everything that comes from outside."""
    blobs = open_blobs((tmp_path / "blobs").as_uri())
    key, other = AttemptKey("r1", "a1", 1), AttemptKey("r1", "a2", 1)
    await blobs.set_ref(claims.name_of(key), m.encode(m.Began(key)))
    with pytest.raises(NonsenseError, match="can't be read"):
        await claims.claimed(blobs, key, 100)
    forged = claims.ClaimedEnd(other, WorkerEvidence(stopped=True), 0.0, 1.0)
    await blobs.delete_ref(claims.name_of(key))
    assert claims.claim(blobs.blocking, forged)
    reference = await blobs.get_ref(claims.name_of(other))
    assert reference is not None
    await blobs.set_ref(claims.name_of(key), reference.data)
    with pytest.raises(NonsenseError, match="speaks for r1/a2#1"):
        await claims.claimed(blobs, key, 100)


def test_a_claims_name_is_always_a_references() -> None:
    """However a run or an action is called."""
    assert claims.name_of(AttemptKey("r1", "a0", 3)) == "claims/r1/a0/3"
    assert claims.name_of(AttemptKey("../r", "ä" * 300, 1)).startswith("claims/")
