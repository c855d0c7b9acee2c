"""How an attempt's end is read: from the evidence to one class of end and its cause in words.

First match wins. Judges only what was seen and what was known of the attempt (a notice, our own stop); must not
know budgets: what follows from a class is ``retries``' business (spec: attempts; kubernetes, "how a pod's end
is read").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from flyteish._core.model.events import Evidence, WorkerEvidence
from flyteish._core.model.records import AttemptRecord, End
from flyteish._core.model.values import ErrorDocument

NOTICE_RANK: Final = {"rebalance": 0, "relocate": 1, "drain": 2, "shutdown": 3, "terminate": 4}
"""Kinds of interruption notice; the graver one counts. A ``rebalance`` is a recommendation: no end is announced."""
EXITED_BEFORE_RETURNING: Final = "exited before returning"
MOST_REJECTIONS: Final = 20
"""Machines in a row that may refuse an attempt before that is a failure of the infrastructure."""
OWN_DOING: Final = frozenset((End.USER_ERROR, End.MAX_RUNTIME, End.OUT_OF_MEMORY, End.FINAL_ERROR))
"""Ends that the task's own code brought about."""
_STOPPED: Final = {
    "cancelled": End.CANCELLED,
    "max_runtime": End.MAX_RUNTIME,
    "max_queued_time": End.QUEUE_TIMEOUT,
    "deadline": End.DEADLINE,
}


def news(known: str, kind: str) -> bool:
    """Whether a notice of this kind says more than what is known of an attempt (empty: nothing)."""
    return not known or NOTICE_RANK.get(kind, 0) > NOTICE_RANK.get(known, 0)


def outlived_by_calls(notice: str) -> bool:
    """Whether what an attempt with this notice no longer awaits goes on for the next attempt to find.

    An attempt that has to end drops its calls on the way out. That is no decision about them.
    """
    return bool(notice) and notice != "rebalance"


def gravest(notices: Iterable[str]) -> str:
    """The kind of notice that counts, of those that stand; empty where none does."""
    return max(notices, key=lambda kind: NOTICE_RANK.get(kind, 0), default="")


def from_worker(said: WorkerEvidence, notice: str, *, told: bool = False) -> Evidence:
    """What a worker said of its own end, as evidence: it is believed about itself, never about its machine.

    Args:
        notice: kind of the interruption notice that the attempt is known to have got; empty: none. Who leaves without
            one has not been preempted.
        told: whether it was told to end: who stops without that has not been cancelled.
    """
    if said.left is not None and not notice:
        name = "flyteish.errors.ExitedBeforeReturningError"
        return Evidence(error=ErrorDocument(name, said.left, (name,)))
    failed = None if said.store_failed is None else f"the blob store failed: {said.store_failed}"
    if said.stopped and not told and said.error is None:
        failed = "its process says that it was stopped, which nobody has told it"
    return Evidence(said.result, said.error, reclaimed=said.left, vanished=failed, stopped=said.stopped and told)


class Ending(NamedTuple):
    """The judgement: a class, and the words for people."""

    end: End
    cause: str


_SUCCEEDED: Final = Ending(End.SUCCEEDED, "")


def classify(evidence: Evidence, attempt: AttemptRecord, rejections: int = 0) -> Ending:
    """Judge one end. A result committed in time counts, whatever else happened.

    Args:
        rejections: machines in a row that have refused attempts of the action before this one.
    """
    if evidence.result is not None:
        return _SUCCEEDED
    error = evidence.error
    if attempt.stop and not _stop_is_void(evidence, attempt):
        return Ending(_STOPPED[attempt.stop], attempt.stop.replace("_", " "))
    if evidence.denied is not None:
        return Ending(End.NO_CAPACITY, evidence.denied)
    if error is not None:
        return _raised(error, attempt)
    if evidence.rejected is not None:
        return _rejected(evidence.rejected, attempt, rejections)
    if evidence.unmendable is not None:
        return Ending(End.UNMENDABLE, evidence.unmendable)
    if evidence.out_of_memory:
        return Ending(End.OUT_OF_MEMORY, "killed: out of memory")
    if attempt.moving and attempt.notice in ("", "relocate") and (evidence.reclaimed is not None or attempt.notice):
        return _moved(attempt)
    if evidence.reclaimed is not None:
        return Ending(End.PREEMPTED, evidence.reclaimed)
    if attempt.notice:
        return Ending(End.PREEMPTED, f"ended after its {attempt.notice} notice")
    return _exited(evidence)


def _stop_is_void(evidence: Evidence, attempt: AttemptRecord) -> bool:
    """Whether it ended by itself before the stop could matter."""
    if attempt.stop == "max_runtime":
        return evidence.error is not None and evidence.error.final
    # It had its machine in time, which its engine had not said yet.
    return attempt.stop == "max_queued_time" and bool(attempt.placed_at) and not evidence.stopped


def _rejected(why: str, attempt: AttemptRecord, rejections: int) -> Ending:
    if attempt.running_at:
        return Ending(End.INFRASTRUCTURE, f"rejected by its machine, though it ran there: {why}")
    if rejections >= MOST_REJECTIONS:
        return Ending(End.INFRASTRUCTURE, f"rejected by {rejections + 1} machines in a row, the last time: {why}")
    return Ending(End.REJECTED, why)


def _raised(error: ErrorDocument, attempt: AttemptRecord) -> Ending:
    said = f"{error.type.rpartition('.')[2]}: {error.message}" if error.message else error.type.rpartition(".")[2]
    if attempt.moving and attempt.notice == "relocate":
        return _moved(attempt)
    if attempt.notice:
        return Ending(End.PREEMPTED, f"raised {said} after its {attempt.notice} notice")
    if error.final:
        return Ending(End.FINAL_ERROR, said)
    if "builtins.MemoryError" in error.bases or error.type == "builtins.MemoryError":
        return Ending(End.OUT_OF_MEMORY, said)
    return Ending(End.USER_ERROR, said)


def _moved(attempt: AttemptRecord) -> Ending:
    return Ending(End.RELOCATED, f"to {attempt.moving}: {attempt.moving_why}")


def _exited(evidence: Evidence) -> Ending:
    code = evidence.exit_code
    if evidence.vanished is not None:
        return Ending(End.INFRASTRUCTURE, evidence.vanished)
    if code == 0:
        return Ending(End.USER_ERROR, EXITED_BEFORE_RETURNING)
    if code in (-9, 137, 247):  # killed from outside without a word: nothing the task did
        return Ending(End.INFRASTRUCTURE, f"killed (exit code {code})")
    if code is not None:
        return Ending(End.USER_ERROR, f"died on signal {-code}" if code < 0 else f"exited with code {code}")
    if evidence.stopped:
        return Ending(End.CANCELLED, "stopped")
    return Ending(End.INFRASTRUCTURE, "ended without a trace")
