"""A controller that only writes down: what tests of engines use in its place.

``Recorder`` is ``interfaces.Reports``; ``RecordingLink`` is ``interfaces.Link`` and answers child calls as
the test says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptPlaced,
    AttemptRunning,
    CheckpointSkipped,
    Evidence,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Secret
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish._worker.loader import Loadable
from flyteish.interfaces import Call, Link, OnJournalled, Order, Outcome, Report

Event = AttemptPlaced | AttemptRunning | AttemptNoticed | AttemptEnded


class RecordingLink:
    """Keeps what an attempt asked for. ``answer`` decides calls; None leaves them open, for ``finish``."""

    def __init__(self, recorder: Recorder, key: AttemptKey) -> None:
        self.key = key
        self.calls: list[Call] = []
        self.cancelled: list[tuple[int, str]] = []
        self.checkpoints: list[CheckpointRecord] = []
        self.skipped: list[CheckpointSkipped] = []
        self.values: dict[str, Payload] = {}
        self._waiting: list[Callable[[Outcome], None] | None] = []
        self._recorder = recorder

    def call(self, call: Call, done: Callable[[Outcome], None]) -> int:
        self.calls.append(call)
        self._waiting.append(done)
        number = len(self.calls) - 1
        if self._recorder.answer is not None:
            self._recorder.answer(self, number, call)
        self._recorder.changed()
        return number

    def finish(self, number: int, outcome: Outcome) -> None:
        done, self._waiting[number] = self._waiting[number], None
        if done is not None:
            done(outcome)

    def cancel(self, number: int, reason: str) -> None:
        self.cancelled.append((number, reason))
        self.finish(number, Outcome(self.key.run, "child", "aborted"))
        self._recorder.changed()

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        self.checkpoints.append(record)
        done(None)
        self._recorder.changed()

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self.skipped.append(event)

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        self.values[key] = result
        self._recorder.confirm(done)


class Recorder:
    """Writes down every report; ``until`` awaits one.

    ``answer`` is called for each child call.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.links: dict[AttemptKey, RecordingLink] = {}
        self.confirm: Callable[[OnJournalled], object] = lambda done: done(None)
        """Answers for traced values."""
        self.answer: Callable[[RecordingLink, int, Call], None] | None = None
        self._lock = threading.Lock()
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    # -- interfaces.Reports

    def report(self, event: Report, done: OnJournalled | None = None) -> None:
        assert isinstance(event, AttemptPlaced | AttemptRunning | AttemptNoticed | AttemptEnded)
        with self._lock:
            self.events.append(event)
        if done is not None:
            done(None)
        self.changed()

    def secrets(self, wanted: Sequence[Secret]) -> dict[str, str]:
        return {each.env_name: f"value of {each.key}" for each in wanted}

    def link(self, key: AttemptKey) -> Link:
        return self.links.setdefault(key, RecordingLink(self, key))

    # -- for tests

    def changed(self) -> None:
        for loop, event in list(self._watchers):
            loop.call_soon_threadsafe(event.set)

    async def until(self, reached: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait until ``reached()`` is true, looking again after each report; fails after ``seconds``."""
        event = asyncio.Event()
        watcher = (asyncio.get_running_loop(), event)
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(seconds):
                while not (found := reached()):
                    await event.wait()
                    event.clear()
                return found
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; so far: {self.events}") from None
        finally:
            self._watchers.remove(watcher)

    def ended(self) -> list[AttemptEnded]:
        with self._lock:
            return [e for e in self.events if isinstance(e, AttemptEnded)]

    def ends(self, key: AttemptKey) -> list[AttemptEnded]:
        with self._lock:
            return [e for e in self.events if isinstance(e, AttemptEnded) and _key(e) == key]

    async def end(self, order: Order) -> Evidence:
        """The evidence of this order's end."""
        await self.until(lambda: self.ends(order.key))
        (ended,) = self.ends(order.key)
        return ended.evidence

    async def running(self, order: Order) -> None:
        await self.until(lambda: any(isinstance(e, AttemptRunning) and _key(e) == order.key for e in self.events))

    def notices(self, order: Order) -> list[AttemptNoticed]:
        return [e for e in self.events if isinstance(e, AttemptNoticed) and _key(e) == order.key]


class Orders:
    """Makes orders for tasks, each with an action of its own and its own token."""

    def __init__(self, run: str = "r1") -> None:
        self._run = run
        self._made = 0

    def __call__(self, task: Any, *args: Any, order: dict[str, Any] | None = None, **kwargs: Any) -> Order:
        self._made += 1
        data = task.signature.encode_inputs(args, kwargs)
        made = Order(
            key=AttemptKey(self._run, f"a{self._made}", 1),
            task=task.name,
            reference=_reference(task),
            is_async=task.is_async,
            inputs=Payload(data, None, len(data)),
            settings=task.settings(),
            pool="local",
            queue="default",
            medium="on-demand",
            user_attempt=1,
            max_attempts=1,
            token=f"token-{self._made}",
        )
        return msgspec.structs.replace(made, **(order or {}))


def value(task: Loadable, evidence: Evidence) -> Any:
    """The result that the evidence carries."""
    assert evidence.result is not None, evidence
    assert evidence.result.data is not None, evidence
    return task.signature.decode_result(evidence.result.data)


def success(task: Loadable, result: object, run: str = "r1") -> Outcome:
    """A child's outcome."""
    data = task.signature.encode_result(result)
    return Outcome(run, "child", "succeeded", result=Payload(data, None, len(data)))


def _key(event: Event) -> AttemptKey:
    return AttemptKey(event.run, event.action, event.generation)


def _reference(task: Any) -> Any:
    from flyteish._authoring.values.task_reference import reference_for

    return reference_for(task)
