"""The program whose runs are in the golden home: it wrote them, and it is what resumes them.

``GOLDEN_MARKS`` names a file to which every execution adds a line. While ``GOLDEN_WAIT`` is set, ``gate`` never ends:
that is where the writer kills the program.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import flyteish
from flyteish import Cache, Resources, SpotPolicy, TaskEnvironment, Timeout, ctx
from flyteish.io import DataFrame, Dir, File
from tests.durability.golden.pickles import env as pickled_env
from tests.durability.golden.pickles import pickles
from tests.durability.golden.values import Colour, Layer, Measure, Model, Opaque, Pair, Track, every_value

env = TaskEnvironment("golden")
workers = TaskEnvironment("golden-workers", queue="workers")


def mark(*words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    with Path(os.environ["GOLDEN_MARKS"]).open("a") as file:
        file.write(line)


# -- values ----------------------------------------------------------------------------------------------------------


@env.task
async def all_values(given: dict[str, Any]) -> dict[str, Any]:
    print("every kind of value:", len(given))
    return every_value()


@env.task
async def values() -> dict[str, Any]:
    return await all_values(every_value())


@env.task
async def typed(
    layers: list[Layer],
    measure: Measure,
    either: int | str | None,
    colour: Colour,
    model: Model,
    track: Track,
    pair: Pair,
    by_name: dict[str, tuple[int, ...]],
) -> tuple[list[Layer], Measure, int | str | None, Colour, Model, Track, Pair, dict[str, tuple[int, ...]]]:
    return layers, measure, either, colour, model, track, pair, by_name


@env.task
def writes_files(text: str) -> tuple[File, Dir, DataFrame]:
    file: File = File.new_remote("note.txt")
    with file.open_sync("w") as handle:
        handle.write(text)
    tree = ctx().scratch() / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "one").write_text(text)
    return file, Dir.from_local_sync(tree), DataFrame.wrap_df(pd.DataFrame({"a": [1, 2, 3]}))


@env.task
async def takes_things(things: dict[str, Any]) -> int:
    return len(things)


@env.task
async def makes_pickles() -> dict[str, Any]:
    things = pickles()
    assert await takes_things(things) == len(things)
    return things


@env.task
async def keeps(known: list[Any]) -> list[Any]:
    """What sessions answer, as values, and in a closure; and what a checkpoint says of itself."""
    return [*known, await ctx().checkpoint.save(b"x"), lambda: known]


@env.task(cache=Cache("auto", version_override="1", ignored_inputs=("hint",)))
async def cached(x: int, hint: str = "") -> int:
    mark("cached", x)
    return x * 11


@env.task(cache="auto")
async def cached_by_source(size: Resources) -> int:
    mark("cached_by_source")
    return int(size.cpu or 0)


# -- attempts --------------------------------------------------------------------------------------------------------


@env.task(retries=2)
async def flaky() -> int:
    print("attempt", ctx().attempt)
    if ctx().attempt < 3:
        raise ConnectionError(f"attempt {ctx().attempt}")
    return ctx().attempt


@env.task(interruptible=True, retries=1)
async def reclaimed() -> int:
    """Saves when it is noticed, and goes on from there."""
    saved = await ctx().checkpoint.load_bytes()
    if saved is None:
        await ctx().checkpoint.save(b"1", progress=0.25)
        await ctx().interruption.wait()
        await ctx().checkpoint.save(b"2", progress=0.5)
        ctx().interruption.leave()
    return int(saved)


@env.task(
    interruptible=SpotPolicy(work=2.0, deadline_policy="uniform-progress"), retries=1, timeout=Timeout(deadline=60.0)
)
async def moved(steps: int) -> list[str]:
    """Saves each step with the medium it ran on, and leaves its machine when it is told to."""
    saved = await ctx().checkpoint.load_bytes()
    media = saved.decode().split() if saved else []
    while len(media) < steps:
        await asyncio.sleep(0.05)
        media.append(ctx().medium)
        await ctx().checkpoint.save(" ".join(media).encode(), progress=len(media) / steps)
        if ctx().interruption.pending:
            ctx().interruption.leave()
    return sorted(set(media))


@env.task(interruptible=SpotPolicy(max_spot_wait=0.05), retries=1)
async def waits_for_spot() -> str:
    return ctx().medium


@env.task(retries=1)
def torn() -> int:
    """Its second checkpoint is damaged by itself, so that the next attempt has to take the first one."""
    checkpoint = ctx().checkpoint
    if ctx().attempt > 1:
        return len(checkpoint.read() or b"")
    checkpoint.write(b"good")
    checkpoint.write(b"torn one")
    for path in Path(os.environ["GOLDEN_BLOBS"]).rglob("*"):
        if path.is_file() and path.read_bytes() == b"torn one":
            path.chmod(0o600)
            path.write_bytes(b"t")
    raise ConnectionError("the disk")


@flyteish.trace
async def measured(x: int) -> dict[str, Any]:
    mark("measured", x)
    return {"x": x, "colour": Colour.RED, "opaque": Opaque("traced")}


@env.task
async def leaf(x: int) -> int:
    mark("leaf", x)
    return x * 10


@env.task
async def grouped(n: int) -> int:
    with flyteish.group("first half"):
        first = await asyncio.gather(*[leaf(x) for x in range(n)])
    mapped = [value async for value in flyteish.map.aio(leaf, range(n, 2 * n), return_exceptions=False)]
    return sum(first) + sum(mapped)


@env.task
async def gives_up_on_a_child() -> str:
    try:
        async with asyncio.timeout(0.1):
            await never()
    except TimeoutError:
        return "gave up"
    return "it came"


@env.task
async def never() -> None:
    await asyncio.Event().wait()


# -- runs that are not over ------------------------------------------------------------------------------------------


@env.task
async def gate() -> str:
    mark("gate")
    if "GOLDEN_WAIT" in os.environ:
        await asyncio.Event().wait()
    return "open"


@env.task
async def makes_opaque() -> Opaque:
    mark("makes_opaque")
    return Opaque("from a child")


@env.task
async def takes_opaque(given: Opaque) -> str:
    mark("takes_opaque")
    return given.text


@env.task
async def sized(size: Resources) -> int:
    mark("sized")
    return int(size.cpu or 0)


@env.task(interruptible=True, retries=1)
async def trains(epochs: int) -> list[int]:
    """Saves each epoch under a key, too; at the fourth it stands still while ``GOLDEN_WAIT`` is set."""
    history: list[int] = []
    best: dict[str, Any] = {"layer": Layer(0)}
    loop = ctx().checkpoint.epochs(epochs, history, best, key="golden-model")
    async for epoch in loop:
        mark("epoch", epoch)
        history.append(epoch)
        best["layer"] = Layer(epoch)
        if epoch == 3 and "GOLDEN_WAIT" in os.environ:
            mark("standing")
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)
    return [*history, best["layer"].size]


@env.task
async def killed(x: int, opaque: Opaque, layer: Layer) -> dict[str, Any]:
    """Children that had finished, one that had not, and values that were traced."""
    saved = await ctx().checkpoint.load_bytes()
    mark("killed")
    for step in (b"1", b"2"):
        await ctx().checkpoint.save(step, progress=0.5)
    found = {
        "saved": saved,
        "leaf": await leaf(x),
        "opaque": (await makes_opaque()).text,
        "taken": await takes_opaque(opaque),
        "sized": await sized(Resources(cpu=3)),
        "layer": layer,
        "measured": await measured(x),
    }
    found["gate"] = await gate()
    return {**found, "late": await leaf(x + 1)}


@env.task
async def makes_closures() -> dict[str, Any]:
    mark("makes_closures")
    return pickles()


@env.task
async def killed_with_closures(transform: Callable[[int], int], over: Callable[[], Any]) -> list[Any]:
    """Its own arguments are closures, and so is what a finished child returned."""
    mark("killed_with_closures")
    things = await makes_closures()
    stood = await gate()
    return [transform(1), over().name, stood, things["plain"](4), await things["local task"].aio(5), sorted(things)]


@workers.task
def killed_in_a_worker(x: int) -> list[Any]:
    """A child that the worker got by value had finished, and another one had not."""
    saved = ctx().checkpoint.load_sync()
    mark("killed_in_a_worker")
    file = ctx().scratch() / "state.txt"
    file.write_text("so far")
    ctx().checkpoint.save_sync(file)
    local = TaskEnvironment("by-value", queue="workers", depends_on=[pickled_env])
    task, rate, gone = leaf, Resources(cpu=x), flyteish.errors.PreemptedError("over")

    @local.task
    def finished(y: int) -> Resources:
        mark("finished", task.name)
        return rate if y else Resources()

    @local.task
    def unfinished(y: int) -> list:  # a name that only an annotation has does not travel
        mark("unfinished", y)
        if "GOLDEN_WAIT" in os.environ:
            threading.Event().wait()
        return [task.name, rate, type(gone).__name__, pickled_env.name, local.name, y]

    return [finished(1), unfinished(2), saved and (saved.name, saved.read_text())]


UNFINISHED: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "killed": (killed, (1, Opaque("given"), Layer(2)), "gate"),
    "killed-training": (trains, (6,), "standing"),
    "killed-in-a-worker": (killed_in_a_worker, (4,), "unfinished"),
}
"""By name of the run: the task, its arguments, and what it marks when it may be killed."""


def _closures() -> tuple[Any, Any]:
    rate = 41
    return lambda x: x + rate, lambda: leaf


UNFINISHED["killed-with-closures"] = (killed_with_closures, _closures(), "gate")
