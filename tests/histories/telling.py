"""Tells a history as a story: what happened, when, what the core made of it, and which promise broke.

Only reads the log of a played history. Names children as the steps do, instead of by their digests.
"""

from __future__ import annotations

from collections.abc import Iterator

from flyteish._core.model.effects import (
    Deliver,
    Effect,
    QueueDrained,
    Record,
    Refuse,
    RelocateAttempt,
    RunEnded,
    StopAttempt,
)
from flyteish._core.model.events import (
    AttemptEnded,
    Configured,
    Event,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    RunLoaded,
    RunSubmitted,
    TaskDeclared,
    TimePassed,
)
from flyteish._core.replay import describe
from flyteish._core.story import why
from tests.histories.history import History, as_python, as_test
from tests.histories.player import Outcome, Player, attempt
from tests.histories.watch import Told

BEGAN = 1000.0
"""When every simulated history begins, seconds."""


def report(seed: int, shrunk: History, tries: int, before: int) -> str:
    """Everything that whoever mends the failure needs."""
    outcome = attempt(shrunk, log=True)
    assert outcome.failure is not None, "a shrunk history must fail"
    count = len(shrunk.steps)
    lines = [
        f"seed {seed} breaks a promise:",
        *_indent(_named(outcome.player, outcome.failure.message).split("\n")),
        f"repeat: python -m tests.histories --seed {seed}",
        f"shrunk from {before} to {count} step{'' if count == 1 else 's'} in {tries} tries; the story:",
        "",
        *_indent(story(outcome)),
        "",
        "as a test (from tests.histories.player import play):",
        "",
        as_test(shrunk, f"seed_{seed}", _sentence(_named(outcome.player, outcome.failure.message))),
    ]
    return "\n".join(lines)


def _sentence(message: str) -> str:
    first = message.split("\n", 1)[0].replace('"', "'").replace("\\", "/")
    return first if len(first) <= 100 else first[:97] + "..."


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def story(outcome: Outcome) -> list[str]:
    """What happened, a line each, in plain words."""
    lines = list(_setting(outcome.history))
    for told in outcome.player.world.log or ():
        lines += [f"[{told.at - BEGAN:+.4g} s] {line}" for line in _told(told)]
    world = outcome.player.world
    if outcome.failure is not None:
        at_the_end = outcome.failure.step >= len(outcome.history.steps)
        step = "when everything was to come to its end" if at_the_end else f"in step {outcome.failure.step + 1}"
        doing = "" if at_the_end else f" {as_python(outcome.history.steps[outcome.failure.step])}"
        lines.append(f"[{world.now - BEGAN:+.4g} s] {step}{doing}: {outcome.failure.message.split(chr(10), 1)[0]}")
        for run in world.state.runs.values():
            for action in run.actions.values():
                reason = world.state.admission.reason(action, world.now)
                lines += [f"    {line}" for line in why(action, world.now, reason)]
    return [_named(outcome.player, line) for line in lines]


def _named(player: Player, text: str) -> str:
    for name, key in player.names.items():
        if name[0] == "c":
            text = text.replace(key.action, name)
    return text


def _setting(history: History) -> Iterator[str]:
    for n, config in enumerate(history.configurations):
        yield "at first:" if not n else f"configuration {n}:"
        for value in (*config.queues, *config.pools):
            yield f"  {as_python(value)}"
    for name, settings in history.tasks.items():
        yield f"task {name}: {as_python(settings)}"


def _told(told: Told) -> Iterator[str]:
    event = told.event
    recorded = bool(told.outcome) or any(type(each) is Record and each.event is event for each in told.effects)
    said = _event(event, recorded)
    if said:
        yield f"{said}: {told.outcome}" if told.outcome else said
    for effect in told.effects:
        if type(effect) is Record:
            if effect.event is not event and type(effect.event) not in (RunSubmitted, TaskDeclared):
                action, words = describe(effect.event)
                yield f"  {effect.event.run}/{action}: {words}"
        elif line := _order(effect):
            yield f"  {line}"


def _event(event: Event, recorded: bool) -> str:
    match event:
        case TimePassed() | TaskDeclared():
            return ""
        case Configured():
            return "another configuration: " + ", ".join([q.name for q in event.queues] + [p.name for p in event.pools])
        case PoolCapacityChanged():
            room = "as many as configured" if event.available is None else f"{event.available}"
            return f"the market of {event.pool} has room for {room}"
        case PoolPriceChanged():
            return f"pool {event.pool} costs ${event.price_per_hour:g} per hour"
        case RunLoaded():
            return f"a new controller reads run {event.record.id} back"
        case QueueStateSet():
            return f"an operator sets queue {event.queue} to {event.state}"
    action, words = describe(event)
    said = f"{event.run}/{action}: {words}" if action else f"{event.run}: {words}"
    if recorded or isinstance(event, RunSubmitted):
        return said
    return f"{said} (unheard: {'it was given up' if isinstance(event, AttemptEnded) else 'of no consequence'})"


def _order(effect: Effect) -> str:
    match effect:
        case StopAttempt():
            return f"{effect.key} is told to stop: {effect.reason}"
        case RelocateAttempt():
            return f"{effect.key} is to move, within {effect.seconds:g} s"
        case Deliver():
            return f"{effect.action.key}: the outcome is {effect.action.phase}"
        case Refuse():
            return f"refused: {effect.error}: {effect.message}"
        case RunEnded():
            return f"{effect.run} is over: {effect.phase}"
        case QueueDrained():
            return f"queue {effect.queue} is drained"
    return ""
