"""What is posted to a controller that is no more: whoever waits for an answer gets one, and only one."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import pytest

from flyteish._controller.attempt_link import Links
from flyteish._controller.callers import Caller, Waiting
from flyteish._controller.fact_inbox import FactInbox
from flyteish._controller.facts import (
    Asked,
    CallCancelled,
    CallLeft,
    CallMade,
    Fact,
    Happened,
    OrderMade,
    Reported,
    RunAdopted,
    RunFoundEnded,
    RunStarted,
    RunTakenUp,
    Written,
)
from flyteish._core.model.events import (
    AttemptEnded,
    CancelRequested,
    CheckpointSkipped,
    Evidence,
    PoolCapacityChanged,
    RunSubmitted,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import RunRecord
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.errors import SessionClosedError
from flyteish.interfaces import Outcome

KEY = AttemptKey("r1", "a0", 1)
WHY = SessionClosedError("the session was closed")
ANY: Any = None


class Answers:
    """What those who wait were told."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def outcome(self, outcome: Outcome, live: BaseException | None) -> None:
        self.given.append((outcome.run, outcome.phase, outcome.error.message if outcome.error is not None else ""))

    def waiting(self) -> Waiting:
        return Waiting(self.outcome, None, copy_context(), None)


REFUSED = ("r1", "refused", "the session was closed")


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda a: RunStarted(RunSubmitted("r1", "t", "q"), ANY, a.waiting()), [("", *REFUSED[1:])]),
        (lambda a: RunTakenUp(RunRecord("r1", "t", "q", 0.0), 0.0, a.waiting()), [REFUSED]),
        (lambda a: RunTakenUp(RunRecord("r1", "t", "q", 0.0), 0.0), []),
        (lambda a: CallMade(Caller(KEY), a.waiting(), ANY), [REFUSED]),
        (lambda a: Happened(CancelRequested("r1", "a0", "why"), a.given.append), [str(WHY)]),
        (lambda a: Happened(CancelRequested("r1", "a0", "why")), []),
        (lambda a: Reported(AttemptEnded(*KEY, Evidence()), a.given.append), [str(WHY)]),
        (lambda a: Reported(AttemptEnded(*KEY, Evidence()), None), []),
        (lambda a: Asked(ANY, lambda found, error: a.given.append(error)), [WHY]),
        (lambda a: CallCancelled(Caller(KEY), 1, "why"), []),
        (lambda a: CallLeft(Caller(KEY), 1, "why"), []),
        (lambda a: OrderMade(ANY), []),
        (lambda a: RunFoundEnded(ANY), []),
        (lambda a: RunAdopted(ANY, (), 0.0), []),
        (lambda a: Written(ANY, None), []),
    ],
)
def test_a_fact_that_comes_too_late_rejects_itself(make: Any, told: list[Any]) -> None:
    """A caller is refused, a question answered with the error, and who waits for the journal told why not."""
    answers = Answers()
    fact: Fact = make(answers)
    fact.reject(WHY)
    assert answers.given == told


@pytest.mark.parametrize(
    "fact, run",
    [
        (RunTakenUp(RunRecord("r1", "t", "q", 0.0), 0.0), "r1"),
        (CallMade(Caller(KEY), ANY, ANY), "r1"),
        (CallCancelled(Caller(KEY), 1, "why"), "r1"),
        (CallLeft(Caller(KEY), 1, "why"), "r1"),
        (Reported(AttemptEnded(*KEY, Evidence()), None), "r1"),
        (Reported(PoolCapacityChanged("p", 3), None), ""),
        (Happened(CheckpointSkipped(*KEY, 1, "torn")), "r1"),
        (RunStarted(RunSubmitted("r1", "t", "q"), ANY, ANY), ""),
        (RunAdopted(ANY, (), 0.0), ""),
        (Asked(ANY, ANY), ""),
    ],
)
def test_a_fact_says_which_run_must_be_known_first(fact: Fact, run: str) -> None:
    """Those that begin a run, or are about none, can always be taken."""
    assert fact.run == run


async def test_an_inbox_takes_facts_in_their_order_and_only_those_of_before_the_turn() -> None:
    """What is posted during a turn waits for the next one, which comes by itself."""
    taken: list[int] = []
    turns: list[list[int]] = []
    done = asyncio.Event()

    def take(fact: Reported) -> None:
        number: Any = fact.event
        taken.append(number)
        if number < 3:
            inbox.post(Reported(number + 10, None))

    def turn() -> None:
        inbox.take_all({Reported: take})
        turns.append(list(taken))
        if len(taken) == 5:
            done.set()

    inbox = FactInbox(turn, lambda: WHY)
    for number in (1, 2, 3):
        inbox.post(Reported(number, None))  # type: ignore[arg-type]
    inbox.open(asyncio.get_running_loop())
    await asyncio.wait_for(done.wait(), 5)
    assert turns == [[1, 2, 3], [1, 2, 3, 11, 12]]


def test_an_inbox_whose_loop_is_closed_rejects_what_is_posted() -> None:
    """From whichever thread: nobody will ever take it."""
    loop = asyncio.new_event_loop()
    inbox = FactInbox(lambda: None, lambda: WHY)
    inbox.open(loop)
    loop.close()
    answers: list[str | None] = []
    inbox.post(Happened(CancelRequested("r1", "a0", "first wakes a loop that was there")))
    inbox.reject_all()
    inbox.post(Happened(CancelRequested("r1", "a0", "late"), answers.append))
    assert answers == [str(WHY)]


def test_links_post_facts_and_know_nothing_else() -> None:
    """Both kinds ask for the same things; a program that ends leaves its calls instead of cancelling them."""
    posted: list[Fact] = []
    ends = False
    links = Links(posted.append, lambda run: ends)
    inline, remote = links.inline(KEY), links.remote(KEY)
    record = CheckpointRecord(1, 1, "sha256:00", "bytes", 3, 0.0)
    for link in (inline, remote):
        link.commit_checkpoint(record, lambda why: None)
        link.checkpoint_skipped(CheckpointSkipped(*KEY, 1, "torn"))
        link.traced("key", Payload(b"1"), lambda why: None)
        link.cancel(7, "no longer")
    ends = True
    inline.cancel(7, "no longer")
    numbers = [inline.call(ANY, lambda outcome, live: None, task="task"), remote.call(ANY, lambda outcome: None)]
    kinds = [type(fact) for fact in posted]
    assert kinds == [*[Happened, Happened, Happened, CallCancelled] * 2, CallLeft, CallMade, CallMade]
    assert numbers == [1, 2]
    assert [fact.waiting.task for fact in posted if isinstance(fact, CallMade)] == ["task", None]
