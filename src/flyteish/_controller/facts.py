"""What is posted to the controller, from any thread: calls, reports, orders of operators, questions.

One type for each, so that nobody who posts needs to know what the controller does with it. A fact that comes after
the controller's end is rejected, which each of them can do by itself: who waits for an answer gets one. Must not know
what follows from a fact.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import msgspec

from flyteish._controller.burst import Burst
from flyteish._controller.callers import Caller, Waiting
from flyteish._controller.outcomes import type_name
from flyteish._core.model.events import Event, RunSubmitted
from flyteish._core.model.records import RunRecord
from flyteish._core.state import State
from flyteish.interfaces import Call, Clock, OnJournalled, Order, Outcome, Report


class Fact(msgspec.Struct, gc=False):
    """Something that the controller is to take in, in the order in which it was posted."""

    def reject(self, why: BaseException) -> None:
        """It came too late. Any thread."""

    @property
    def run(self) -> str:
        """The run that must be known before this can be taken in; empty: it is about no run, or brings its own."""
        return ""


class RunStarted(Fact, gc=False):
    """A program starts a run."""

    event: RunSubmitted
    call: Call
    waiting: Waiting

    def reject(self, why: BaseException) -> None:
        _turn_away(self.waiting, "", why)


class RunTakenUp(Fact, gc=False):
    """A run whose controller died is to go on here; the record is what its journal says."""

    record: RunRecord
    last_at: float
    """The last moment on record of it."""
    waiting: Waiting | None = None

    @property
    def run(self) -> str:
        return self.record.id

    def reject(self, why: BaseException) -> None:
        if self.waiting is not None:
            _turn_away(self.waiting, self.record.id, why)


class RunAdopted(Fact, gc=False):
    """The engines have said which attempts of a run that is taken up still live."""

    record: RunRecord
    living: tuple[tuple[str, int], ...]
    """Action and generation."""
    last_at: float


class RunFoundEnded(Fact, gc=False):
    """A run of another controller is over, by its journal; the list of runs may not know yet."""

    record: RunRecord


class CallMade(Fact, gc=False):
    """A running attempt calls a task."""

    caller: Caller
    waiting: Waiting
    call: Call

    @property
    def run(self) -> str:
        return self.caller.key.run

    def reject(self, why: BaseException) -> None:
        _turn_away(self.waiting, self.caller.key.run, why)


class CallCancelled(Fact, gc=False):
    """A caller no longer waits: what it called is to be cancelled."""

    caller: Caller
    number: int
    reason: str

    @property
    def run(self) -> str:
        return self.caller.key.run


class CallLeft(Fact, gc=False):
    """A caller no longer waits, for its program is ending: what it called is left for whoever resumes the run."""

    caller: Caller
    number: int
    reason: str

    @property
    def run(self) -> str:
        return self.caller.key.run


class Reported(Fact, gc=False):
    """An engine tells how an attempt, or a pool, goes."""

    event: Report
    done: OnJournalled | None

    @property
    def run(self) -> str:
        return getattr(self.event, "run", "")

    def reject(self, why: BaseException) -> None:
        if self.done is not None:
            self.done(str(why))


class OrderMade(Fact, gc=False):
    """The order for an attempt that may outlive its controller: given out once its token's digest is on record."""

    order: Order

    @property
    def run(self) -> str:
        return self.order.key.run


class Happened(Fact, gc=False):
    """Any other event for the core, as it is: an order to cancel, a queue's state, a checkpoint.

    ``done`` is called once it is journalled, or with why it was refused.
    """

    event: Event
    done: OnJournalled | None = None

    @property
    def run(self) -> str:
        return getattr(self.event, "run", "")

    def reject(self, why: BaseException) -> None:
        if self.done is not None:
            self.done(str(why))


class Asked(Fact, gc=False):
    """Somebody wants to know something of the state; gets the answer, or the error that it was."""

    question: Callable[[State, float], Any]
    answer: Callable[[Any, BaseException | None], None]

    def reject(self, why: BaseException) -> None:
        self.answer(None, why)


class Written(Fact, gc=False):
    """The store has committed a burst, or could not."""

    burst: Burst
    error: BaseException | None


class LookedUp(Fact, gc=False):
    """The cache was asked for what this caller called; see ``look_ups``."""

    who: Hashable


class Recipient(Protocol):
    """The controller, for whoever posts facts to it."""

    @property
    def clock(self) -> Clock:
        """Its time."""

    @property
    def over(self) -> BaseException | None:
        """Why it no longer works; None while it does."""

    def post(self, fact: Fact) -> None:
        """Have it taken in soon. Any thread; never blocks, never raises."""


def _turn_away(waiting: Waiting, run: str, why: BaseException) -> None:
    waiting.tell(Outcome.refused(run, waiting.action, type_name(why), str(why)))
