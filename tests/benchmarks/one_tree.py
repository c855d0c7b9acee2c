"""Figures of whichever flyteish the path has, each printed as JSON: seconds by the wall, of CPU, and the peak memory.

``pairs`` runs this module by itself, once for each tree and turn, so it may use only what older trees have as well.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IMPORTS = 7
_IMPORT = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import flyteish
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def fan_out() -> None:
    """A durable fan-out of 10,000 trivial async tasks, three times."""
    from tests.benchmarks.jobs import fan_out as task

    async def measure(run: Callable[..., Awaitable[Any]]) -> None:
        await run(task, n=100)
        with measured():
            for _ in range(3):
                await run(task, n=10_000)

    asyncio.run(_in_session(measure))


def sequential() -> None:
    """1,500 durable calls, one after the other."""
    from tests.benchmarks.jobs import one_by_one as task

    async def measure(run: Callable[..., Awaitable[Any]]) -> None:
        await run(task, n=50)
        with measured():
            for _ in range(3):
                await run(task, n=500)

    asyncio.run(_in_session(measure))


def processes() -> None:
    """2,000 trivial ``def`` tasks in worker processes, with the workers' own time and their start."""
    from flyteish import Pool, Queue
    from tests.benchmarks.jobs import fan_out_to_workers as task

    async def measure(run: Callable[..., Awaitable[Any]]) -> None:
        await run(task, n=100)
        await run(task, n=2_000)

    pools = [Pool("here"), Pool("workers", engine="processes")]
    queues = [Queue("default", pools=("here",)), Queue("workers", pools=("workers",))]
    with measured():  # around the session: a worker's time counts when it has ended
        asyncio.run(_in_session(measure, pools=pools, queues=queues))


def simulator() -> None:
    """60,000 simulated attempts of a minute on machines some of which are taken, in runs of a thousand."""
    from flyteish import Pool
    from flyteish.simulation import RandomMarket, Scenario, Workload, WorkModel
    from tests.benchmarks.jobs import root, spot

    pools = [
        Pool("spot", "spot", price_per_hour=0.3, market=RandomMarket(seed=1, median_lifetime=300.0)),
        Pool("on-demand", price_per_hour=1.0),
    ]
    leaf = Workload(spot, WorkModel(60), count=1000)
    scenario = Scenario(Workload(root, WorkModel(1, children=(leaf,)), count=60, every=10), pools)
    with measured():
        scenario.simulate()


def import_() -> None:
    """``import flyteish`` in a new process, seven times: of that alone, without the interpreter's own start."""
    walls, cpus = 0.0, 0.0
    for _ in range(IMPORTS):
        done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
        wall, cpu = map(float, done.stdout.split())
        walls, cpus = walls + wall, cpus + cpu
    import flyteish

    _tell(walls, cpus, str(Path(flyteish.__file__).parent))


FIGURES = {"fan-out": fan_out, "sequential": sequential, "processes": processes, "simulator": simulator}
FIGURES["import"] = import_


async def _in_session(measure: Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]], **given: Any) -> None:
    from flyteish import Session

    async with Session(home=tempfile.mkdtemp(dir=Path.cwd()), **given) as session:
        await measure(session.run)


@contextmanager
def measured() -> Iterator[None]:
    """Prints what the block took; of child processes those that have ended within it."""
    import flyteish

    wall, cpu = time.perf_counter(), _cpu()
    yield
    _tell(time.perf_counter() - wall, _cpu() - cpu, str(Path(flyteish.__file__).parent))


def _tell(wall: float, cpu: float, tree: str) -> None:
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": _peak(), "tree": tree}), flush=True)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _peak() -> float:
    """MB. Linux's `ru_maxrss` begins with that of the process which started this one; `VmHWM` does not."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    FIGURES[sys.argv[1]]()
