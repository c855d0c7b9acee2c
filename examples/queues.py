"""Queues: one task at a time, a few at a time, and queues that are full.

Tasks only name a queue; what it allows is said by whoever runs the session (or by ``flyteish.toml``).
"""

import asyncio
from collections import Counter

import flyteish
from flyteish import Queue, Session, ctx
from flyteish.errors import ResourceExhaustedError

QUEUES = [
    Queue("default"),
    Queue("serial", action_concurrency=1),
    Queue("bounded", action_concurrency=3),
    Queue("patient", action_concurrency=2, depth=4, on_full="wait"),  # full: the caller waits
    Queue("strict", action_concurrency=2, depth=4),  # full: the call is refused at once
]

env = flyteish.TaskEnvironment("queues")
running: Counter[str] = Counter()
most: Counter[str] = Counter()


@env.task
async def work(number: int) -> int:
    queue = ctx().queue
    running[queue] += 1
    most[queue] = max(most[queue], running[queue])
    await asyncio.sleep(0.02)
    running[queue] -= 1
    return number


@env.task
async def fill(queue: str) -> int:
    """Ten calls at once; returns how many of them the queue refused."""
    results = await asyncio.gather(*[work.override(queue=queue)(n) for n in range(10)], return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ResourceExhaustedError):
            raise result
    return sum(isinstance(result, ResourceExhaustedError) for result in results)


def main() -> None:
    with Session(queues=QUEUES) as session:
        for queue in QUEUES[1:]:
            refused = session.run(fill, queue=queue.name).result()
            print(f"{queue.name:8} at most {most[queue.name]} at a time, {10 - refused} done, {refused} refused")


if __name__ == "__main__":
    main()
