"""The shortest true program: a task that calls another one, and what is on record of it afterwards."""

import flyteish

env = flyteish.TaskEnvironment("hello")


@env.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@env.task
async def main(names: list[str]) -> list[str]:
    return [await greet(name) for name in names]


if __name__ == "__main__":
    run = flyteish.run(main, names=["Ada", "Grace"])
    print(run.result())
    for action in run.actions():
        print(f"{action.profile.task} {action.phase} on {action.attempts[0].medium}")
