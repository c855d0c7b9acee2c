"""Retries: a service that fails twice, with back-off; an error that no retry can mend; the story of the attempts."""

import flyteish
from flyteish import Backoff, RetryStrategy, ctx
from flyteish.errors import NonRecoverableError

env = flyteish.TaskEnvironment("retries")
patiently = RetryStrategy(count=4, backoff=Backoff(base=0.1, factor=2, cap=1), retry_on=ConnectionError)


@env.task(retries=patiently)
def fetch(page: int) -> str:
    if page == 404:
        raise LookupError("no such page")  # not a ConnectionError: fails at once
    if page == 410:
        raise NonRecoverableError("this page is gone for good")  # fails at once, whatever the settings are
    if ctx().attempt < 3:
        raise ConnectionError(f"no answer to try {ctx().attempt}")
    return f"page {page} at try {ctx().attempt} of {ctx().max_attempts}"


def main() -> None:
    for page in (1, 404, 410):
        run = flyteish.run(fetch, page=page).wait()
        (action,) = run.actions()
        print(f"page {page} {run.phase}")
        free_since = action.submitted_at
        for attempt in action.attempts:
            waited, free_since = attempt.admitted_at - free_since, attempt.ended_at
            print(f"  after {waited:.1f} s: {attempt.cause or attempt.end}; paid by {attempt.charged or 'no budget'}")


if __name__ == "__main__":
    main()
