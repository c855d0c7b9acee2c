"""An engine's end of the conversation with a worker, without sockets."""

from __future__ import annotations

import msgspec
import pytest

from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import connection
from flyteish._worker import messages as m
from flyteish._worker.channel import FrameReader, NonsenseError
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.errors import SecretMissingError, SerializationError
from tests.engines.workers.conversation import Mouth, Told, key_of, payload

MINE = key_of("a1")
TAKEN_OVER = m.Hello(m.PROTOCOL, "", "", MINE, epoch="an earlier one", received=7, stage="began")


def said_to(peer: Told) -> list[m.ToWorker]:
    """What the worker was told over the last connection, after the welcome."""
    _, *rest = FrameReader(1 << 20).feed(bytes(peer.wire.sent))
    return [msgspec.msgpack.decode(body, type=m.ToWorker) for _, _, body in rest]


def test_a_worker_that_has_not_heard_the_welcome_says_hello_again() -> None:
    """A new engine learns how far it is once, however often the connection is lost over it."""
    peer = Told("a1", resumes=True)
    peer.expect(peer.attempt(MINE))
    for _ in range(3):
        assert peer.connect(TAKEN_OVER) is None
        peer.detach()
    assert peer.heard == [("began", MINE)]
    peer.connect(TAKEN_OVER)
    for frame in Mouth(resumes=True).frames([m.Ended(MINE, WorkerEvidence(payload(b"r")), 1.0)]):
        peer.hear(frame)
    assert [what for what, *_ in peer.heard] == ["began", "ended"]
    assert peer.nonsense == []


def test_what_was_said_without_a_connection_is_told_with_the_next_one() -> None:
    """In order, and once."""
    peer = Told("a1", resumes=True)
    peer.connect()
    peer.hear(b"".join(Mouth(resumes=True).frames([m.Ready(), m.Began(MINE)])))
    peer.detach()
    peer.send(m.Stop(MINE, "one"))
    peer.send(m.Stop(MINE, "two"))
    known = m.Hello(m.PROTOCOL, "", "", MINE, epoch=peer.welcome.epoch, received=1, stage="began")
    assert peer.connect(known) is None
    assert said_to(peer) == [m.Stop(MINE, "one"), m.Stop(MINE, "two")]
    assert peer.connect(msgspec.structs.replace(known, received=2)) is None
    assert said_to(peer) == [m.Stop(MINE, "two")]


@pytest.mark.parametrize("stage, key", [("began", key_of("b1")), ("ordered", None), ("finished", MINE)])
def test_a_hello_is_checked_like_every_other_message(stage: str, key: AttemptKey | None) -> None:
    """It says how far an attempt is that this engine knows, in a word that there is; nothing is answered before."""
    peer = Told("a1", resumes=True)
    peer.expect(peer.attempt(MINE))
    with pytest.raises(NonsenseError, match="it says that"):
        peer.connect(msgspec.structs.replace(TAKEN_OVER, stage=stage, key=key))
    assert peer.stream is None
    assert peer.wire.sent == b""


def test_a_missing_secret_ends_the_attempt_in_the_words_that_name_the_cure() -> None:
    """The worker says that it could not begin; that no retry mends it, its engine knows."""

    class Poor(Told):
        def secrets(self, attempt: PeerAttempt) -> dict[str, str]:
            raise SecretMissingError("secret 'x' is missing")

    peer = Poor("a1")
    peer.connect()
    peer.hear(b"".join(Mouth().frames([m.Ready(), m.Taken(MINE), m.Wanted(MINE, 1)])))
    assert said_to(peer)[-1] == m.SecretValues(1, {}, "secret 'x' is missing")
    attempt = peer.attempts[MINE]
    assert attempt.evidence(WorkerEvidence(stopped=True)).unmendable == "secret 'x' is missing"


def test_no_message_shows_a_secret() -> None:
    """A log of messages is nothing to be afraid of."""
    assert repr(m.SecretValues(1, {"TOKEN": "hush"})) == "SecretValues(1, ['TOKEN'])"
    assert "hush" not in repr(m.Hello(m.PROTOCOL, "0.1", "hush"))


def test_what_is_too_long_to_send_is_an_error_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be nonsense at the other end."""
    monkeypatch.setattr(connection, "LONGEST_FROM_WORKER", 100)
    with pytest.raises(SerializationError, match=r"Ended would be a message of .* bytes; at most 100 are sent"):
        connection.encoded(m.Ended(MINE, WorkerEvidence(payload(bytes(200))), 1.0))
