"""Draws what a history is played in: queues with all their limits, pools, and tasks with every kind of settings.

Small numbers throughout: three places and four actions meet every limit that three thousand would.
"""

from __future__ import annotations

import random

from flyteish._core.model.events import Configured
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Medium, Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings
from flyteish._core.rules.deadline_policies import POLICIES
from tests.histories.history import History

QUEUES = ("default", "other")
POOLS: tuple[tuple[str, Medium, float], ...] = (
    ("od", "on-demand", 0.97),
    ("spot", "spot", 0.9),
    ("spot2", "spot", 0.4),
    ("od2", "on-demand", 0.15),
)
NONE = Resources()


def random_setup(chance: random.Random) -> History:
    """Configurations and tasks, without steps."""
    configurations = tuple(random_configuration(chance) for _ in range(chance.choice([1, 2, 3])))
    tasks = {f"t{n}": random_settings(chance) for n in range(chance.randint(1, 4))}
    return History(configurations, tasks)


def random_configuration(chance: random.Random) -> Configured:
    slow = chance.random() < 0.3
    pools = tuple(_pool(chance, name, medium, slow) for name, medium, share in POOLS if chance.random() < share)
    names = [pool.name for pool in pools]
    count = chance.choice([1, 2, 2])
    return Configured(tuple(_queue(chance, name, names) for name in QUEUES[:count]), pools)


def _pool(chance: random.Random, name: str, medium: Medium, slow: bool) -> Pool:
    one_of = chance.choice
    return Pool(
        name,
        medium=medium,
        capacity=one_of([0, 1, 1, 2, 3]),
        ahead=one_of([0, 0, 2]),
        resources=one_of([NONE, NONE, Resources(cpu=2), Resources(cpu=3, memory="2Gi"), Resources(gpu=1)]),
        price_per_hour=one_of([0.0, 0.1, 0.3]) if medium == "spot" else one_of([0.0, 0.3, 1.0]),
        cooldown=one_of([0.0, 3.0, 30.0]),
        grace=one_of([2.0, 120.0]) if slow else 0.0,
        startup=one_of([0.0, 1.0, 180.0]) if slow else one_of([0.0, 0.0, 0.2]),
    )


def _queue(chance: random.Random, name: str, pools: list[str]) -> Queue:
    one_of = chance.choice
    named = chance.sample(pools, chance.randint(0, len(pools))) if chance.random() < 0.4 else []
    return Queue(
        name,
        pools=named,
        action_concurrency=one_of([0, 0, 1, 1, 2, 3]),
        run_concurrency=one_of([0, 0, 0, 1, 2]),
        depth=one_of([0, 0, 1, 3, 5]),
        on_full=one_of(["refuse", "wait", "wait"]),
        max_resources=one_of([NONE, NONE, NONE, Resources(cpu=2), Resources(cpu=3)]),
        priority=one_of([50, 50, 100]),
        scheduling=one_of(["strict_fifo", "greedy_capacity"]),
        fairness=one_of(["round_robin", "fifo"]),
        overlap=one_of(["allow", "allow", "allow", "queue", "skip", "replace"]),
        spot_share=one_of([1.0, 1.0, 1.0, 0.7, 0.5, 0.0]),
        spend_limit=one_of([0.0, 0.0, 0.0, 1.5, 0.5]),
        state=one_of(["active", "held", "draining", "drained"]) if chance.random() < 0.25 else "active",
    )


def random_settings(chance: random.Random) -> Settings:
    one_of = chance.choice
    if chance.random() < 0.3:
        return _paced(chance)
    return Settings(
        queue=one_of([*QUEUES[:1] * 5, *QUEUES[1:]]),
        interruptible=_policy(chance) if chance.random() < 0.7 else None,
        retries=RetryStrategy(
            one_of([0, 1, 1, 2]),
            backoff=one_of([None, None, Backoff(2.0, 2.0, jitter=0.5), Backoff(1.0, cap=1.0)]),
            retry_on=one_of([None, None, None, ("builtins.ValueError",), ("m.Other", "builtins.MemoryError")]),
            system_retries=one_of([0, 1, 3]),
        ),
        timeout=Timeout(
            max_runtime=one_of([None, None, 5, 60]),
            max_queued_time=one_of([None, None, None, 4, 20]),
            deadline=one_of([None, None, None, 0.5, 12, 40, 60, 600]),
        ),
        idempotent=chance.random() < 0.9,
        priority=one_of([1, 50, 50, 50, 100]),
        resources=one_of([NONE, NONE, Resources(cpu=1), Resources(cpu=2), Resources(cpu=1, memory="1Gi"), _GPU]),
    )


_GPU = Resources(gpu=1)


_POLICIES = sorted(POLICIES)


def _paced(chance: random.Random) -> Settings:
    """Work whose placement follows a deadline that can be kept, with some room for waiting and for moves."""
    one_of = chance.choice
    work = one_of([5.0, 20.0, 100.0])
    return Settings(
        interruptible=SpotPolicy(work=work, max_spot_wait=one_of([None, None, 3]), deadline_policy=one_of(_POLICIES)),
        retries=RetryStrategy(one_of([1, 1, 2]), system_retries=one_of([1, 3])),
        timeout=Timeout(deadline=work * one_of([1.5, 3, 6])),
    )


def _policy(chance: random.Random) -> SpotPolicy:
    one_of = chance.choice
    return SpotPolicy(
        fallback=one_of(["final", "final", "final", "first-preemption", "never"]),
        preemptions_without_progress=one_of([1, 2, 3]),
        max_spot_wait=one_of([None, 0, 3, 15]),
        budget=one_of(["uncharged", "uncharged", "single"]),
        work=one_of([None, None, 3, 5, 30, 400]),
        deadline_policy=one_of([*_POLICIES, *_POLICIES, "off"]),
        force=one_of([False, True]),
    )
