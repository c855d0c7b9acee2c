"""Small worlds by hand: each attempt's beginning, end and cent follows from the settings and the written market."""

from __future__ import annotations

import pytest

from flyteish import Queue, Timeout
from flyteish._core.model.settings import Settings
from flyteish.errors import UnknownQueueError
from flyteish.markets.traces import Trace
from flyteish.simulation import Calls, Exponential, Scenario, ScriptedMarket, TraceMarket, Workload, WorkModel
from flyteish.simulation.world import EPOCH
from tests.simulation.worlds import pools, simulated, spot


def test_one_undisturbed_task_costs_its_time_on_spot() -> None:
    """100 s of work after 20 s of start-up: 120 s are billed, on the spot machine."""
    seen = simulated(Workload(spot(), WorkModel(100)), startup=20)
    assert seen.spans() == [("spot", 0, 120, "succeeded")]
    assert seen.root.attempts[0].running_at - seen.root.submitted_at == 20
    assert sum(seen.tally.dollars) == pytest.approx(0.0120)
    assert seen.tally.on_demand_dollars == pytest.approx(0.120)


def test_a_preemption_without_checkpoints_loses_everything() -> None:
    """Noticed at 50 s, gone at 60 s, begun anew: 160 s on spot, 60 of them lost."""
    seen = simulated(Workload(spot(), WorkModel(100)), [50])
    assert seen.spans() == [("spot", 0, 60, "preempted"), ("spot", 60, 160, "succeeded")]
    assert (seen.tally.preemptions, seen.tally.lost_seconds) == (1, 60)
    assert sum(seen.tally.dollars) == pytest.approx(0.016)


def test_a_notice_is_used_for_a_save() -> None:
    """With checkpoints every 30 s of work, the notice at 50 s saves 20 more in 2 s; 52 s of work are done at once."""
    seen = simulated(Workload(spot(), WorkModel(100, checkpoint_every=30, save_seconds=1)), [50])
    # 30 s, a save of 1 s, 19 s of work until the notice, a save of 1 s; then 51 s of work with one save in them.
    assert seen.spans() == [("spot", 0, 51, "preempted"), ("spot", 51, 103, "succeeded")]
    assert seen.tally.lost_seconds == 0


def test_a_save_longer_than_the_grace_saves_nothing() -> None:
    """20 s of save do not fit into 10 s of grace: it works on until it is gone, and goes back to its checkpoint."""
    seen = simulated(Workload(spot(), WorkModel(100, checkpoint_every=30, save_seconds=20)), [75])
    # saves 30..50, works 50..80, which is when the next save begins; gone at 85, 35 s after the commit
    assert seen.spans()[0] == ("spot", 0, 85, "preempted")
    assert seen.tally.lost_seconds == 35
    # 70 s of work are left: saves after 30 and after 60 of them
    assert seen.spans()[1] == ("spot", 85, 85 + 70 + 40, "succeeded")


def test_a_notice_during_a_save_lets_the_save_finish_and_leaves() -> None:
    """Noticed at 32 s, within the save of 30..35: it is committed, and the machine is given back."""
    seen = simulated(Workload(spot(), WorkModel(100, checkpoint_every=30, save_seconds=5)), [32])
    assert seen.spans()[0] == ("spot", 0, 35, "preempted")
    assert seen.tally.lost_seconds == 0


def test_restoring_takes_its_time() -> None:
    """An attempt with a checkpoint reads it for 7 s before it works."""
    seen = simulated(Workload(spot(), WorkModel(100, checkpoint_every=50, restore_seconds=7)), [60], grace=0)
    assert seen.spans() == [("spot", 0, 60, "preempted"), ("spot", 60, 60 + 7 + 40, "succeeded")]


def test_on_notice_ignore_works_on() -> None:
    """Work that is done within the grace is done."""
    seen = simulated(Workload(spot(), WorkModel(100, checkpoint_every=30, on_notice="ignore")), [95])
    assert seen.spans() == [("spot", 0, 100, "succeeded")]


def test_the_trip_wire_sends_it_on_demand() -> None:
    """After three preemptions without progress the rest of the user attempt is on-demand."""
    seen = simulated(Workload(spot(), WorkModel(100)), [10, 10, 10, 10])
    assert [medium for medium, *_ in seen.spans()] == ["spot", "spot", "spot", "on-demand"]
    assert sum(seen.tally.dollars) == pytest.approx(60 * 0.0001 + 100 * 0.001)


