"""How the golden home was written, at commit 4a8877b: ``python -m tests.durability.golden.write FOLDER``.

Kept as a record, and to make another home at another time; the one that is committed is never written again. Paths of
the machine are recorded in a home, so run it in a copy of the checkout, with cloudpickle beside it, where nobody lives.
With ``kill RUN`` after the folder it is the program that it starts and kills.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyteish import Calibration, Pool, Queue, Resources, Run, Session
from flyteish.cli import main as cli
from flyteish.errors import RunNotFoundError
from flyteish.markets.price_sources import ScriptedPrices
from flyteish.testing import ScriptedMarket
from tests.durability.golden import failures, script, tasks
from tests.durability.golden.pickles import pickles
from tests.durability.golden.values import Colour, Layer, Model, Pair, Track

HERE = Path(__file__).parent
ARCHIVE = HERE / "home.tar.gz"
PATIENCE = 60.0
KILLED = {**tasks.UNFINISHED, "resumed": tasks.UNFINISHED["killed"]}


def session(home: Path, market: ScriptedMarket | None = None, **more: Any) -> Session:
    """The queues and pools of ``flyteish.toml``, with a market for spot where one is given."""
    prices = ScriptedPrices([(0.0, 0.3), (0.1, 0.4)])
    pools = [
        Pool("spot", "spot", price_per_hour=prices if market else 0.3, market=market, grace=0.2, **more),
        Pool("on-demand", price_per_hour=1.0, grace=0.2, **more),
        Pool("workers", engine="processes", price_per_hour=0.5),
    ]
    queues = [
        Queue("default", pools=("spot", "on-demand")), Queue("workers", pools=("workers",)),
        Queue("spare", pools=("on-demand",)),
    ]  # fmt: skip
    return Session(queues, pools, home=home, print_to_log=True, secrets={"TOKEN": "not kept"})


def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(RunNotFoundError):  # a run is not in the store at the very moment at which it is started
            if holds():
                return
        time.sleep(0.01)
    raise TimeoutError(holds)


def write(home: Path) -> None:
    """All of it."""
    with session(home) as live:
        values(live)
        attempts(live)
    with session(home) as live:
        fail(live)
    held(home)
    markets(home)
    for name in tasks.UNFINISHED:
        kill(home, name)
    resume_one(home)
    with session(home) as live:
        forecasts(live)
    stopped(home)
    cli(["run", "--home", str(home), "--quiet", "--name", "script", script.__file__, "answer", "--value", "42"])
    os.environ["FLYTEISH_CONFIG"] = str(HERE / "flyteish.toml")
    cli(["queue", "hold", "spare", "--home", str(home)])


# -- what happens in it ---------------------------------------------------------------------------------------------


def start(live: Session, name: str, task: Any, *args: Any, **context: Any) -> Any:
    return live.with_runcontext(name=name, command=f"golden {name}", **context).run(task, *args)


def values(live: Session) -> None:
    """Values of every kind, pickles, and what the cache keeps."""
    start(live, "values", tasks.values).result(PATIENCE)
    args = [Layer(1)], {"name": "n", "value": 1.0}, "x", Colour.RED, Model(name="m"), Track("t"), Pair(3), {"a": (1, 2)}
    start(live, "typed", tasks.typed, *args).result(PATIENCE)
    start(live, "files", tasks.writes_files, "stored").result(PATIENCE)
    start(live, "pickles", tasks.makes_pickles).result(PATIENCE)
    for name in ("cached-first", "cached-again"):
        start(live, name, tasks.cached, 7, name).result(PATIENCE)
        start(live, f"{name}-by-source", tasks.cached_by_source, Resources(cpu=2)).result(PATIENCE)


def attempts(live: Session) -> None:
    """Retries, groups, checkpoints that were passed over, calls that were given up, settings of a run."""
    start(live, "flaky", tasks.flaky).result(PATIENCE)
    start(live, "grouped", tasks.grouped, 2, env_vars={"MODE": "x"}, interruptible=True, priority="max").result(
        PATIENCE
    )
    start(live, "torn", tasks.torn).result(PATIENCE)
    start(live, "gives-up", tasks.gives_up_on_a_child).result(PATIENCE)


def fail(live: Session) -> None:
    """Every way to fail that needs no market."""
    for name, (task, args) in failures.FAILURES.items():
        if name in ("fails-preempted", "fails-queued"):
            continue
        run = start(live, name, task, *args)
        if name == "fails-aborted":
            until(lambda: run.phase == "running")  # noqa: B023
            run.abort("it was wrong")
        run.wait(PATIENCE)


def held(home: Path) -> None:
    """A queue is held while work comes to it: one run outlives it, another waits too long."""
    cli(["queue", "hold", "spare", "--home", str(home), "--config", str(HERE / "flyteish.toml")])
    with session(home) as live:
        start(live, "fails-queued", failures.queues_too_long).wait(PATIENCE)
        run = start(live, "held", tasks.leaf, 3, queue="spare")
        until(lambda: "HELD" in run.why())
        cli(["queue", "activate", "spare", "--home", str(home)])
        run.result(PATIENCE)


def markets(home: Path) -> None:
    """What markets do: reclaims with a notice, prices that change, no capacity, capacity that comes."""
    with session(home, ScriptedMarket([0.2], notice_seconds=0.3)) as live:
        start(live, "reclaimed", tasks.reclaimed).result(PATIENCE)
    with session(home, ScriptedMarket([0.1], notice_seconds=0.05)) as live:
        start(live, "fails-preempted", failures.is_preempted).wait(PATIENCE)
    with session(home, ScriptedMarket(capacity=[(0.0, 0)])) as live:
        start(live, "waits-for-spot", tasks.waits_for_spot).result(PATIENCE)
    with session(home, ScriptedMarket(capacity=[(0.0, 0), (0.5, None)]), startup=0.05) as live:
        start(live, "moved", tasks.moved, 40).result(PATIENCE)


def kill(home: Path, name: str) -> None:
    """Start it in a program of its own, and kill that with its workers when the run is where it is to be found."""
    marks = Path(os.environ["GOLDEN_MARKS"])
    marks.write_text("")
    command = [sys.executable, "-m", "tests.durability.golden.write", str(home.parent), "kill", name]
    process = subprocess.Popen(command, env={**os.environ, "GOLDEN_WAIT": "1"}, start_new_session=True)
    wanted = KILLED[name][2]
    until(lambda: wanted in marks.read_text().split())
    time.sleep(0.3)  # what was marked before is on record by then
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


def killed(home: Path, name: str) -> None:
    """The program that is killed."""
    task, args, _ = KILLED[name]
    with session(home) as live:
        start(live, name, task, *args).result(PATIENCE)


def resume_one(home: Path) -> None:
    """One that was killed and then went on."""
    kill(home, "resumed")
    with session(home) as live:
        live.resume("resumed", tasks.killed).result(PATIENCE)


def forecasts(live: Session) -> None:
    """Forecasts, runs that are compared with them, and a forecast that nothing was compared with."""
    for _ in range(2):
        live.run(tasks.leaf, 1).result(PATIENCE)
    tasks.leaf.forecast(rounds=20)
    tasks.grouped.forecast(rounds=20)
    start(live, "foretold", tasks.leaf, 5).result(PATIENCE)
    start(live, "foretold-parent", tasks.grouped, 1).result(PATIENCE)
    other = tasks.flaky.forecast(rounds=20, work=100.0)
    done: Run[int] = live.resume("foretold")
    known = [other, done.forecast, done.comparison, done.cost(), done.costs(), Calibration.of(live.forecasts())]
    start(live, "answers", tasks.keeps, known).result(PATIENCE)


def stopped(home: Path) -> None:
    """One that waits in a held queue when its session is closed, and one whose session is closed as it runs."""
    cli(["queue", "hold", "spare", "--home", str(home), "--config", str(HERE / "flyteish.toml")])
    with session(home) as live:
        waiting = start(live, "stopped-in-line", tasks.leaf, 8, queue="spare")
        until(lambda: "HELD" in waiting.why())
        os.environ["GOLDEN_WAIT"] = "1"
        running = start(live, "stopped", tasks.gate)
        until(lambda: running.phase == "running")
    del os.environ["GOLDEN_WAIT"]
    cli(["queue", "activate", "spare", "--home", str(home), "--config", str(HERE / "flyteish.toml")])


def pack(home: Path, archive: Path) -> None:
    """The home as it lies there, without whose machine it was."""

    for log in (home / "logs").rglob("*.log"):
        log.write_text(log.read_text().replace(sys.base_prefix, "/usr"))

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        tar.add(home, "home", filter=anonymous)


def main(folder: Path, *rest: str) -> None:
    home = folder / "home"
    warnings.filterwarnings("ignore", message=".*travels by cloudpickle")
    os.environ.update(GOLDEN_MARKS=str(folder / "marks"), GOLDEN_BLOBS=str(home / "blobs"))
    if rest:
        killed(home, rest[1])
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(home)
    pack(home, ARCHIVE)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes, {len(pickles())} pickles")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
