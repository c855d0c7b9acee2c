"""What a worker must not say: each is noticed, ends the worker, and nothing of it is used."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from flyteish._core.model.events import WorkerEvidence
from flyteish._worker import messages as m
from flyteish._worker.channel import Channel, FrameReader
from tests.engines.workers.conversation import (
    RUN,
    Mouth,
    Told,
    call_of,
    course,
    forgeries,
    key_of,
    payload,
    record_of,
)

MINE, OTHER = key_of("a1"), key_of("b1")
ROUNDS = 10_000


def spoken_to(*messages: m.FromWorker, names: tuple[str, ...] = ("a1",)) -> Told:
    """A peer that has heard this."""
    peer = Told(*names)
    assert peer.connect() is None
    for frame in Mouth().frames(list(messages)):
        peer.hear(frame)
    return peer


def test_a_whole_course_is_no_nonsense() -> None:
    """Everything that a worker says at its place is heard."""
    peer = spoken_to(*course("a1", "a2"), names=("a1", "a2"))
    assert peer.nonsense == []
    assert [what for what, *_ in peer.heard] == [
        "ready",
        *2 * ["taken", "began", "waiting", "waiting", "signal", "ended"],
    ]
    assert [len(link.calls) for link in peer.links.values()] == [1, 1]


@pytest.mark.parametrize("forged", forgeries(MINE, OTHER), ids=lambda message: type(message).__name__)
def test_every_forgery_is_noticed(forged: m.FromWorker) -> None:
    """One at a time, from an attempt that is running."""
    peer = spoken_to(m.Ready(), m.Began(MINE), forged)
    (why,) = peer.nonsense
    assert why.startswith("its worker spoke nonsense: ")
    assert [what for what, *_ in peer.heard] == ["ready", "began"]
    assert not any((link.calls, link.records, link.facts) != ([], [], []) for link in peer.links.values())


@pytest.mark.parametrize(
    "said",
    [
        [m.Began(MINE)],
        [m.Ready(), m.Ended(MINE, WorkerEvidence(stopped=True), 0.0)],
        [m.Ready(), m.Began(MINE), m.Began(MINE)],
        [m.Ready(), m.Began(MINE), m.Taken(MINE)],
        [m.Ready(), m.Taken(MINE), m.Called(MINE, 1, call_of())],
        [m.Ready(), m.Began(MINE), m.Called(MINE, 1, call_of()), m.Called(MINE, 1, call_of())],
        [m.Ready(), m.Began(MINE), *[m.Ended(MINE, WorkerEvidence(stopped=True), 0.0)] * 2],
    ],
)
def test_messages_out_of_place_are_noticed(said: list[m.FromWorker]) -> None:
    """The last one of each comes where it can't."""
    peer = Told("a1")
    peer.links[MINE].patient = True
    peer.connect()
    *before, last = Mouth().frames(said)
    for frame in before:
        peer.hear(frame)
    assert peer.nonsense == []
    peer.hear(last)
    assert len(peer.nonsense) == 1


def test_an_attempt_that_is_over_is_refused_and_no_nonsense() -> None:
    """A thread of it may have been about to ask."""
    over = m.Ended(MINE, WorkerEvidence(payload(b"r")), 0.0)
    late: list[m.FromWorker] = [m.Called(MINE, 1, call_of()), m.Checkpointed(MINE, 2, record_of(MINE))]
    peer = spoken_to(m.Ready(), m.Began(MINE), over, *late)
    assert peer.nonsense == []
    answers = [msgspec.msgpack.decode(body, type=m.ToWorker) for body in _heard_by_the_worker(peer)]
    call, checkpoint = answers[-2:]
    assert isinstance(call, m.Answer)
    assert isinstance(checkpoint, m.Recorded)
    assert call.outcome.error is not None
    assert "was given up" in call.outcome.error.message
    assert "was given up" in str(checkpoint.why)


def test_what_came_before_the_nonsense_counts() -> None:
    """In one piece with it, too: the result was there."""
    peer = Told("a1")
    peer.connect()
    frames = Mouth().frames([m.Ready(), m.Began(MINE), m.Ended(MINE, WorkerEvidence(payload(b"r")), 0.0)])
    peer.hear(b"".join(frames) + b"\xff" * 30)
    assert [what for what, *_ in peer.heard] == ["ready", "began", "ended"]
    assert len(peer.nonsense) == 1


def test_who_does_not_listen_is_given_up() -> None:
    """A worker that acknowledges nothing gets no more than is kept for it."""
    peer = Told("a1", resumes=True)
    peer.connect()
    for _ in range(200_000):
        peer.send(m.Stop(MINE, "listen"))
        if peer.nonsense:
            break
    assert "has not listened" in peer.nonsense[0]


# -- chance ------------------------------------------------------------------------------------------------------


