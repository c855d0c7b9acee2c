"""Keeps what a session learns for the sessions to come, and compares runs that are over with their forecasts.

Writes to the store's notes when the session closes and now and then, so that ``kill -9`` costs minutes at most. Must
not know how forecasts are made, nor decide anything about runs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from flyteish._core.billing.bills import lines_of
from flyteish._core.model.records import Phase, RunRecord
from flyteish._core.rules.experience import TaskSeen
from flyteish._core.state import State
from flyteish._learning import run_shapes
from flyteish._learning.documents import (
    COMPARISONS,
    COMPARISONS_KEPT,
    LEARNED,
    TASKS_KEPT,
    Learned,
    add_forecast,
    keep,
    merged,
    read,
    read_comparisons,
    read_forecasts,
)
from flyteish._learning.forecasts import Comparison, Forecast, settings_digest
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish.errors import StoreError
from flyteish.interfaces import Clock, Mailbox

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""How often comparisons are written, and the forecasts of other processes are looked for."""
KEEP_SECONDS: Final = 60.0
"""How often what was learned is written."""
SHAPE_SECONDS: Final = 10.0
"""The shape of a task's runs is not learned again sooner ..."""
SHAPES_AT_ONCE: Final = 5
"""... once it was learned so often."""


class HasState(Protocol):
    """The controller, as far as it matters here."""

    @property
    def state(self) -> State:
        """Everything that its core knows."""


class Picture(NamedTuple):
    """What forecasts go by: what was learned, and how many actions are in each queue now."""

    learned: Learned
    ahead: dict[str, int]


class Keeper:
    """One for each session; lives on the controller's loop, but for ``remember`` and what reads."""

    def __init__(self, mailbox: Mailbox, lifetimes: Lifetimes, clock: Clock) -> None:
        self._mailbox = mailbox
        self._lifetimes = lifetimes
        self._clock = clock
        self._controller: HasState | None = None
        self._learned = Learned()
        self._counts: dict[str, tuple[int, int]] = {}
        """Of each task when it was last kept: whatever has other counts now was used since."""
        self._kept = b""
        self._kept_at = 0.0
        self._shaped: dict[str, float] = {}
        self._lock = threading.Lock()  # guards the next one
        self._forecasts: list[Forecast] = []
        self._comparisons: list[Comparison] = []
        self._news = False
        self._timer: asyncio.TimerHandle | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def open(self, controller: HasState) -> None:
        """Recall what earlier sessions learned. Before the controller takes its first fact."""
        self._controller = controller
        self._learned = read(self._mailbox, LEARNED, Learned) or Learned()
        controller.state.experience.recall(self._learned.tasks)
        self._counts = {name: _counts(seen) for name, seen in self._learned.tasks.items()}
        self._lifetimes.recall(self._learned.pools)
        self._forecasts = read_forecasts(self._mailbox)
        self._comparisons = read_comparisons(self._mailbox)
        self._kept_at = self._clock.now()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def close(self) -> None:
        """Keep everything; the store is still open."""
        if self._timer is not None:
            self._timer.cancel()
        if self._controller is not None:
            self._keep(everything=True)

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        others = read_forecasts(self._mailbox)
        with self._lock:
            self._forecasts = merged(self._forecasts, others)
        now = self._clock.now()
        everything = now - self._kept_at >= KEEP_SECONDS
        if everything:
            self._kept_at = now
        self._keep(everything)

    def _keep(self, everything: bool) -> None:
        try:
            if self._news:
                self._news = False
                keep(self._mailbox, COMPARISONS, self._comparisons)
            if everything:
                learned = self.learned()
                data = msgspec.msgpack.encode(learned)
                if data != self._kept:
                    self._kept = data
                    keep(self._mailbox, LEARNED, learned)
        except StoreError as error:  # what must not be lost is in the journals
            _log.warning("what was learned could not be kept: %s", error)

    # -- what was learned -----------------------------------------------------------------------------------------

    def learned(self) -> Learned:
        """All of it, the tasks that were used last at the end."""
        assert self._controller is not None
        experience = self._controller.state.experience
        used = {name: seen for name, seen in experience.tasks.items() if self._counts.get(name) != _counts(seen)}
        for name, seen in used.items():
            self._counts[name] = _counts(seen)
        # The next time, those used before this one are older than those used after it.
        experience.put_last(used)
        kept = dict(list(experience.tasks.items())[-TASKS_KEPT:])
        found = dict(list(self._learned.shapes.items())[-TASKS_KEPT:])
        pools = {**self._learned.pools, **self._lifetimes.seen()}
        self._learned = Learned(kept, dict(list(pools.items())[-TASKS_KEPT:]), found)
        return self._learned

    def picture(self, state: State, now: float) -> Picture:
        """For forecasts: a copy, so that another thread may read it. On the controller's thread."""
        learned = msgspec.msgpack.decode(msgspec.msgpack.encode(self.learned()), type=Learned)
        queues = state.capacity.queues.items()
        return Picture(learned, {name: queue.running + queue.waiting + queue.held for name, queue in queues})

    # -- forecasts ------------------------------------------------------------------------------------------------

    def remember(self, forecast: Forecast) -> None:
        """A forecast was made. Any thread."""
        with self._lock:
            self._forecasts = merged(self._forecasts, [forecast])
            try:
                add_forecast(self._mailbox, forecast)
            except StoreError as error:
                _log.warning("the forecast of %s could not be kept: %s", forecast.task, error)

    def comparisons(self) -> Sequence[Comparison]:
        """Oldest first. Any thread."""
        return tuple(self._comparisons)

    def comparison(self, run: str) -> Comparison | None:
        """That of a run. Any thread."""
        return next((each for each in reversed(self._comparisons) if each.run == run), None)

    def forecast_of(self, record: RunRecord) -> Forecast | None:
        """The latest forecast of its task with the same settings before it was submitted. Any thread."""
        return forecast_of(record, self._forecasts)

    def run_over(self, record: RunRecord) -> None:
        """A run is over: learn from it, and compare it."""
        if len(record.actions) > 1 and self._is_news(record.task):
            run_shapes.learn(record, self._learned.shapes)
        if self._forecasts:
            forecast = forecast_of(record, self._forecasts)
            if forecast is not None:
                found = compare(record, forecast)
                self._comparisons = [*self._comparisons[1 - COMPARISONS_KEPT :], found]
                self._news = True

    def _is_news(self, task: str) -> bool:
        """Whether to look at another run of it: at a run of many actions that takes its time."""
        now = self._clock.now()
        known = self._learned.shapes.get(task)
        if known is not None and len(known.own) >= SHAPES_AT_ONCE and now - self._shaped.get(task, 0.0) < SHAPE_SECONDS:
            return False
        self._shaped.pop(task, None)
        self._shaped[task] = now
        if len(self._shaped) > TASKS_KEPT:
            del self._shaped[next(iter(self._shaped))]
        return True

    def __repr__(self) -> str:
        return f"<Keeper of {len(self._forecasts)} forecasts, {len(self._comparisons)} comparisons>"


