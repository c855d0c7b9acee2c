"""Deadline policies as arithmetic: Uniform Progress by its rules, slack-budget by its own, no deadline ever missed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyteish._core.model.queues import ON_DEMAND, SPOT
from flyteish._core.rules.deadline_policies import POLICIES, WAIT, Policy, Situation, slack_budget, uniform_progress
from tests.benchmarks.deadline_policies import ALL_POLICIES, HOUR, Job, greedy, on_demand

D = 180.0
EVERY = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def at(hours: float, done: float, on: str, free: bool, d: float = D, stretch: float = math.inf) -> Situation:
    """48 h of work in 70 h; ``done`` in hours, all of it saved."""
    return Situation(
        work=48 * HOUR, budget=70 * HOUR, elapsed=hours * HOUR, done=done * HOUR, saved=done * HOUR, on=on,
        spot_free=free, changeover=d, stretch=stretch,
    )  # fmt: skip


@pytest.mark.parametrize(
    "situation, go, rule",
    [
        (at(0, 0, "", True), SPOT, "spot-while-it-lasts"),
        (at(0, 0, "", False), ON_DEMAND, "behind"),
        (at(10, 6, "", True), SPOT, "spot-while-it-lasts"),  # behind ep(10 h) = 6.86 h, and takes the risk
        (at(10, 6, "", False), ON_DEMAND, "behind"),
        (at(10, 7, "", False), WAIT, "ahead"),
        (at(10, 6.9, ON_DEMAND, True), ON_DEMAND, "catch-up"),  # ep(10.1 h) = 6.93 h
        (at(10, 6.95, ON_DEMAND, True), SPOT, "caught-up"),
        (at(10, 6.95, ON_DEMAND, False), ON_DEMAND, "caught-up"),
    ],
)
def test_uniform_progress_by_its_rules(situation: Situation, go: str, rule: str) -> None:
    """Spot whenever it can be had; idle and behind, on-demand; back to spot once ahead by two change-overs."""
    decision = uniform_progress(situation)
    assert (decision.go, decision.rule) == (go, rule)


def test_uniform_progress_says_when_it_will_look_again() -> None:
    """Waiting, when ep(t) meets the progress; catching up, when the progress meets ep(t + 2 d)."""
    assert uniform_progress(at(10, 7, "", False)).review == pytest.approx(7 * 70 / 48 * HOUR)
    catching_up = at(10, 6.9, ON_DEMAND, True)
    review = uniform_progress(catching_up).review
    done = catching_up.done + review - catching_up.elapsed
    assert done == pytest.approx((review + 2 * D) * 48 / 70)


@EVERY
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("on", ["", ON_DEMAND])
@pytest.mark.parametrize("reserve", [0.0, 600.0])
def test_the_safety_net(policy: Policy, free: bool, on: str, reserve: float) -> None:
    """Short of the work, two change-overs, what a loss costs and a second, it is on-demand; with more, it is not."""
    done = 48 * HOUR - (40 * HOUR - 2 * D - reserve)
    short = at(30, 0, on, free)._replace(done=done - 1, saved=done - 1, reserve=reserve)
    assert policy(short)[:2] == (ON_DEMAND, "deadline-safety")
    enough = short._replace(done=done + 2, saved=done + 2)
    assert policy(enough).rule != "deadline-safety"


@EVERY
def test_unsaved_work_is_not_risked(policy: Policy) -> None:
    """On spot it stays until a sudden loss of what is not saved could no longer be made good; then it leaves."""
    saved = 48 * HOUR - (40 * HOUR - D) + 60
    on_spot = at(30, 0, SPOT, True)._replace(done=saved + 3000, saved=saved)
    stays = policy(on_spot)
    assert stays.go == SPOT
    assert stays.review == pytest.approx(30 * HOUR + 59, abs=0.01)
    leaves = policy(on_spot._replace(elapsed=stays.review, done=saved + 3059))
    assert leaves[:2] == (ON_DEMAND, "deadline-safety")
    gone = on_spot._replace(on=ON_DEMAND, elapsed=30 * HOUR + 60, grace=30.0)
    assert policy(gone)[:2] == (ON_DEMAND, "deadline-safety"), "and it does not come back"


@pytest.mark.parametrize(
    "situation, go, rule",
    [
        (at(0, 0, "", True, stretch=0), SPOT, "spot-while-it-lasts"),
        (at(0, 0, "", False, stretch=0), WAIT, "slack-to-spare"),
        (at(30, 12, "", False, stretch=900), ON_DEMAND, "slack-kept"),  # 4 h of slack, 40 h to go
        (at(30, 12, "", False, d=720, stretch=60), WAIT, "young-outage"),  # 12 min * 12 min / 1 h
        (at(30, 12, "", False, d=720), ON_DEMAND, "slack-kept"),  # a market not observed is not waited for either
        (at(30, 12, ON_DEMAND, False, stretch=60), ON_DEMAND, "outage"),
        (at(30, 12, ON_DEMAND, True, stretch=10), ON_DEMAND, "spot-too-young"),
        (at(30, 12, ON_DEMAND, True, stretch=900), SPOT, "spot-has-stayed"),
        (at(60, 47.95, ON_DEMAND, True, stretch=900), ON_DEMAND, "nearly-done"),
    ],
)
def test_slack_budget_by_its_rules(situation: Situation, go: str, rule: str) -> None:
    """It waits while there is slack to spare, then bridges outages, and goes back to spot that has stayed."""
    decision = slack_budget(situation)
    assert (decision.go, decision.rule) == (go, rule)
    assert decision.review > situation.elapsed


def test_what_the_market_showed_changes_the_mind_of_slack_budget() -> None:
    """Where outages were many, slack is kept for change-overs; where they were few, the same slack is waited with."""
    idle = at(30, 18, "", False, d=720, stretch=720)._replace(up_seconds=15 * HOUR, down_seconds=15 * HOUR)
    assert slack_budget(idle._replace(up_ended=40, down_ended=40)).rule == "slack-kept"
    assert slack_budget(idle._replace(up_ended=1, down_ended=1)).rule == "slack-to-spare"


def test_spot_that_saves_nothing_is_not_gone_back_to() -> None:
    """At the price of on-demand, a move costs two change-overs for nothing."""
    decision = slack_budget(at(30, 12, ON_DEMAND, True)._replace(price=1.0))
    assert decision.go == ON_DEMAND


lengths = st.one_of(st.floats(0.01, 30), st.floats(30, 2000), st.floats(2000, 50_000))


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any job that on-demand alone would do in time, on any market."""
    work = draw(st.floats(10, 50_000))
    changeover = draw(st.one_of(st.just(0.0), st.floats(0.1, 5000)))
    slack = draw(st.one_of(st.floats(0, 10), st.floats(0, 4), st.floats(4, 1000).map(lambda x: x / 10)))
    interval = draw(st.one_of(st.just(0.0), st.floats(10, 5000)))
    grace = draw(st.one_of(st.just(0.0), st.floats(0.1, 200)))
    moment, stretches = draw(st.sampled_from([0.0, 1.0, 500.0])), []
    for up, down in draw(st.lists(st.tuples(lengths, lengths), max_size=40)):
        stretches.append((moment, moment + up))
        moment += up + down
    budget = work + changeover + slack * max(changeover, 60.0)
    price = draw(st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.9, 1.0]))
    return Job(stretches, work, budget, changeover, price, interval=interval, grace=grace)


