"""As people write them for Flyte 2: a queue for the environment, another for one task."""

import flyteish as flyte

env = flyte.TaskEnvironment("routed", queue="default-pool")


@env.task
def preprocess(data: list[int]) -> list[int]:
    return [2 * each for each in data]


@env.task(queue="gpu-pool")
def train_model(data: list[int]) -> dict[str, float]:
    return {"accuracy": 0.95}
