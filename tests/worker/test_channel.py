"""The session layer between engine and worker, without a socket: what is sent arrives once and in order."""

from __future__ import annotations

import random
import struct

import pytest

from flyteish._worker.channel import Channel, FrameReader, NonsenseError

HEADER = struct.Struct(">IQQ")


def channel(**more: object) -> Channel:
    return Channel(**{"resumes": True, "longest": 1000, **more})  # type: ignore[arg-type]


def heard(end: Channel, data: bytes) -> list[bytes]:
    """What is new in these bytes, which have to be in order."""
    new = end.feed(data)
    assert not end.broken
    return new


def test_messages_arrive_in_order_however_they_are_cut() -> None:
    """A frame may come in as many pieces as it has bytes."""
    ours, theirs = channel(), channel()
    data = ours.pack(b"one") + ours.pack(b"") + ours.pack(b"three")
    assert [body for byte in data for body in heard(theirs, bytes([byte]))] == [b"one", b"", b"three"]


def test_what_is_acknowledged_is_not_kept() -> None:
    """Every frame acknowledges what has come the other way; nothing else has to be sent for it."""
    ours, theirs = channel(), channel()
    heard(theirs, ours.pack(b"one") + ours.pack(b"two"))
    assert not ours.settled
    heard(ours, theirs.pack(b"answer"))
    assert ours.settled
    assert not theirs.settled


def test_a_lost_connection_loses_nothing_and_doubles_nothing() -> None:
    """After a reconnect the rest is sent again, and what comes twice all the same is recognised by its number."""
    ours, theirs = channel(), channel()
    frames = [ours.pack(word) for word in (b"one", b"two", b"three")]
    assert heard(theirs, frames[0] + frames[1][:5]) == [b"one"]
    again = ours.resume(theirs.received)
    theirs.resume(ours.received)
    assert heard(theirs, again) == [b"two", b"three"]
    assert heard(theirs, frames[0] + frames[2]) == []


def test_a_new_other_end_is_told_anew() -> None:
    """What was not acknowledged and lasts is numbered from 1 again; the rest it has to learn otherwise."""
    ours, old, new = channel(), channel(), channel()
    heard(old, ours.pack(b"acknowledged"))
    heard(ours, old.pack_acknowledgement())
    ours.pack(b"passing", lasts=False)
    ours.pack(b"lasting")
    assert heard(new, ours.restart() + ours.pack(b"next")) == [b"lasting", b"next"]
    assert new.received == 2


def test_done_by_hand_is_acknowledged_up_to_the_first_that_is_not() -> None:
    """A message that waits for something holds back the acknowledgement of the later ones, and no more."""
    ours, theirs = channel(), channel(by_hand=True)
    heard(theirs, ours.pack(b"waits") + ours.pack(b"quick"))
    theirs.done(2)
    heard(ours, theirs.pack_acknowledgement())
    assert ours.resume(theirs.received) == b""  # it has come: only if the other end dies it is needed again
    assert not ours.settled
    theirs.done(1)
    heard(ours, theirs.pack_acknowledgement())
    assert ours.settled


def test_a_channel_that_is_not_heard_is_full() -> None:
    """Who does not listen gets no more than is kept for it."""
    ours = channel(most_kept=100)
    for _ in range(10):
        assert not ours.full
        ours.pack(bytes(10))
    assert ours.full


def test_much_without_an_answer_is_acknowledged_by_itself() -> None:
    """The other end may not have to keep everything because nobody has a word for it."""
    ours, theirs = channel(), channel()
    while not theirs.owes:
        heard(theirs, ours.pack(b"word"))
    heard(ours, theirs.pack_acknowledgement())
    assert ours.settled
    assert not theirs.owes


def test_over_an_inherited_socket_nothing_is_kept() -> None:
    """Such a connection ends with one of its ends: nobody would ever ask again."""
    ours = channel(resumes=False)
    ours.pack(b"one")
    assert ours.settled
    assert not ours.owes


@pytest.mark.parametrize(
    "wrong, what",
    [
        (HEADER.pack(1001, 2, 0), "1001 bytes was announced; at most 1000"),
        (HEADER.pack(1, 3, 0) + b"x", "message 3 came after message 1"),
        (HEADER.pack(1, 0, 0) + b"x", "without a number"),
        (HEADER.pack(1, 2, 7) + b"x", "message 7 was acknowledged; expected one from 0 to 0"),
    ],
)
def test_what_is_wrong_is_said_after_what_was_right(wrong: bytes, what: str) -> None:
    """What came before it counts."""
    ours, theirs = channel(), channel()
    assert theirs.feed(ours.pack(b"right") + wrong) == [b"right"]
    assert what in theirs.broken


def test_who_has_heard_what_was_not_said_is_refused() -> None:
    """A number in a hello is not believed either."""
    ours = channel()
    ours.pack(b"one")
    with pytest.raises(NonsenseError, match="2 messages received; expected from 0 to 1"):
        ours.resume(2)


def test_a_reader_gives_out_no_more_than_it_is_asked_for() -> None:
    """What comes behind a hello is for whoever takes over."""
    ours = channel()
    reader = FrameReader(100)
    second = ours.pack(b"one") and ours.pack(b"two")
    assert [body for _, _, body in reader.feed(HEADER.pack(5, 0, 0) + b"hello" + second, 1)] == [b"hello"]
    assert reader.rest == second


def test_random_losses_change_nothing(seed: int) -> None:
    """Connections that break anywhere, in both directions, a thousand times: all arrives once, in order."""
    chance = random.Random(seed)
    ends = channel(), channel(by_hand=True)
    told: tuple[list[bytes], list[bytes]] = ([], [])
    got: tuple[list[bytes], list[bytes]] = ([], [])
    wires = [b"", b""]
    for step in range(5000):
        side = chance.randrange(2)
        match chance.randrange(5):
            case 0 | 1:
                told[side].append(str(step).encode())
                wires[side] += ends[side].pack(told[side][-1])
            case 2 | 3:
                cut = chance.randint(0, len(wires[1 - side]))
                data, wires[1 - side] = wires[1 - side][:cut], wires[1 - side][cut:]
                before = ends[side].received
                new = heard(ends[side], data)
                got[side].extend(new)
                if side == 1:
                    numbers = list(range(before + 1, before + 1 + len(new)))
                    chance.shuffle(numbers)
                    for number in numbers:
                        ends[1].done(number)
                if ends[side].owes:
                    wires[side] += ends[side].pack_acknowledgement()
            case _ if chance.random() < 0.6:
                received = ends[0].received, ends[1].received
                wires = [ends[0].resume(received[1]), ends[1].resume(received[0])]
    for side in (0, 1):
        got[side].extend(heard(ends[side], wires[1 - side]))
    assert got == (told[1], told[0])
