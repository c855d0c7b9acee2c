"""Entries as earlier versions wrote them: fields that came later are missing, and mean what they meant then."""

from __future__ import annotations

from typing import Any

import msgspec

from flyteish._core.billing.bills import lines_of
from flyteish._core.model.events import Entry
from flyteish._core.model.records import End, Phase
from flyteish._core.replay import describe, record_of
from tests.core.world import profile

PROFILE = msgspec.to_builtins(profile())


def entries(*written: tuple[float, list[Any]]) -> list[Entry]:
    encoded = [msgspec.msgpack.encode([at, event]) for at, event in written]
    return [msgspec.msgpack.decode(line, type=Entry) for line in encoded]


BEFORE = (
    (100.0, ["RunSubmitted", "r", "e.t", "default"]),
    (100.0, ["TaskDeclared", "r", PROFILE]),
    (100.0, ["ActionSubmitted", "r", "a0", None, 0, "e.t", [b"", None, 0], b""]),
    (101.0, ["AttemptAdmitted", "r", "a0", 1, 1, "od", "on-demand", "not-interruptible", "why", 3600.0, 100.0]),
)


def test_an_attempt_had_its_machine_when_it_was_admitted() -> None:
    """And is billed from there, as it always was."""
    read = entries(*BEFORE, (106.0, ["AttemptEnded", "r", "a0", 1, {"result": [b"x", None, 1]}, 0.5, 102.0]))
    record = record_of("r", read)
    assert record is not None
    attempt = record.root_action.attempts[0]
    assert (attempt.placed_at, attempt.running_at, attempt.ended_at) == (101.0, 102.0, 106.0)
    assert [line.dollars for line in lines_of(record, 106.0)] == [5.0]
    assert all(describe(entry.event)[1] for entry in read)


def test_what_an_earlier_controller_took_up_had_ended_then() -> None:
    read = entries(*BEFORE, (150.0, ["ControllerRestarted", "r"]))
    record = record_of("r", read)
    assert record is not None
    attempt = record.root_action.attempts[0]
    assert (attempt.end, attempt.ended_at, record.root_action.phase) == (End.ABANDONED, 150.0, Phase.QUEUED)


def test_a_notice_stands_whoever_gave_it() -> None:
    noticed = (103.0, ["AttemptNoticed", "r", "a0", 1, "terminate", 120.0, "market"])
    record = record_of("r", entries(*BEFORE, noticed, (104.0, ["AttemptEnded", "r", "a0", 1, {"exit_code": 1}])))
    assert record is not None
    assert record.root_action.attempts[0].end is End.PREEMPTED
