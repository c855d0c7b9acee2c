"""What running attempts ask of the controller, turned into facts and posted to it.

Each request carries the attempt's key, by whose generation it is fenced. Must not know what the controller does with a
fact: it is given a way to post, nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextvars import copy_context

from flyteish._controller.callers import Caller, Waiting
from flyteish._controller.facts import CallCancelled, CallLeft, CallMade, Fact, Happened
from flyteish._core.model.events import CheckpointCommitted, CheckpointSkipped, ValueTraced
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Call, OnJournalled, OnOutcome, Outcome


class Links:
    """Makes the links of one controller's attempts, and has what they share.

    Args:
        post: the way to the controller.
        loop_ends: whether the event loop that a run was started on is being shut down; any thread.
    """

    __slots__ = ("_own", "loop_ends", "numbers", "post")

    def __init__(self, post: Callable[[Fact], None], loop_ends: Callable[[str], bool]) -> None:
        self.post = post
        self.loop_ends = loop_ends
        self.numbers = itertools.count(1)  # of calls; taken by any thread
        self._own: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """The controller's own loop, which calls nothing itself."""
        self._own = loop

    def inline(self, key: AttemptKey) -> AttemptLink:
        """For an attempt in this process."""
        return AttemptLink(self, key)

    def remote(self, key: AttemptKey) -> RemoteLink:
        """For the engine of an attempt elsewhere."""
        return RemoteLink(self, key)

    def waiting(self, done: OnOutcome, task: object | None) -> Waiting:
        """Somebody who calls here and now, on this thread."""
        loop = asyncio._get_running_loop()
        return Waiting(done, None if loop is self._own else loop, copy_context(), task)

    def __repr__(self) -> str:
        return f"<Links {'open' if self._own is not None else 'not open'}>"


class _AnyLink(Caller):
    """What both kinds share. One is made for every attempt, so it is small; the controller learns of it with its first
    request.
    """

    __slots__ = ("_links",)

    def __init__(self, links: Links, key: AttemptKey) -> None:
        self._links = links
        self.key = key
        self.calls = None

    def _call(self, call: Call, done: OnOutcome, task: object | None = None) -> int:
        links = self._links
        waiting = links.waiting(done, task)
        waiting.caller = self
        waiting.number = number = next(links.numbers)
        links.post(CallMade(self, waiting, call))
        return number

    def cancel(self, number: int, reason: str) -> None:
        links = self._links
        # An ending program cancels every task on its loop. That is no decision about what they wait for: the run can
        # be resumed, and an action that was cancelled would have lost its checkpoints.
        ends = links.loop_ends(self.key.run)
        links.post(CallLeft(self, number, reason) if ends else CallCancelled(self, number, reason))

    def commit_checkpoint(self, record: CheckpointRecord, done: OnJournalled) -> None:
        self._links.post(Happened(CheckpointCommitted(*self.key, record), done))

    def checkpoint_skipped(self, event: CheckpointSkipped) -> None:
        self._links.post(Happened(event))

    def traced(self, key: str, result: Payload, done: OnJournalled) -> None:
        self._links.post(Happened(ValueTraced(*self.key, key, result), done))


class AttemptLink(_AnyLink):
    """``interfaces.InlineLink``, for one attempt in this process."""

    __slots__ = ()

    call = _AnyLink._call


class RemoteLink(_AnyLink):
    """``interfaces.Link``, for one attempt elsewhere, through its engine."""

    __slots__ = ()

    def call(self, call: Call, done: Callable[[Outcome], None]) -> int:
        return self._call(call, lambda outcome, _: done(outcome))
