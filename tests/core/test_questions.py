"""No question writes: whatever is asked of a state, it is the same afterwards, to the byte."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from random import Random

import pytest

from flyteish._controller.snapshot import snapshot
from flyteish._core import invariants
from flyteish._core.billing.bills import billed, lines_of
from flyteish._core.lifecycle import apply, child_identity
from flyteish._core.model.effects import Effect
from flyteish._core.model.events import Event, RunLoaded, RunSubmitted
from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import TERMINAL, WITH_ATTEMPT, Action
from flyteish._core.scheduling.pool_health import passed_over
from flyteish._core.state import State
from flyteish._core.story import why
from flyteish._core.transitions import deadline_pacing, waiting
from tests.core import world
from tests.histories.player import draw

HISTORIES = 40


def test_no_question_writes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked now and then, after an event, in histories that nobody has seen before."""
    chance, asked = Random(seed), [0]

    def apply_and_ask(state: State, event: Event, now: float) -> tuple[State, list[Effect]]:
        state, effects = apply(state, event, now)
        if type(event) is not RunLoaded and chance.random() < 0.1:  # what is loaded stands nowhere yet
            before = pickle.dumps(state)
            for question in questions(state, now):
                assert pickle.dumps(state) == before, f"{question} wrote"
                asked[0] += 1
        return state, effects

    monkeypatch.setattr(world, "apply", apply_and_ask)  # before the world asks anything itself
    for number in range(seed, seed + HISTORIES):
        outcome = draw(number)
        assert outcome.failure is None, f"seed {number}: {outcome.failure}"
    assert asked[0] > HISTORIES, "nothing was asked"


def questions(state: State, now: float) -> Iterator[str]:
    """Asks them all; the name of each comes after its answer."""
    snapshot(state, now)
    yield "the snapshot"
    invariants.check(state, now, invariants.exceeded(state.capacity))
    yield "the invariants"
    state.next_due()
    repr(state)
    yield "what is due next"
    for run in list(state.runs.values()):
        if run.root:
            assert run.phase
            state.admission.refuses_run(RunSubmitted("new", run.task, run.queue))
            lines_of(run, now)
            child_identity(state, run.id, run.root, "e.t0", b"0", 0)
            yield "the questions about a run"
        for action in run.actions.values():
            _ask_about(state, action, now)
            yield f"a question about {action!r}"
            if action.phase not in TERMINAL:
                _ask_about_placement(state, action, now)
                yield f"a question about where {action!r} may run"
    for queue in state.capacity.queues.values():
        passed_over(queue.memories, queue.passed_over, now)
        assert queue.out_since() is None or queue.spot
        assert queue.is_full() in (True, False)
    for pool in state.capacity.pools.values():
        pool.memory.record(now)
        assert pool.memory.words(now)
        repr(pool)
    yield "a question about queues and pools"


def _ask_about(state: State, action: Action, now: float) -> None:
    reason = state.admission.reason(action, now)
    assert why(action, now, reason)
    list(billed([action], now))
    state.admission.refuses(action)
    assert action.shown_phase
    repr(action)


def _ask_about_placement(state: State, action: Action, now: float) -> None:
    waiting.patience_ends(state, action)
    deadline_pacing.spot_is_free(state, action, now)
    deadline_pacing.on_demand_is_free(state, action, now)
    deadline_pacing.patience(state, action)
    if deadline_pacing.is_paced(state, action):
        deadline_pacing.decide(state, action, now, spot_free=True)
    if action.phase in WITH_ATTEMPT:
        deadline_pacing.may_leave_on_demand(state, action, action.attempts[-1])
        queue = state.capacity.queues[action.profile.settings.queue]
        for pool in queue.pools:
            queue.no_way_back(action, pool)
            pool.no_way_back(action.profile.settings.amounts)
            assert queue.too_dear(pool) in (True, False)
            assert pool.config.medium != SPOT or queue.takes_spot(pool.limit) in (True, False)
