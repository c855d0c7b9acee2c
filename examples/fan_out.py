"""Fan-out: one task called many times at once, with plain asyncio and with ``flyteish.map``."""

import asyncio

import flyteish

env = flyteish.TaskEnvironment("fan_out")


@env.task
async def square(number: int) -> int:
    return number * number


@env.task
async def sum_of_squares(count: int) -> int:
    """A thousand actions at once: what asyncio offers for coroutines works for tasks."""
    return sum(await asyncio.gather(*[square(number) for number in range(count)]))


@env.task
def factors(number: int) -> list[int]:
    if number < 1:
        raise ValueError(f"{number} has no factors")
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


@env.task
def survey(numbers: list[int]) -> dict[int, str]:
    """Four at a time; results come in order, and a failed call's exception is its result."""
    found = flyteish.map(factors, numbers, concurrency=4)
    return {
        number: str(result) if isinstance(result, Exception) else f"{len(result)} factors"
        for number, result in zip(numbers, found, strict=True)
    }


if __name__ == "__main__":
    print("sum of the first 1000 squares:", flyteish.run(sum_of_squares, count=1000).result())
    for number, text in flyteish.run(survey, numbers=[12, 0, 48, 97, 60]).result().items():
        print(f"{number:3}: {text}")
