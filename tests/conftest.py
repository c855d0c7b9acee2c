"""What every test gets: a flyteish home of its own, and randomness that can be repeated."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

SEED_VARIABLE = "FLYTEISH_TEST_SEED"
SEED = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))

# No deadlines: how busy the machine is, is not the code's doing. A failure prints the line that repeats it.
settings.register_profile("default", deadline=None, print_blob=True)
# By itself Hypothesis tries the same examples in every CI run. New ones find more, and the blob repeats them.
settings.register_profile("ci", settings.get_profile("default"), derandomize=False, max_examples=300)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_report_header() -> str:
    return f"seed: {SEED} (repeat with {SEED_VARIABLE}={SEED})"


@pytest.fixture
def seed() -> int:
    """The seed of this test run, new in each and printed in the report's head: give it to every generator."""
    return SEED


@pytest.fixture(autouse=True)
def flyteish_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty FLYTEISH_HOME, so that no test reads or writes the user's own runs."""
    home = tmp_path / "flyteish-home"
    monkeypatch.setenv("FLYTEISH_HOME", str(home))
    return home
