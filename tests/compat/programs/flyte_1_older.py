"""As people wrote them by Flyte 1's older pages."""

from flyteish.compat.flytekit.older import task


@task(cache_version="1", interruptible=True)
def add_one_and_print(value_to_print: int) -> int:
    return value_to_print + 1