def test_ten_thousand_mutated_conversations(seed: int) -> None:
    """Frames cut, swapped, repeated, reordered, nested and forged: whatever comes is either heard or noticed.

    What is heard is about the worker's own attempts, has finite numbers, and each attempt ends at most once.
    """
    seen: Counter[tuple[str, bool]] = Counter()
    for number in range(ROUNDS):
        chance = random.Random(seed * ROUNDS + number)
        kind = chance.choice(list(MUTATIONS))
        try:
            seen[kind, _play(chance, kind)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, conversation {number} ({kind}): {error!r}") from error
    assert {kind for kind, noticed in seen if noticed} == set(MUTATIONS), seen


def _play(chance: random.Random, kind: str) -> bool:
    """One conversation; whether nonsense was noticed."""
    names = ("a1", "a2", "a3")[: chance.randint(1, 3)]
    peer = Told(*names, resumes=chance.random() < 0.5)
    peer.connect()
    frames = Mouth().frames(course(*names))
    data = b"".join(MUTATIONS[kind](chance, frames))
    while data:
        cut = chance.choice((1, 7, 40, 300, len(data)))
        peer.hear(data[:cut])
        data = data[cut:]
    assert len(peer.nonsense) == peer.silenced
    _check(peer)
    return peer.silenced


def _check(peer: Told) -> None:
    ended = [key for what, key, *_ in (each for each in peer.heard if len(each) > 1) if what == "ended"]
    assert len(ended) == len(set(ended))
    assert all(key in peer.links for _, *keys in peer.heard for key in keys[:1])
    for _, _, *facts in (each for each in peer.heard if len(each) > 2):
        assert all(map(math.isfinite, _numbers(msgspec.to_builtins(facts))))
    for key, link in peer.links.items():
        assert all(record.space == f"{RUN}/{key.action}" for record in link.records)
        assert all(map(math.isfinite, _numbers(msgspec.to_builtins([link.records, link.facts, link.calls]))))
        assert len(link.calls) < 10


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    if isinstance(value, list | tuple):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, int | float) else []


def _renumbered(bodies: list[bytes]) -> list[bytes]:
    end = Channel(resumes=False, longest=1 << 20)
    return [end.pack(body) for body in bodies]


def _bytes_changed(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    data = bytearray(b"".join(frames))
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return [bytes(data)]


def _bodies_changed(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    bodies = [bytearray(frame[20:]) for frame in frames]
    for _ in range(chance.randint(1, 4)):
        body = chance.choice(bodies)
        body[chance.randrange(len(body))] = chance.choice((0xC0, 0xCB, 0xCF, 0xFF, chance.randrange(256)))
    return _renumbered([bytes(body) for body in bodies])


def _reordered(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    mixed = list(frames)
    chance.shuffle(mixed)
    return mixed


def _bodies_reordered(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    return _renumbered([frame[20:] for frame in _reordered(chance, frames)])


def _repeated(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    body = chance.choice(frames)[20:]
    bodies = [frame[20:] for frame in frames]
    bodies.insert(chance.randrange(len(bodies)), body)
    return _renumbered(bodies)


def _left_out(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    del frames[chance.randrange(len(frames) - 1)]
    return frames


def _cut(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    place = chance.randrange(len(frames) - 1)
    frames[place] = frames[place][: chance.randrange(1, len(frames[place]))]
    return frames


def _nested(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    bodies = [frame[20:] for frame in frames]
    inner = chance.choice(bodies)
    opening = chance.choice((b"\x91", b"\x81\xa5cause", b"\x92\xa5Ended", b"\xdd\xff\xff\xff\xff"))
    bodies.insert(chance.randrange(len(bodies)), opening * chance.choice((1, 50, 20_000)) + inner)
    return _renumbered(bodies)


def _framed_twice(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    place = chance.randrange(len(frames))
    return _renumbered([frame if place == at else frame[20:] for at, frame in enumerate(frames)])


def _forged(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    bodies = [frame[20:] for frame in frames]
    other = chance.choice((OTHER, key_of("a2")._replace(generation=2), MINE._replace(run="r2")))
    forged = chance.choice(forgeries(MINE, other))
    bodies.insert(chance.randrange(len(bodies)), m.encode(forged))
    return _renumbered(bodies)


def _random_bytes(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    frames.insert(chance.randrange(len(frames)), chance.randbytes(chance.randint(1, 200)))
    return frames


MUTATIONS = {
    "bytes changed": _bytes_changed,
    "bodies changed": _bodies_changed,
    "reordered": _reordered,
    "bodies reordered": _bodies_reordered,
    "repeated": _repeated,
    "left out": _left_out,
    "cut": _cut,
    "nested": _nested,
    "framed twice": _framed_twice,
    "forged": _forged,
    "random bytes": _random_bytes,
}


def _heard_by_the_worker(peer: Told) -> list[bytes]:
    _, *rest = FrameReader(1 << 20).feed(bytes(peer.wire.sent))
    return [body for _, _, body in rest]
