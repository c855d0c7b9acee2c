"""Plays histories: one that is drawn from a seed as it goes, or one that is written down.

A history ends with everything settled: faults stop, and whatever was accepted must come to its end.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from random import Random
from typing import NamedTuple

import msgspec

from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.records import Action
from tests.core.world import profile
from tests.histories.history import History, Step
from tests.histories.setups import random_setup
from tests.histories.steps import STEPS, swarm
from tests.histories.watch import Crashed, Watched

LENGTHS = (8, 20, 40, 40, 80)


class Failure(NamedTuple):
    """A promise that did not hold."""

    signature: str
    """The same for the same defect: exception, where it was raised, and its first line without names and numbers."""
    message: str
    step: int
    """Index of the step that broke it; the number of steps: it broke when everything was settled."""


class Outcome(NamedTuple):
    """A history and what came of it."""

    history: History
    failure: Failure | None
    counts: Counter[str]
    player: Player


class Player:
    """The world of one history, and the names that its steps use."""

    def __init__(self, history: History) -> None:
        self.configurations = history.configurations
        self.tasks = {name: profile(settings, f"e.{name}") for name, settings in history.tasks.items()}
        self.world = Watched(history.configurations[0])
        self.names: dict[str, ActionKey] = {}
        self._numbers = 0

    def next_name(self) -> int:
        self._numbers += 1
        return self._numbers

    def name_of(self, key: AttemptKey) -> str:
        wanted = ActionKey(key.run, key.action)
        return next(name for name, action in self.names.items() if action == wanted)

    def action(self, name: str) -> Action | None:
        key = self.names.get(name)
        return None if key is None else self.world.state.action(key)

    def live(self, name: str) -> AttemptKey | None:
        """The newest attempt of that name that some engine still runs."""
        key = self.names.get(name)
        return next((each for each in reversed(self.world.live) if each[:2] == key), None)

    def do(self, step: Step) -> None:
        kind, *arguments = step
        try:
            if STEPS[kind].do(self, *arguments):
                self.world.counts[f"step {kind}"] += 1
        except Crashed:
            self.world.counts["crashes inside an event"] += 1
            self.world.restart(self.world.outliving(self.world.every), inside=True)

    def settle(self) -> None:
        world = self.world
        world.dies_inside = False
        world.check_replay()
        world.settle()
        world.check_replay()


def draw(seed: int, steps: int | None = None) -> Outcome:
    """The history of a seed, drawn and played; ``steps`` overrides how many it has."""
    chance = Random(seed)
    history = random_setup(chance)
    weights = swarm(chance)
    length = steps if steps is not None else chance.choice(LENGTHS)
    player = Player(history)
    taken: list[Step] = []
    failure = None
    try:
        while len(taken) < length:
            taken.append(_next_step(chance, weights, player))
            player.do(taken[-1])
        player.settle()
    except Exception as error:
        failure = failure_of(error, len(taken) - (0 if len(taken) == length and _settling(error) else 1))
    return Outcome(msgspec.structs.replace(history, steps=tuple(taken)), failure, player.world.counts, player)


def _next_step(chance: Random, weights: dict[str, int], player: Player) -> Step:
    kinds = chance.choices(list(weights), list(weights.values()), k=6)
    if player.world.moving and chance.random() < 0.3:
        kinds.insert(0, "move")  # seldom ordered, so seldom missed
    for kind in kinds:
        arguments = STEPS[kind].draw(chance, player)
        if arguments is not None:
            return (kind, *arguments)
    return ("wait until due",)  # nobody is there to whom any of it could happen


def attempt(history: History, log: bool = False) -> Outcome:
    """A history that is written down, played; what fails is told, not raised."""
    player, done, failure = None, 0, None
    try:
        player = Player(history)
        if log:
            player.world.log = []
        for step in history.steps:
            player.do(step)
            done += 1
        player.settle()
    except Exception as error:
        failure = failure_of(error, done)
    if player is None:
        player = Player(History((random_setup(Random(0)).configurations[0],), {}))
    return Outcome(history, failure, player.world.counts, player)


def play(history: History) -> None:
    """A history that is written down, played; for tests.

    Raises:
        AssertionError: a promise does not hold.
    """
    player = Player(history)
    for step in history.steps:
        player.do(step)
    player.settle()


# -- which failure it is ---------------------------------------------------------------------------------------------


def failure_of(error: Exception, step: int) -> Failure:
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error) or (where.line or "")
    first = text.split("\n", 1)[0]
    masked = re.sub(r"<[^<>]*>|'[^']*'|-?\d+(\.\d+)?|\br\d+/\w+(#\d+)?|\b[0-9a-f]{20}\b", "_", first)
    masked = masked.rpartition("]: ")[2] if "]: " in masked else masked
    signature = f"{type(error).__name__} in {where.name}: {masked[:160]}"
    return Failure(signature, f"{type(error).__name__}: {text}", step)


def _settling(error: Exception) -> bool:
    return any(frame.name == "settle" for frame in traceback.extract_tb(error.__traceback__))
