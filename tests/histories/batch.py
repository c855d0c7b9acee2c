"""Plays many seeds, on several processes if wanted, and adds up what happened; the same whatever the number of jobs."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.histories.player import Failure, draw
from tests.histories.shrink import Shrinker
from tests.histories.telling import report

CHUNK = 100


class Batch(NamedTuple):
    """What came of some seeds."""

    seeds: int
    steps: int
    counts: Counter[str]
    failures: dict[int, Failure]
    """By seed, ascending."""


def play_seeds(seeds: range, steps: int | None = None) -> Batch:
    """Each seed in turn, in this process."""
    counts: Counter[str] = Counter()
    failures: dict[int, Failure] = {}
    taken = 0
    for seed in seeds:
        outcome = draw(seed, steps)
        counts.update(outcome.counts)
        taken += len(outcome.history.steps)
        if outcome.failure is not None:
            failures[seed] = outcome.failure
    return Batch(len(seeds), taken, counts, failures)


def play_all(first: int, histories: int, jobs: int, steps: int | None = None) -> Iterator[Batch]:
    """Seeds from ``first`` on, in pieces, in order."""
    pieces = [range(n, min(n + CHUNK, first + histories)) for n in range(first, first + histories, CHUNK)]
    if jobs <= 1:
        yield from (play_seeds(piece, steps) for piece in pieces)
        return
    # Fresh processes: nothing of this one, which may have threads, is inherited.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(play_seeds, pieces, [steps] * len(pieces))


def add(batches: list[Batch]) -> Batch:
    counts: Counter[str] = Counter()
    failures: dict[int, Failure] = {}
    for batch in batches:
        counts.update(batch.counts)
        failures.update(batch.failures)
    return Batch(sum(batch.seeds for batch in batches), sum(batch.steps for batch in batches), counts, failures)


def explain(seed: int, steps: int | None = None) -> str:
    """A failing seed, played again, shrunk and told."""
    outcome = draw(seed, steps)
    if outcome.failure is None:
        raise ValueError(f"seed {seed} breaks no promise")
    shrinker = Shrinker(outcome.history, outcome.failure)
    return report(seed, shrinker.run(), shrinker.tries, len(outcome.history.steps))
