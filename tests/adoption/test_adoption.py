"""Attempts that outlive their controller: it is killed at fifty seeded moments and started again, and they go on.

Real processes over real connections, which break in between. Attempts that lived go on, nothing runs twice, every end
is on record once.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adoption import program
from tests.adoption.story import Story
from tests.conftest import SEED

SEED_VARIABLE = "FLYTEISH_ADOPTION_SEED"
"""Set to one of the printed seeds, it tells that story only."""
MOMENTS = 50
AT_ONCE = 2

pytestmark = pytest.mark.slow


def seeds() -> list[int]:
    one = os.environ.get(SEED_VARIABLE)
    return [int(one)] if one else random.Random(SEED).sample(range(2**32), MOMENTS // program.LEGS)


def test_attempts_outlive_a_controller_that_is_killed_at_fifty_moments(tmp_path: Path) -> None:
    """Those that had begun go on and are not run again; every end is on record once; nobody pays; nothing is left."""
    chosen = seeds()
    print(f"seeds (repeat one with {SEED_VARIABLE}): {chosen}")
    stories = [Story(tmp_path / str(seed), seed) for seed in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(Story.tell, stories))
    kills, cuts, lived, unheard = (
        sum(counts)
        for counts in zip(*[(each.kills, each.proxy.cuts, each.lived, each.unheard) for each in stories], strict=True)
    )
    print(f"{kills} kills, {cuts} connections cut, {lived} attempts lived on, {unheard} ended unheard")
    assert kills == len(chosen) * program.LEGS
    if len(chosen) > 1:  # else the numbers are those of one story, which may be a quiet one
        assert cuts >= kills, "too few connections were cut"
        assert lived >= kills, "too few attempts outlived their controller"
        assert unheard >= len(chosen), "too few attempts ended while nobody was there"
