"""What a running attempt asks of the controller, sent over the worker's connection.

Each request carries the attempt's key, so that the engine can refuse one of an attempt that was given up. Must not
know what an answer means: it hands it to whoever asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from flyteish._core.model.events import CheckpointSkipped
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish._worker.messages import (
    Answer,
    Called,
    CallWithdrawn,
    Checkpointed,
    FromWorker,
    Recorded,
    SecretValues,
    Skipped,
    Traced,
)
from flyteish.interfaces import Call, OnJournalled, OnOutcome, Order


class Callbacks:
    """Who waits for which answer. Numbers are never used twice in a process. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[..., Any]] = {}

    def __repr__(self) -> str:
        return f"Callbacks({len(self._waiting)} waiting)"

    def add(self, done: Callable[..., Any]) -> int:
        """Keep a callback; returns its number."""
        number = next(self._numbers)
        self._waiting[number] = done
        return number

    def answer(self, message: Answer | Recorded | SecretValues) -> None:
        """Hand an answer to whoever waits for it; one that nobody waits for is dropped."""
        done = self._waiting.pop(message.number, None)
        if done is None:
            return
        if isinstance(message, Answer):
            done(message.outcome, None)
        elif isinstance(message, Recorded):
            done(message.why)
        else:
            done(message)


class WorkerLink:
    """``interfaces.InlineLink`` for one attempt in a worker process.

    Args:
        order: the attempt's.
        send: puts a message on the connection; callable from any thread.
        callbacks: the process's.
    """

    __slots__ = ("_callbacks", "_key", "_send")

    def __init__(self, order: Order, send: Callable[[FromWorker], None], callbacks: Callbacks) -> None:
        self._key: AttemptKey = order.key
        self._send = send
        self._callbacks = callbacks

    def __repr__(self) -> str:
        return f"WorkerLink({self._key})"

    def call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        number = self._callbacks.add(done)
        self._send(Called(self._key, number, call))
        return number

    def cancel(self, number: int, reason: str) -> None:
        self._send(CallWithdrawn(self._key, number, reason))

    def commit_checkpoint(self, record: CheckpointRecord, done: Callable[[str | None], None]) -> None:
        number = self._callbacks.add(done)
        self._send(Checkpointed(self._key, number, record))

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._send(Skipped(self._key, event))

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        number = self._callbacks.add(done)
        self._send(Traced(self._key, number, key, result))