def test_failures_pay_from_retries_and_the_final_attempt_is_on_demand() -> None:
    """It raises after 40 s of its first user attempt: the second and last one runs on-demand."""
    seen = simulated(Workload(spot(), WorkModel(100, fails_at=(40,))))
    assert seen.spans() == [("spot", 0, 40, "user error"), ("on-demand", 40, 140, "succeeded")]
    assert seen.root.attempts[0].charged == "retries"
    assert sum(seen.tally.dollars) == pytest.approx(0.004 + 0.100)


def test_a_failure_rate_of_one_never_succeeds() -> None:
    """Every attempt raises; when the retries are spent the run has failed, and still cost money."""
    seen = simulated(Workload(spot(retries=3), WorkModel(100, failure_rate=1)))
    assert (seen.tally.failed, seen.tally.succeeded, len(seen.root.attempts)) == (1, 0, 4)
    assert sum(seen.tally.dollars) > 0


def test_max_runtime_ends_an_attempt_and_charges_it() -> None:
    """Start-up does not count: 10 s of it, then 50 s at most."""
    seen = simulated(Workload(spot(timeout=Timeout(max_runtime=50)), WorkModel(100)), startup=10)
    assert seen.spans() == [
        ("spot", 0, 60, "max_runtime exceeded"),
        ("on-demand", 60, 120, "max_runtime exceeded"),
    ]
    assert seen.tally.failed == 1


def test_a_deadline_ends_it_as_missed() -> None:
    """150 s are too short for 100 s of work that are lost at 80 s; what was billed until then is counted."""
    seen = simulated(Workload(spot(timeout=Timeout(deadline=150)), WorkModel(100)), [80], grace=0)
    assert seen.spans() == [("spot", 0, 80, "preempted"), ("spot", 80, 150, "deadline exceeded")]
    assert (seen.tally.missed, seen.tally.failed) == (1, 1)
    assert sum(seen.tally.dollars) == pytest.approx(0.015)
    assert not seen.world._live


def test_the_deadline_rule_keeps_what_spot_alone_would_miss() -> None:
    """The same with the deadline policy: it goes on-demand in time."""
    late = Workload(
        spot(retries=5, timeout=Timeout(deadline=150), work=100, deadline_policy="uniform-progress"), WorkModel(100)
    )
    seen = simulated(late, [10, 10, 10, 10, 10], grace=0)
    assert (seen.tally.missed, seen.tally.succeeded) == (0, 1)
    assert seen.root.attempts[-1].medium == "on-demand"


def test_a_parent_waits_for_its_children_without_holding_a_place() -> None:
    """One place in the pool, and the parent gives it up: its two children run in it one after the other."""
    child = Workload(Settings(), WorkModel(30), count=2)
    seen = simulated(Workload(Settings(), WorkModel(10, children=(child,))), capacity=1)
    (run,) = seen.runs
    assert seen.spans() == [("on-demand", 0, 70, "succeeded")]
    children = [action for action in run.actions.values() if action.parent]
    assert sorted(seen.spans(each)[0][1:3] for each in children) == [(10, 40), (40, 70)]


def test_calls_are_made_one_after_the_other_in_the_midst_of_work() -> None:
    """20 s of own work, a child of 5 s, 30 s more, two children at once, and the last 50 s."""
    one, two = Workload(Settings(), WorkModel(5), name="one"), Workload(Settings(), WorkModel(7), count=2, name="two")
    seen = simulated(Workload(Settings(), WorkModel(100, children=(Calls((one,), at=20), Calls((two,), at=50)))))
    assert seen.spans() == [("on-demand", 0, 112, "succeeded")]
    (run,) = seen.runs
    begun = {(a.profile.task, seen.spans(a)[0][1]) for a in run.actions.values() if a.parent}
    assert begun == {("one", 20), ("two", 55)}


def test_a_preempted_parent_does_not_call_again_what_is_over() -> None:
    """The parent's machine goes while it waits; the child's result is there when the second attempt asks for it."""
    child = Workload(Settings(), WorkModel(100), name="child")
    seen = simulated(Workload(spot(), WorkModel(10, children=(child,))), [20], grace=5)
    assert seen.spans() == [("spot", 0, 25, "preempted"), ("spot", 25, 110, "succeeded")]
    (run,) = seen.runs
    assert [len(a.attempts) for a in run.actions.values() if a.parent] == [1]


def test_a_failed_child_fails_its_parent_and_is_called_anew() -> None:
    """The child has no retries, its parent has one: the second attempt of the parent calls a new child."""
    child = Workload(Settings(), WorkModel(10, fails_at=(5,)), name="child")
    seen = simulated(Workload(spot(), WorkModel(10, children=(child,))))
    assert seen.spans() == [("spot", 0, 15, "user error"), ("on-demand", 15, 30, "user error")]
    assert len(seen.runs[0].actions) == 3


