"""Runs each attempt in a process of its own that goes on when the controller dies, and that the next controller adopts.

**How it works.** Every attempt gets one process, in a session of its own (``lasting_processes``), which connects over
loopback TCP, shows its token and is given its order. When the connection is lost it tries again, for as long as it was
told to; where the controller of the moment listens, a file says, which it reads each time. How its attempt ended it
first claims in the blob store, under its generation, then tells, and then it is over: a controller that was not there
finds the claim.

**Adoption.** Of the attempts that are on record as going on, those live whose process lives. They are heard again once
they connect and show a token of which the journal has the digest. An attempt whose process is gone has ended as its
claim says, or is lost. One that never had a process has died with its controller.

It is what a cluster does to a program, on one machine: for testing programs against controllers that die, and the
contract for engines against an engine whose attempts outlive it. Judges nothing. POSIX only.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Final

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptPending,
    AttemptPlaced,
    AttemptRunning,
    Evidence,
    WorkerEvidence,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Secret
from flyteish._worker import claims
from flyteish._worker import messages as m
from flyteish._worker.channel import NonsenseError
from flyteish.engines.processes.worker_pool import within
from flyteish.engines.workers.stream import SocketStream
from flyteish.errors import ConfigurationError, SessionClosedError
from flyteish.interfaces import Notice, Opening, Order, Unfinished
from flyteish.testing.lasting_processes import LastingProcess, all_gone
from flyteish.testing.remote_attempt import RemoteAttempt, RemotePeer, token_digest
from flyteish.testing.remote_folder import RemoteFolder, check_options

#: Seconds that attempts get when the engine closes; then again as long for their processes to end.
CLOSE_GRACE: Final = 1.0
#: Seconds at most between SIGTERM and SIGKILL of a reclaimed process.
_KILL_GAP: Final = 1.0
#: Seconds between two looks at which processes still live.
_LOOK_SECONDS: Final = 0.05
#: Seconds that a process may take until it has connected; and after which it is said that it has not.
_START_SECONDS: Final = 60.0
_SLOW_SECONDS: Final = 1.0
#: Seconds that a process may take to end once its attempt is over.
_EXIT_SECONDS: Final = 5.0


class RemoteEngine:
    """``interfaces.Engine`` over processes that survive their controller.

    Give it to a session and name it in a pool::

        Session([Queue("default")], [Pool("far", engine="remote")], engines={"remote": lambda: RemoteEngine(folder)})

    Args:
        folder: where it keeps what the next controller needs to know; the same for each of them, and nobody else's.
        via: ``tcp://HOST:PORT`` that attempts connect to, in place of the engine's own address: of a proxy that passes
            on to what stands in the file ``address`` in ``folder``, say to break connections. Default None.
        reconnect_seconds: how long an attempt tries to reach a controller before it gives up. Default 600.

    Raises:
        ConfigurationError: an argument is not accepted; names it.
    """

    connects = True
    outlives = True

    def __init__(self, folder: str | Path, *, via: str | None = None, reconnect_seconds: float = 600.0) -> None:
        check_options(via, reconnect_seconds)
        self._path = Path(folder).absolute()
        self._via = via
        self._reconnect_seconds = reconnect_seconds
        self._open = False
        self._attempts: dict[AttemptKey, RemoteAttempt] = {}
        """Those whose end was not reported yet."""
        self._over: dict[AttemptKey, RemoteAttempt] = {}
        """Those whose end was, until it is on record and their process is gone."""
        self._unanswered = 0
        self._answered = asyncio.Event()
        """Set while there is no end that was reported, and of which it is not known yet whether it is on record."""
        self._answered.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"RemoteEngine({str(self._path)!r}, {len(self._attempts)} attempts)"

    # -- the contract --------------------------------------------------------------------------------------

    async def open(self, opening: Opening) -> None:
        if not opening.blobs.url.startswith("file:"):
            raise ConfigurationError(
                f"a RemoteEngine cannot use the blob store at {opening.blobs.url!r}, which no other process can open: "
                "give the session a home"
            )
        self._opening = opening
        self._reports = opening.reports
        self._loop = asyncio.get_running_loop()
        self._feed = LoopFeed(self._loop)
        self._folder = RemoteFolder(self._path)
        self._welcome = m.Welcome(
            epoch=token_hex(8),
            received=0,
            sys_path=list(sys.path),
            argv=list(sys.argv),
            blobs_url=opening.blobs.url,
            inline_limit=opening.limits.inline,
            max_result=opening.limits.value,
            scratch=str(self._folder.scratch),
            reconnect_seconds=self._reconnect_seconds,
        )
        try:
            self._listener = self._folder.listen(self._digest, self._admit)
        except OSError:
            self._folder.close()
            raise
        self._command = self._folder.command(self._via, self._reconnect_seconds)
        self._open = True
        self._look()

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        found = await asyncio.to_thread(self._find, [each.order.key for each in unfinished])
        for each in unfinished:
            process = found.get(each.order.key)
            if process is not None and each.order.key not in self._attempts:
                attempt = self._take(each.order, process, each.token_digest)
                attempt.notice, attempt.running_at = each.notice, each.running_at
                if not process.alive:  # it ended while no controller lived
                    attempt.over_at = each.last_at
        return frozenset(found)

    def start(self, orders: Sequence[Order]) -> None:
        if not self._open:
            raise SessionClosedError(f"the remote engine is not open; it was given {len(orders)} orders")
        for order in orders:
            try:
                process = self._folder.start(order.key, self._command, order.token + "\n")
            except OSError as error:
                evidence = Evidence(vanished=f"no process could be started: {error}")
                self._reports.report(AttemptEnded(*order.key, evidence))
            else:
                attempt = self._take(order, process, token_digest(order.token))
                attempt.awaited = True
                attempt.timer = self._loop.call_later(_SLOW_SECONDS, self._comes_late, attempt)

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            return
        attempt.doomed = Evidence(stopped=True)
        attempt.cancel_timer()
        attempt.timer = self._loop.call_later(max(0.0, grace), attempt.kill)
        attempt.last_word = m.Stop(key, reason)
        attempt.say_last_word()

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        attempt = self._attempts.get(key)
        if attempt is None or (attempt.doomed is not None and attempt.doomed.stopped):
            return
        self._report_notice(attempt, notice)
        if math.isinf(notice.seconds):  # a recommendation: nothing is taken away
            attempt.tell(m.Notify(key, notice))
            return
        ends_at = self._loop.time() + max(0.0, notice.seconds)
        if attempt.doomed is not None:  # a second notice may make it sooner, never later
            ends_at = min(ends_at, attempt.ends_at)
        attempt.ends_at = ends_at
        attempt.doomed = Evidence(reclaimed=f"reclaimed by the {notice.source} ({notice.kind})")
        attempt.cancel_timer()
        gap = min(_KILL_GAP, max(0.0, notice.seconds))
        attempt.timer = self._loop.call_at(ends_at, attempt.terminate, self._loop, gap)
        attempt.last_word = m.Notify(key, notice)
        attempt.say_last_word()

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._looking.cancel()
        self._listener.close()
        ending = []
        for attempt in self._attempts.values():
            attempt.cancel_timer()
            if attempt.gone is not None:  # its claim is there for the next engine, if this one is to be left
                attempt.gone.cancel()
            stopped = attempt.doomed is not None and attempt.doomed.stopped
            if stopped or not self._detaches(attempt):  # nobody would end it, if its run is over
                ending.append(attempt)
            elif attempt.peer is not None:  # before it is told of the end of the session, which is none of its own
                attempt.peer.detach()
        for attempt in ending:
            attempt.tell(m.Notify(attempt.key, Notice("shutdown", CLOSE_GRACE, "session")))
            attempt.tell(m.Stop(attempt.key, "the session was closed"))
        await all_gone([attempt.process for attempt in ending], CLOSE_GRACE)
        for attempt in ending:
            attempt.process.kill()
        # An end may be on record, and its result given out, before we have heard so: the session answers all reports.
        await within(self._answered.wait(), CLOSE_GRACE)
        over = list(self._over.values())
        await all_gone([each.process for each in (*ending, *over)], CLOSE_GRACE)
        for attempt in over:
            if attempt.settled and attempt.process.alive:  # nobody will look after it any more
                attempt.process.kill()
        await all_gone([each.process for each in over if each.settled], CLOSE_GRACE)
        for attempt in (*self._attempts.values(), *self._over.values()):
            if attempt.peer is not None:
                attempt.peer.detach()
            attempt.process.let_go()
        # What is ended here is not reported: to the run's next controller it died with this one.
        done_with = [each for each in over if each.settled and not each.process.alive]
        await self._forget([*ending, *done_with])
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._folder.close()

    # -- processes -----------------------------------------------------------------------------------------

    def _take(self, order: Order, process: LastingProcess, digest: bytes) -> RemoteAttempt:
        log, link = self._opening.logs.file(order.key), self._reports.link(order.key)
        attempt = RemoteAttempt(order, link, log, process, digest)
        self._attempts[order.key] = attempt
        return attempt

    def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, LastingProcess]:
        """The processes of these attempts, alive or not. What is left of others of the same runs is removed."""
        for key, process in self._folder.others(keys).items():
            if key not in self._attempts and key not in self._over:  # its end is on record, or it was given up
                process.kill()
                process.forget()
                self._opening.blobs.blocking.delete_ref(claims.name_of(key))
        return self._folder.find(keys)

    def _look(self) -> None:
        """See which processes still live."""
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)
        for attempt in list(self._attempts.values()):
            if attempt.gone is None and not attempt.process.alive:
                attempt.gone = self._spawn(self._gone(attempt), f"flyteish claim of {attempt.key}")
        for attempt in list(self._over.values()):
            if not attempt.process.alive:
                attempt.keep_output()
                self._forget_if_on_record(attempt)
            elif self._loop.time() > attempt.ends_at:
                attempt.process.kill()

    async def _gone(self, attempt: RemoteAttempt) -> None:
        """Its process is: it ended as it claimed, as we made it end, or for no reason that we know."""
        attempt.keep_output()
        if attempt.peer is not None:
            attempt.peer.detach()
        try:
            claim = await attempt.claim(self._opening.blobs, self._opening.limits.inline)
        except NonsenseError as error:
            evidence = Evidence(vanished=str(error))
        else:
            if claim is not None and claim.notice is not None and not attempt.notice:
                self.signalled(attempt, claim.notice, 0)  # it could tell nobody
            evidence = attempt.claimed(claim) if claim is not None else attempt.fate or attempt.exited()
        self._end(attempt, evidence)

    def _comes_late(self, attempt: RemoteAttempt) -> None:
        attempt.timer = self._loop.call_later(_START_SECONDS - _SLOW_SECONDS, self._never_came, attempt)
        message = f"process {attempt.process.pid} has not connected yet"
        self._reports.report(AttemptPending(*attempt.key, "Starting", message))

    def _never_came(self, attempt: RemoteAttempt) -> None:
        attempt.fate = Evidence(vanished=f"its process did not connect within {_START_SECONDS:g} s")
        attempt.process.kill()

    # -- who connects --------------------------------------------------------------------------------------

    def _digest(self, key: AttemptKey) -> bytes | None:
        attempt = self._attempts.get(key) or self._over.get(key)
        return None if attempt is None else attempt.digest or None

    def _admit(self, key: AttemptKey, hello: m.Hello, stream: SocketStream) -> m.Rejected | None:
        attempt = self._attempts.get(key) or self._over[key]
        first = attempt.peer is None
        if attempt.peer is None:
            attempt.peer = RemotePeer(attempt, self, self._feed, self._welcome)
            if hello.stage in ("", "ready"):
                attempt.peer.give([attempt], [attempt.log])
            else:  # it has its order from an earlier controller
                attempt.peer.expect(attempt)
        stream.ended = attempt.peer.detach
        rejected = attempt.peer.attach(stream, hello)
        if first and rejected is None:
            self._came(attempt)
        return rejected

    def _came(self, attempt: RemoteAttempt) -> None:
        if attempt.awaited:
            attempt.awaited = False
            attempt.cancel_timer()
        self._reports.report(AttemptPlaced(*attempt.key, node=socket.gethostname()))
        attempt.say_last_word()

    # -- what processes say --------------------------------------------------------------------------------

    def began(self, attempt: RemoteAttempt) -> None:
        if attempt.user_code and not attempt.running_at:
            attempt.running_at = time.time()
            self._reports.report(AttemptRunning(*attempt.key))
        attempt.say_last_word()

    def ended(self, attempt: RemoteAttempt, said: WorkerEvidence, number: int) -> None:
        self._end(attempt, attempt.evidence(said), number)

    def not_begun(self, attempt: RemoteAttempt) -> None:
        attempt.end_unbegun()

    def signalled(self, attempt: RemoteAttempt, notice: Notice, number: int) -> None:
        if attempt.doomed is None:  # our own SIGTERM at the end of a reclaim is no news
            self._report_notice(attempt, notice, number)
        elif attempt.peer is not None:
            attempt.peer.done_with(number)

    def secrets(self, wanted: Sequence[Secret]) -> Mapping[str, str]:
        return self._reports.secrets(wanted)

    def nonsense(self, attempt: RemoteAttempt, why: str) -> None:
        attempt.fate = Evidence(vanished=why)
        attempt.process.kill()

    # -- ends ----------------------------------------------------------------------------------------------

    def _end(self, attempt: RemoteAttempt, evidence: Evidence, number: int = 0) -> None:
        """The one place from which the end of an attempt is reported that had a process."""
        if not self._open or self._attempts.pop(attempt.key, None) is None:
            return
        attempt.cancel_timer()
        attempt.ends_at = self._loop.time() + _EXIT_SECONDS
        self._over[attempt.key] = attempt
        self._unanswered += 1
        self._answered.clear()
        event = AttemptEnded(*attempt.key, evidence, running_at=attempt.running_at, ended_at=attempt.over_at)
        self._reports.report(event, partial(self._feed.put, self._recorded, attempt, number))

    def _recorded(self, attempt: RemoteAttempt, number: int, why: str | None) -> None:
        """The end is on record, or nobody wants to know of it; at the end of the session the next one will."""
        self._unanswered -= 1
        if not self._unanswered:
            self._answered.set()
        if why is not None and not self._open:
            return
        attempt.settled = True
        if number and attempt.peer is not None:
            attempt.peer.done_with(number)

    def _forget_if_on_record(self, attempt: RemoteAttempt) -> None:
        """Its process is gone; once its end is on record nobody needs to find it again."""
        if attempt.settled:
            del self._over[attempt.key]
            if attempt.peer is not None:
                attempt.peer.detach()
            self._spawn(self._forget([attempt]), f"flyteish forget {attempt.key}")

    async def _forget(self, attempts: Sequence[RemoteAttempt]) -> None:
        """Nothing is left of them for a later controller to find."""
        for attempt in attempts:
            await attempt.forget(self._opening.blobs, self._folder.scratch)

    # -- ending attempts -----------------------------------------------------------------------------------

    def _report_notice(self, attempt: RemoteAttempt, notice: Notice, number: int = 0) -> None:
        attempt.notice = notice.kind
        event = AttemptNoticed(*attempt.key, notice.kind, notice.seconds, notice.source)
        self._reports.report(event, partial(self._feed.put, self._noticed, attempt, number))

    def _noticed(self, attempt: RemoteAttempt, number: int, why: str | None) -> None:
        if number and attempt.peer is not None and self._open:
            attempt.peer.done_with(number)

    def _detaches(self, attempt: RemoteAttempt) -> bool:
        return self._opening.pools[attempt.order.pool].on_close == "detach"

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
