"""What a worker may say of its own end, and what only its engine may."""

from __future__ import annotations

import msgspec

from flyteish._core.model.events import Evidence, WorkerEvidence
from flyteish._core.model.values import ErrorDocument, Payload
from flyteish._core.rules.attempt_ends import from_worker

ERROR = ErrorDocument("builtins.ValueError", "no")


def test_a_worker_is_believed_about_itself() -> None:
    assert from_worker(WorkerEvidence(result=Payload(b"1")), "") == Evidence(result=Payload(b"1"))
    assert from_worker(WorkerEvidence(error=ERROR), "") == Evidence(error=ERROR)
    told = from_worker(WorkerEvidence(error=ERROR, stopped=True), "", told=True)
    assert told == Evidence(error=ERROR, stopped=True)
    failed = from_worker(WorkerEvidence(store_failed="OSError: full"), "")
    assert failed == Evidence(vanished="the blob store failed: OSError: full")


def test_who_stops_untold_was_not_cancelled() -> None:
    """Say, since a controller that died at its own end told it so: the next one starts it again."""
    seen = from_worker(WorkerEvidence(stopped=True), "")
    assert (seen.stopped, seen.vanished) == (False, "its process says that it was stopped, which nobody has told it")
    assert from_worker(WorkerEvidence(stopped=True), "", told=True) == Evidence(stopped=True)
    assert from_worker(WorkerEvidence(error=ERROR, stopped=True), "") == Evidence(error=ERROR)


def test_who_left_was_preempted_only_if_there_was_a_notice() -> None:
    """Else its own code decided to go."""
    said = WorkerEvidence(left="left after its drain notice")
    assert from_worker(said, "drain") == Evidence(reclaimed="left after its drain notice")
    seen = from_worker(said, "")
    assert seen.reclaimed is None
    assert seen.error is not None


def test_a_worker_has_no_words_for_what_its_engine_alone_can_know() -> None:
    own = {field.name for field in msgspec.structs.fields(WorkerEvidence)}
    assert not own & {"reclaimed", "vanished", "unmendable", "denied", "rejected", "exit_code", "out_of_memory"}
