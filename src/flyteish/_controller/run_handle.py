"""The handle of a run: await it, block on it, look into it, abort it.

One class for programs with and without an event loop. Reads the journal for what happened; must not know how the
controller works beyond posting to it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from flyteish._async.feeds import done_on
from flyteish._authoring.tasks.calling import conclude
from flyteish._authoring.values.codec import pickling
from flyteish._authoring.values.current_blobs import at_hand
from flyteish._authoring.values.payloads import decoded, is_light
from flyteish._controller.facts import Happened, Recipient
from flyteish._controller.state_queries import ask
from flyteish._core.billing.bills import BY, Billed, CostRow, billed, rows, total, with_descendants
from flyteish._core.billing.cost_summary import CostSummary
from flyteish._core.model.events import CancelRequested
from flyteish._core.model.ids import ROOT_ACTION
from flyteish._core.model.values import Payload
from flyteish._core.wording import span
from flyteish._learning.forecasts import Comparison, Forecast, compared
from flyteish.errors import ConfigurationError, RunNotFoundError
from flyteish.interfaces import BlobStore, Outcome

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._authoring.tasks.task import Task
    from flyteish._core.model.events import Entry
    from flyteish._core.model.records import Action, RunRecord
    from flyteish._learning.recorder import Keeper
    from flyteish.interfaces import RunStore

R = TypeVar("R")
T = TypeVar("T")

LOOK_SECONDS = 0.05
"""How often a cancelled call asks whether its whole program is ending."""


class Event(NamedTuple):
    """Something that happened in a run: when (seconds since the epoch), what, to which action, in words."""

    at: float
    kind: str
    action: str
    text: str
    entry: Entry


class Inside(NamedTuple):
    """What a handle needs of its session."""

    controller: Recipient
    store: RunStore
    blobs: BlobStore
    feeds: Feeds
    on_demand_price: float | None
    keeper: Keeper
    allow_pickle: bool


class Run(Generic[R]):
    """A run that was started (or resumed). Thread-safe.

    ``await run`` gives the result or raises the run's error; ``result()`` does the same for code without a loop.
    """

    def __init__(self, name: str, task: Task[..., R], inside: Inside, *, here: bool = True) -> None:
        self.name = name
        """The run's name, which every command takes."""
        self._task = task
        self._inside = inside
        self._done = threading.Event()
        self._outcome: Outcome | None = None
        self._live: BaseException | None = None
        self._changed = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._waiters: list[Callable[[], None]] = []
        self._started_on = _Program(here)

    def __repr__(self) -> str:
        return f"<Run {self.name} of {self._task.name}: {self._outcome.phase if self._outcome else 'active'}>"

    @property
    def task_name(self) -> str:
        """The name of its root task, ``environment.function``."""
        return self._task.name

    # -- waiting -------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        loop = asyncio.get_running_loop()
        feeds = self._inside.feeds
        ended: asyncio.Future[None] = loop.create_future()
        waiter = partial(feeds.of(loop).put, _wake, ended)
        with self._lock:
            if self._outcome is None:
                self._waiters.append(waiter)
            else:
                ended.set_result(None)
        try:
            await ended
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        assert self._outcome is not None
        payload = self._outcome.result or Payload()
        light = self._outcome.phase != "succeeded" or is_light(payload.data)
        value = self._value() if light else await done_on(feeds.values, self._value, feeds)
        return self._conclude(value)

    def wait(self, timeout: float | None = None) -> Run[R]:
        """Block until the run is over, however it ends; returns the handle.

        Raises:
            TimeoutError: ``timeout`` seconds went by (default: no limit); the run goes on.
            RuntimeError: this would block the very event loop that the run needs: ``await`` the run instead.
        """
        if not self._done.is_set() and self._task.is_async and self._started_on.is_this_loop():
            raise RuntimeError(
                f"waiting for run {self.name} here would block the event loop that {self._task.name} runs on: "
                "use `await run`"
            )
        if not self._done.wait(timeout):
            raise TimeoutError(f"run {self.name} is not over after {span(timeout)}; it goes on")
        return self

    def result(self, timeout: float | None = None) -> R:
        """Block until the run is over; its result, or its error raised with the story of its attempts."""
        self.wait(timeout)
        assert self._outcome is not None
        return self._conclude(self._value())

    def outputs(self) -> tuple[Any, ...]:
        """Block until the run is over; its result in Flyte's shape: a tuple, also of one."""
        value: Any = self.result()
        return value if isinstance(value, tuple) else (value,)

    def done(self) -> bool:
        """Whether it is over."""
        return self._done.is_set()

    @property
    def phase(self) -> str:
        """``queued``, ``running``, ``succeeded``, ``failed``, ``aborted``, ``timed_out`` or ``refused``; live."""
        if self._outcome is not None:
            return self._outcome.phase
        row = self._inside.store.run(self.name)
        live = self._ask(lambda state, now: state.runs[self.name].phase if self.name in state.runs else None)
        return live or (row.phase if row is not None else "queued")

    def abort(self, reason: str = "aborted by the program") -> None:
        """Ask for the run to be ended: its attempts are stopped, what waits is dropped. Returns at once."""
        self._inside.controller.post(Happened(CancelRequested(self.name, ROOT_ACTION, reason)))

    # -- looking into it ------------------------------------------------------------------------------------------

    def journal(self, after: int = 0) -> Iterator[tuple[int, Entry]]:
        """What is on record of it so far, numbered from 1: those entries after ``after``."""
        return self._inside.store.read(self.name, after)

    def record(self) -> RunRecord:
        """Everything that is on record: the journal, replayed.

        Raises:
            RunNotFoundError: nothing is: the run was refused (the message says why), or has only just been started.
        """
        from flyteish._core.replay import record_of

        record = record_of(self.name, (entry for _, entry in self._inside.store.read(self.name)))
        outcome = self._outcome
        if record is None and outcome is not None and outcome.error is not None:
            raise RunNotFoundError(
                f"run {self.name} was refused, so nothing of it is on record: {outcome.error.message}"
            )
        if record is None:
            raise RunNotFoundError(f"run {self.name} is not in the store yet")
        return record

    def actions(self) -> list[Action]:
        """All actions so far, in the order in which they were called, each with its attempts."""
        return list(self.record().actions.values())

    def why(self, action: str | None = None) -> str:
        """What was decided about an action (default: the root), and why, in words."""
        from flyteish._core.replay import find_action
        from flyteish._core.story import why

        found = find_action(self.record(), action)
        reason = self._ask(lambda state, now: _reason(state, found, now))
        lines = list(why(found, self._inside.controller.clock.now(), reason))
        if found.parent is None and (forecast := self.forecast) is not None:
            lines.append(compared(forecast, self.comparison))
        return "\n".join(lines)

    @property
    def forecast(self) -> Forecast | None:
        """The latest forecast of its task, with the same settings, from before it was submitted; None: there is none.

        Raises:
            RunNotFoundError: the run was refused, or has only just been started.
        """
        return self._inside.keeper.forecast_of(self.record())

    @property
    def comparison(self) -> Comparison | None:
        """What became of that forecast; None while it runs, and where there is none."""
        if self._done.is_set():
            self._ask(lambda state, now: None)  # it is compared right after its outcome was delivered
        return self._inside.keeper.comparison(self.name)

    def cost(self) -> CostSummary:
        """Spot and on-demand seconds, what was lost, dollars, and what on-demand alone would have cost; so far."""
        return total(self._billed(self.record().actions.values()))

    def cost_of(self, action: str | None = None, descendants: bool = True) -> CostSummary:
        """As ``cost``, of one action and, unless ``descendants`` is False, everything called below it.

        Args:
            action: its id, the beginning of it, or its task where only one action has it. Default: the root.

        Raises:
            RunNotFoundError: none or several match.
        """
        from flyteish._core.replay import find_action

        record = self.record()
        found = find_action(record, action)
        return total(self._billed(with_descendants(record, found) if descendants else [found]))

    def costs(self, by: str = "task") -> list[CostRow]:
        """What it cost, told apart ``by`` ``"attempt"``, ``"action"``, ``"task"``, ``"queue"`` or ``"pool"``.

        Raises:
            ConfigurationError: ``by`` is none of these.
        """
        if by not in BY:
            raise ConfigurationError(f"by={by!r} in costs() is not accepted: expected {' or '.join(map(repr, BY))}")
        return rows(self._billed(self.record().actions.values()), by)

    def _billed(self, actions: Iterable[Action]) -> Iterator[Billed]:
        return billed(actions, self._inside.controller.clock.now(), self._inside.on_demand_price)

    async def events(self) -> AsyncIterator[Event]:
        """What happens in the run, from its beginning, as it is journalled; ends with the run."""
        from flyteish._core.replay import describe

        loop = asyncio.get_running_loop()
        feed = self._inside.feeds.of(loop)
        news = asyncio.Event()
        listener = self._listen(lambda: feed.put(news.set))
        seen = 0
        try:
            while True:
                over = self._done.is_set()
                news.clear()
                batch = await asyncio.to_thread(lambda: list(self._inside.store.read(self.name, seen)))  # noqa: B023
                for number, entry in batch:
                    seen = number
                    action, text = describe(entry.event)
                    yield Event(entry.at, type(entry.event).__name__, action, text, entry)
                if over:
                    return
                await news.wait()
        finally:
            self._unlisten(listener)

    # -- for the session -------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome, live: BaseException | None) -> None:
        """Called once, by the controller, with how the run ended."""
        with self._lock:
            self._outcome, self._live = outcome, live
            waiters, self._waiters = self._waiters, []
        self._done.set()
        for waiter in waiters:
            waiter()
        self.changed()

    def loop_ends(self) -> bool:
        """Whether the event loop that the run was started on is being shut down. Any thread."""
        return self._started_on.is_ending()

    def changed(self) -> None:
        """Called by the controller when the journal has more of this run."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _value(self) -> Any:
        """What it returned; None where it did not. Blocks while a large one is read."""
        assert self._outcome is not None
        if self._outcome.phase != "succeeded":
            return None
        blobs = self._inside.blobs.blocking
        with at_hand(blobs), pickling(self._inside.allow_pickle):
            return decoded(self._task.signature, self._outcome.result or Payload(), blobs)

    def _conclude(self, value: Any) -> R:
        assert self._outcome is not None
        result: R = conclude(self._task, self._outcome, self._live, value)
        return result

    def _listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._listeners.append(listener)
        return listener

    def _unlisten(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.remove(listener)

    def _ask(self, question: Callable[[Any, float], T]) -> T | None:
        """Something of the controller's state; None once it is closed."""
        return ask(self._inside.controller, question)


class _Program:
    """Who started a run: the asyncio task and its loop, where there was one."""

    __slots__ = ("_ending", "_looked_at", "_loop", "_task")

    def __init__(self, here: bool) -> None:
        self._loop = asyncio._get_running_loop() if here else None
        self._task = asyncio.current_task(self._loop) if self._loop is not None else None
        self._ending = False
        self._looked_at = -math.inf

    def is_this_loop(self) -> bool:
        return self._loop is not None and asyncio._get_running_loop() is self._loop

    def is_ending(self) -> bool:
        """``asyncio.run`` and its like cancel all that is left on a loop, and then close it."""
        if self._loop is None or self._ending or self._task is None:
            return self._ending
        if self._loop.is_closed():
            self._ending = True
        elif self.is_this_loop() and (self._task.done() or self._task.cancelling()):
            now = time.monotonic()
            if now - self._looked_at >= LOOK_SECONDS:  # looking at all tasks takes long where there are many
                self._looked_at = now
                self._ending = all(task.cancelling() or task.done() for task in asyncio.all_tasks(self._loop))
        return self._ending


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reason(state: Any, action: Action, now: float) -> Any:
    live = state.action(action.key)
    return state.admission.reason(live, now) if live is not None else None
