"""The simulation in small, and put to the test itself: it finds planted defects, shrinks them and tells them.

The full number of histories is ``nox -s histories``.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from flyteish._core.lifecycle import _TAKEN_IN_BY
from flyteish._core.model.events import Configured
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.records import TERMINAL, Action, End
from flyteish._core.model.settings import Settings
from flyteish._core.rules import placement, retries
from flyteish._core.scheduling import capacity
from flyteish._core.scheduling.queue_state import Reason
from flyteish._core.transitions import engine_facts
from tests.histories import __main__ as program
from tests.histories.batch import Batch, add, explain, play_all, play_seeds
from tests.histories.ends import ENDS
from tests.histories.history import History, as_python
from tests.histories.player import attempt, draw, play
from tests.histories.steps import STEPS

SEEDS = range(700)
MOST_SEEDS = 400
"""A planted defect is found within so many."""


@pytest.fixture(scope="module")
def played() -> Batch:
    return play_seeds(SEEDS)


def test_every_promise_holds_in_the_first_histories(played: Batch) -> None:
    """After every event of each of them, and when everything has come to its end."""
    assert not played.failures, explain(next(iter(played.failures)))


def test_every_promise_holds_in_histories_never_seen_before(seed: int) -> None:
    """CI plays new ones every time; the report's seed repeats them."""
    batch = play_seeds(range(seed, seed + 100))
    assert not batch.failures, explain(next(iter(batch.failures)))


# -- the harness does what it says -----------------------------------------------------------------------------------


def test_everything_that_can_happen_does(played: Batch) -> None:
    """A generator that never draws a trip-wire, or a reason nobody ever waits for, is noticed."""
    expected = [f"step {kind}" for kind in STEPS]
    expected += [
        f"event {kind.__name__}"
        for kind in _TAKEN_IN_BY
        if kind.__name__ not in (*_MADE_BY_THE_CORE, *_OLD, "RunLoaded")
    ]
    expected += [f"record {name}" for name in _MADE_BY_THE_CORE]
    expected += [f"end {end}" for end in End if end not in _WITHOUT_A_REPORT]
    expected += [f"reason {reason}" for reason in Reason]
    expected += [f"outcome {phase}" for phase in TERMINAL]
    expected += [f"rule {rule}" for rule in _rules()]
    expected += [f"limit {limit}" for limit in ("deadline", "max_runtime", "max_queued_time", "max_spot_wait")]
    expected += [f"stop {reason}" for reason in ("cancelled", "max_runtime", "max_queued_time", "deadline")]
    expected += [f"refusal {name}" for name in _REFUSALS]
    expected += ["queue drained", "moves ordered", "crashes inside an event", "zombies"]
    expected += ["attempts that outlived a controller"]
    assert [name for name in expected if not played.counts[name]] == []


_MADE_BY_THE_CORE = ("AttemptAdmitted", "LimitReached", "RelocationOrdered")
_OLD = ("ControllerRestarted",)
"""In the journals of earlier versions only."""
# What the core decides by itself, or by what it has said before.
_WITHOUT_A_REPORT = (End.QUEUE_TIMEOUT, End.DEADLINE, End.ABANDONED)
_REFUSALS = (
    "ConfigurationError", "ResourceExhaustedError", "RunSkippedError", "StaleAttemptError", "UnknownQueueError"
)  # fmt: skip


def _rules() -> list[str]:
    return [rule.name for rule in placement.RULES if rule.name != "young-outage"]  # which seldom comes up


def test_every_class_of_end_has_a_way_to_end() -> None:
    """The table of ends covers all classes that an engine can report."""
    assert {seen.counts_as for seen in ENDS.values()} == set(End) - {
        *_WITHOUT_A_REPORT, End.MAX_RUNTIME, End.RELOCATED
    }  # fmt: skip


def test_a_seed_is_one_history() -> None:
    """Drawn twice it is the same, and written down it plays the same."""
    for seed in range(40):
        first, second = draw(seed), draw(seed)
        assert first.history == second.history
        assert attempt(first.history).counts == first.counts == second.counts


