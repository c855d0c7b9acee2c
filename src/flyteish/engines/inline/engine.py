"""Runs attempts in this process: ``async def`` tasks on their caller's loop, ``def`` tasks on threads.

An attempt can be cancelled, not killed: a ``def`` task that is stopped is given up (fenced by its generation) and
its thread runs out by itself. Must not decide anything about attempts: it starts, ends and reports them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from flyteish._authoring.attempt.context import AttemptContext
from flyteish._authoring.values.errors import document
from flyteish._core.model.events import AttemptEnded, AttemptNoticed, AttemptRunning, Evidence, WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.rules.attempt_ends import from_worker
from flyteish._core.wording import span
from flyteish._worker.loader import Loader
from flyteish._worker.runner import Stopping, perform_sync
from flyteish._worker.runner_async import perform_async
from flyteish.engines.inline.output import SPEAKER, InlineOutput, Speaker
from flyteish.engines.inline.scoped_environ import scoped
from flyteish.engines.inline.task_loops import TaskLoops
from flyteish.engines.inline.thread_link import ThreadLink
from flyteish.engines.inline.threads import Threads
from flyteish.errors import SecretMissingError, TaskNotImportableError
from flyteish.interfaces import (
    Clock,
    InlineReports,
    LogWriter,
    Notice,
    Opening,
    Order,
    Unfinished,
)

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._worker.loader import Loadable

CLOSE_SECONDS = 5.0
"""How long ``close`` waits for cancelled attempts to clean up."""
SWEEP_SECONDS = 1.0
"""How often attempts are looked for whose event loop is gone."""
LOST_SECONDS = 1.0
"""An attempt that somebody else cancelled is reported lost after this long. A program that is ending closes its
session meanwhile: then nothing is recorded, and nobody pays."""


class InlineEngine:
    """The embedded default. ``max_threads`` bounds busy ``def`` tasks, and nothing the ``async def`` ones.

    ``inline`` gives the controller, when the engine is opened, as only who shares its process knows it.
    """

    connects = False
    outlives = False

    def __init__(
        self,
        *,
        feeds: Feeds,
        clock: Clock,
        inline: Callable[[], InlineReports],
        max_threads: int,
        print_to_log: bool = False,
    ) -> None:
        self._output = InlineOutput(prints=print_to_log)
        self._feeds = feeds
        self._clock = clock
        self._find_inline = inline
        self._threads = Threads(max_threads, "flyteish-def")
        self._attempts: dict[AttemptKey, _Attempt] = {}
        self._loops: TaskLoops | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._blocked: asyncio.AbstractEventLoop | None = None

    async def open(self, opening: Opening) -> None:
        blobs = opening.blobs
        self._reports, self._inline = opening.reports, self._find_inline()
        self._blobs, self._limits, self._scratch = blobs, opening.limits, opening.scratch
        self._logs = opening.logs
        self._loop = asyncio.get_running_loop()
        self._loops = TaskLoops(self._loop)
        self._loader = Loader(lambda: blobs.blocking)
        self._output.open()

    async def adopt(self, unfinished: Sequence[Unfinished]) -> frozenset[AttemptKey]:
        return frozenset()  # what ran in another process died with it

    def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            origin = self._inline.origin(order.key)
            try:
                task = cast("Loadable", origin.task) if origin and origin.task else self._load(order)
            except TaskNotImportableError as error:
                self._report(order.key, Evidence(error=document(error)), error, 0.0)
                continue
            context = origin.context.copy() if origin is not None else Context()
            attempt = _Attempt(self, order, task, context)
            self._attempts[order.key] = attempt
            loop = origin.loop if origin is not None else None
            if not order.is_async:
                self._threads.put(attempt.begin_on_thread)
            elif loop is not None and loop.is_running():
                attempt.loop = loop
                self._feeds.of(loop).put(attempt.begin_on_loop)
            else:
                assert self._loops is not None
                self._loops.put(attempt.begin_on_loop)
        if self._sweeper is None:
            self._sweep()

    def _sweep(self) -> None:
        """A loop that is closed tells nobody: whatever ran or was to begin on it is lost."""
        for attempt in list(self._attempts.values()):
            if attempt.is_stranded:
                attempt.report(Evidence(vanished="the event loop of its caller was closed"), None)
        again = self._loop is not None and self._attempts
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if again and self._loop else None

    def _load(self, order: Order) -> Loadable:
        if order.reference.by_value is not None:
            raise TaskNotImportableError(
                f"{order.task} was called by another process and is known by value only: what a worker sent is not "
                "unpickled here; define it at module level in a file, or give its queue a pool of worker processes"
            )
        return self._loader.load(order.reference, order.task, may_import=order.scope.allow_pickle)

    def stop(self, key: AttemptKey, reason: str, grace: float) -> None:
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.end(Evidence(stopped=True), grace)

    def reclaim(self, key: AttemptKey, notice: Notice) -> None:
        attempt = self._attempts.get(key)
        if attempt is None or attempt.evidence is not None:
            return
        # On record before the task hears of it: what it raises then must find that it was noticed.
        self._reports.report(
            AttemptNoticed(key.run, key.action, key.generation, notice.kind, notice.seconds, notice.source)
        )
        attempt.context.interruption.notify(notice, time.monotonic())
        if math.isinf(notice.seconds):
            return  # a recommendation: nothing is taken away
        evidence = Evidence(
            reclaimed=f"reclaimed by its {notice.source} {span(notice.seconds)} after a {notice.kind} notice"
        )
        self._later(notice.seconds, lambda: attempt.end(evidence, 0.0))  # of several, the first ends it

    async def close(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.tell_of_close()
            attempt.end(Evidence(stopped=True), CLOSE_SECONDS)
        deadline = time.monotonic() + CLOSE_SECONDS
        # They end on other threads, and most often there is nobody to wait for: no event is worth its upkeep.
        while self._anybody_cleans_up() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for attempt in list(self._attempts.values()):
            attempt.give_up()
        self._threads.close()
        self._output.close()
        if self._loops is not None:
            await self._loops.close(max(0.0, deadline - time.monotonic()))

    def _anybody_cleans_up(self) -> bool:
        return any(each.cancellable and each.loop is not self._blocked for each in list(self._attempts.values()))

    def blocked_by_close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Who closes the session blocks this loop: attempts on it can only clean up afterwards."""
        self._blocked = loop

    def dropped(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """An attempt was to begin on a loop that has been closed: its caller is gone."""
        attempt = getattr(callback, "__self__", None)
        if isinstance(attempt, _Attempt):
            attempt.report(Evidence(vanished="the event loop of its caller was closed"), None)

    # -- for the attempts ----------------------------------------------------------------------------------------

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_later(max(0.0, seconds), call)

    def _lost(self, attempt: _Attempt) -> None:
        """Somebody else cancelled it, as an ending program does. Called on the attempt's loop."""
        evidence = Evidence(vanished="its asyncio task was cancelled from outside, as an ending program does")
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._later, LOST_SECONDS, lambda: attempt.report(evidence, None))
        except RuntimeError:  # the session is closed
            attempt.report(evidence, None)

    def _report(self, key: AttemptKey, evidence: Evidence, live: BaseException | None, running_at: float) -> None:
        self._attempts.pop(key, None)
        if live is not None:
            self._inline.raised(key, live)
        self._reports.report(AttemptEnded(key.run, key.action, key.generation, evidence, 0.0, running_at))


