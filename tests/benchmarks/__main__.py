"""Runs the benchmarks and prints one line per figure, with the bare ``asyncio.gather`` of the same run beside it.

Each figure comes from a process of its own, so that one does not warm up or fill up another. ``pairs`` as the first
argument compares two checkouts (``pairs --help``).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

import flyteish

if TYPE_CHECKING:
    from flyteish import Session

ROUNDS = 5


def _session(durability: str = "process", pools: Any = UNSET, queues: Any = UNSET) -> Session:
    home = tempfile.mkdtemp(prefix="flyteish-bench-")
    return flyteish.Session(queues, pools, home=home, durability=durability)


def _best(measure: Callable[[], float], rounds: int = ROUNDS) -> dict[str, float]:
    values = sorted(measure() for _ in range(rounds))
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def gather() -> dict[str, float]:
    """Bare ``asyncio.gather`` of 10,000 coroutines, calls per second: the measure of this machine."""
    from tests.benchmarks.jobs import bare_gather

    def measure() -> float:
        began = time.perf_counter()
        asyncio.run(bare_gather(10_000))
        return 10_000 / (time.perf_counter() - began)

    return _best(measure)


def _fan_out(n: int, rounds: int, durability: str = "process") -> dict[str, float]:
    from tests.benchmarks.jobs import fan_out

    async def measure() -> list[float]:
        rates = []
        async with _session(durability=durability) as session:
            await session.run(fan_out, n=100)
            for _ in range(rounds):
                began = time.perf_counter()
                await session.run(fan_out, n=n)
                rates.append(n / (time.perf_counter() - began))
        return rates

    values = sorted(asyncio.run(measure()))
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def fan_out_1k() -> dict[str, float]:
    """Durable fan-out of 1,000 trivial async tasks, tasks per second."""
    return _fan_out(1_000, ROUNDS)


def fan_out_10k() -> dict[str, float]:
    """Durable fan-out of 10,000 trivial async tasks, tasks per second."""
    return _fan_out(10_000, ROUNDS)


def fan_out_100k() -> dict[str, float]:
    """Durable fan-out of 100,000 trivial async tasks, tasks per second; peak memory of the process in MB."""
    rates = _fan_out(100_000, 1)
    return {**rates, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def fan_out_memory() -> dict[str, float]:
    """The same 10,000 with nothing kept on disk, tasks per second."""
    return _fan_out(10_000, ROUNDS, "memory")


def sequential() -> dict[str, float]:
    """One durable call after the other, milliseconds per call."""
    from tests.benchmarks.jobs import one_by_one

    async def measure() -> list[float]:
        times = []
        async with _session() as session:
            await session.run(one_by_one, n=50)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                await session.run(one_by_one, n=300)
                times.append((time.perf_counter() - began) / 300 * 1e3)
        return times

    values = sorted(asyncio.run(measure()))
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def processes() -> dict[str, float]:
    """1,000 trivial ``def`` tasks in warm worker processes, tasks per second."""
    from flyteish import Pool, Queue
    from tests.benchmarks.jobs import fan_out_to_workers

    pools = [Pool("here"), Pool("workers", engine="processes")]
    queues = [Queue("default", pools=("here",)), Queue("workers", pools=("workers",))]

    async def measure() -> list[float]:
        rates = []
        async with _session(pools=pools, queues=queues) as session:
            await session.run(fan_out_to_workers, n=100)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                await session.run(fan_out_to_workers, n=1_000)
                rates.append(1_000 / (time.perf_counter() - began))
        return rates

    values = sorted(asyncio.run(measure()))
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


def _import(what: str) -> dict[str, float]:
    def measure() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", what], check=True)
        return (time.perf_counter() - began) * 1e3

    return _best(measure, 9)


def import_base() -> dict[str, float]:
    """A process that does ``import asyncio, sqlite3``, milliseconds."""
    return _import("import asyncio, sqlite3")


def import_flyteish() -> dict[str, float]:
    """A process that does ``import flyteish``, milliseconds."""
    return _import("import flyteish")


def flyte_local() -> dict[str, float]:
    """Flyte 2's local mode: a fan-out of 1,000 trivial async tasks, tasks per second (where flyte is installed)."""
    import flyte

    environment = flyte.TaskEnvironment(name="beside")

    @environment.task
    async def trivial(x: int) -> int:
        return x

    @environment.task
    async def fan(n: int) -> int:
        return len(await asyncio.gather(*[trivial(i) for i in range(n)]))

    def measure() -> float:
        began = time.perf_counter()
        flyte.with_runcontext(mode="local").run(fan, n=1_000)
        return 1_000 / (time.perf_counter() - began)

    return _best(measure, 3)


