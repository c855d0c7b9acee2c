"""All rules of placement are named in one list, and the first that holds decides."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest

from flyteish._core.model.policies import RetryStrategy, SpotPolicy
from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.model.settings import Settings
from flyteish._core.rules import deadline_policies, placement
from flyteish._core.rules.deadline_policies import POLICIES, Decision, Situation
from flyteish._core.rules.placement import RULES, by_deadline, place, where_there_is_no_spot

NAMES = [rule.name for rule in RULES]
MEDIUM = {rule.name: rule.medium for rule in RULES}
NEVER = SpotPolicy(fallback="never")
FIRST = SpotPolicy(fallback="first-preemption")


def test_every_rule_has_one_place_in_the_list() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_no_rule_is_named_anywhere_else() -> None:
    """Neither in the rules' own functions nor by those who act on them, which refer to the list by constants."""
    rules = {node.args[1].value for node in calls(placement, "Placement") if isinstance(node.args[1], ast.Constant)}
    assert rules <= set(NAMES)
    transitions = Path(placement.__file__).parents[1] / "transitions"
    for source in transitions.glob("*.py"):
        words = {node.value for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Constant)}
        assert not words & (set(NAMES) - {"ahead"}), source.name  # a pool's ``ahead`` is another word


def calls(module: object, name: str) -> list[ast.Call]:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


@pytest.mark.parametrize(
    "expected, settings, user_attempt, in_row, preemptions",
    [
        ("not-interruptible", Settings(idempotent=False), 1, 9, 9),
        ("not-idempotent", Settings(interruptible=NEVER, idempotent=False), 1, 9, 9),
        ("never-on-demand", Settings(interruptible=NEVER), 1, 9, 9),
        ("first-preemption", Settings(interruptible=FIRST), 1, 9, 9),
        ("interruptible", Settings(interruptible=FIRST), 1, 0, 0),
        ("final-attempt", Settings(interruptible=SpotPolicy()), 1, 9, 9),
        ("trip-wire", Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1)), 1, 3, 3),
        ("interruptible", Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1)), 1, 2, 9),
    ],
)
def test_the_first_that_holds_decides(
    expected: str, settings: Settings, user_attempt: int, in_row: int, preemptions: int
) -> None:
    """In each case all that come after it in the list hold, too, or nearly."""
    chosen = place(settings, user_attempt, in_row, preemptions)
    assert (chosen.rule, chosen.medium) == (expected, MEDIUM[expected])


def test_a_queue_without_spot_sends_on_demand_whoever_may_go_there() -> None:
    may = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(1))
    assert where_there_is_no_spot(place(may, 1, 0, 0), may).rule == "no-spot-pool"
    never = Settings(interruptible=NEVER)
    assert where_there_is_no_spot(place(never, 1, 0, 0), never).medium == SPOT


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_whatever_a_deadline_says_to_one_that_waits_is_in_the_list(policy: str, seed: int) -> None:
    """By its name, and with the medium that it leads to."""
    chance = Random(seed)
    for _ in range(2000):
        budget = chance.uniform(10, 10_000)
        work, done = chance.uniform(0.1, 1.2) * budget, chance.random() * budget / 2
        situation = Situation(
            work=work, budget=budget, elapsed=chance.random() * budget, done=done, saved=done, on="",
            spot_free=chance.random() < 0.5, changeover=chance.uniform(0, budget / 10),
            stretch=chance.uniform(0, budget),
        )  # fmt: skip
        chosen = by_deadline(POLICIES[policy](situation))
        assert MEDIUM[chosen.rule] == chosen.medium


def test_who_is_to_wait_waits_for_spot() -> None:
    assert by_deadline(Decision(deadline_policies.WAIT, "ahead", "")).medium == SPOT
    assert by_deadline(Decision(ON_DEMAND, "behind", "")).medium == ON_DEMAND