def test_a_chain_of_many_calls_is_no_recursion() -> None:
    """A resumed parent passes 3,000 calls whose results are there already."""
    child = Workload(Settings(), WorkModel(1), name="child")
    calls = tuple(Calls((child,), at=10) for _ in range(3000))
    seen = simulated(Workload(spot(), WorkModel(20, children=calls)), [3015])
    assert seen.tally.succeeded == 1
    assert len(seen.runs[0].actions) == 3001


def test_queue_limits_hold_in_virtual_time() -> None:
    """Two at once: five tasks of 10 s take 30 s."""
    queue = Queue("default", action_concurrency=2)
    seen = simulated(Workload(Settings(), WorkModel(10), count=5), queues=[queue])
    assert sorted(run.ended_at - run.submitted_at for run in seen.runs) == [10, 10, 20, 20, 30]


def test_a_full_queue_refuses_and_it_is_counted() -> None:
    """A depth of three: two of five are refused, and nothing of them is left."""
    queue = Queue("default", depth=3)
    seen = simulated(Workload(Settings(), WorkModel(10), count=5), queues=[queue])
    assert (len(seen.runs), seen.tally.refused, seen.tally.unfinished) == (3, 2, 0)
    assert not seen.world.state.runs


def test_a_parent_whose_child_is_refused_fails() -> None:
    """The queue has room for the parent alone."""
    queue = Queue("default", depth=1)
    child = Workload(Settings(), WorkModel(10))
    seen = simulated(Workload(Settings(), WorkModel(10, children=(child,))), queues=[queue])
    assert (seen.tally.failed, seen.tally.refused, seen.tally.unfinished) == (1, 1, 0)


def test_a_skipped_overlap_is_refused() -> None:
    """``overlap="skip"``: the second run of the task never begins."""
    queue = Queue("default", overlap="skip")
    seen = simulated(Workload(Settings(), WorkModel(10), count=2, every=5), queues=[queue])
    assert (len(seen.runs), seen.tally.refused, seen.tally.unfinished) == (1, 1, 0)


def test_unknown_queues_are_the_scenarios_mistake() -> None:
    """A task in a queue that is not there is no simulation."""
    with pytest.raises(UnknownQueueError, match="nowhere"):
        Scenario(Workload(Settings(queue="nowhere"), WorkModel(1)), pools()).simulate()


def test_what_is_unfinished_at_the_horizon_has_cost_money() -> None:
    """Stopped after 50 s of 100: 50 s are billed, and the run is neither failed nor done."""
    seen = simulated(Workload(spot(), WorkModel(100)), horizon=50)
    assert (seen.tally.unfinished, seen.tally.succeeded, seen.tally.failed) == (1, 0, 0)
    assert sum(seen.tally.dollars) == pytest.approx(0.005)


def test_work_that_never_gets_a_machine_waits_until_the_horizon() -> None:
    """A spot pool that holds nobody, and a task that insists on spot."""
    market = ScriptedMarket(capacity=[(0, 0)])
    seen = simulated(Workload(spot(fallback="never"), WorkModel(100)), market, horizon=1000)
    assert (seen.tally.unfinished, sum(seen.tally.dollars)) == (1, 0)


def test_capacity_follows_a_recording() -> None:
    """Two ticks of 100 s with a machine, one without: what is cut off goes on when there is one again."""
    trace = Trace(name="made", gap_seconds=100.0, data=(1, 1, 0))
    market = TraceMarket(trace, notice_seconds=0)
    seen = simulated(Workload(spot(fallback="never"), WorkModel(250, checkpoint_every=50)), market)
    assert seen.spans() == [("spot", 0, 200, "preempted"), ("spot", 300, 350, "succeeded")]


def test_a_stream_comes_as_it_is_written() -> None:
    """One every 5 s from 100 s on."""
    seen = simulated(Workload(Settings(), WorkModel(1), count=3, every=5, start=100))
    assert [run.submitted_at - EPOCH for run in seen.runs] == [100, 105, 110]


def test_the_timeline_says_who_ran_where() -> None:
    """Ten tasks over one place each: nine wait, then eight, ..."""
    seen = simulated(Workload(spot(retries=0, fallback="never"), WorkModel(10), count=3), capacity=1)
    assert [line[1:] for line in seen.tally.timeline] == [(1, 0, 2), (1, 0, 1), (1, 0, 0), (0, 0, 0)]


def test_a_poisson_stream_has_its_mean() -> None:
    """Gaps without memory: 400 of a mean of 10 s take about 4,000 s."""
    seen = simulated(Workload(Settings(), WorkModel(1), count=400, every=Exponential(10)))
    assert 3500 < seen.runs[-1].submitted_at - seen.runs[0].submitted_at < 4500
