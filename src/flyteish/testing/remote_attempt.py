"""One attempt of the remote engine: the process that it runs in, and the conversation with it.

Records, and what is done to the process; who decides on it is the engine. Must not know how attempts are found again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.events import Evidence, WorkerEvidence
from flyteish._core.model.settings import Secret
from flyteish._worker import claims
from flyteish._worker import messages as m
from flyteish._worker.claims import ClaimedEnd
from flyteish._worker.output import salvage
from flyteish.engines.processes.exit_codes import read_exit_code
from flyteish.engines.workers.peer import Peer
from flyteish.engines.workers.peer_attempt import PeerAttempt
from flyteish.errors import BlobError
from flyteish.interfaces import BlobStore, Link, Notice, Order
from flyteish.testing.lasting_processes import LastingProcess

_log = logging.getLogger(__name__)


class RemoteAttempt(PeerAttempt):
    """One attempt between ``start`` (or ``adopt``) and its one report of the end."""

    __slots__ = (
        "awaited", "digest", "ends_at", "fate", "gone", "last_word", "log", "over_at", "peer", "process",
        "running_at", "settled", "timer",
    )  # fmt: skip

    def __init__(self, order: Order, link: Link, log: str | None, process: LastingProcess, digest: bytes) -> None:
        super().__init__(order, link)
        self.log = log
        self.process = process
        self.digest = digest
        """Of the token that its process shows."""
        self.awaited = False
        """Whether its process has still to connect for the first time, so that it can't have begun."""
        self.gone: asyncio.Task[None] | None = None
        """Finds out how it ended, once it was seen that its process is gone."""
        self.settled = False
        """Whether its end is on record."""
        self.last_word: m.Stop | m.Notify | None = None
        """That it has to end, if it was not told yet."""
        self.peer: RemotePeer | None = None
        """None until its process has connected."""
        self.running_at = 0.0
        """Seconds since the epoch; 0 until this engine heard that user code began."""
        self.over_at = 0.0
        """Seconds since the epoch, when it ended; 0: when this engine hears of it."""
        self.fate: Evidence | None = None
        """How it ends if its process is gone now: set when we first sent that a deadly signal."""
        self.ends_at = 0.0
        """When a reclaim's grace is over, and once its end is reported, when its process has to be gone; on the loop's
        clock."""
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"RemoteAttempt({self.key} {self.order.task}, {self.process})"

    def cancel_timer(self) -> None:
        """What was planned for it is not needed any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def terminate(self, loop: asyncio.AbstractEventLoop, gap: float) -> None:
        """Send its process SIGTERM, and SIGKILL after ``gap`` seconds."""
        self.fate = self.doomed
        self.process.terminate()
        self.timer = loop.call_later(gap, self.kill)

    def kill(self) -> None:
        """Kill its process, unless that has said meanwhile that the attempt is over."""
        if self.peer is not None and self.peer.stream is not None:
            self.peer.stream.drain()
        if self.timer is not None:  # the end would have cancelled it
            self.fate = self.doomed
            self.process.kill()

    def end_unbegun(self) -> None:
        """No user code has run: there is nothing to clean up."""
        self.fate = self.doomed
        self.process.kill()

    def say_last_word(self) -> None:
        """Tell its process that it has to end; where it has not begun, it must not any more."""
        if self.last_word is None:
            return
        if self.peer is None:
            if self.awaited:  # it has not even got its order
                self.end_unbegun()
        elif self.peer.current is self:
            self.tell(self.last_word)
            self.last_word = None
        else:
            self.peer.recall(self.peer.unbegun())

    async def claim(self, blobs: BlobStore, inline: int) -> ClaimedEnd | None:
        """What its process has claimed; asks for as long as the store fails, unless it was told to end anyway.

        Raises:
            NonsenseError: what stands there is no claim of this attempt.
        """
        for number in itertools.count():
            try:
                return await claims.claimed(blobs, self.key, inline)
            except BlobError as error:
                if self.doomed is not None and self.doomed.stopped:
                    return None
                _log.warning("the claim of %s can't be read, tried again: %s", self.key, error)
            await asyncio.sleep(claims.AGAIN[min(number, len(claims.AGAIN) - 1)])
        raise AssertionError("unreachable")

    def claimed(self, claim: ClaimedEnd) -> Evidence:
        """How it ended by its claim, and when: not later than now, whatever its clock says."""
        now = time.time()
        self.running_at, self.over_at = min(claim.running_at, now), min(claim.ended_at, now)
        return self.evidence(claim.evidence)

    def exited(self) -> Evidence:
        """What is seen of its process, which has claimed no end and was not ended by us."""
        code, words = self.process.exit_code, self.process.last_words() or "it said nothing"
        if self.awaited:
            return Evidence(vanished=f"its process ended before it connected (exit code {code}): {words}")
        if code is None:
            return Evidence(vanished=f"its process is gone, and nobody saw how it ended: {words}")
        return read_exit_code(code)

    def keep_output(self) -> None:
        """What its process had not written to the log when it died is there now."""
        if self.log is not None:
            salvage(self.log, self.process.pid)

    async def forget(self, blobs: BlobStore, scratch: Path) -> None:
        """Nothing is left of it for a later controller to find."""
        try:
            await claims.forget(blobs, self.key)
        except BlobError as error:
            _log.warning("the claim of %s could not be removed: %s", self.key, error)
        self.process.forget()
        await asyncio.to_thread(shutil.rmtree, scratch / str(self.process.pid), ignore_errors=True)

    def tell(self, message: m.ToWorker) -> None:
        """Tell its process: now, or when it connects again."""
        if self.peer is not None:
            self.peer.send(message)


def token_digest(token: str) -> bytes:
    """What is on record of a token."""
    return sha256(token.encode()).digest()


class Heard(Protocol):
    """What an engine does when an attempt's process has said something. ``number`` is for ``Peer.done_with``."""

    def began(self, attempt: RemoteAttempt) -> None: ...
    def ended(self, attempt: RemoteAttempt, said: WorkerEvidence, number: int) -> None: ...
    def not_begun(self, attempt: RemoteAttempt) -> None: ...
    def signalled(self, attempt: RemoteAttempt, notice: Notice, number: int) -> None: ...
    def nonsense(self, attempt: RemoteAttempt, why: str) -> None: ...
    def secrets(self, wanted: Sequence[Secret]) -> Mapping[str, str]: ...


