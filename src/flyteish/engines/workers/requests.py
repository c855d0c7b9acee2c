"""What running attempts ask through their workers: child calls, checkpoints, traced values.

Passes each request on to the attempt's link and its answer back to the worker; refuses what comes from an
attempt that was given up. Must not know how workers are chosen or ended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish.interfaces import Link, Order, Outcome

_GIVEN_UP = "attempt {} was given up: it may not call tasks or commit checkpoints any more"


class AskingAttempt(Protocol):
    """An attempt, as far as its requests go."""

    key: AttemptKey
    order: Order
    link: Link
    calls: dict[int, int]
    """Child calls without an answer: the worker's number -> the link's."""


class AskingWorker(Protocol):
    """A worker, as far as its attempt's requests go."""

    @property
    def current(self) -> AskingAttempt | None:
        """The attempt that it is at."""

    def send(self, message: m.ToWorker) -> None:
        """Tell it."""


class Requests:
    """The desk for requests, on the engine's loop.

    Args:
        feed: the way from the link's threads to the loop.
        waits: called when a worker's attempt begins to wait for calls, and when it no longer does.
    """

    def __init__(self, feed: LoopFeed, waits: Callable[[Any], None]) -> None:
        self._feed = feed
        self._waits = waits

    def take(self, worker: AskingWorker, message: m.FromWorker) -> None:
        """Serve one request; anything else is ignored."""
        match message:
            case m.Called(key, token, number, call):
                attempt = self.entitled(worker, key, token)
                if attempt is None:
                    why = _GIVEN_UP.format(key)
                    refused = Outcome.refused(key.run, key.action, "flyteish.errors.StaleAttemptError", why)
                    worker.send(m.Answer(number, refused))
                    return
                attempt.calls[number] = -1
                done = partial(self._feed.put, self._answered, worker, attempt, number)
                attempt.calls[number] = attempt.link.call(call, done)
                if len(attempt.calls) == 1:
                    self._waits(worker)
            case m.Checkpointed(key, token, number, record):
                attempt = self.entitled(worker, key, token)
                if attempt is None:
                    worker.send(m.CheckpointAck(number, _GIVEN_UP.format(key)))
                    return
                committed = partial(self._feed.put, self._committed, worker, number)
                attempt.link.commit_checkpoint(record, committed)
            case m.CallCancelled(key, token, number, reason):
                attempt = self.entitled(worker, key, token)
                if attempt is not None and number in attempt.calls:
                    attempt.link.cancel(attempt.calls[number], reason)
            case m.Skipped(key, token, event):
                attempt = self.entitled(worker, key, token)
                if attempt is not None:
                    attempt.link.checkpoint_skipped(event)
            case m.Traced(key, token, name, result):
                attempt = self.entitled(worker, key, token)
                if attempt is not None:
                    attempt.link.traced(name, result)

    @staticmethod
    def entitled(worker: AskingWorker, key: AttemptKey, token: str) -> AskingAttempt | None:
        """The attempt that may speak through this worker now; None for one that was given up."""
        current = worker.current
        if current is None or current.key != key or current.order.token != token:
            return None
        return current

    def _answered(
        self,
        worker: AskingWorker,
        attempt: AskingAttempt,
        number: int,
        outcome: Outcome,
    ) -> None:
        attempt.calls.pop(number, None)
        if worker.current is attempt:
            worker.send(m.Answer(number, outcome))
            if not attempt.calls:
                self._waits(worker)

    def _committed(self, worker: AskingWorker, number: int, why: str | None) -> None:
        # Also to an attempt that has ended meanwhile: a thread of it may still wait for the answer.
        worker.send(m.CheckpointAck(number, why))
