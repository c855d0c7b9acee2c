"""``python -m tests.histories``: seeded fault histories of the core, by the thousand or one by number.

Exits 1 where a promise was broken, after printing the shortest history found that breaks it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.histories.batch import Batch, add, explain, play_all
from tests.histories.player import attempt, draw
from tests.histories.telling import story

MOST_EXPLAINED = 3
"""So many different failures are shrunk and told; of the others, the seeds are named."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__.split("\n")[0])
    parser.add_argument("--histories", type=int, default=10_000, help="how many seeds (default: 10000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, help="this one only; shrunk and told if it fails, else told in full")
    parser.add_argument("--steps", type=int, help="steps per history (default: drawn, up to 80)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return _one(given.seed, given.steps)
    began = time.perf_counter()
    batches: list[Batch] = []
    for batch in play_all(given.first, given.histories, given.jobs, given.steps):
        batches.append(batch)
        _progress(batches, given.histories)
    return _summary(add(batches), time.perf_counter() - began, given.steps)


def _one(seed: int, steps: int | None) -> int:
    outcome = draw(seed, steps)
    if outcome.failure is not None:
        print(explain(seed, steps))
        return 1
    print("\n".join(story(attempt(outcome.history, log=True))))
    print(f"seed {seed} holds: {len(outcome.history.steps)} steps")
    return 0


def _progress(batches: list[Batch], histories: int) -> None:
    if sys.stderr.isatty():
        done, failed = sum(batch.seeds for batch in batches), sum(len(batch.failures) for batch in batches)
        print(f"\r{done} of {histories} histories, {failed} failed", end="", file=sys.stderr, flush=True)
        if done == histories:
            print(file=sys.stderr)


def _summary(batch: Batch, seconds: float, steps: int | None) -> int:
    print(_table(batch.counts))
    by_signature: dict[str, list[int]] = {}
    for seed, failure in batch.failures.items():
        by_signature.setdefault(failure.signature, []).append(seed)
    for n, (signature, seeds) in enumerate(by_signature.items()):
        print(f"\n{len(seeds)} histories failed with {signature}: seeds {', '.join(map(str, seeds[:10]))}")
        if n < MOST_EXPLAINED:
            print(explain(seeds[0], steps))
    told = sum(count for name, count in batch.counts.items() if name.startswith("event "))
    print(
        f"\n{batch.seeds} histories, {batch.steps} steps, {told} events in {seconds:.1f} s: "
        f"{len(batch.failures)} broke a promise"
    )
    return 1 if batch.failures else 0


def _table(counts: Counter[str]) -> str:
    """What really happened, by kind."""
    kinds: dict[str, list[str]] = {}
    for name, count in sorted(counts.items()):
        kind, _, what = name.partition(" ")
        kinds.setdefault(kind, []).append(f"{what} {count}" if what else f"{count}")
    return "\n".join(f"{kind + ':':11}{', '.join(items)}" for kind, items in kinds.items())


if __name__ == "__main__":
    sys.exit(main())