def import_flyte() -> dict[str, float]:
    """A process that does ``import flyte``, milliseconds (where flyte is installed)."""
    return _import("import flyte")


def deadlines() -> dict[str, float]:
    """Deadline policies on recorded spot markets beside the optimum, mean cost / on-demand alone; the table first."""
    from tests.benchmarks.deadline_policies import compare, recorded, table

    traces = recorded()
    if not traces:
        raise SystemExit("no recordings in ../shared/spot-traces")
    rows = list(compare(traces))
    print(table(rows))
    means = {name: statistics.fmean(row.costs[name] for row in rows) for name in rows[0].costs}
    return {
        **means,
        "optimum": statistics.fmean(row.optimum or 0.0 for row in rows),
        "missed": sum(sum(row.misses.values()) for row in rows),
    }


def simulated_deadlines() -> dict[str, float]:
    """The same comparison by the simulator, so by the core itself: mean cost / on-demand alone, missed deadlines."""
    from tests.benchmarks.deadline_policies import CHANGEOVERS, DEADLINES, recorded
    from tests.benchmarks.simulator import paper

    traces = recorded()
    if not traces:
        raise SystemExit("no recordings in ../shared/spot-traces")
    costs: dict[str, list[float]] = {"uniform-progress": [], "slack-budget": []}
    missed = 0
    for trace in traces:
        for deadline in DEADLINES:
            for changeover in CHANGEOVERS:
                report = paper(trace, deadline, changeover).simulate(seeds=10)
                alone = report.of("on-demand").dollars
                for name, shares in costs.items():
                    shares.append(report.of(name).dollars / alone)
                    missed += report.of(name).missed
                optimum = f", optimum {report.optimum / alone:.3f}" if report.optimum else ""
                shown = ", ".join(f"{name} {shares[-1]:.3f}" for name, shares in costs.items())
                print(f"{trace.name:26} {deadline / 3600:.0f} h {changeover / 60:2.0f} min: {shown}{optimum}")
    return {**{name: statistics.fmean(shares) for name, shares in costs.items()}, "missed": missed}


def simulator() -> dict[str, float]:
    """Simulated attempts of a minute, in runs of a thousand, per second on one core."""
    from tests.benchmarks.simulator import plain

    return _best(lambda: plain(60_000).simulate().policies[0].attempts_per_second)


def simulator_runs() -> dict[str, float]:
    """The same, each attempt a run of its own."""
    from tests.benchmarks.simulator import single

    return _best(lambda: single(60_000).simulate().policies[0].attempts_per_second)


def simulated_cluster() -> dict[str, float]:
    """A million simulated attempts on 10,000 nodes from 100 queues, per second on one core; peak memory in MB."""
    from tests.benchmarks.simulator import cluster

    report = cluster(1_000_000).simulate()
    print(report)
    (only,) = report.policies
    return {
        "attempts": only.attempts,
        "per_second": only.attempts_per_second,
        "seconds": only.wall_seconds,
        "peak_mb": report.peak_megabytes,
    }


ALL = [
    gather, fan_out_1k, fan_out_10k, fan_out_100k, fan_out_memory, sequential, processes,
    import_base, import_flyteish, import_flyte, flyte_local, deadlines,
    simulated_deadlines, simulator, simulator_runs, simulated_cluster,
]  # fmt: skip


def main(names: list[str]) -> None:
    if names[:1] == ["pairs"]:
        from tests.benchmarks.pairs import main as compare

        raise SystemExit(compare(names[1:]))
    if names[:1] == ["--one"]:
        print(json.dumps(next(each for each in ALL if each.__name__ == names[1])()))
        return
    for each in ALL:
        if names and each.__name__ not in names:
            continue
        command = [sys.executable, "-m", "tests.benchmarks", "--one", each.__name__]
        environment = {**os.environ, "FLYTEISH_HOME": tempfile.mkdtemp(prefix="flyteish-bench-")}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment, check=False
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
            print(f"{each.__name__:16} not measured: {reason}")
            continue
        *above, last = done.stdout.strip().splitlines()
        print("".join(f"{line}\n" for line in above), end="")
        figures = json.loads(last)
        shown = "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
        print(f"{each.__name__:16} {shown}   # {(each.__doc__ or '').splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
