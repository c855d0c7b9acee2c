"""What running attempts ask through their workers: child calls, checkpoints, traced values.

Passes each request on to the attempt's link and its answer back to the worker; refuses what comes from an
attempt that was given up. Must not know how workers are chosen or ended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flyteish._async.feeds import LoopFeed
from flyteish._core.model.ids import AttemptKey
from flyteish._worker import messages as m
from flyteish.engines.processes.worker_pool import Attempt, Member
from flyteish.interfaces import Outcome

_GIVEN_UP = "attempt {} was given up: it may not call tasks or commit checkpoints any more"


class Requests:
    """The desk for requests, on the engine's loop.

    Args:
        feed: the way from the link's threads to the loop.
        waits: called when a worker's attempt begins to wait for calls, and when it no longer does.
    """

    def __init__(self, feed: LoopFeed, waits: Callable[[Member], None]) -> None:
        self._feed = feed
        self._waits = waits

    def take(self, member: Member, message: m.FromWorker) -> None:
        """Serve one request; anything else is ignored."""
        match message:
            case m.Called(key, token, number, call):
                attempt = self.entitled(member, key, token)
                if attempt is None:
                    member.process.send(m.Answer(number, m.refusal(key.run, key.action, _GIVEN_UP.format(key))))
                    return
                attempt.calls[number] = -1
                done = partial(self._feed.put, self._answered, member, attempt, number)
                attempt.calls[number] = attempt.link.call(call, done)
                if len(attempt.calls) == 1:
                    self._waits(member)
            case m.Checkpointed(key, token, number, record):
                attempt = self.entitled(member, key, token)
                if attempt is None:
                    member.process.send(m.CheckpointAck(number, _GIVEN_UP.format(key)))
                    return
                committed = partial(self._feed.put, self._committed, member, number)
                attempt.link.commit_checkpoint(record, committed)
            case m.CallCancelled(key, token, number, reason):
                attempt = self.entitled(member, key, token)
                if attempt is not None and number in attempt.calls:
                    attempt.link.cancel(attempt.calls[number], reason)
            case m.Skipped(key, token, event):
                attempt = self.entitled(member, key, token)
                if attempt is not None:
                    attempt.link.checkpoint_skipped(event)
            case m.Traced(key, token, name, result):
                attempt = self.entitled(member, key, token)
                if attempt is not None:
                    attempt.link.traced(name, result)

    @staticmethod
    def entitled(member: Member, key: AttemptKey, token: str) -> Attempt | None:
        """The attempt that may speak through this worker now; None for one that was given up."""
        current = member.current
        if current is None or current.key != key or current.order.token != token:
            return None
        return current

    def _answered(
        self,
        member: Member,
        attempt: Attempt,
        number: int,
        outcome: Outcome,
    ) -> None:
        attempt.calls.pop(number, None)
        if member.current is attempt:
            member.process.send(m.Answer(number, outcome))
            if not attempt.calls:
                self._waits(member)

    def _committed(self, member: Member, number: int, why: str | None) -> None:
        # Also to an attempt that has ended meanwhile: a thread of it may still wait for the answer.
        member.process.send(m.CheckpointAck(number, why))
