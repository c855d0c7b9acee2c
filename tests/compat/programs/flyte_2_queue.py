"""As people write them for Flyte 2: one queue for all tasks."""

import flyteish as flyte

env = flyte.TaskEnvironment("routed", queue="gpu-pool")


@env.task
def train_model(data: list[int]) -> dict[str, float]:
    return {"accuracy": 0.95}
