"""Both ends of a conversation without sockets, for tests: a peer that writes down, and a worker that says anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from flyteish._core.model.events import CheckpointSkipped, WorkerEvidence
from flyteish._core.model.ids import AttemptKey, inputs_digest
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile, TaskReference
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST, Channel
from flyteish.engines.workers.peer import Peer
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.interfaces import Call, Notice, OnJournalled, Order, Outcome

RUN = "r1"
INLINE = 1 << 16
WELCOME = m.Welcome("here", 0, None, None, "memory:", INLINE, 1 << 30)
HELLO = m.Hello(m.PROTOCOL, "", "")
ADDRESS = f"sha256:{1:064x}"


class Now:
    """A way to the loop that needs none."""

    def put(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)


class Wire:
    """In place of a stream: keeps what the engine sends."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False
        self.take: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        self.sent += data

    def stop_reading(self) -> None:
        self.take = None

    def close(self) -> None:
        self.closed = True


class Asked:
    """A link that answers at once, and keeps what it was asked."""

    def __init__(self, key: AttemptKey) -> None:
        self.key = key
        self.calls: list[Call] = []
        self.records: list[CheckpointRecord] = []
        self.facts: list[Any] = []
        self.open: dict[int, Callable[[Outcome], None]] = {}
        self.patient = False
        """Whether calls stay open."""

    def call(self, call: Call, done: Callable[[Outcome], None]) -> int:
        self.calls.append(call)
        number = len(self.calls)
        if self.patient:
            self.open[number] = done
        else:
            done(Outcome(self.key.run, "child", "succeeded", result=payload(b"x")))
        return number

    def cancel(self, number: int, reason: str) -> None:
        self.facts.append((number, reason))

    def commit_checkpoint(self, record: CheckpointRecord, done: OnJournalled) -> None:
        self.records.append(record)
        done(None)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self.facts.append(event)

    def traced(self, key: str, result: Payload, done: OnJournalled | None = None) -> None:
        self.facts.append((key, result))
        if done is not None:
            done(None)


class Told(Peer[PeerAttempt]):
    """Writes down what a worker says. ``give_orders`` hands it some attempts as soon as it is ready."""

    def __init__(self, *names: str, resumes: bool = False, welcome: m.Welcome = WELCOME) -> None:
        super().__init__(Now(), welcome, resumes=resumes)  # type: ignore[arg-type]
        self.links = {key_of(name): Asked(key_of(name)) for name in names}
        self.heard: list[tuple[Any, ...]] = []
        self.nonsense: list[str] = []
        self.wire = Wire()

    def connect(self, hello: m.Hello = HELLO) -> m.Rejected | None:
        self.wire = Wire()
        return self.attach(self.wire, hello)  # type: ignore[arg-type]

    def attempt(self, key: AttemptKey) -> PeerAttempt:
        return PeerAttempt(order_of(key), self.links[key])

    def on_ready(self) -> None:
        self.heard.append(("ready",))
        self.give([self.attempt(key) for key in self.links], [None] * len(self.links))

    def on_began(self, attempt: PeerAttempt) -> None:
        self.heard.append(("began" if attempt.user_code else "taken", attempt.key))

    def on_ended(self, attempt: PeerAttempt, said: WorkerEvidence, seconds: float, number: int) -> None:
        self.heard.append(("ended", attempt.key, said, seconds))
        self.done_with(number)

    def on_given_back(self, attempts: list[PeerAttempt]) -> None:
        self.heard.append(("given back", *[attempt.key for attempt in attempts]))

    def on_signal(self, attempt: PeerAttempt, notice: Notice, number: int) -> None:
        self.heard.append(("signal", attempt.key, notice))
        self.done_with(number)

    def on_waiting(self) -> None:
        self.heard.append(("waiting",))

    def secrets(self, attempt: PeerAttempt) -> dict[str, str]:
        return {"TOKEN": "hush"}

    def on_nonsense(self, why: str) -> None:
        self.nonsense.append(why)


class Mouth:
    """The worker's end: makes frames of messages, in order, until somebody meddles with them."""

    def __init__(self, *, resumes: bool = False) -> None:
        self.channel = Channel(resumes=resumes, longest=LONGEST)

    def frames(self, messages: list[m.FromWorker]) -> list[bytes]:
        return [self.channel.pack(m.encode(message)) for message in messages]


def key_of(name: str) -> AttemptKey:
    return AttemptKey(RUN, name, 1)


def order_of(key: AttemptKey) -> Order:
    return Order(
        key=key, task="env.f", reference=TaskReference("m", "f"), is_async=False, inputs=payload(b""),
        settings=Settings(), pool="p", queue="q", medium="spot", user_attempt=1, max_attempts=1,
    )  # fmt: skip


def payload(data: bytes) -> Payload:
    return Payload(data, None, len(data))


def record_of(key: AttemptKey, **more: Any) -> CheckpointRecord:
    made = CheckpointRecord(1, key.generation, ADDRESS, "bytes", 1, 5.0, space=f"{key.run}/{key.action}")
    return msgspec.structs.replace(made, **more)


