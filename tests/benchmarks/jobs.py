"""The tasks that the benchmarks run; in a module of their own so that worker processes can import them."""

import asyncio

import flyteish

env = flyteish.TaskEnvironment(name="bench")
workers = flyteish.TaskEnvironment(name="bench_workers", queue="workers")


@env.task
async def nothing(x: int) -> int:
    return x


@env.task
async def fan_out(n: int) -> int:
    return len(await asyncio.gather(*[nothing(i) for i in range(n)]))


@env.task
async def one_by_one(n: int) -> int:
    for i in range(n):
        await nothing(i)
    return n


@workers.task
def small(x: int) -> int:
    return x


@env.task
async def fan_out_to_workers(n: int) -> int:
    return len(await asyncio.gather(*[small.aio(i) for i in range(n)]))


async def bare(x: int) -> int:
    return x


async def bare_gather(n: int) -> int:
    return len(await asyncio.gather(*[bare(i) for i in range(n)]))


@env.task
def root() -> None:
    """For the simulator: it is never called."""


@env.task(interruptible=True, retries=3)
def spot() -> None:
    """For the simulator: it is never called."""
