"""As people write them for Flyte 1: tasks on spot, with checkpoints, a workflow over them."""

import time

from flyteish.compat.flytekit import current_context, map_task, task, workflow
from flyteish.compat.flytekit.exceptions.user import FlyteRecoverableException


@task(interruptible=True, retries=1)
def add_one_and_print(value_to_print: int) -> int:
    print(value_to_print)
    return value_to_print + 1


def run_batch(batch_id: int) -> float:
    return batch_id / 2


def train_one_epoch(epoch: int) -> None:
    time.sleep(0.02)


@task(interruptible=True, retries=3)
def resilient_training_step(batch_id: int) -> float:
    return run_batch(batch_id)


@task(interruptible=True, retries=5)
def long_training_job(num_epochs: int) -> str:
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    for epoch in range(int(saved.decode()) if saved else 0, num_epochs):
        train_one_epoch(epoch)
        checkpoint.write(str(epoch + 1).encode())
    return "training_complete"


@task(retries=2)
def flaky(fail: bool) -> str:
    checkpoint = current_context().checkpoint
    if fail and not checkpoint.prev_exists():
        checkpoint.write(b"tried")
        raise FlyteRecoverableException("again, please")
    return "settled"


@workflow
def pipeline(batches: int) -> list[float]:
    first = add_one_and_print(value_to_print=batches)
    return map_task(resilient_training_step, concurrency=2)(batch_id=list(range(first)))
