"""What tasks send by cloudpickle: closures and local classes, over as much of flyteish as programs close over.

``pickles`` makes them; ``told``, ``CALLS`` and ``AWAITED`` ask those that came back whether they are what they were.
Python itself reads pickled code only in the minor version that wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

import flyteish
from flyteish import (
    Backoff,
    Cache,
    Forecast,
    Image,
    Notice,
    Pool,
    Queue,
    Resources,
    RetryStrategy,
    Secret,
    Session,
    SpotPolicy,
    TaskEnvironment,
    Timeout,
    ctx,
    errors,
    group,
    map,
    run,
    trace,
)
from flyteish._core.model.settings import Settings
from flyteish.simulation import Scenario, Workload, WorkModel
from flyteish.testing import HandClock, RandomMarket, ScriptedMarket
from tests.durability.golden.values import Layer, Opaque

env = TaskEnvironment("pickled", retries=1, resources=Resources(cpu=1), image=Image("img:1"), env_vars={"A": "b"})


@env.task(interruptible=SpotPolicy(work=5), timeout=Timeout(max_runtime=60), cache=Cache("disable"))
async def add(x: int, y: int = 1) -> int:
    return x + y


@env.task
def subtract(x: int) -> int:
    return x - 1


@flyteish.trace
def traced(x: int) -> int:
    return x + 100


async def contextual(x: int) -> str:
    return f"{ctx().action if ctx() else 'nowhere'} {x}"


def pickles() -> dict[str, Any]:
    """Fresh ones, by name."""
    return {**_closures(), **_local_things(), **_objects()}


def _closures() -> dict[str, Any]:
    policy, pool = SpotPolicy(fallback="never"), Pool("p", "spot", market=ScriptedMarket([3.0]))
    retries, timeout = RetryStrategy(3, backoff=Backoff(2.0)), Timeout(deadline=9)
    queue, secret, overridden = Queue("q"), Secret("K"), add.override(retries=7, cache="auto")
    settings, plan = add.settings(), add.plan()
    market, failure = RandomMarket(seed=3), errors.PreemptedError("gone", 3)
    failure.__cause__ = errors.NonRecoverableError("cause")

    return {
        "plain": lambda x: x + 1,
        "over a task": lambda x: add.forward(x),
        "over an override": lambda: overridden,
        "over an environment": lambda: env,
        "over settings": lambda: (policy, retries, timeout, queue, secret),
        "over a market": lambda: (pool, market),
        "over an error": lambda: failure,
        "over the module": lambda: flyteish.errors.OOMError,
        "over ctx": lambda: flyteish.ctx() is ctx(),
        "over a traced function": lambda x: traced(x),
        "over names": lambda: (map, run, group, trace, Session, TaskEnvironment, Notice, Forecast, HandClock),
        "over resolved settings": lambda: (settings, plan.attempts),
        "over a scenario": lambda: Scenario,
    }


def _local_things() -> dict[str, Any]:
    local = TaskEnvironment("local", interruptible=True, queue="default", depends_on=[env])
    rate = 3

    @local.task
    async def scaled(x: int) -> int:
        return x * rate

    @local.task(retries=RetryStrategy(2, retry_on=(ValueError, errors.OOMError)))
    def blocking(x: int) -> int:
        return x - rate

    class Local:
        def __init__(self, task: Any) -> None:
            self.task = task

        async def call(self, x: int) -> int:
            result: int = await self.task(x)
            return result

    class LocalError(errors.NonRecoverableError):
        pass

    return {
        "local task": scaled,
        "local def task": blocking,
        "override of a local task": scaled.override(retries=4),
        "instance of a local class": Local(scaled),
        "local class": Local,
        "error of a local class": LocalError("local", 1),
        "over a local task": lambda: scaled,
    }


def _objects() -> dict[str, Any]:
    group = ExceptionGroup("g", [errors.OOMError("a"), ValueError("b", 2)])
    return {
        "task": add, "def task": subtract, "override": add.override(queue="other", retries=2), "environment": env,
        "error": errors.RemoteTaskError("text", remote_type="other.Error"), "group": group,
        "market": ScriptedMarket([1.0, None], notice_seconds=3), "opaque": Opaque("deep"),
        "traced function": contextual, "work model": WorkModel(5.0), "image": Image("img:2"),
        "workload": Workload(add, WorkModel(5.0)), "function of another module": Layer.__init__,
    }  # fmt: skip


def told(things: dict[str, Any]) -> dict[str, Any]:
    """What those say that come back as they are, in plain values."""
    one, other, local = things["over an error"](), things["error"], things["error of a local class"]
    return {
        "tasks": [things[each].name for each in ("task", "def task", "local task", "local def task")],
        "overrides": [
            things["override"].overridden.retries.count, things["over an override"]().overridden.retries.count,
            things["override of a local task"].overridden.retries.count,
        ],
        "environments": [things["environment"].name, things["over an environment"]().name],
        "declared": things["local task"].settings(),
        "settings": things["over settings"](),
        "pool": things["over a market"]()[0].name,
        "markets": repr((things["market"], things["over a market"]()[0].market, things["over a market"]()[1])),
        "errors": [type(one).__name__, one.args, type(other).__name__, other.remote_type],
        "group": [(type(each).__name__, each.args) for each in things["group"].exceptions],
        "local error": [type(local).__mro__[1].__name__, local.args],
        "module": things["over the module"]().__name__,
        "scenario": things["over a scenario"]().__name__,
        "names": [repr(things["over names"]()[0]), *things["over names"]()[1:]],
        "resolved": _without_image(*things["over resolved settings"]()),
        "models": (things["work model"], things["image"]),
        "workload": things["workload"].task.name,
        "opaque": things["opaque"].text,
        "over ctx": things["over ctx"](),
    }  # fmt: skip


def _without_image(settings: Settings, attempts: Any) -> tuple[Settings, Any]:
    """What was resolved when the home was written has none: images were no settings then."""
    sources = {name: source for name, source in settings.sources.items() if name != "image"}
    return msgspec.structs.replace(settings, image=None, sources=sources), attempts


CALLS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "plain": ((1,), 2),
    "over a traced function": ((1,), 101),
}
"""Of those that are functions: arguments, and what they return."""
AWAITED: dict[str, Callable[[Any], Any]] = {
    "over a task": lambda thing: thing(1),
    "local task": lambda thing: thing.forward(5),
    "instance of a local class": lambda thing: thing.task.forward(5),
    "over a local task": lambda thing: thing().forward(5),
}
"""Of those that are awaited: how. The first adds one, the others multiply by three."""
