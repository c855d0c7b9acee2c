"""Runs attempts in a process of their own, one at a time, and tells the engine at the other end of a connection.

On its main thread, ``def`` tasks as they are and ``async def`` tasks on a loop that lasts as long as the process; a
second thread reads the connection. Must not decide anything about attempts: it says what happened, and the engine
reports it.

SIGINT is ignored (Ctrl-C belongs to the controller). SIGTERM is a notice that the machine goes away; work
goes on until SIGKILL. The worker also sends itself a SIGTERM to unwind a ``def`` task that was stopped.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from flyteish._async.feeds import Feeds
from flyteish._authoring.attempt.context import AttemptContext
from flyteish._authoring.values.errors import document
from flyteish._core.model.events import WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish._worker.calls import Callbacks, WorkerLink
from flyteish._worker.connection import Connection, vanish
from flyteish._worker.loader import Loadable, Loader
from flyteish._worker.output import WorkerOutput
from flyteish._worker.runner import AttemptStopped, Stopping, perform_sync
from flyteish._worker.variables import Variables
from flyteish.blobs import open_blobs
from flyteish.errors import BlobError, SecretMissingError, SerializationError
from flyteish.interfaces import Limits, Notice, Order

if TYPE_CHECKING:
    import asyncio

#: Seconds that a SIGTERM from outside is taken to leave, as Kubernetes' default does.
SIGTERM_SECONDS: Final = 30.0
#: Seconds that tasks which an attempt left on the loop get to take their cancellation.
_LEFTOVER_SECONDS: Final = 1.0
_NO_SECRETS: Final[Mapping[str, str]] = {}
_SIGTERM, _AGAIN = b"T", b"A"


class Current:
    """The attempt that the main thread is at."""

    __slots__ = ("context", "is_async", "key", "stop", "task")

    def __init__(self, order: Order, context: AttemptContext) -> None:
        self.key: AttemptKey = order.key
        self.is_async = order.is_async
        self.context = context
        self.stop = Stopping()
        self.task: asyncio.Task[object] | None = None


class Worker:
    """One worker process. ``serve`` is its main thread; ``_read`` runs on the other.

    Args:
        connection: to the engine.
        only: the attempt that this process is there for, which may outlive its controller: its end is claimed, and then
            the process ends. None: it runs what it is given until it has heard that it was enough.
    """

    def __init__(self, connection: Connection, only: AttemptKey | None = None) -> None:
        self._connection = connection
        self._only = only
        self._running_at = 0.0
        self._signal: Notice | None = None
        """What the last signal to end was taken for."""
        self._callbacks = Callbacks()
        self._orders: deque[tuple[Order, str | None]] = deque()
        self._arrived = threading.Condition(threading.Lock())
        self._leaving = False
        self._current: Current | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = threading.get_ident()
        self._alarm_out, self._alarm_in = os.pipe()
        os.set_blocking(self._alarm_in, False)
        # Kept, since a bound method is a new object each time and user code may install a handler of its own.
        self._handler = self._on_sigterm

    def serve(self) -> None:
        """Run attempts until the engine says that it was enough."""
        welcome = self._connection.open()
        if welcome.sys_path is not None:
            sys.path[:] = welcome.sys_path
        if welcome.argv is not None:
            sys.argv[:] = welcome.argv
        self._limits = Limits(welcome.inline_limit, welcome.max_result)
        self._scratch = None if welcome.scratch is None else Path(welcome.scratch, str(os.getpid()))
        self._blobs = open_blobs(welcome.blobs_url)
        self._loader = Loader(lambda: self._blobs.blocking)
        self._feeds = Feeds()
        self._variables = Variables()
        # Whoever started a process for one attempt looks for its output where it sent that itself, unless an order says
        # otherwise.
        self._output = WorkerOutput() if self._only is None else None
        faulthandler.enable()
        signal.signal(signal.SIGINT, _ignore)  # a handler, not SIG_IGN, which children would inherit
        signal.signal(signal.SIGTERM, self._handler)
        self._connection.send(m.Ready())
        for message in self._connection.early():
            self._handle(message)
        threading.Thread(target=self._read, name="flyteish worker connection", daemon=True).start()
        while (job := self._next()) is not None:
            self._perform(*job)
            if self._only is not None:
                break
        if self._output is not None:
            self._output.close()

    # -- the main thread: attempts -------------------------------------------------------------------------

    def _next(self) -> tuple[Order, str | None] | None:
        with self._arrived:
            if not self._orders:
                self._connection.flush()
            while not self._orders:
                if self._leaving:
                    return None
                self._arrived.wait()
            return self._orders.popleft()

    def _perform(self, order: Order, log: str | None) -> None:
        began = time.perf_counter()
        link = WorkerLink(order, self._connection.send, self._callbacks)
        context = AttemptContext(order, link, self._blobs, self._feeds, self._limits, scratch=self._scratch)
        current = Current(order, context)
        self._current = current
        if self._output is None and log is not None:
            self._output = WorkerOutput()
        if self._output is not None:
            self._output.begin(log)
        try:
            evidence = self._evidence(order, current)
        except AttemptStopped:
            evidence = WorkerEvidence(stopped=True)  # it came in the instant after the task was over
        finally:
            self._current = None
            current.context.close()
            self._variables.end()
            if signal.getsignal(signal.SIGTERM) is not self._handler:
                signal.signal(signal.SIGTERM, self._handler)
            if self._output is not None:
                self._output.end()
        if self._only is None:
            self._tell(order.key, evidence, began)
        else:
            self._claim(order.key, evidence, began)

    def _tell(self, key: AttemptKey, evidence: WorkerEvidence, began: float) -> None:
        try:
            self._connection.hold(m.Ended(key, evidence, time.perf_counter() - began))
        except SerializationError as error:  # an exception can carry anything
            evidence = WorkerEvidence(error=document(error))
            self._connection.hold(m.Ended(key, evidence, time.perf_counter() - began))

    def _claim(self, key: AttemptKey, evidence: WorkerEvidence, began: float) -> None:
        """Claim the end, and tell; where it can't be claimed, wait until it was heard."""
        from flyteish._worker.claims import AGAIN, ClaimedEnd, claim  # workers of a pool claim nothing

        for wait in (*AGAIN, None):
            try:
                mine = claim(
                    self._blobs.blocking, ClaimedEnd(key, evidence, self._running_at, time.time(), self._signal)
                )
            except BlobError as error:
                if wait is None:
                    sys.stderr.write(f"flyteish worker: the end of {key} can't be claimed: {error}\n")
                    self._tell(key, evidence, began)
                    self._connection.settle()
                    return
                time.sleep(wait)
            else:
                if mine:  # whoever claimed it before has said how it ended
                    self._tell(key, evidence, began)
                return

    def _evidence(self, order: Order, current: Current) -> WorkerEvidence:
        task = self._loader.known(order.reference, order.task)
        wanted = order.settings.secrets
        if task is None or wanted:
            # Importing runs user code too: should it kill this process, the engine must know whose it was. And only
            # the attempt that it is at may ask for secrets.
            self._connection.send(m.Taken(order.key))
        try:
            secrets = self._asked_for(order) if wanted else _NO_SECRETS
        except SecretMissingError as error:
            return WorkerEvidence(error=document(error))
        self._variables.begin(order, secrets)
        if task is None:
            try:
                task = self._loader.load(order.reference, order.task, may_unpickle=order.scope.allow_pickle)
            except BlobError as error:
                return WorkerEvidence(store_failed=f"{type(error).__name__}: {error}")
            except BaseException as error:  # whatever importing user code can raise
                return WorkerEvidence(error=document(error))
        if self._only is not None:
            self._begins(order)
        self._connection.send(m.Began(order.key))
        if order.is_async:
            return self._on_loop(task, current)
        return perform_sync(current.context, task, current.stop)[0]

    def _asked_for(self, order: Order) -> Mapping[str, str]:
        """The values of its secrets.

        Raises:
            SecretMissingError: nobody has one of them.
        """
        answers: list[m.SecretValues] = []
        answered = threading.Event()

        def take(answer: m.SecretValues) -> None:
            answers.append(answer)
            answered.set()

        self._connection.send(m.Wanted(order.key, self._callbacks.add(take)))
        answered.wait()
        if answers[0].missing is not None:
            raise SecretMissingError(answers[0].missing)
        return answers[0].values

    def _begins(self, order: Order) -> None:
        self._running_at = time.time()
        if order.deadline is not None:
            self._connection.give_up_at(order.deadline)
        limit = order.settings.timeout.max_runtime
        if limit is not None:
            assert not isinstance(limit, timedelta)  # a Timeout keeps seconds
            self._connection.give_up_at(self._running_at + limit)

    def _on_loop(self, task: Loadable, current: Current) -> WorkerEvidence:
        import asyncio  # here, since a worker that runs `def` tasks only needs none

        from flyteish._worker.runner_async import perform_async

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        loop = self._loop
        work = perform_async(current.context, task, current.stop)
        current.task = mine = loop.create_task(work, name=f"flyteish {current.key}")
        if current.stop.requested:  # it came before there was a task to cancel
            mine.cancel()
        try:
            evidence, _ = loop.run_until_complete(mine)
        except asyncio.CancelledError:
            evidence = WorkerEvidence(stopped=True)  # cancelled before its first step
        except BaseException as error:  # a stopped loop; SystemExit or KeyboardInterrupt in a task of the user's
            evidence = WorkerEvidence(error=document(error))
        self._sweep(loop)
        return evidence

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """What the attempt left on the loop ends with it."""
        import asyncio

        left = asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        try:
            _, stubborn = loop.run_until_complete(asyncio.wait(left, timeout=_LEFTOVER_SECONDS))
        except BaseException:
            stubborn = left
        if stubborn:
            self._loop = None  # the next attempt gets a loop without them
        for task in left - stubborn:
            if not task.cancelled():
                task.exception()  # marks it as seen: the attempt it belonged to is over

    # -- the other thread: the connection ------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                self._read_on(self._connection.sock)
        except BaseException:
            traceback.print_exc()
            vanish()  # without this thread nothing could ever stop the other

    def _read_on(self, sock: socket.socket | None) -> None:
        """Until the connection is another one."""
        connection = self._connection
        poll = select.poll()
        poll.register(self._alarm_out, select.POLLIN)
        if sock is not None:
            poll.register(sock, select.POLLIN)
        while connection.sock is sock:
            patience = connection.patience()
            for descriptor, _ in poll.poll(None if patience is None else 1000 * patience):
                if descriptor == self._alarm_out:
                    self._alarmed(os.read(self._alarm_out, 64))
                    continue
                for message in connection.receive():
                    self._handle(message)
            connection.keep_up()

    def _handle(self, message: m.ToWorker) -> None:
        match message:
            case m.RunOrders(orders, logs):
                self._connection.ordered()
                with self._arrived:
                    self._orders.extend(zip(orders, logs, strict=True))
                    self._arrived.notify()
            case m.Answer() | m.Recorded() | m.SecretValues():
                self._callbacks.answer(message)
            case m.Recall(keys):
                with self._arrived:
                    back = [order.key for order, _ in self._orders if order.key in keys]
                    self._orders = deque(job for job in self._orders if job[0].key not in back)
                self._connection.send(m.Recalled(back), wait=False)
            case m.Notify(key, notice):
                current = self._current
                if current is not None and current.key == key:
                    current.context.interruption.notify(notice)
            case m.Stop(key):
                current = self._current
                if current is not None and current.key == key:
                    self._stop(current)
            case m.Exit():
                with self._arrived:
                    self._leaving = True
                    self._arrived.notify()

    def _stop(self, current: Current) -> None:
        current.stop.requested = True
        if current.is_async:
            task = current.task
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)
        else:
            # To the main thread itself, so that a system call in which it blocks is interrupted.
            signal.pthread_kill(self._main, signal.SIGTERM)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        """On the main thread, between any two instructions of it: takes no lock."""
        current = self._current
        if current is None or not current.stop.requested:
            self._alarm(_SIGTERM)
        elif self._connection.busy:
            self._alarm(_AGAIN)  # torn out of a send, half a message would be all that the engine gets
        elif current.stop.inside:
            current.stop.inside = False
            raise AttemptStopped("the attempt was stopped")

    def _alarm(self, what: bytes) -> None:
        try:
            os.write(self._alarm_in, what)
        except OSError:
            pass  # the pipe is full of alarms already

    def _alarmed(self, what: bytes) -> None:
        current = self._current
        if current is None:
            return
        if _SIGTERM in what:
            notice = Notice(kind="shutdown", seconds=SIGTERM_SECONDS, source="sigterm")
            # Before the task hears of it, which may then end, and be claimed, at once.
            known, self._signal = self._signal, self._signal or notice
            if not current.context.interruption.notify(notice):
                self._signal = known
            else:
                self._connection.send(m.Signalled(current.key, notice), wait=False)
        if _AGAIN in what:
            time.sleep(0.001)
            self._stop(current)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C belongs to the controller."""
