"""A program that was run as a script: its run is recorded with the path of this file."""

from __future__ import annotations

from dataclasses import dataclass

from flyteish import TaskEnvironment

env = TaskEnvironment("script")


@dataclass
class Answer:
    value: int


@env.task
async def answer(value: int = 42) -> Answer:
    print("the answer is", value)
    return Answer(value)
