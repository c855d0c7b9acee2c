"""The interval between two saves: Young's and Daly's estimate against the cost that it is to make least."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish._core.rules.checkpoint_interval import FIRST_SAVE_SECONDS, interval

COSTS = st.floats(1e-3, 1e4)
LIFETIMES = st.floats(10.0, 1e6)


def overhead(work: float, cost: float, lifetime: float) -> float:
    """Daly's expected time per second of work: exponential lifetimes, saves every ``work`` seconds."""
    return lifetime * math.expm1((work + cost) / lifetime) / work


@given(COSTS, LIFETIMES, st.floats(0.02, 50.0))
def test_no_other_interval_loses_much_less(cost: float, lifetime: float, factor: float) -> None:
    """Where a save costs up to half a lifetime, any other interval is at best one part in 500 better."""
    if cost <= lifetime / 2:
        best = interval(cost, lifetime)
        other = min(best * factor, 500 * lifetime)
        assert overhead(best, cost, lifetime) <= overhead(other, cost, lifetime) * 1.002


@given(COSTS, LIFETIMES)
def test_it_stays_within_its_bounds(cost: float, lifetime: float) -> None:
    """Never nothing, never longer than the lifetime, and close to Young's where saves are cheap."""
    found = interval(cost, lifetime)
    assert 0 < found <= lifetime
    if cost < lifetime / 1000:
        assert found == pytest.approx(math.sqrt(2 * cost * lifetime), rel=0.03)


@given(COSTS, LIFETIMES, st.floats(1.0, 10.0))
def test_longer_lives_mean_rarer_saves(cost: float, lifetime: float, factor: float) -> None:
    """It grows with the lifetime."""
    assert interval(cost, lifetime * factor) >= interval(cost, lifetime) * (1 - 1e-9)


def test_the_edges() -> None:
    """An unknown cost means soon; a cost beyond two lifetimes, once a lifetime; no end of life, never."""
    assert interval(None, 7200.0) == FIRST_SAVE_SECONDS
    assert interval(None, 100.0) == 1.0
    assert interval(120.0, 60.0) == interval(math.inf, 60.0) == 60.0
    assert interval(1.0, math.inf) == math.inf