@settings(max_examples=150, deadline=None)
@given(job=jobs(), name=st.sampled_from(sorted(ALL_POLICIES)))
def test_no_deadline_is_missed_that_on_demand_alone_would_keep(job: Job, name: str) -> None:
    """Whatever the market, the change-over, the time between checkpoints and the grace: the work is done in time."""
    assert job.run(ALL_POLICIES[name]).finished <= job.budget + 1e-3


@EVERY
@pytest.mark.parametrize("seed", range(5))
def test_adverse_markets(policy: Policy, seed: int) -> None:
    """Spot that dies for good, that never comes, that flaps every five minutes: in time, and not much dearer than
    on-demand alone. Uniform Progress takes every flap once it is ahead, so it is bounded less tightly."""
    dearer = 1.05 if policy is slack_budget else 1.2
    rng = random.Random(seed)
    dies = rng.uniform(0, 50 * HOUR)
    markets = {
        "dies": [(0.0, dies)],
        "never": [],
        "flaps": [(600.0 * i, 600.0 * i + 300) for i in range(420)],
        "late": [(69 * HOUR, 71 * HOUR)],
    }
    for market in markets.values():
        for budget in (52 * HOUR, 70 * HOUR):
            for d in (180.0, 720.0):
                outcome = Job(market, 48 * HOUR, budget, d).run(policy)
                assert outcome.finished <= budget + 1e-3
                assert outcome.cost <= dearer * (48 * HOUR + d)


def test_slack_budget_costs_less_on_random_markets() -> None:
    """On exponential and heavy-tailed markets of stretches of hours it is cheaper than Uniform Progress and greedy."""
    cost = {"slack-budget": 0.0, "uniform-progress": 0.0, "greedy": 0.0}
    rng = random.Random(1)
    for _ in range(60):
        mean = {True: rng.uniform(0.5, 4) * HOUR, False: rng.uniform(0.25, 4) * HOUR}
        heavy, moment, up, market = rng.random() < 0.5, 0.0, rng.random() < 0.5, []
        while moment < 70 * HOUR:
            length = mean[up] / 3 * rng.paretovariate(1.5) if heavy else rng.expovariate(1 / mean[up])
            if up:
                market.append((moment, moment + length))
            moment, up = moment + length, not up
        for budget in (52 * HOUR, 70 * HOUR):
            for d in (180.0, 720.0):
                for name in cost:
                    cost[name] += Job(market, 48 * HOUR, budget, d).run(ALL_POLICIES[name]).cost
    assert cost["slack-budget"] < 0.97 * cost["uniform-progress"]
    assert cost["slack-budget"] < 0.97 * cost["greedy"]


def test_the_policies_to_compare_with_are_what_they_are_called() -> None:
    """On-demand alone costs the work and a change-over; greedy on a market without spot does too, and later."""
    alone = Job([], 1000.0, 2000.0, 10.0).run(on_demand)
    assert (alone.cost, alone.finished) == (1010.0, 1010.0)
    waits = Job([], 1000.0, 2000.0, 10.0).run(greedy)
    assert (waits.cost, waits.finished) == (1010.0, 1990.0)
