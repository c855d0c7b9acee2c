"""One worker at the other end of a stream of bytes: what it says, checked, and what it is told.

Holds a worker to the protocol (``_worker.messages``): what is not a message, not at its place or not about its own
attempt ends the conversation. Answers what its attempt asks through the attempt's link. What follows from the rest (an
attempt ended, a notice came) is for the engine, which makes a subclass with the ``on_...`` methods. Must not know how
workers are started, chosen or ended, nor what carries the bytes. Lives on one event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import checks
from flyteish._worker import messages as m
from flyteish._worker.channel import LONGEST_FROM_WORKER, Channel, NonsenseError, greeting
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.engines.workers.stream import SocketStream
from flyteish.errors import SecretMissingError
from flyteish.interfaces import Call, Notice, Outcome

_GIVEN_UP: Final = "attempt {} was given up: it may not call tasks or commit checkpoints any more"
_FROM_WORKER: Final[msgspec.msgpack.Decoder[m.FromWorker]] = msgspec.msgpack.Decoder(m.FromWorker)
_STAGES: Final = ("ready", "ordered", "taken", "began")
_LATE: Final = 64
"""Attempts that are over and may still be heard of: a thread of theirs was about to ask for something."""

A = TypeVar("A", bound=PeerAttempt)


class Peer(ABC, Generic[A]):
    """A worker, as an engine speaks with it.

    Args:
        feed: the way from other threads to the loop.
        welcome: what it is told first.
        resumes: whether the conversation survives its connection, and the engine says when it has done with an end or a
            notice (``done_with``).
    """

    __slots__ = (
        "_channel", "_feed", "_inline", "_late", "_recalls", "_resumes", "attempts", "current", "ready", "recalled",
        "silenced", "stream", "welcome",
    )  # fmt: skip

    def __init__(self, feed: LoopFeed, welcome: m.Welcome, *, resumes: bool) -> None:
        self._feed = feed
        self.welcome = welcome
        self._inline = welcome.inline_limit
        self._resumes = resumes
        self._channel = Channel(resumes=resumes, longest=LONGEST_FROM_WORKER, by_hand=resumes)
        self.stream: SocketStream | None = None
        """None while it is not connected."""
        self.silenced = False
        """Whether it spoke nonsense: nothing of it is heard any more."""
        self.ready = False
        self.attempts: dict[AttemptKey, A] = {}
        """What it has, in order. Invariant: ``current`` is in here; all others have not begun, as far as was heard."""
        self.current: A | None = None
        self.recalled: set[AttemptKey] = set()
        """Asked back, neither given back nor begun."""
        self._recalls = 0
        """Times that something was asked back, without an answer."""
        self._late: deque[AttemptKey] = deque(maxlen=_LATE)

    # -- for the engine to fill in -------------------------------------------------------------------------

    @abstractmethod
    def on_ready(self) -> None:
        """It has started."""

    @abstractmethod
    def on_began(self, attempt: A) -> None:
        """It turned to this attempt, or (``attempt.user_code``) user code began; called for either, or for both."""

    @abstractmethod
    def on_ended(self, attempt: A, said: WorkerEvidence, seconds: float, number: int) -> None:
        """The attempt is over. ``number`` is for ``done_with``."""

    @abstractmethod
    def on_given_back(self, attempts: list[A]) -> None:
        """These have not begun and are not the worker's any more."""

    @abstractmethod
    def on_signal(self, attempt: A, notice: Notice, number: int) -> None:
        """The attempt got a signal that announces the end of its machine. ``number`` is for ``done_with``."""

    @abstractmethod
    def on_waiting(self) -> None:
        """Its attempt waits for child calls, or does so no longer."""

    @abstractmethod
    def secrets(self, attempt: A) -> Mapping[str, str]:
        """The values of the attempt's secrets. Raises SecretMissingError."""

    @abstractmethod
    def on_nonsense(self, why: str) -> None:
        """It spoke nonsense, and must be ended: nothing more is heard of it."""

    # -- the connection ------------------------------------------------------------------------------------

    def attach(self, stream: SocketStream, hello: m.Hello) -> m.Rejected | None:
        """The worker has connected, for the first time or again, and its hello was believed.

        Raises:
            NonsenseError: it claims to have heard what was not said.
        """
        if self.silenced:
            return m.Rejected("this worker spoke nonsense, and is being ended")
        channel = self._channel
        knows_us = hello.epoch == self.welcome.epoch
        if not knows_us and channel.received:
            return m.Rejected("another process is at this already")
        if not knows_us and hello.stage:
            self._check_stage(hello)
        again, received = (channel.resume(hello.received), channel.received) if knows_us else (channel.restart(), 0)
        self.detach()  # the old connection is dead, though nobody has told us yet
        self.stream = stream
        stream.take = self.hear
        stream.send(greeting(m.encode(msgspec.structs.replace(self.welcome, received=received))) + again)
        if not knows_us and hello.stage:
            self._catch_up(hello)
        return None

    def _check_stage(self, hello: m.Hello) -> None:
        if hello.stage not in _STAGES or (hello.key not in self.attempts and hello.stage != "ready"):
            raise NonsenseError(f"it says that {hello.key} is {hello.stage!r:.80}")

    def _catch_up(self, hello: m.Hello) -> None:
        """A worker that has spoken with an earlier engine says how far it has come; again, if our welcome was lost."""
        first, self.ready = not self.ready, True
        if hello.stage == "ready" and first:
            self.on_ready()
        elif hello.key is not None and hello.stage in ("taken", "began"):
            attempt, user_code = self.attempts[hello.key], hello.stage == "began"
            if self.current is not attempt or attempt.user_code != user_code:
                self._begins(hello.key, user_code=user_code)

    def detach(self) -> None:
        """The connection is lost."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def send(self, message: m.ToWorker) -> None:
        """Tell it, soon and in order."""
        channel = self._channel
        if self.silenced:
            return
        if channel.full:
            self._ends_with(f"its worker has not listened to the last {channel}")
            return
        data = channel.pack(m.encode(message))
        if self.stream is not None:
            self.stream.send(data)

    def recall(self, keys: list[AttemptKey]) -> None:
        """Ask back what has not begun."""
        if keys:
            self.recalled.update(keys)
            self._recalls += 1
            self.send(m.Recall(keys))

    def give(self, attempts: list[A], logs: list[str | None]) -> None:
        """Hand it attempts, to do one after the other."""
        for attempt in attempts:
            self.expect(attempt)
        self.send(m.RunOrders([attempt.order for attempt in attempts], logs))

    def expect(self, attempt: A) -> None:
        """It has this attempt, or is about to be given it."""
        self.attempts[attempt.key] = attempt

    def unbegun(self) -> list[AttemptKey]:
        """What it could give back, in order."""
        return [
            key for key, attempt in self.attempts.items() if attempt is not self.current and key not in self.recalled
        ]

    def done_with(self, number: int) -> None:
        """That end, or that notice, is on record."""
        self._channel.done(number)
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._channel.owes and self.stream is not None:
            self.stream.send(self._channel.pack_acknowledgement())

    # -- hearing -------------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Bytes have come from it."""
        if self.silenced:
            return
        channel = self._channel
        bodies = channel.feed(data)
        number = channel.received - len(bodies)
        try:
            for message in decoded(bodies):
                number += 1
                self._take(message, number)
                if self.silenced:
                    return
            if channel.broken:
                raise NonsenseError(channel.broken)
        except NonsenseError as error:
            self._ends_with(f"its worker spoke nonsense: {error}")
        else:
            if self._resumes:
                self._acknowledge()

    def _ends_with(self, why: str) -> None:
        self.silenced = True
        if self.stream is not None:
            self.stream.stop_reading()
        self.on_nonsense(why)

    def _take(self, message: m.FromWorker, number: int) -> None:
        match message:
            case m.Ended(key, said, seconds):
                checks.seconds("how long it took", seconds)
                checks.evidence(said, self._inline)
                attempt = self._at(key)
                self.current = None
                del self.attempts[key]
                self._late.append(key)
                self.on_ended(attempt, said, seconds, number)
                return
            case m.Began(key):
                self._begins(key, user_code=True)
            case m.Taken(key):
                self._begins(key, user_code=False)
            case m.Signalled(key, notice):
                checks.notice(notice)
                if (asking := self._asking(key)) is not None:
                    self.on_signal(asking, notice, number)
                    return
            case m.Ready():
                if self.ready:
                    raise NonsenseError("it was ready twice")
                self.ready = True
                self.on_ready()
            case m.Recalled(keys):
                self._given_back(keys)
            case _:
                self._take_request(message)
        if self._resumes:
            self._channel.done(number)

    def _at(self, key: AttemptKey) -> A:
        """The attempt that it is at, which must be this one."""
        current = self.current
        if current is None or current.key != key:
            raise NonsenseError(f"it spoke of {key}, while it was at {'nothing' if current is None else current.key}")
        return current

    def _asking(self, key: AttemptKey) -> A | None:
        """The attempt that asks for something; None for one that is over."""
        current = self.current
        if current is not None and current.key == key:
            return current
        if key in self._late:
            return None
        return self._at(key)

    def _begins(self, key: AttemptKey, *, user_code: bool) -> None:
        attempt = self.attempts.get(key)
        if attempt is None:
            raise NonsenseError(f"it began {key}, which it was not given")
        if not self.ready:
            raise NonsenseError(f"it began {key} before it was ready")
        if self.current is not None and (self.current is not attempt or not user_code or attempt.user_code):
            raise NonsenseError(f"it began {key}, while it was at {self.current.key}")
        self.current = attempt
        self.recalled.discard(key)
        attempt.user_code = user_code
        self.on_began(attempt)

    def _given_back(self, keys: list[AttemptKey]) -> None:
        strange = [key for key in keys if key not in self.recalled]
        if strange or not self._recalls or len(set(keys)) < len(keys):
            raise NonsenseError(f"it gave back {len(keys)} attempts that it was not asked for, {strange[:1]}")
        self._recalls -= 1
        self.recalled.difference_update(keys)
        self.on_given_back([self.attempts.pop(key) for key in keys])

    # -- what attempts ask ---------------------------------------------------------------------------------

    def _take_request(self, message: m.FromWorker) -> None:
        match message:
            case m.Called(key, number, call):
                asking = self._asking(key)
                if asking is None:
                    why = _GIVEN_UP.format(key)
                    refused = Outcome.refused(key.run, key.action, "flyteish.errors.StaleAttemptError", why)
                    self.send(m.Answer(number, refused))
                    return
                self._asked(asking, number)
                self._call(asking, number, call)
            case m.Checkpointed(key, number, record):
                checks.checkpoint(record, key)
                asking = self._asking(key)
                if asking is None:
                    self.send(m.Recorded(number, _GIVEN_UP.format(key)))
                    return
                self._asked(asking, number)
                asking.link.commit_checkpoint(record, partial(self._feed.put, self._recorded, number))
            case m.Traced(key, number, name, result):
                checks.words("a traced value's name", name)
                checks.payload("a traced value", result, self._inline)
                asking = self._asking(key)
                if asking is None:
                    self.send(m.Recorded(number, _GIVEN_UP.format(key)))
                    return
                self._asked(asking, number)
                asking.link.traced(name, result, partial(self._feed.put, self._recorded, number))
            case m.Wanted(key, number):
                self._tell_secrets(self._at(key), number)
            case m.CallWithdrawn(key, number, reason):
                checks.words("why a call was cancelled", reason)
                asking = self._asking(key)
                if asking is not None and number > asking.asked:
                    raise NonsenseError(f"it cancelled call {number}, which it has not made")
                if asking is not None and number in asking.calls:
                    asking.link.cancel(asking.calls[number], reason)
            case m.Skipped(key, event):
                checks.skipped(event, key)
                if (asking := self._asking(key)) is not None:
                    asking.link.checkpoint_skipped(event)

    def _asked(self, attempt: A, number: int) -> None:
        if not attempt.user_code:
            raise NonsenseError(f"{attempt.key} asked for something before it began")
        if number < 1 or number in attempt.calls:
            raise NonsenseError(f"{attempt.key} asked under the number {number}, which is taken")
        attempt.asked = max(attempt.asked, number)

    def _call(self, attempt: A, number: int, call: Call) -> None:
        if attempt.profiles is None:
            attempt.profiles = {}
        checks.call(call, attempt.profiles, self._inline)
        attempt.calls[number] = -1
        done = partial(self._feed.put, self._answered, attempt, number)
        attempt.calls[number] = attempt.link.call(call, done)
        if len(attempt.calls) == 1:
            self.on_waiting()

    def _tell_secrets(self, attempt: A, number: int) -> None:
        if attempt.user_code:
            raise NonsenseError(f"{attempt.key} wanted its secrets after it began")
        try:
            answer = m.SecretValues(number, dict(self.secrets(attempt)))
        except SecretMissingError as error:
            attempt.unmendable = str(error)
            answer = m.SecretValues(number, {}, attempt.unmendable)
        self.send(answer)

    def _answered(self, attempt: A, number: int, outcome: Outcome) -> None:
        attempt.calls.pop(number, None)
        if self.current is attempt:
            self.send(m.Answer(number, outcome))
            if not attempt.calls:
                self.on_waiting()

    def _recorded(self, number: int, why: str | None) -> None:
        # Also to an attempt that has ended meanwhile: a thread of it may still wait for the answer.
        self.send(m.Recorded(number, why))


def decoded(bodies: list[bytes]) -> Iterator[m.FromWorker]:
    """The messages.

    Raises:
        NonsenseError: the next one is none.
    """
    for body in bodies:
        try:
            message = _FROM_WORKER.decode(body)
        except Exception as error:  # msgspec's errors, those of our types' own checks, a recursion that went too deep
            raise NonsenseError(f"{type(error).__name__}: {error}"[:500]) from None
        yield message
