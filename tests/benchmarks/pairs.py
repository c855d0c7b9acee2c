"""Two trees of flyteish in turn, so that what the machine does meanwhile happens to both: is the new one slower?

A figure of both trees measured one after the other is a pair; of its two costs only the ratio counts, and of all
ratios the median and the quartiles. Must not know what is measured: ``one_tree`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parents[2]
COSTS: Final = {"wall": "s", "cpu": "s", "memory": "MB"}
BOUND: Final = 0.97
"""A median ratio below it is a loss, unless 1 lies within the quartiles."""


class Ratios(NamedTuple):
    """Old / new of one cost in every pair: above 1 the new tree is the better one."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, old: Sequence[float], new: Sequence[float]) -> Ratios:
        """Quartiles of the pairs' ratios."""
        ratios = [before / after for before, after in zip(old, new, strict=True)]
        return cls(*statistics.quantiles(ratios, n=4, method="inclusive")) if len(ratios) > 1 else cls(*ratios * 3)

    @property
    def is_loss(self) -> bool:
        """More than three per cent dearer, and not by the noise of the measurement."""
        return self.median < BOUND and self.high < 1.0


def measure(tree: Path, figure: str) -> dict[str, float]:
    """The costs of one figure, by a process of its own.

    Raises:
        SystemExit: it failed, or measured another flyteish than the one below ``tree``.
    """
    with tempfile.TemporaryDirectory(prefix="flyteish-pairs-") as folder:
        path = os.pathsep.join([str(tree / "src"), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "FLYTEISH_HOME": folder, "PYTHONHASHSEED": "0"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a tree that was run before would not have to compile
        command = [sys.executable, "-m", "tests.benchmarks.one_tree", figure]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{figure} in {tree} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if Path(str(found.pop("tree"))) != tree / "src" / "flyteish":
        raise SystemExit(f"{figure}: not the flyteish of {tree} was measured")
    return found


def compare(figure: str, old: Path, new: Path, pairs: int) -> bool:
    """Measures, and prints a line for each cost. Returns whether one of them is a loss."""
    seen: dict[Path, list[dict[str, float]]] = {old: [], new: []}
    for tree in seen:
        measure(tree, figure)  # once for the caches of both: bytecode, files
    for number in range(pairs):
        for tree in (old, new) if number % 2 == 0 else (new, old):
            seen[tree].append(measure(tree, figure))
    lost = False
    for cost, unit in COSTS.items():
        before, after = ([each[cost] for each in seen[tree]] for tree in (old, new))
        ratios = Ratios.of(before, after)
        lost = lost or ratios.is_loss
        print(
            f"{figure:12}{cost:8}{statistics.median(before):9.3f} {statistics.median(after):9.3f} {unit:4}"
            f"{ratios.median:7.3f}   {ratios.low:.3f}..{ratios.high:.3f}{'   LOSS' if ratios.is_loss else ''}",
            flush=True,
        )
    return lost


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.benchmarks pairs --old TREE``. Returns 1 where something became dearer."""
    from tests.benchmarks.one_tree import FIGURES

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks pairs", description=__doc__)
    parser.add_argument("--old", type=Path, required=True, metavar="TREE", help="a checkout of what to compare with")
    parser.add_argument("--new", type=Path, default=HERE, metavar="TREE", help="default: this checkout")
    parser.add_argument("--pairs", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; default: all")
    args = parser.parse_args(arguments)
    old, new = args.old.resolve(), args.new.resolve()
    for tree in (old, new):
        if not (tree / "src" / "flyteish" / "__init__.py").is_file():
            parser.error(f"{tree} is no checkout of flyteish")
    unknown = set(args.figures) - FIGURES.keys()
    if unknown or args.pairs < 1:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}" if unknown else "--pairs is at least 1")
    print(f"old: {old}\nnew: {new}\n{args.pairs} pairs; old / new: above 1 the new one is better\n")
    print(f"{'figure':12}{'cost':8}{'old':>9} {'new':>9}     {'median':>7}   quartiles")
    lost = [figure for figure in args.figures or FIGURES if compare(figure, old, new, args.pairs)]
    print(f"\ndearer: {', '.join(lost) or 'nothing'}")
    return int(bool(lost))
