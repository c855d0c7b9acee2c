"""Runs attempts in warm worker processes of this machine: killable, and several cores wide.

Keeps a pool that starts when first needed, hands each worker as many small attempts as it does in a few
milliseconds, takes back what waits behind a long one, and replaces workers that die. Judges nothing: what
an attempt's end means is the core's business. A worker whose attempt waits for child calls gives
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
from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptPlaced,
    AttemptRunning,
    Evidence,
    WorkerEvidence,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish._worker.output import salvage
from flyteish.engines.processes.backlog import Backlog, Pace
from flyteish.engines.processes.exit_codes import read_exit_code
from flyteish.engines.processes.start_failures import StartFailures
from flyteish.engines.processes.worker_pool import Hooks, PooledAttempt, PooledWorker, within
from flyteish.engines.processes.worker_process import WorkerProcess, processors
from flyteish.errors import ConfigurationError, SessionClosedError
from flyteish.interfaces import Notice, Opening, Order, Unfinished

#: Seconds that attempts get when the engine closes; then again as long for the processes to end.
CLOSE_GRACE = 1.0
#: Seconds at most between SIGTERM and SIGKILL of a reclaimed worker.
_KILL_GAP = 1.0
#: An attempt that is over sooner than this is not reported as running.
_SHORT_SECONDS = 0.05
#: A local worker ends with its controller, so that it never meets another one.
_EPOCH = "1"
#: Seconds that a worker may need to start.
_START_SECONDS = 60.0


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
        self._waiting = Backlog()
        self._attempts: dict[AttemptKey, PooledAttempt] = {}
        self._workers: set[PooledWorker] = set()
        self._idle: list[PooledWorker] = []
        self._starting = 0
        self._failures = StartFailures()

    def __repr__(self) -> str:
        counts = f"{len(self._attempts)} attempts, {len(self._waiting)} of them waiting"
        return f"ProcessesEngine({self._places} places, {len(self._workers)} workers, {counts})"

    # -- the contract --------------------------------------------------------------------------------------

    async def open(self, opening: Opening) -> None:
        blobs, scratch = opening.blobs, opening.scratch
        if not blobs.url.startswith("file:"):
            raise ConfigurationError(
                f"engine='processes' cannot use the blob store at {blobs.url!r}, which no other process can "
                "open: keep blobs in files, or use engine='inline'"
            )
        self._reports, self._logs = opening.reports, opening.logs
        self._sent_ahead = {name for name, pool in opening.pools.items() if pool.ahead}
        self._loop = asyncio.get_running_loop()
        self._feed = LoopFeed(self._loop)
        self._scratch = str(scratch) if scratch else None
        limits = opening.limits
        self._welcome = m.Welcome(
            _EPOCH, 0, list(sys.path), list(sys.argv), blobs.url, limits.inline, limits.value, self._scratch
        )
        self._hooks = Hooks(
            self._started, self._began, self._ended, self._given_back, self._signalled, self._waits,
            opening.reports.secrets,
        )  # fmt: skip
        self._all_gone, self._all_over = asyncio.Event(), asyncio.Event()
        self._open = True

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        return frozenset()  # a worker that loses its controller ends at once

    def start(self, orders: Sequence[Order]) -> None:
        if not self._open:
            raise SessionClosedError(f"the processes engine is not open; it was given {len(orders)} orders")
        for order in orders:
            attempt = PooledAttempt(order, self._reports.link(order.key), self._logs.file(order.key))
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
        for worker in self._workers:
            worker.leaving = True
            worker.send(m.Exit()) if worker.ready and worker.current is None else worker.process.kill()
        if self._workers:
            await within(self._all_gone.wait(), CLOSE_GRACE)
            for worker in self._workers:
                worker.process.kill()
            await self._wait_for_the_killed()

    async def _wait_for_the_killed(self) -> None:
        await within(self._all_gone.wait(), 5 * CLOSE_GRACE)
        # After SIGKILL only a process stuck inside the kernel (on a dead network disk) goes on: it is left.
        for worker in list(self._workers):
            worker.process.hang_up()
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
            if not self._failures.hopeless:
                self._start_worker()
        if self._failures.hopeless and not any(worker.serving for worker in self._workers):
            self._give_up()
        if free <= 0:
            for worker in self._workers:
                self._top_up(worker)

    def _busy(self) -> int:
        """Workers that use a core now. A pool has few workers, so they are counted, not kept count of."""
        return sum(1 for worker in self._workers if worker.attempts and not worker.blocked)

    def _top_up(self, worker: PooledWorker) -> None:
        wanted = self._pace.ahead
        have = len(worker.attempts)
        if worker.ready and not worker.leaving and have and 2 * have <= wanted and not worker.closed:
            self._give(worker, wanted - have)

    def _give(self, worker: PooledWorker, count: int) -> None:
        batch = self._waiting.take(min(count, self._pace.ahead))
        for attempt in batch:
            attempt.worker = worker
        worker.give(batch, [attempt.log for attempt in batch])

    def _has_no_work(self, worker: PooledWorker) -> None:
        """The worker has nothing to do: it takes work from a queue behind a busier one, or leaves."""
        if worker.leaving:
            return
        if len(self._idle) >= self._places:
            worker.leaving = True
            worker.send(m.Exit())
            return
        self._idle.append(worker)
        if not self._waiting:
            loaded = max(self._workers, key=lambda other: len(other.unbegun()))
            queued = loaded.unbegun()
            loaded.recall(queued[len(queued) // 2 :])

    # -- the pool ------------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        worker = PooledWorker(self._feed, self._welcome, self._hooks)
        try:
            worker.process = WorkerProcess(self._loop, worker.admit, partial(self._gone, worker), self._scratch)
        except OSError as error:
            self._failures.refused(error)
            return
        self._workers.add(worker)
        self._starting += 1
        self._all_gone.clear()
        worker.start_timer = self._loop.call_later(_START_SECONDS, worker.process.kill)

    def _started(self, worker: PooledWorker) -> None:
        self._starting -= 1
        self._failures.clear()
        if worker.start_timer is not None:
            worker.start_timer.cancel()
        self._has_no_work(worker)
        self._dispatch()

    def _gone(self, worker: PooledWorker, code: int) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if not worker.ready:
            self._failed_to_start(worker, code)
        current, worker.current = worker.current, None
        log = current.log if current is not None else worker.log
        if log is not None:
            salvage(log, worker.process.pid)
        if current is not None:
            worker.attempts.pop(current.key, None)
            self._end(current, current.fate or read_exit_code(code))
        self._take_back(list(worker.attempts.values()))
        if not self._workers:
            self._all_gone.set()
        self._dispatch()

    def _failed_to_start(self, worker: PooledWorker, code: int) -> None:
        self._starting -= 1
        if worker.start_timer is not None:
            worker.start_timer.cancel()
        self._failures.exited(code, worker.process.last_words())

    def _give_up(self) -> None:
        evidence = self._failures.take()
        for attempt in self._waiting.take(len(self._waiting)):
            self._end(attempt, evidence)

    # -- what workers say ----------------------------------------------------------------------------------

    def _began(self, worker: PooledWorker, attempt: PooledAttempt) -> None:
        now = time.time()
        attempt.placed_at = attempt.placed_at or now
        if attempt.user_code:
            attempt.running_at = now
        # The end of a short one says soon enough when it began, unless its running time is being watched.
        order = attempt.order
        watched = order.settings.timeout.max_runtime is not None or order.deadline is not None
        if watched or self._pace.seconds >= _SHORT_SECONDS:
            self._loop.call_soon(self._still_runs, attempt, attempt.user_code)
        else:
            worker.look_again(self._loop, _SHORT_SECONDS, self._still_runs)
        if attempt.doomed is not None and attempt.timer is None:
            # It began while it was being asked back.
            if attempt.doomed.stopped:
                self._stop_running(attempt, "stopped")
            else:
                left = attempt.ends_at - self._loop.time()
                self._reclaim_running(attempt, Notice(kind="terminate", seconds=max(0.0, left)))

    def _still_runs(self, attempt: PooledAttempt, user_code: bool) -> None:
        if self._attempts.get(attempt.key) is not attempt or (attempt.user_code and not user_code):
            return
        if user_code or attempt.order.pool in self._sent_ahead:
            # Whatever runs has its place, too.
            self._reports.report((AttemptRunning if user_code else AttemptPlaced)(*attempt.key))
            attempt.told = True

    def _ended(self, worker: PooledWorker, attempt: PooledAttempt, said: WorkerEvidence, seconds: float) -> None:
        self._pace.took(seconds)
        worker.log = attempt.log
        self._end(attempt, Evidence(said.result) if said.result is not None else attempt.evidence(said))
        if not worker.attempts:
            self._has_no_work(worker)
        if self._waiting:
            self._top_up(worker) if worker.attempts else self._dispatch()

    def _given_back(self, worker: PooledWorker, attempts: list[PooledAttempt]) -> None:
        self._take_back(attempts)
        self._dispatch()

    def _take_back(self, attempts: list[PooledAttempt]) -> None:
        for attempt in reversed(attempts):
            if attempt.key not in self._attempts:
                continue
            attempt.worker = None
            if attempt.doomed is not None:
                self._end(attempt, attempt.doomed)
            else:
                self._waiting.put_back(attempt)

    def _signalled(self, attempt: PooledAttempt, notice: Notice) -> None:
        if attempt.doomed is None:  # our own SIGTERM at the end of a reclaim is no news
            self._report_notice(attempt, notice)

    def _end(self, attempt: PooledAttempt, evidence: Evidence) -> None:
        """The one place from which an attempt's end is reported."""
        if self._attempts.pop(attempt.key, None) is None:
            return
        attempt.cancel_timer()
        self._waiting.remove(attempt)
        attempt.worker = None
        placed_at = 0.0 if attempt.told or attempt.order.pool not in self._sent_ahead else attempt.placed_at
        self._reports.report(
            AttemptEnded(*attempt.key, evidence, running_at=attempt.running_at, placed_at=placed_at or 0)
        )
        if not self._attempts:
            self._all_over.set()

    def _waits(self, worker: PooledWorker) -> None:
        """The worker's attempt waits for child calls, or does so no longer."""
        if worker.blocked:
            worker.recall(worker.unbegun())
        self._dispatch()

    # -- ending attempts -----------------------------------------------------------------------------------

    def _ends_unbegun(self, attempt: PooledAttempt) -> bool:
        """End it without running it, now or when its worker gives it back; False where it runs already."""
        assert attempt.doomed is not None
        worker = attempt.worker
        if worker is None:
            self._end(attempt, attempt.doomed)
        elif worker.current is attempt:
            return False
        elif attempt.key not in worker.recalled:
            worker.recall([attempt.key])
        return True

    def _stop_running(self, attempt: PooledAttempt, reason: str) -> None:
        worker = self._clear_behind(attempt)
        worker.send(m.Stop(attempt.key, reason))
        attempt.timer = self._loop.call_later(attempt.grace, attempt.kill)

    def _reclaim_running(self, attempt: PooledAttempt, notice: Notice) -> None:
        worker = self._clear_behind(attempt)
        worker.send(m.Notify(attempt.key, notice))
        gap = min(_KILL_GAP, max(0.0, attempt.ends_at - self._loop.time()))
        attempt.timer = self._loop.call_at(attempt.ends_at, attempt.terminate, self._loop, gap)

    def _clear_behind(self, attempt: PooledAttempt) -> PooledWorker:
        """Nothing may begin in its worker before it is known whether that worker has to die."""
        worker = attempt.worker
        assert worker is not None
        attempt.cancel_timer()
        worker.recall(worker.unbegun())
        return worker

    def _report_notice(self, attempt: PooledAttempt, notice: Notice) -> None:
        attempt.notice = notice.kind
        self._reports.report(AttemptNoticed(*attempt.key, notice.kind, notice.seconds, notice.source))

    @staticmethod
    def _tell(attempt: PooledAttempt, notice: Notice) -> None:
        if attempt.worker is not None and attempt.worker.current is attempt:
            attempt.worker.send(m.Notify(attempt.key, notice))
