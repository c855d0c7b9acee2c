"""``plan()``: what it says before anything runs, and the warnings that people should heed."""

from __future__ import annotations

from datetime import timedelta

import pytest

import flyteish
from flyteish import RetryStrategy, SpotPolicy, TaskEnvironment, Timeout
from flyteish._core.model.policies import DEADLINE_POLICIES
from flyteish._core.model.settings import Settings
from flyteish._core.rules.deadline_policies import POLICIES, SUMMARIES
from flyteish._core.rules.plan import Known, plan
from flyteish.errors import ConfigurationError

HOUR = 3600.0
SPOT_ONCE = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1))


def settings(**changes: object) -> Settings:
    given: dict[str, object] = {"interruptible": SpotPolicy(), "retries": RetryStrategy(1), **changes}
    return Settings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said, known, words",
    [
        (settings(retries=RetryStrategy()), Known(), "retries=0 never runs on spot"),
        (settings(interruptible=SpotPolicy(fallback="never")), Known(), "may never finish"),
        (settings(interruptible=SpotPolicy(budget="single")), Known(), "every preemption uses up one of the retries"),
        (
            settings(timeout=Timeout(deadline=HOUR)),
            Known(saves=False),
            "hard deadline, and its code mentions no checkpoint",
        ),
        (settings(interruptible=SpotPolicy(work=3 * HOUR)), Known(saves=False), "may run for 3 h"),
        (settings(timeout=Timeout(max_runtime=5 * HOUR)), Known(saves=False), "may run for 5 h"),
        (settings(), Known(saves=False, work=9 * HOUR), "may run for 9 h"),
        (settings(idempotent=False), Known(), "interruptible is not followed"),
        (settings(idempotent=False, interruptible=SpotPolicy(force=True)), Known(), "forced on spot"),
        (settings(idempotent=False), Known(), "run it again after a failure"),
        (settings(interruptible=SpotPolicy(work=9 * HOUR), timeout=Timeout(deadline=HOUR)), Known(), "9 h of work"),
    ],
)
def test_a_warning_for_what_people_should_heed(said: Settings, known: Known, words: str) -> None:
    """Each of these draws its warning."""
    assert [text for text in plan(said, known).warnings if words in text]


@pytest.mark.parametrize(
    "said, known",
    [
        (SPOT_ONCE, Known(saves=False)),
        (SPOT_ONCE, Known(saves=True, work=9 * HOUR)),
        (settings(timeout=Timeout(deadline=HOUR)), Known(saves=True)),
        (Settings(), Known(saves=False, work=99 * HOUR)),
        (settings(interruptible=None, timeout=Timeout(deadline=HOUR)), Known(saves=False)),
    ],
)
def test_no_warning_where_nothing_is_wrong(said: Settings, known: Known) -> None:
    """Work that saves, short work, and work that is on-demand anyway are left in peace."""
    assert not plan(said, known).warnings


def test_a_deadline_says_what_is_expected_of_it() -> None:
    """Slack, the rule in a sentence, and the latest moment at which it goes on-demand."""
    paced = settings(interruptible=SpotPolicy(work=48 * HOUR), timeout=Timeout(deadline=70 * HOUR))
    told = str(plan(paced, Known(saves=True, changeover=180.0)))
    assert "deadline in 70 h, 48 h of work (SpotPolicy(work=...)): 22 h of slack" in told
    assert SpotPolicy().deadline_policy in told
    assert "it goes on-demand to the end 21.9 h after the submission" in told


def test_a_deadline_that_steers_says_what_missing_checkpoints_cost() -> None:
    """Nothing is missed for them, but spot is left early; and a deadline goes before ``fallback='never'``."""
    paced = settings(interruptible=SpotPolicy(work=9 * HOUR, fallback="never"), timeout=Timeout(deadline=30 * HOUR))
    told = plan(paced, Known(saves=False))
    assert any("leaves spot early enough" in text for text in told.warnings)
    assert not any("may miss it" in text or "may run for" in text for text in told.warnings)
    assert any("goes before fallback='never'" in text for text in told.expects)


def test_unknown_work_is_said() -> None:
    """A deadline without a known amount of work steers nothing, which the plan says, with the cure."""
    told = plan(settings(timeout=Timeout(deadline=70 * HOUR)), Known(saves=True))
    assert any("SpotPolicy(work=...)" in text for text in told.expects)


def test_every_policy_has_its_sentence() -> None:
    """Names, rules and sentences are the same set; ``off`` is no rule."""
    assert set(POLICIES) == set(SUMMARIES) == set(DEADLINE_POLICIES) - {"off"}


def test_a_task_that_is_not_idempotent_refuses_spot() -> None:
    """``idempotent=False`` keeps it on-demand in every user attempt, unless it is forced, per call too."""
    env = TaskEnvironment("pay", interruptible=True, retries=2)

    @env.task(idempotent=False)
    async def charge(cents: int) -> int:
        return cents

    assert {row.medium for row in charge.plan().attempts} == {"on-demand"}
    assert {row.rule for row in charge.plan().attempts} == {"not-idempotent"}
    forced = charge.override(interruptible=SpotPolicy(force=True)).plan()
    assert [row.medium for row in forced.attempts] == ["spot", "spot", "on-demand"]
    assert [row.medium for row in charge.override(idempotent=True).plan().attempts] == ["spot", "spot", "on-demand"]


async def test_a_task_that_is_not_idempotent_runs_on_demand() -> None:
    """What the plan says is what happens."""
    env = TaskEnvironment("pay_for_it", interruptible=True, retries=2)

    @env.task(idempotent=False)
    async def charge(cents: int) -> str:
        return flyteish.ctx().medium

    async with flyteish.Session(durability="memory") as session:
        assert await session.run(charge, 5) == "on-demand"


def test_the_tasks_own_code_is_looked_at() -> None:
    """A task that mentions a checkpoint anywhere in its code is not warned of having none; one that does not is."""
    env = TaskEnvironment("train", interruptible=True, retries=1, timeout=Timeout(deadline=timedelta(hours=5)))

    @env.task
    async def saves() -> None:
        async def inner() -> None:
            await flyteish.ctx().checkpoint.save(b"")

        await inner()

    @env.task
    async def forgets() -> None:
        pass

    assert not saves.plan().warnings
    assert any("mentions no checkpoint" in text for text in forgets.plan().warnings)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_bad_values_are_refused_where_they_are_written(value: object) -> None:
    """``idempotent`` and ``force`` take True or False."""
    env = TaskEnvironment("strict")
    with pytest.raises(ConfigurationError, match=r"idempotent=.* in @env\.task .*expected True or False"):
        env.task(idempotent=value)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match=r"SpotPolicy\.force=.*expected True or False"):
        SpotPolicy(force=value)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"SpotPolicy\.deadline_policy='soon'.*'uniform-progress'"):
        SpotPolicy(deadline_policy="soon")


def test_no_work_at_all_is_refused() -> None:
    """Nought would read as "not known", and the plan would promise what nobody follows."""
    with pytest.raises(ConfigurationError, match=r"SpotPolicy\.work=0\.0 is not accepted.*None to learn it"):
        SpotPolicy(work=0)
