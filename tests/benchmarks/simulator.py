"""What the simulator is measured with: plain work on one machine type, and a cluster with all there is.

Workloads and pools only; ``__main__`` runs them and prints.
"""

from __future__ import annotations

from flyteish import Pool, Queue, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.settings import Settings
from flyteish.simulation import (
    Exponential,
    LogNormal,
    RandomMarket,
    Scenario,
    Trace,
    TraceMarket,
    Workload,
    WorkModel,
)

NODES = 10_000
QUEUES = 100
_INTERRUPTIBLE = Settings(interruptible=SpotPolicy(), retries=RetryStrategy(count=3))


def plain(count: int) -> Scenario:
    """Runs of a thousand interruptible tasks of a minute, several at a time, on machines some of which are taken."""
    leaf = Workload(_INTERRUPTIBLE, WorkModel(60), count=1000, name="leaf")
    root = Workload(Settings(), WorkModel(1, children=(leaf,)), count=-(-count // 1000), every=10)
    return Scenario(root, _pools())


def single(count: int) -> Scenario:
    """The same tasks, each a run of its own, a hundred a second."""
    return Scenario(Workload(_INTERRUPTIBLE, WorkModel(60), count=count, every=0.01), _pools())


def _pools() -> list[Pool]:
    return [
        Pool("spot", "spot", price_per_hour=0.3, market=RandomMarket(seed=1, median_lifetime=300.0)),
        Pool("on-demand", price_per_hour=1.0),
    ]


def cluster(attempts: int) -> Scenario:
    """100 queues over 10,000 nodes in four pools: streams of tasks with checkpoints, failures, deadlines, children."""
    share = NODES // 4
    pools = [
        Pool("spot-a", "spot", capacity=share, price_per_hour=0.30, startup=60, market=RandomMarket(seed=1)),
        Pool("spot-b", "spot", capacity=share, price_per_hour=0.35, startup=60, market=RandomMarket(seed=2)),
        Pool(
            "spot-c",
            "spot",
            capacity=share,
            price_per_hour=0.40,
            startup=90,
            market=RandomMarket(seed=3, median_lifetime=3600.0),
        ),
        Pool("on-demand", capacity=share, price_per_hour=1.0, startup=60),
    ]
    queues = [
        Queue(
            f"q{number:02}", pools=("spot-a", "spot-b", "spot-c", "on-demand"), action_concurrency=400,
            priority=10 + number % 5 * 20, scheduling=("strict_fifo", "greedy_capacity")[number % 2],
        )
        for number in range(QUEUES)
    ]  # fmt: skip
    each = attempts // QUEUES
    return Scenario([_stream(queue.name, number, each) for number, queue in enumerate(queues)], pools, queues)


def _stream(queue: str, number: int, count: int) -> Workload:
    spot = Settings(queue=queue, interruptible=SpotPolicy(), retries=RetryStrategy(count=3))
    every = Exponential(13.0)
    match number % 10:
        case 7:
            model = WorkModel(LogNormal(1200), checkpoint_every=300, save_seconds=5)
            return Workload(spot, model, count, every, name=queue)
        case 8:
            child = Workload(spot, WorkModel(LogNormal(600)), 9, name=f"{queue}-child")
            parents = -(-count // 10)
            return Workload(
                Settings(queue=queue), WorkModel(60, children=(child,)), parents, Exponential(130.0), name=queue
            )
        case 9:
            settings = Settings(
                queue=queue, interruptible=SpotPolicy(work=900), retries=RetryStrategy(count=3),
                timeout=Timeout(deadline=7200, max_runtime=3600),
            )  # fmt: skip
            return Workload(settings, WorkModel(900, failure_rate=0.02), count, every, name=queue)
        case _:
            return Workload(
                spot, WorkModel(LogNormal(900), failure_rate=0.01 * (number % 3 == 0)), count, every, name=queue
            )


def paper(trace: Trace, deadline: float, changeover: float) -> Scenario:
    """The setting of "Can't Be Late" (NSDI 2024) on one recording: 48 h of work that is always saved in time."""
    work = 48 * 3600.0
    # The trip-wire is no part of the paper's rule, so it is put out of reach.
    policy = SpotPolicy(work=work, preemptions_without_progress=1000)
    settings = Settings(interruptible=policy, retries=RetryStrategy(count=1), timeout=Timeout(deadline=deadline))
    market = TraceMarket(trace, notice_seconds=0.0)
    pools = [
        Pool("spot", "spot", startup=changeover, grace=0.0, price_per_hour=0.3, market=market),
        Pool("on-demand", startup=changeover, grace=0.0, price_per_hour=1.0),
    ]
    job = Workload(settings, WorkModel(work, checkpoint_every=60, on_notice="save"))
    return Scenario(job, pools, policies=["uniform-progress", "slack-budget", "on-demand"])