class RemotePeer(Peer[RemoteAttempt]):
    """The process of one attempt, as its engine speaks with it, over whatever connections."""

    __slots__ = ("_attempt", "_heard")

    def __init__(self, attempt: RemoteAttempt, heard: Heard, feed: LoopFeed, welcome: m.Welcome) -> None:
        super().__init__(feed, welcome, resumes=True)
        self._attempt = attempt
        self._heard = heard

    def __repr__(self) -> str:
        return f"RemotePeer({self._attempt.key}, {'connected' if self.stream is not None else 'not connected'})"

    def on_ready(self) -> None:
        """It has its order, or gets it with the welcome."""

    def on_began(self, attempt: RemoteAttempt) -> None:
        self._heard.began(attempt)

    def on_ended(self, attempt: RemoteAttempt, said: WorkerEvidence, seconds: float, number: int) -> None:
        self._heard.ended(attempt, said, number)

    def on_given_back(self, attempts: list[RemoteAttempt]) -> None:
        for attempt in attempts:
            self._heard.not_begun(attempt)

    def on_signal(self, attempt: RemoteAttempt, notice: Notice, number: int) -> None:
        self._heard.signalled(attempt, notice, number)

    def on_waiting(self) -> None:
        """It keeps its process: there is nobody else who could use it."""

    def secrets(self, attempt: RemoteAttempt) -> Mapping[str, str]:
        return self._heard.secrets(attempt.order.secrets)

    def on_nonsense(self, why: str) -> None:
        self._heard.nonsense(self._attempt, why)