def test_the_number_of_jobs_changes_nothing() -> None:
    """Two processes find what one finds."""
    alone, together = (add(list(play_all(0, 150, jobs, steps=8))) for jobs in (1, 2))
    assert alone == together


def test_a_history_as_source_text_is_the_same_history() -> None:
    """What is printed for a regression test can be pasted."""
    names = {kind.__name__: kind for kind in _structs()}
    for seed in range(40):
        history = draw(seed).history
        for value in (*history.configurations, *history.tasks.values(), history.steps):
            assert eval(as_python(value), names) == value


def _structs() -> list[type]:
    from tests.histories import history

    return list(history._STRUCTS)


def test_steps_that_do_not_apply_are_passed_over() -> None:
    """A history from which steps were left out still plays: that is what shrinking needs."""
    config = Configured((Queue("default"),), (Pool("od"),))
    steps = (("end", "r1", "returns", 0.0), ("return", "c2"), ("call", "c2", "r9", "t0", 0, False), ("begin", "r1"))
    play(History((config,), {"t0": Settings()}, steps))


# -- planted defects -------------------------------------------------------------------------------------------------


def _found(most_steps: int = 10) -> str:
    """The report on the first seed that fails."""
    for seed in range(MOST_SEEDS):
        if draw(seed).failure is not None:
            text = explain(seed)
            count = int(re.findall(r"shrunk from \d+ to (\d+)", text)[0])
            assert count <= most_steps, text
            assert f"python -m tests.histories --seed {seed}" in text
            assert "def test_seed_" in text
            return text
    raise AssertionError(f"{MOST_SEEDS} histories did not show it")


def test_preemptions_that_are_charged_to_retries_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The story ends with the preemption and says who paid."""
    right = retries.decide

    def wrong(end: End, action: Action, *rest: Any) -> retries.Verdict:
        return right(End.USER_ERROR if end is End.PREEMPTED else end, action, *rest)

    monkeypatch.setattr(retries, "decide", wrong)
    story = _found()
    assert "preempted" in story.lower()
    assert "charged to retries" in story


def test_a_place_that_is_not_given_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool says that one runs where none does."""
    right = capacity.Capacity.vacate

    def wrong(self: capacity.Capacity, action: Action) -> None:
        pool = self.pools.get(action.occupies)
        right(self, action)
        if pool is not None and action.preemptions:
            pool.running += 1

    monkeypatch.setattr(capacity.Capacity, "vacate", wrong)
    story = _found()
    assert "running is kept as 1, but is 0" in story


def test_a_fact_that_is_not_recorded_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal then tells another story than was lived through."""
    right = engine_facts.noticed

    def wrong(state: Any, event: Any, now: float, effects: list[Any]) -> None:
        right(state, event, now, effects)
        if effects:
            effects.pop()

    monkeypatch.setitem(_TAKEN_IN_BY, next(kind for kind in _TAKEN_IN_BY if kind.__name__ == "AttemptNoticed"), wrong)
    assert "notice" in _found()


def test_the_last_user_attempt_on_spot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The medium is worked out again from the specification, not from the core's own rules."""
    right = placement.place
    monkeypatch.setattr(placement, "place", lambda settings, user_attempt, *rest: right(settings, 0, *rest))
    assert "last user attempt on spot" in _found()


def test_the_command_reports_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code, seeds and counts are printed; one seed that holds is told in full."""
    assert program.main(["--histories", "20", "--jobs", "1", "--steps", "10"]) == 0
    assert "20 histories, 200 steps" in capsys.readouterr().out
    assert program.main(["--seed", "3"]) == 0
    assert "seed 3 holds" in capsys.readouterr().out
    monkeypatch.setattr(retries, "decide", lambda *_: retries.Verdict(True, "retries"))
    assert program.main(["--histories", "100", "--jobs", "1"]) == 1
    assert "repeat: python -m tests.histories --seed" in capsys.readouterr().out
