"""Settings at three levels: the environment, the task, the call. The most specific one that says something wins."""

import flyteish
from flyteish import ctx

env = flyteish.TaskEnvironment("reports", interruptible=True, retries=2)


@env.task
def preprocess(data: list[int]) -> str:
    return f"preprocess ran on {ctx().medium}, at most {ctx().max_attempts} attempts"


@env.task(interruptible=False)
def save(data: list[int]) -> str:
    return f"save ran on {ctx().medium}, at most {ctx().max_attempts} attempts"


@env.task
async def main(data: list[int]) -> list[str]:
    hurried = preprocess.override(retries=0)  # 0 is an opinion, too: no retries
    return [preprocess(data), save(data), hurried(data)]


if __name__ == "__main__":
    for task in (preprocess, save, preprocess.override(retries=0)):
        settings = task.settings()
        print(f"{task.name}:")
        for setting in ("interruptible", "retries", "queue"):
            print(f"  {setting:14} from {settings.source(setting)}")
        print("  " + str(task.plan()).replace("\n", "\n  "))
    print()
    for line in flyteish.run(main, data=[1, 2, 3]).result():
        print(line)