def call_of(data: bytes = b"inputs", **more: Any) -> Call:
    profile = Profile("0123456789abcdef", "env.g", Settings(), TaskReference("m", "g"))
    return msgspec.structs.replace(Call(profile, payload(data), inputs_digest(data)), **more)


def course(*names: str) -> list[m.FromWorker]:
    """All that a worker may say, at its place."""
    said: list[m.FromWorker] = [m.Ready()]
    for number, name in enumerate(names):
        key = key_of(name)
        error = ErrorDocument("builtins.ValueError", "no", ("builtins.ValueError",), cause=ErrorDocument("a.B"))
        said += [
            m.Taken(key),
            m.Wanted(key, 10 * number + 9),
            m.Began(key),
            m.Called(key, 10 * number + 1, call_of()),
            m.Checkpointed(key, 10 * number + 2, record_of(key)),
            m.Traced(key, 10 * number + 3, "seed", payload(b"7")),
            m.Skipped(key, CheckpointSkipped(*key, 1, "torn")),
            m.CallWithdrawn(key, 10 * number + 1, "no longer awaited"),
            m.Signalled(key, Notice("shutdown", 30.0, "sigterm")),
            m.Ended(key, WorkerEvidence(payload(b"r")) if number % 2 else WorkerEvidence(error=error), 0.1),
        ]
    return said


def forgeries(mine: AttemptKey, other: AttemptKey) -> list[m.FromWorker]:
    """What only decodes: each of them speaks for somebody else, or says a number that is none."""
    deep = ErrorDocument("a.B")
    for _ in range(100):
        deep = ErrorDocument("a.B", cause=deep)
    good = WorkerEvidence(payload(b"r"))
    huge = "x" * 100_000
    return [
        m.Ended(mine, good, math.nan), m.Ended(mine, good, math.inf), m.Ended(mine, good, -1.0),
        m.Ended(mine, WorkerEvidence(), 0.0), m.Ended(mine, WorkerEvidence(error=deep), 0.0),
        m.Ended(mine, WorkerEvidence(Payload(b"r", None, 2)), 0.0),
        m.Ended(mine, WorkerEvidence(Payload(b"r", ADDRESS, 1)), 0.0),
        m.Ended(mine, WorkerEvidence(Payload(None, "/etc/passwd", 1)), 0.0),
        m.Ended(mine, WorkerEvidence(Payload(None, ADDRESS, -1)), 0.0),
        m.Ended(mine, WorkerEvidence(payload(bytes(INLINE + 1))), 0.0),
        m.Ended(mine, WorkerEvidence(error=ErrorDocument("a.B", huge)), 0.0),
        m.Ended(mine, WorkerEvidence(payload(b"r"), ErrorDocument("a.B")), 0.0),
        m.Ended(other, good, 0.0), m.Began(other), m.Taken(other), m.Recalled([mine]), m.Recalled([other]), m.Ready(),
        m.Called(other, 90, call_of()), m.Called(mine, 0, call_of()), m.Called(mine, -5, call_of()),
        m.Called(mine, 91, call_of(digest=bytes(16))), m.Called(mine, 91, call_of(occurrence=-1)),
        m.Called(mine, 91, call_of(cache_digest=b"short")), m.Called(mine, 91, call_of(group=huge)),
        m.Called(mine, 91, call_of(profile=Profile("../../x", "env.g", Settings(), TaskReference("m", "g")))),
        m.Checkpointed(other, 92, record_of(other)), m.Checkpointed(mine, 92, record_of(mine, space="r1/other")),
        m.Checkpointed(mine, 92, record_of(mine, space="")), m.Checkpointed(mine, 92, record_of(mine, generation=2)),
        m.Checkpointed(mine, 92, record_of(mine, sequence=0)), m.Checkpointed(mine, 92, record_of(mine, size=-1)),
        m.Checkpointed(mine, 92, record_of(mine, blob="sha256:no")),
        m.Checkpointed(mine, 92, record_of(mine, kind="socket")),
        m.Checkpointed(mine, 92, record_of(mine, saved_at=math.nan)),
        m.Checkpointed(mine, 92, record_of(mine, save_seconds=-math.inf)),
        m.Checkpointed(mine, 92, record_of(mine, restore_seconds=math.inf)),
        m.Checkpointed(mine, 92, record_of(mine, progress=math.nan)),
        m.Checkpointed(mine, 92, record_of(mine, name="../x")),
        m.Traced(other, 93, "seed", payload(b"7")), m.Traced(mine, 93, huge, payload(b"7")),
        m.Traced(mine, 93, "seed", Payload()),
        m.Skipped(mine, CheckpointSkipped(*other, 1, "torn")), m.Skipped(mine, CheckpointSkipped(*mine, -1, "torn")),
        m.CallWithdrawn(mine, 10**6, "never made"), m.Wanted(other, 94), m.Wanted(mine, 94),
        m.Signalled(mine, Notice("shutdown", math.nan, "sigterm")),
        m.Signalled(mine, Notice("shutdown", 1.0, "market")), m.Signalled(mine, Notice("earthquake", 1.0, "sigterm")),
        m.Signalled(other, Notice("drain", 1.0, "sigterm")),
    ]  # fmt: skip
