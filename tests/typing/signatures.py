"""What type checkers see of tasks. Never run: ``test_signatures`` gives it to mypy, strictly.

An ``ignore`` marks a line that must be an error: mypy complains of one that is not needed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from datetime import timedelta
from typing import Any, assert_type

import flyteish as flyte
from flyteish.compat.flytekit import SINGLE_BUDGET, map_task, task, workflow

env = flyte.TaskEnvironment("typed", retries=2, timeout=timedelta(minutes=1), interruptible=flyte.SpotPolicy())


@env.task
async def train(data: list[float], epochs: int = 1) -> dict[str, float]:
    return {"loss": sum(data) / epochs}


@env.task(retries=flyte.RetryStrategy(count=1), queue="gpu", cache="auto", priority="max")
async def tune(data: list[float], *, rate: float) -> float:
    return rate * len(data)


@env.task
def preprocess(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@env.task(timeout=0, report=True)
def count(text: str, /, letter: str = "e") -> int:
    return text.count(letter)


@flyte.trace
def measure(text: str) -> int:
    return len(text)


@flyte.trace
async def fetch(url: str) -> bytes:
    return url.encode()


async def the_signature_is_kept() -> None:
    await assert_type(train([1.0]), Coroutine[Any, Any, dict[str, float]])
    assert_type(await train([1.0], epochs=2), dict[str, float])
    assert_type(await tune([1.0], rate=0.1), float)
    assert_type(preprocess("text"), list[int])
    assert_type(count("text", letter="t"), int)
    assert_type(measure("text"), int)
    assert_type(await fetch("url"), bytes)
    await train("text")  # type: ignore[arg-type]
    await train([1.0], epoch=2)  # type: ignore[call-arg]
    await tune([1.0], 0.1)  # type: ignore[call-arg]
    preprocess(1)  # type: ignore[arg-type]
    count(text="text")  # type: ignore[call-arg]
    measure(1)  # type: ignore[arg-type]


async def the_other_forms_keep_it_too() -> None:
    assert_type(await train.aio([1.0]), dict[str, float])
    assert_type(await preprocess.aio("text"), list[int])
    assert_type(await train.forward([1.0]), dict[str, float])
    assert_type(preprocess.forward("text"), list[int])
    assert_type(await train.override(retries=0)([1.0], epochs=2), dict[str, float])
    assert_type(count.override(interruptible=False).override(queue="q")("text"), int)
    assert_type(await count.override(timeout=None).aio("text"), int)
    await train.override(retries=0)("text")  # type: ignore[arg-type]
    await preprocess.aio(1)  # type: ignore[arg-type]


def parameters_are_checked() -> None:
    flyte.TaskEnvironment("env", interruptable=True)  # type: ignore[call-arg]
    flyte.TaskEnvironment("env", retries="3")  # type: ignore[arg-type]
    flyte.TaskEnvironment("env", cache="always")  # type: ignore[arg-type]
    env.clone_with("other", quue="gpu")  # type: ignore[call-arg]
    env.task(retrys=3)  # type: ignore[call-overload]
    env.task(priority="urgent")  # type: ignore[call-overload]
    train.override(interruptable=False)  # type: ignore[call-arg]
    train.override(report=True)  # type: ignore[call-arg]
    train.override(queue=7)  # type: ignore[arg-type]
    flyte.with_runcontext(quue="gpu")  # type: ignore[call-arg]
    flyte.with_runcontext(priority="urgent")  # type: ignore[arg-type]
    flyte.with_runcontext(name="r", queue="gpu", interruptible=False, overwrite_cache=True)
    env.clone_with("other", queue="gpu", image=flyte.Image.from_debian_base(), secrets=["a", flyte.Secret("b")])


async def mapping_gives_results_or_exceptions() -> None:
    assert_type(flyte.map(count, ["a", "b"]), Generator[int | Exception, None, None])
    assert_type(flyte.map(count, ["a", "b"], return_exceptions=False), Generator[int, None, None])
    assert_type(flyte.map(train, [[1.0]], return_exceptions=False), Generator[dict[str, float], None, None])
    assert_type(flyte.map.aio(train, [[1.0]], [1]), AsyncGenerator[dict[str, float] | Exception, None])
    assert_type(flyte.map.aio(train, [[1.0]], return_exceptions=False), AsyncGenerator[dict[str, float], None])
    with flyte.group("fold"):
        assert_type([item async for item in flyte.map.aio(count, "ab", return_exceptions=False)], list[int])


@task
def plain(text: str, times: int = 1) -> str:
    return text * times


@task(retries=2, interruptible=SINGLE_BUDGET, timeout=timedelta(minutes=1), cache=True, cache_version="1")
def configured(number: int) -> float:
    return number / 2


@workflow
def composed(number: int) -> str:
    return plain("a", times=int(assert_type(configured(number), float)))


async def flyte_1_keeps_it_as_well() -> None:
    assert_type(plain(text="a", times=2), str)
    assert_type(composed(number=1), str)
    assert_type(await configured.aio(number=1), float)
    assert_type(map_task(configured)(number=[1, 2]), list[float])
    assert_type(map_task(configured, concurrency=2)(number=[1]), list[float])
    assert_type(map_task(configured, min_success_ratio=0.5)(number=[1]), list[float | None])
    assert_type(plain.override(retries=1)(text="a"), str)
    plain(txt="a")  # type: ignore[call-arg]
    configured(number="1")  # type: ignore[arg-type]
    task(enable_deck=True)  # type: ignore[call-overload]
    task(retries="3")  # type: ignore[call-overload]
