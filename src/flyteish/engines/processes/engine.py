"""Runs attempts in warm worker processes of this machine: killable, and several cores wide.

Keeps a pool that starts when first needed, hands each worker as many small attempts as it does in a few
milliseconds, takes back what waits behind a long one, and replaces workers that die. Judges nothing: what
an attempt's end means is ``_core.endings``' business. A worker whose attempt waits for child calls gives
its place to another worker, so parents cannot starve their children.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from functools import partial

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.events import AttemptEnded, AttemptNoticed, AttemptRunning, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish._worker.output import salvage
from flyteish.engines.processes.worker_pool import Attempt, Line, Member, Pace, read_exit, within
from flyteish.engines.processes.worker_process import WorkerProcess, processors
from flyteish.engines.worker_requests import Requests
from flyteish.errors import ConfigurationError, SessionClosedError
from flyteish.interfaces import Notice, Opening, Order, Unfinished

#: Seconds that attempts get when the engine closes; then again as long for the processes to end.
CLOSE_GRACE = 1.0
#: Seconds at most between SIGTERM and SIGKILL of a reclaimed worker.
_KILL_GAP = 1.0
#: An attempt that is over sooner than this is not reported as running.
_SHORT_SECONDS = 0.05
#: Seconds that a worker may need to start.
_START_SECONDS = 60.0
#: Workers that failed to start, one after the other, before it is taken to be hopeless.
_HOPELESS = 3
_CURE = f"`{sys.executable} -P -c 'import flyteish._worker.__main__'` should run without an error"


class ProcessesEngine:
    """``interfaces.Engine`` over worker processes; POSIX only.

    Args:
        max_workers: attempts that run at the same time, not counting those that wait for child calls.
            Default None: the number of processors.
        batch: attempts that a worker may have waiting at most. Default 32; how many it gets
            follows from how long they take.

    Raises:
        ConfigurationError: a number is out of range; names it.
    """

    connects = True
    outlives = False

    def __init__(self, max_workers: int | None = None, batch: int = 32) -> None:
        for name, value in (("max_workers", 1 if max_workers is None else max_workers), ("batch", batch)):
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"ProcessesEngine({name}={value!r}) is not accepted: expected an int >= 1")
        self._places = max_workers or processors()
        self._pace = Pace(batch)
        self._open = False
        self._waiting = Line()
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._members: set[Member] = set()
        self._idle: list[Member] = []
        self._starting = 0
        self._failures: list[Evidence] = []

    def __repr__(self) -> str:
        counts = f"{len(self._attempts)} attempts, {len(self._waiting)} of them waiting"
        return f"ProcessesEngine({self._places} places, {len(self._members)} workers, {counts})"

    # -- the contract --------------------------------------------------------------------------------------

    async def open(self, opening: Opening) -> None:
        blobs, scratch = opening.blobs, opening.scratch
        if not blobs.url.startswith("file:"):
            raise ConfigurationError(
                f"engine='processes' cannot use the blob store at {blobs.url!r}, which no other process can "
                "open: keep blobs in files, or use engine='inline'"
            )
        self._reports = opening.reports
        self._loop = asyncio.get_running_loop()
        self._requests = Requests(LoopFeed(self._loop), self._waits)
        self._hello = m.Hello(
            list(sys.path), list(sys.argv), blobs.url, opening.limits.value, str(scratch) if scratch else None
        )
        self._all_gone, self._all_over = asyncio.Event(), asyncio.Event()
        self._open = True

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        return frozenset()  # a worker that loses its controller ends at once

    def start(self, orders: Sequence[Order]) -> None:
        if not self._open:
            raise SessionClosedError(f"the processes engine is not open; it was given {len(orders)} orders")
        for order in orders:
            log = self._reports.log_path(order.key)
            attempt = Attempt(order, self._reports.link(order.key), None if log is None else str(log))
            self._attempts[order.key] = attempt
            self._waiting.append(attempt)
        self._dispatch()

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            return
        attempt.doomed, attempt.grace = Evidence(stopped=True), max(0.0, grace)
        if not self._ends_unbegun(attempt):
            self._stop_running(attempt, reason)

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        attempt = self._attempts.get(key)
        if attempt is None or (attempt.doomed is not None and attempt.doomed.stopped):
            return
        if math.isinf(notice.seconds):  # a recommendation: nothing is taken away
            self._report_notice(attempt, notice)
            self._tell(attempt, notice)
            return
        ends_at = self._loop.time() + max(0.0, notice.seconds)
        if attempt.doomed is not None:  # a second notice may make it sooner, never later
            ends_at = min(ends_at, attempt.ends_at)
        attempt.ends_at = ends_at
        attempt.doomed = Evidence(reclaimed=f"reclaimed by the {notice.source} ({notice.kind})")
        self._report_notice(attempt, notice)
        if not self._ends_unbegun(attempt):
            self._reclaim_running(attempt, notice)

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for attempt in list(self._attempts.values()):
            self._tell(attempt, Notice("shutdown", CLOSE_GRACE, "session"))
            self.stop(attempt.key, "the session was closed", CLOSE_GRACE)
        if self._attempts:
            self._all_over.clear()
            await within(self._all_over.wait(), CLOSE_GRACE)
        for member in self._members:
            member.leaving = True
            member.process.send(m.Exit()) if member.current is None else member.process.kill()
        if self._members:
            await within(self._all_gone.wait(), CLOSE_GRACE)
            for member in self._members:
                member.process.kill()
            await self._wait_for_the_killed()

    async def _wait_for_the_killed(self) -> None:
        await within(self._all_gone.wait(), 5 * CLOSE_GRACE)
        # After SIGKILL only a process stuck inside the kernel (on a dead network disk) goes on: it is left.
        for member in list(self._members):
            member.process.hang_up()
        for attempt in list(self._attempts.values()):
            self._end(attempt, Evidence(stopped=True))

    # -- who gets what -------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hand out what waits: to idle workers, to new ones, and ahead of time to busy ones."""
        free = self._places - self._busy()
        while self._waiting and self._idle and free > 0:
            self._give(self._idle.pop(), -(-len(self._waiting) // free))
            free -= 1
        if not self._waiting or not self._open:
            return
        free -= self._starting
        for _ in range(min(free, len(self._waiting) - self._starting)):
            if len(self._failures) < _HOPELESS:
                self._hire()
        if len(self._failures) >= _HOPELESS and not any(member.serving for member in self._members):
            self._give_up()
        if free <= 0:
            for member in self._members:
                self._top_up(member)

    def _busy(self) -> int:
        """Workers that use a core now. A pool has few members, so they are counted, not kept count of."""
        return sum(1 for member in self._members if member.attempts and not member.blocked)

    def _top_up(self, member: Member) -> None:
        wanted = self._pace.ahead
        have = len(member.attempts)
        if member.ready and not member.leaving and have and 2 * have <= wanted and not member.closed:
            self._give(member, wanted - have)

    def _give(self, member: Member, count: int) -> None:
        batch = self._waiting.take(min(count, self._pace.ahead))
        for attempt in batch:
            attempt.member = member
            member.attempts[attempt.key] = attempt
        member.process.send(m.Run([attempt.order for attempt in batch], [attempt.log for attempt in batch]))

    def _rest(self, member: Member) -> None:
        """The worker has nothing to do: it takes work from a queue behind a busier one, or leaves."""
        if member.leaving:
            return
        if len(self._idle) >= self._places:
            member.leaving = True
            member.process.send(m.Exit())
            return
        self._idle.append(member)
        if not self._waiting:
            loaded = max(self._members, key=lambda other: len(other.unbegun()))
            queued = loaded.unbegun()
            self._recall(loaded, queued[len(queued) // 2 :])

    def _recall(self, member: Member, keys: list[AttemptKey]) -> None:
        if keys:
            member.recalled.update(keys)
            member.process.send(m.Recall(keys))

    # -- the pool ------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        member = Member()
        try:
            member.process = WorkerProcess(
                self._loop, self._hello, partial(self._heard, member), partial(self._gone, member)
            )
        except OSError as error:
            self._failures += [Evidence(vanished=f"no worker process could be started: {error}")] * _HOPELESS
            return
        self._members.add(member)
        self._starting += 1
        self._all_gone.clear()
        member.start_timer = self._loop.call_later(_START_SECONDS, member.process.kill)

    def _started(self, member: Member) -> None:
        member.ready = True
        self._starting -= 1
        self._failures.clear()
        if member.start_timer is not None:
            member.start_timer.cancel()
        self._rest(member)
        self._dispatch()

    def _gone(self, member: Member, code: int) -> None:
        self._members.discard(member)
        if member in self._idle:
            self._idle.remove(member)
        if not member.ready:
            self._failed_to_start(member, code)
        current, member.current = member.current, None
        log = current.log if current is not None else member.log
        if log is not None:
            salvage(log, member.process.pid)
        if current is not None:
            member.attempts.pop(current.key, None)
            self._end(current, current.fate or read_exit(code))
        self._take_back(member, list(member.attempts))
        if not self._members:
            self._all_gone.set()
        self._dispatch()

    def _failed_to_start(self, member: Member, code: int) -> None:
        self._starting -= 1
        if member.start_timer is not None:
            member.start_timer.cancel()
        words = f"worker processes do not start (exit code {code}: {member.process.last_words() or 'not a word'})"
        # Killed by a signal is somebody else's doing, and may go better next time; an exit is ours.
        self._failures.append(Evidence(vanished=words) if code < 0 else Evidence(unmendable=f"{words}; {_CURE}"))

    def _give_up(self) -> None:
        evidence = self._failures[-1]
        self._failures.clear()
        for attempt in self._waiting.take(len(self._waiting)):
            self._end(attempt, evidence)

    # -- what workers say ----------------------------------------------------------------------------------

    def _heard(self, member: Member, message: m.FromWorker) -> None:
        match message:
            case m.Ended(key, token, evidence, seconds):
                self._ended(member, key, token, evidence, seconds)
            case m.Began(key, token) | m.Taken(key, token):
                self._began(member, key, token, running=isinstance(message, m.Began))
            case m.Ready():
                self._started(member)
            case m.Recalled(keys):
                self._take_back(member, keys)
                self._dispatch()
            case m.Signalled(key, token, notice):
                attempt = self._requests.entitled(member, key, token)
                if attempt is not None:
                    self._report_notice(attempt, notice)
            case _:
                self._requests.take(member, message)

    def _began(self, member: Member, key: AttemptKey, token: str, *, running: bool) -> None:
        attempt = member.attempts.get(key)
        if attempt is None or attempt.order.token != token:
            return
        first = member.current is not attempt
        member.current = attempt
        member.recalled.discard(key)
        if running:
            attempt.running_at = time.time()
            # The end of a short one says soon enough when it began, unless its running time is being watched.
            order = attempt.order
            watched = order.settings.timeout.max_runtime is not None or order.deadline is not None
            self._loop.call_later(0.0 if watched else _SHORT_SECONDS, self._still_runs, attempt)
        if first and attempt.doomed is not None:
            # It began while it was being asked back.
            if attempt.doomed.stopped:
                self._stop_running(attempt, "stopped")
            else:
                left = attempt.ends_at - self._loop.time()
                self._reclaim_running(attempt, Notice(kind="terminate", seconds=max(0.0, left)))

    def _still_runs(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.key) is attempt:
            self._reports.report(AttemptRunning(*attempt.key))

    def _ended(self, member: Member, key: AttemptKey, token: str, evidence: Evidence, seconds: float) -> None:
        attempt = member.attempts.get(key)
        if attempt is None or attempt.order.token != token:
            return
        self._pace.took(seconds)
        member.current, member.log = None, attempt.log
        del member.attempts[key]
        self._end(attempt, evidence)
        if not member.attempts:
            self._rest(member)
        if self._waiting:
            self._top_up(member) if member.attempts else self._dispatch()

    def _take_back(self, member: Member, keys: Sequence[AttemptKey]) -> None:
        for key in reversed(keys):
            attempt = member.attempts.pop(key, None)
            member.recalled.discard(key)
            if attempt is None or key not in self._attempts:
                continue
            attempt.member = None
            if attempt.doomed is not None:
                self._end(attempt, attempt.doomed)
            else:
                self._waiting.put_back(attempt)

    def _end(self, attempt: Attempt, evidence: Evidence) -> None:
        """The one place from which an attempt's end is reported."""
        if self._attempts.pop(attempt.key, None) is None:
            return
        attempt.cancel_timer()
        self._waiting.remove(attempt)
        attempt.member = None
        self._reports.report(AttemptEnded(*attempt.key, evidence, running_at=attempt.running_at))
        if not self._attempts:
            self._all_over.set()

    def _waits(self, member: Member) -> None:
        """The worker's attempt waits for child calls, or does so no longer."""
        if member.blocked:
            self._recall(member, member.unbegun())
        self._dispatch()

    # -- ending attempts -----------------------------------------------------------------------------------

    def _ends_unbegun(self, attempt: Attempt) -> bool:
        """End it without running it, now or when its worker gives it back; False where it runs already."""
        assert attempt.doomed is not None
        member = attempt.member
        if member is None:
            self._end(attempt, attempt.doomed)
        elif member.current is attempt:
            return False
        elif attempt.key not in member.recalled:
            self._recall(member, [attempt.key])
        return True

    def _stop_running(self, attempt: Attempt, reason: str) -> None:
        member = self._clear_behind(attempt)
        member.process.send(m.Stop(attempt.key, reason))
        attempt.timer = self._loop.call_later(attempt.grace, attempt.kill)

    def _reclaim_running(self, attempt: Attempt, notice: Notice) -> None:
        member = self._clear_behind(attempt)
        member.process.send(m.Notify(attempt.key, notice))
        gap = min(_KILL_GAP, max(0.0, attempt.ends_at - self._loop.time()))
        attempt.timer = self._loop.call_at(attempt.ends_at, attempt.terminate, self._loop, gap)

    def _clear_behind(self, attempt: Attempt) -> Member:
        """Nothing may begin in its worker before it is known whether that worker has to die."""
        member = attempt.member
        assert member is not None
        attempt.cancel_timer()
        self._recall(member, member.unbegun())
        return member

    def _report_notice(self, attempt: Attempt, notice: Notice) -> None:
        # Our own SIGTERM at the end of a reclaim is no news.
        if notice.source != "sigterm" or attempt.doomed is None:
            self._reports.report(AttemptNoticed(*attempt.key, notice.kind, notice.seconds, notice.source))

    @staticmethod
    def _tell(attempt: Attempt, notice: Notice) -> None:
        if attempt.member is not None and attempt.member.current is attempt:
            attempt.member.process.send(m.Notify(attempt.key, notice))
