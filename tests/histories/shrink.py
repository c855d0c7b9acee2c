"""Makes a failing history small: fewer steps, then a plainer configuration, while it fails in the same way.

Delta debugging over the steps. Deterministic: bounded by the number of histories tried, not by a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.histories.history import History, Step, simpler
from tests.histories.player import Failure, attempt

MOST_TRIES = 4000


class Shrinker:
    """Looks for smaller histories with the same failure."""

    def __init__(self, history: History, failure: Failure, most_tries: int = MOST_TRIES) -> None:
        steps = history.steps[: failure.step + 1]
        self.best = msgspec.structs.replace(history, steps=steps)
        self.signature = failure.signature
        self.left = most_tries
        self.tries = 0

    def run(self) -> History:
        before: History | None = None
        while self.left > 0 and before != self.best:  # a plainer configuration may make steps needless, and so on
            before = self.best
            self._drop_steps()
            self._simplify()
            self._plainer_steps()
        return self.best

    def _try(self, history: History) -> bool:
        """Whether it fails in the same way; then it is the best known."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.tries += 1
        failure = attempt(history).failure
        if failure is None or failure.signature != self.signature:
            return False
        self.best = msgspec.structs.replace(history, steps=history.steps[: failure.step + 1])
        return True

    def _drop_steps(self) -> None:
        size = max(1, len(self.best.steps) // 2)
        while size:
            end = len(self.best.steps)
            while end > 0:  # from the back: what comes last has the fewest that depend on it
                begin = max(0, end - size)
                steps = self.best.steps
                self._try(msgspec.structs.replace(self.best, steps=(*steps[:begin], *steps[end:])))
                end = min(begin, len(self.best.steps))
            size = size // 2

    def _simplify(self) -> None:
        going = True
        while going and self.left > 0:
            going = any(self._try(other) for other in simpler(self.best))

    def _plainer_steps(self) -> None:
        n = 0
        while n < len(self.best.steps):
            step = self.best.steps[n]
            for plainer in _plainer_step(step):
                steps = self.best.steps
                if self._try(msgspec.structs.replace(self.best, steps=(*steps[:n], plainer, *steps[n + 1 :]))):
                    break
            n += 1


def _plainer_step(step: Step) -> Iterator[Step]:
    for n, argument in enumerate(step[1:], start=1):
        for plainer in _plainer_argument(argument):
            yield (*step[:n], plainer, *step[n + 1 :])


def _plainer_argument(argument: Any) -> Iterator[Any]:
    if argument is True:
        yield False
    elif isinstance(argument, float):
        for plain in (0.0, 1.0, 10.0):
            if plain < argument:
                yield plain
    elif isinstance(argument, int) and argument > 0 and not isinstance(argument, bool):
        yield 0
