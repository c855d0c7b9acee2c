"""As people write them for Flyte 2: interruptible at three levels, a parent that calls without await."""

import flyteish as flyte

env = flyte.TaskEnvironment("levels", interruptible=True)


@env.task
def preprocess(data: list[int]) -> list[int]:
    return [2 * each for each in data]


@env.task(interruptible=False)
def save_results(results: dict[str, list[int]]) -> str:
    return "saved"


@env.task
async def main(data: list[int]) -> str:
    doubled = preprocess(data)
    return save_results.override(interruptible=False)({"data": doubled})


@env.task(interruptible=True, retries=3)
def train_model(data: list[int]) -> dict[str, float]:
    return {"accuracy": 0.95}