class _Attempt(Stopping):
    """One attempt in this process. ``report`` is the only way out, and lets exactly one report through.

    Light until it begins: a burst may start many thousands that are over a moment after they began.
    """

    __slots__ = (
        "_context", "_engine", "_running_at", "_speaker", "_task", "evidence", "loadable", "loop", "lost",
        "order", "over", "surroundings",
    )  # fmt: skip

    def __init__(self, engine: InlineEngine, order: Order, loadable: Loadable, surroundings: Context) -> None:
        super().__init__()
        self._engine = engine
        self.order = order
        self.loadable = loadable
        self.surroundings = surroundings
        self.evidence: Evidence | None = None
        """How it is to be reported, once the engine has ended it."""
        self.lost = False
        """Somebody else cancelled it."""
        self.over = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it runs, or is to begin; None on a thread, and until one of our own loops has picked it up."""
        self._context: AttemptContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._running_at = 0.0
        self._speaker: Speaker | None = None

    def log_writer(self) -> LogWriter:
        """Where its output goes."""
        return self._engine._logs.writer(self.order.key)

    @property
    def context(self) -> AttemptContext:
        if self._context is None:
            engine, order = self._engine, self.order
            link = engine._inline.inline_link(order.key)
            used = link if order.is_async else ThreadLink(link, engine._threads)
            self._context = AttemptContext(
                order, used, engine._blobs, engine._feeds, engine._limits, scratch=engine._scratch
            )
        return self._context

    @property
    def cancellable(self) -> bool:
        """Whether it runs on a loop, where it can be cancelled and clean up."""
        return self._task is not None and not self._task.done()

    @property
    def is_stranded(self) -> bool:
        """Whether it can't say any more how it ends: its loop was closed, or its task cancelled before it began."""
        if self.loop is None or self.lost:
            return False
        return self.loop.is_closed() or (self._task is not None and self._task.done())

    # -- on the caller's loop ------------------------------------------------------------------------------------

    def begin_on_loop(self) -> None:
        if self.over:
            return
        self.loop = asyncio.get_running_loop()
        self._task = self.loop.create_task(self._on_loop(), name=self.order.task, context=self.surroundings)

    async def _on_loop(self) -> None:
        self._began()
        variables = self._variables()
        if variables is None:
            return
        engine = self._engine
        perform = perform_async(self.context, self.loadable, self)
        if variables:
            with scoped(variables):
                said, live = await perform
        else:
            said, live = await perform
        if isinstance(live, asyncio.CancelledError) and not self.requested and self._task and self._task.cancelling():
            self.lost = True
            engine._lost(self)
            return
        self.report(_believed(said), live)

    # -- on a thread ---------------------------------------------------------------------------------------------

    def begin_on_thread(self) -> None:
        if self.over:
            return
        try:
            self.surroundings.run(self._on_thread)
        except BaseException as error:  # a defect of ours, or an attempt that was told to end in its last instant
            self.report(Evidence(error=document(error)), error)

    def _on_thread(self) -> None:
        self._began()
        variables = self._variables()
        if variables is None:
            return
        with scoped(variables):
            said, live = perform_sync(self.context, self.loadable, self)
        self.report(_believed(said), live)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _began(self) -> None:
        """In the attempt's own context, as the first thing that happens there."""
        order, engine = self.order, self._engine
        self._speaker = Speaker(self)
        SPEAKER.set(self._speaker)
        self._running_at = engine._clock.now()
        if order.settings.timeout.max_runtime is not None or order.deadline is not None:
            key = order.key
            engine._reports.report(AttemptRunning(key.run, key.action, key.generation))

    def _variables(self) -> Mapping[str, str] | None:
        """What it sees besides the process's own; None where a secret is missing, which is its end."""
        settings = self.order.settings
        if not settings.secrets:
            return settings.env_vars
        try:
            return {**settings.env_vars, **self._engine._reports.secrets(settings.secrets)}
        except SecretMissingError as error:
            self.report(Evidence(unmendable=str(error)), None)
            return None

    def tell_of_close(self) -> None:
        """Code that can't be cancelled may still ask, and one that is being cancelled learns why."""
        if self._context is not None:
            self._context.interruption.notify(Notice("shutdown", CLOSE_SECONDS, "session"))

    def end(self, evidence: Evidence, grace: float) -> None:
        """End it: cancel it if it can be, and give it up after ``grace`` seconds."""
        if self.over or self.evidence is not None:
            return
        self.evidence = evidence
        self.requested = True
        if self._task is None or self.loop is None or self.lost:  # not begun yet, or on a thread that nobody can stop
            self.give_up()
            return
        try:
            self.loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # its loop is closed
            self.give_up()
        else:
            self._engine._later(max(grace, 0.05), self.give_up)

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        if not self._running_at:  # a task that is cancelled before its first step never says anything
            self.give_up()

    def give_up(self) -> None:
        """It did not end in time, or can't be made to: whatever it still does counts for nothing."""
        if self._context is not None:
            self._context.active = False
        self.report(self.evidence or Evidence(stopped=True), None)

    def report(self, evidence: Evidence, live: BaseException | None) -> None:
        """Say how it ended, once: on its own loop or thread, or on the controller's where it was given up."""
        engine = self._engine
        if engine._attempts.pop(self.order.key, None) is None:
            return
        self.over = True
        if self._speaker is not None:
            self._speaker.close()
        if self.evidence is not None and evidence.result is None:
            # Cancelled by us: what it says of that is the engine's evidence, with the error it raised on the way out.
            error = evidence.error if not evidence.stopped else None
            evidence = self.evidence if error is None else _with_error(self.evidence, evidence)
        engine._report(self.order.key, evidence, live, self._running_at)


def _believed(said: WorkerEvidence) -> Evidence:
    # In this process nobody leaves without a notice: the context sees to it.
    return Evidence(said.result) if said.result is not None else from_worker(said, notice="heard", told=True)


def _with_error(ours: Evidence, theirs: Evidence) -> Evidence:
    return Evidence(error=theirs.error, reclaimed=ours.reclaimed, stopped=ours.stopped)
