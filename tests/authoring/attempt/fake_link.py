"""A ``Link`` in memory: performs calls at once, holds them back, or answers as the test scripted."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from flyteish._async.bridge import Bridged
from flyteish._async.feeds import Feeds
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.values.errors import document
from flyteish._authoring.values.payloads import pack, unpack
from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.settings import Scope, Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, TaskReference
from flyteish.blobs.memory import MemoryBlobStore
from flyteish.interfaces import Call, Limits, OnJournalled, OnOutcome, Order, Outcome

RUN = "r0"


def order(
    task: str = "tests.parent",
    *,
    scope: Scope | None = None,
    traced: dict[str, Payload] | None = None,
    group: str | None = None,
) -> Order:
    return Order(
        key=AttemptKey(RUN, "a0", 1),
        task=task,
        reference=TaskReference(module="tests", name="parent"),
        is_async=False,
        inputs=Payload(b""),
        settings=Settings(),
        scope=scope or Scope(),
        pool="on-demand",
        queue="default",
        medium="on-demand",
        user_attempt=1,
        max_attempts=1,
        traced=traced or {},
        group=group,
    )


class FakeLink:
    """Performs every call at once, in the calling thread's stead, unless ``hold`` is set or it is scripted."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobStore()
        self.feeds = Feeds()
        self.limits = Limits()
        self.calls: list[Call] = []
        self.cancelled: list[tuple[int, str]] = []
        self.remembered: dict[str, Payload] = {}
        self.unconfirmed: list[tuple[str, Payload, OnJournalled]] = []
        """Traced values that are not on record yet; they stay here while ``hold_traced`` is set."""
        self.hold_traced = False
        self.told = threading.Event()  # of a traced value
        self.refuse_traced: str | None = None
        self.script: dict[str, tuple[Outcome, BaseException | None]] = {}
        self.hold = False
        self.end_cancelled = True
        """Whether a held call that is cancelled ends as aborted, as it does in life."""
        self.held: dict[int, tuple[Call, OnOutcome, Any]] = {}
        self.in_flight = 0
        self.most_in_flight = 0
        self._numbers = itertools.count(1)

    def attempt(
        self,
        *,
        scope: Scope | None = None,
        traced: dict[str, Payload] | None = None,
    ) -> AttemptContext:
        return AttemptContext(order(scope=scope, traced=traced), self, self.blobs, self.feeds, self.limits)

    @contextmanager
    def running(self, **kwargs: Any) -> Iterator[AttemptContext]:
        """Code in the block is the code of a running attempt."""
        context = self.attempt(**kwargs)
        token = CURRENT.set(context)
        try:
            yield context
        finally:
            CURRENT.reset(token)
            context.close()

    # -- Link ----------------------------------------------------------------------------------------------------

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        number = next(self._numbers)
        self.calls.append(call)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.held[number] = (call, done, task)
        if not self.hold:
            self.release(number)
        return number

    def cancel(self, number: int, reason: str) -> None:
        self.cancelled.append((number, reason))
        if self.end_cancelled and number in self.held:
            self.end(number, Outcome(RUN, f"a{number}", "aborted"))

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        done(None)

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        raise AssertionError(f"nothing here has checkpoints: {event}")

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        if self.refuse_traced is not None:
            done(self.refuse_traced)
            return
        self.unconfirmed.append((key, result, done))
        self.told.set()
        if not self.hold_traced:
            self.confirm_traced()

    # -- what tests do with it -------------------------------------------------------------------------------------

    def confirm_traced(self) -> None:
        """The values that were told so far are on record now."""
        told, self.unconfirmed = self.unconfirmed, []
        for key, result, done in told:
            self.remembered[key] = result
            done(None)

    def release(self, number: int) -> None:
        """Perform a held call and answer it."""
        call, _, task = self.held[number]
        scripted = self.script.get(call.profile.task)
        self.end(number, *(scripted or self._perform(number, call, task)))

    async def calls_made(self, number: int) -> None:
        """Give the loop its turns until so many calls have arrived; the awaiting code runs on this loop too."""
        await self._turns(lambda: len(self.calls) >= number)

    async def value_told(self) -> None:
        """Give the loop its turns until a traced value has arrived."""
        await self._turns(self.told.is_set)

    async def _turns(self, arrived: Callable[[], bool]) -> None:
        for _ in range(1000):
            if arrived():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"what was expected did not come: {self!r}")

    def end(self, number: int, outcome: Outcome, live: BaseException | None = None) -> None:
        """Answer a held call."""
        _, done, _ = self.held.pop(number)
        self.in_flight -= 1
        done(outcome, live)

    def _perform(self, number: int, call: Call, task: Any) -> tuple[Outcome, BaseException | None]:
        answers: list[tuple[Outcome, BaseException | None]] = []

        def perform() -> None:
            CURRENT.set(AttemptContext(order(call.profile.task), self, self.blobs, self.feeds, self.limits))
            args, kwargs = task.signature.decode_inputs(unpack(call.inputs, self.blobs.blocking))
            try:
                value = task.function(*args, **kwargs)
                if asyncio.iscoroutine(value):
                    value = asyncio.run(bridged(value))
            except BaseException as error:
                answers.append((failed(number, document(error)), error))
            else:
                result = pack(task.signature.encode_result(value), self.limits.inline, self.blobs.blocking)
                answers.append((Outcome(RUN, f"a{number}", "succeeded", result=result), None))

        # On a thread of its own, since the calling one may have a running loop.
        thread = threading.Thread(target=copy_context().run, args=(perform,), name="fake attempt")
        thread.start()
        thread.join()
        return answers[0]

    def __repr__(self) -> str:
        return f"FakeLink({len(self.calls)} calls, {len(self.held)} held, {len(self.unconfirmed)} values unconfirmed)"


def failed(number: int, error: ErrorDocument, *story: str) -> Outcome:
    return Outcome(RUN, f"a{number}", "failed", error=error, story=story)


async def bridged(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await it as an attempt does: plain calls of tasks in it wait without blocking the loop."""
    return await Bridged(coroutine, [])


def as_task(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A test whose body runs as an ``async def`` task's does."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        await bridged(test(*args, **kwargs))

    return run