def forecast_of(record: RunRecord, forecasts: Sequence[Forecast]) -> Forecast | None:
    """The latest of one run of the task, with the same settings, that was made before the run was submitted."""
    task, root = record.task, record.actions.get(record.root)
    candidates = [each for each in forecasts if each.task == task and each.count == 1]
    if not candidates or root is None or root.cached or not root.attempts:
        return None
    digest = settings_digest(root.profile.settings)
    return next(
        (each for each in reversed(candidates) if each.digest == digest and each.made_at <= record.submitted_at), None
    )


def compare(record: RunRecord, forecast: Forecast) -> Comparison:
    """A run that is over, beside its forecast."""
    root = record.root_action
    seconds = root.ended_at - root.submitted_at
    dollars = sum(line.dollars for line in lines_of(record, root.ended_at))
    succeeded = root.phase is Phase.SUCCEEDED
    return Comparison(
        run=record.id,
        task=record.task,
        digest=forecast.digest,
        made_at=forecast.made_at,
        submitted_at=record.submitted_at,
        phase=root.phase.value,
        missed=root.phase is Phase.TIMED_OUT,
        interrupted=any(action.abandoned for action in record.actions.values()),
        seconds=seconds,
        finish=forecast.finish,
        rank=forecast.finish.rank(seconds) if forecast.finish is not None and succeeded else None,
        cost=dollars,
        dollars=forecast.dollars,
        cost_rank=forecast.dollars.rank(dollars) if forecast.dollars is not None and succeeded else None,
        preemptions=sum(action.preemptions for action in record.actions.values()),
        preemptions_expected=forecast.preemptions,
        misses=forecast.misses,
    )


def _counts(seen: TaskSeen) -> tuple[int, int]:
    return seen.successes, seen.failures
