"""Tells user code that the machine under its attempt goes away: one notice, merged from all sources.

The notice can be awaited, waited for on a thread, polled, received by a callback, or seen as a file. Must not
know where notices come from, nor what follows when the time is over.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from flyteish._async.feeds import LoopFeed, through_loop
from flyteish._authoring.attempt.signals import AttemptLeft
from flyteish._core.rules.attempt_ends import NOTICE_RANK as RANK
from flyteish._core.wording import span
from flyteish.errors import ConfigurationError, FlyteishError, InputTypeError
from flyteish.interfaces import Notice

if TYPE_CHECKING:
    import asyncio

    from flyteish._authoring.attempt.state import AttemptState

OnNotice = Callable[[Notice], Awaitable[object] | object]
C = TypeVar("C", bound=OnNotice)

FILE_NAME: Final = "spot_termination_notice"
SAME_END_SECONDS: Final = 1.0
"""Ends that differ by less, or by less than a tenth of the time left, are one: sources round, and poll late."""


class Interruption:
    """Whether, how and when this attempt's machine goes away (``ctx().interruption``).

    A later notice may make it graver or sooner, never milder or later; the same from another source is no news.
    ``on_notice`` and ``wait`` tell of the first one only, ``on_change`` of each that says more. Thread-safe.
    """

    def __init__(self, attempt: AttemptState) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._arrived = threading.Event()  # also set by close, so that no thread waits for a notice in vain
        self._notice: Notice | None = None
        self._noticed_at = 0.0
        self._changed_at = 0.0
        self._ends_at = math.inf
        self._told_end = math.inf  # as of the last change that was told
        self._closed = False
        self._listeners: list[Callable[[Notice | None], None]] = []
        self._followers: list[Callable[[Notice], None]] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._file: Path | None = None

    def __repr__(self) -> str:
        notice = self._notice
        if notice is None:
            return "Interruption(none)"
        return f"Interruption({notice.kind} by {notice.source}, {span(self.seconds_left)} left)"

    @property
    def pending(self) -> bool:
        """Whether a notice has come."""
        return self._notice is not None

    @property
    def notice(self) -> Notice | None:
        """The merged notice; its ``seconds`` count from when it last changed."""
        return self._notice

    @property
    def noticed_at(self) -> float | None:
        """When the first notice came, on the attempt's own clock; None without one."""
        return None if self._notice is None else self._noticed_at

    @property
    def changed_at(self) -> float | None:
        """When the notice last became graver or sooner, or came, on the attempt's own clock; None without one."""
        return None if self._notice is None else self._changed_at

    @property
    def ends_at(self) -> datetime | None:
        """The end of the grace period, in UTC: a deadline for what is still to be done; None where none is known."""
        left = self.seconds_left
        if left is None or math.isinf(left):
            return None
        return datetime.fromtimestamp(self._attempt.wall() + left, UTC)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end, never below 0; ``inf`` where no end is known; None without a notice."""
        if self._notice is None:
            return None
        return max(0.0, self._ends_at - self._attempt.clock())

    @property
    def file(self) -> Path:
        """A path that exists once a notice came: JSON with ``kind``, ``seconds``, ``source``, ``ends_at``.

        The path does not change during the attempt, and is never seen half written.
        """
        with self._file_lock:
            if self._file is None:
                self._file = self._attempt.scratch() / FILE_NAME
                self._write_file()
            return self._file

    async def wait(self) -> Notice:
        """Wait for the notice, or return it if it has come. Cancelled when the attempt ends without one."""
        heard: list[Callable[[Notice | None], None]] = []

        def start(done: Callable[[Notice | None], None]) -> None:
            heard.append(done)
            self._listen(done)

        try:
            (notice,) = await through_loop(self._attempt.feeds, start)
        finally:
            with self._lock:
                self._listeners = [listener for listener in self._listeners if listener not in heard]
        if notice is None:
            from asyncio import CancelledError

            raise CancelledError("the attempt is over; no notice can come any more")
        return notice

    def wait_sync(self, timeout: float | None = None) -> Notice | None:
        """Block this thread until the notice comes; None after ``timeout`` seconds or when the attempt ended.

        Default: no limit. Use it on a thread of your own or in a ``def`` task: it blocks a loop.
        """
        if timeout is not None and not timeout >= 0:
            raise ConfigurationError(f"wait_sync(timeout={timeout!r}) is not accepted: expected seconds >= 0 or None")
        self._arrived.wait(timeout)
        return self._notice

    def on_notice(self, callback: C) -> C:
        """Call ``callback(notice)`` once: when the first notice comes, or now if it has. Also a decorator.

        Registered under a running loop it runs there (an ``async def`` as a task of its own, cancelled when
        the attempt ends); otherwise on a thread. ``ctx()`` works there; exceptions are logged, never raised.
        """
        deliver = self._deliverer("on_notice", callback)
        self._listen(lambda notice: None if notice is None else deliver(notice))
        return callback

    def on_change(self, callback: C) -> C:
        """As ``on_notice``, but called for each notice that says more: the first, and each that is graver or sooner."""
        deliver = self._deliverer("on_change", callback)
        with self._lock:
            notice = self._notice
            if not self._closed:
                self._followers.append(deliver)
        if notice is not None:
            deliver(notice)
        return callback

    def grace(self, spare: float = 0.0) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """``async with ctx().interruption.grace(): ...``: the body has until the end of the grace period.

        What still runs then is cancelled and the block raises ``TimeoutError``. Without a notice there is no limit;
        one that comes, or gets sooner, meanwhile sets it.

        Args:
            spare: seconds before the end at which the body must be over. Default 0.

        Raises:
            ConfigurationError: ``spare`` is no number of seconds from 0.
        """
        from flyteish._authoring.attempt.grace import within_grace

        return within_grace(self, spare)

    def leave(self, why: str = "") -> NoReturn:
        """End this attempt now, as preempted: nothing is charged, and the next attempt may start at once elsewhere.

        For after the last save, where to work on is no use. Raises ``AttemptLeft`` through the task.

        Args:
            why: for people, in ``flyteish why``.

        Raises:
            FlyteishError: no notice has come, so that there is nothing to leave for.
        """
        notice = self._notice
        if notice is None:
            raise FlyteishError(
                "interruption.leave() is only for attempts that got a notice (`interruption.pending`): "
                "raise an exception to fail, or return"
            )
        left = "" if self._ends_at == math.inf else f", {span(self.seconds_left)} before the end"
        raise AttemptLeft(f"left after its {notice.kind} notice{left}" + (f": {why}" if why else ""))

    # -- for engines -------------------------------------------------------------------------------------

    def notify(self, notice: Notice, now: float | None = None) -> bool:
        """Take a notice from a source; True if it is the first, graver or sooner than what is known.

        ``now`` is the time on the attempt's clock at which it was given (default: this moment). A source that
        knows no end gives ``math.inf`` seconds. Callable from any thread; runs no user code itself.
        """
        if notice.kind not in RANK:
            raise ConfigurationError(
                f"Notice.kind={notice.kind!r} is not accepted: expected one of {', '.join(sorted(RANK))}"
            )
        now = self._attempt.clock() if now is None else now
        with self._lock:
            if self._closed or not self._merge(notice, now):
                return False
            merged = self._notice
            assert merged is not None
            listeners, self._listeners = self._listeners, []
            followers = list(self._followers)
        self._arrived.set()
        for listener in listeners:
            listener(merged)
        for follower in followers:
            follower(merged)
        with self._file_lock:
            if self._file is not None:
                self._write_file()
        return True

    def close(self) -> None:
        """The attempt is over: release who still waits and cancel callbacks that still run."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
            self._followers = []
        self._arrived.set()
        for listener in listeners:
            listener(None)
        for task in list(self._tasks):
            self._attempt.feeds.of(task.get_loop()).put(task.cancel)

    # -- inside ------------------------------------------------------------------------------------------

    def _merge(self, notice: Notice, now: float) -> bool:
        ends_at = now + max(0.0, notice.seconds)
        known = self._notice
        if known is None:
            self._noticed_at = now
            first = Notice(kind=notice.kind, seconds=max(0.0, notice.seconds), source=notice.source)
            self._notice, self._ends_at = first, ends_at
            self._changed_at, self._told_end = now, ends_at
            return True
        graver = RANK[notice.kind] > RANK[known.kind]
        self._ends_at = min(ends_at, self._ends_at)
        same = min(SAME_END_SECONDS, 0.1 * max(0.0, self._told_end - now))
        if not graver and not self._ends_at < self._told_end - same:
            return False
        self._changed_at, self._told_end = now, self._ends_at
        self._notice = Notice(
            kind=notice.kind if graver else known.kind,
            seconds=max(0.0, self._ends_at - now),
            source=notice.source if graver or notice.kind == known.kind else known.source,
        )
        return True

    def _listen(self, listener: Callable[[Notice | None], None]) -> None:
        with self._lock:
            notice = self._notice
            if notice is None and not self._closed:
                self._listeners.append(listener)
                return
        listener(notice)

    def _deliverer(self, name: str, callback: OnNotice) -> Callable[[Notice], None]:
        if not callable(callback):
            raise InputTypeError(f"{name}(callback={callback!r}): expected a function of one notice, sync or async")
        context = copy_context()
        loop = _running_loop()
        if loop is None:
            return partial(self._on_thread, callback, context)
        return partial(self._on_loop, callback, context, self._attempt.feeds.of(loop), loop)

    def _write_file(self) -> None:
        """Under ``_file_lock``. A full disk must not cost the attempt the other ways to hear of it."""
        with self._lock:
            notice, left = self._notice, self.seconds_left
        if notice is None or left is None or self._file is None:
            return
        known_end = math.isfinite(left)
        ends_at = datetime.fromtimestamp(self._attempt.wall() + left, UTC).isoformat() if known_end else None
        document = {
            "kind": notice.kind,
            "seconds": notice.seconds if math.isfinite(notice.seconds) else None,
            "source": notice.source,
            "ends_at": ends_at,
        }
        fresh = self._file.with_name(f".{FILE_NAME}.new")
        try:
            fresh.write_text(json.dumps(document), encoding="utf-8")
            os.replace(fresh, self._file)
        except OSError as error:
            self._attempt.logger.warning("cannot write the notice to %s: %s", self._file, error)

    def _on_loop(
        self,
        callback: OnNotice,
        context: Context,
        feed: LoopFeed,
        loop: asyncio.AbstractEventLoop,
        notice: Notice,
    ) -> None:
        def run() -> None:
            answer = self._guarded(partial(context.run, callback, notice), callback)
            if inspect.isawaitable(answer):
                # Kept, since loops keep their tasks weakly.
                task = loop.create_task(_awaited(answer), name=f"on_notice {_name(callback)}", context=context)
                self._tasks.add(task)
                task.add_done_callback(partial(self._over, callback))

        feed.put(run)

    def _on_thread(self, callback: OnNotice, context: Context, notice: Notice) -> None:
        def run() -> None:
            answer = callback(notice)
            if inspect.isawaitable(answer):
                import asyncio

                asyncio.run(_awaited(answer))

        threading.Thread(
            target=self._guarded,
            args=(partial(context.run, run), callback),
            name=f"flyteish on_notice {_name(callback)}",
            daemon=True,
        ).start()

    def _guarded(self, work: Callable[[], object], callback: OnNotice) -> object:
        try:
            return work()
        except Exception:
            self._attempt.logger.exception("on_notice callback %s failed", _name(callback))
            return None

    def _over(self, callback: OnNotice, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._attempt.logger.error("on_notice callback %s failed", _name(callback), exc_info=error)


async def _awaited(answer: Awaitable[object]) -> object:
    return await answer


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
