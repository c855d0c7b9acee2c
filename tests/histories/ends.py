"""The ways in which an attempt can end: what is seen, and what the specification calls it.

An oracle that is written down twice on purpose: once here as a table, once in the core as a judgement.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flyteish._core.model.events import Evidence
from flyteish._core.model.records import End
from flyteish._core.model.values import ErrorDocument, Payload


class Seen(NamedTuple):
    """One way to end: the evidence, its class, and its class if the attempt had got a notice."""

    evidence: Evidence
    counts_as: End
    noticed: End


def _raised(name: str, *bases: str, final: bool = False) -> Evidence:
    return Evidence(error=ErrorDocument(name, "no", (name, *bases), final=final))


_DONE = Payload(b"done")
ENDS: Final[dict[str, Seen]] = {
    "returns": Seen(Evidence(result=_DONE), End.SUCCEEDED, End.SUCCEEDED),
    "returns while reclaimed": Seen(Evidence(result=_DONE, reclaimed="late"), End.SUCCEEDED, End.SUCCEEDED),
    "raises ValueError": Seen(_raised("builtins.ValueError", "builtins.Exception"), End.USER_ERROR, End.PREEMPTED),
    "raises Other": Seen(_raised("m.Other", "builtins.Exception"), End.USER_ERROR, End.PREEMPTED),
    "raises for good": Seen(_raised("m.Final", final=True), End.FINAL_ERROR, End.PREEMPTED),
    "raises MemoryError": Seen(_raised("builtins.MemoryError"), End.OUT_OF_MEMORY, End.PREEMPTED),
    "killed: out of memory": Seen(Evidence(out_of_memory=True, exit_code=137), End.OUT_OF_MEMORY, End.OUT_OF_MEMORY),
    "exits 0": Seen(Evidence(exit_code=0), End.USER_ERROR, End.PREEMPTED),
    "exits 1": Seen(Evidence(exit_code=1), End.USER_ERROR, End.PREEMPTED),
    "crashes": Seen(Evidence(exit_code=-11), End.USER_ERROR, End.PREEMPTED),
    "killed": Seen(Evidence(exit_code=137), End.INFRASTRUCTURE, End.PREEMPTED),
    "reclaimed": Seen(Evidence(reclaimed="spot reclaimed"), End.PREEMPTED, End.PREEMPTED),
    "evicted": Seen(Evidence(reclaimed="evicted", exit_code=143), End.PREEMPTED, End.PREEMPTED),
    "vanishes": Seen(Evidence(vanished="no heartbeat"), End.INFRASTRUCTURE, End.PREEMPTED),
    "unmendable": Seen(Evidence(unmendable="image name invalid"), End.UNMENDABLE, End.UNMENDABLE),
    "denied": Seen(Evidence(denied="insufficient capacity"), End.NO_CAPACITY, End.NO_CAPACITY),
    "rejected": Seen(Evidence(rejected="OutOfcpu"), End.REJECTED, End.REJECTED),
    "stopped": Seen(Evidence(stopped=True), End.CANCELLED, End.PREEMPTED),
    "ends without a trace": Seen(Evidence(), End.INFRASTRUCTURE, End.PREEMPTED),
}


def expected(how: str, notice: str, stop: str, moving: str) -> End:
    """The class of this end for an attempt that was noticed, told to stop, or told to move elsewhere."""
    seen = ENDS[how]
    if seen.evidence.result is not None:
        return End.SUCCEEDED
    if stop == "cancelled":
        return End.CANCELLED
    if stop == "max_runtime" and not (seen.evidence.error is not None and seen.evidence.error.final):
        return End.MAX_RUNTIME
    if stop == "max_queued_time":
        return End.QUEUE_TIMEOUT
    leaves = seen.evidence.reclaimed is not None or (notice and seen.noticed is End.PREEMPTED)
    if moving and notice in ("", "relocate") and leaves:
        return End.RELOCATED
    return seen.noticed if notice else seen.counts_as
