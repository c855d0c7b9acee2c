"""``flyteish simulate``: scenarios, tasks and recorded runs, and what is said of a wrong command line."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Cli

JOBS = """
import flyteish
from flyteish import Timeout
from flyteish.testing import ScriptedMarket

env = flyteish.TaskEnvironment("jobs")

@env.task(interruptible=True, retries=2, timeout=Timeout(deadline=400000))
async def train() -> None:
    raise AssertionError("a simulation runs no task")

@env.task
async def report() -> None: ...
"""
SCENARIOS = """
from jobs import train
from flyteish import Pool, SpotPolicy
from flyteish.testing import ScriptedMarket
from flyteish.simulation import Scenario, Workload, WorkModel

POOLS = [
    Pool("spot", "spot", price_per_hour=0.36, startup=0, market=ScriptedMarket([600], notice_seconds=0)),
    Pool("on-demand", price_per_hour=3.6, startup=0),
]
calm = Scenario(Workload(train, WorkModel(3600)), POOLS, policies={"mine": SpotPolicy(preemptions_without_progress=1)})
rough = Scenario(Workload(train, WorkModel(3600), count=3), POOLS)
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, flyteish_home: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "scenarios.py").write_text(SCENARIOS)


PRICED = ("--price", "spot=0.36", "--price", "on-demand=3.6")
SCRIPT = ("--market", "spot=script:10m,notice_seconds=0")


def test_a_task_is_simulated_as_written_and_on_demand(cli: Cli) -> None:
    """An hour of work, one preemption after ten minutes, a second of start-up each time: the task's code never runs."""
    said = cli("simulate", "jobs.py", "train", "--work", "1h", *PRICED, *SCRIPT)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "policy         cost  of on-demand  finish p50     p95  missed  preempted    lost  spot",
        "as-written  $0.4201         11.7%      70 min  70 min       0          1  10 min  100%",
        "on-demand     $3.60        100.0%      60 min  60 min       0          0     0 s    0%",
    ]
    assert "attempts in" in said.err
    assert "peak memory" in said.err


def test_json_is_the_whole_report(cli: Cli) -> None:
    """One document on standard output, with what the table has no room for."""
    said = cli("simulate", "jobs.py:train", "--work", "1h", *PRICED, *SCRIPT, "--policy", "default", "--json")
    report = json.loads(said.out)
    (policy,) = report["policies"]
    assert (policy["policy"], policy["preemptions"], policy["attempts"]) == ("default", 1, 2)
    assert policy["finish"]["percentiles"]["0.5"] == 4201
    assert report["peak_megabytes"] > 1
    assert policy["wall_seconds"] > 0


def test_checkpoints_deadlines_counts_and_distributions_are_options(cli: Cli, tmp_path: Path) -> None:
    """And a picture is written on the way."""
    said = cli(
        "simulate", "jobs.py", "train", "--work", "lognormal:30m,0.5",
        "--checkpoint-every", "5m", "--save-seconds", "10",
        "--startup", "1m", "--failure-rate", "0.05", "--deadline", "6h", "--count", "20", "--every", "exponential:2m",
        "--market", "spot=random:median_lifetime=40m,seed=3", *PRICED, "--seeds", "2",
        "--policy", "default", "--policy", "uniform-progress", "--picture", "out.svg", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    default, paced = json.loads(said.out)["policies"]
    assert default["runs"] == paced["runs"] == 40
    assert default["preemptions"] > 0
    ElementTree.parse(tmp_path / "out.svg")


def test_a_trace_file_is_a_market(cli: Cli, tmp_path: Path) -> None:
    """Half an hour with a machine, half an hour without."""
    (tmp_path / "zone.json").write_text(json.dumps({"metadata": {"gap_seconds": 1800}, "data": [1, 0]}))
    said = cli(
        "simulate", "jobs.py", "train", "--work", "3000", "--checkpoint-every", "10m", "--startup", "0",
        "--market", "spot=trace:zone.json,notice_seconds=0", "--policy", "default", "--json",
    )  # fmt: skip
    (policy,) = json.loads(said.out)["policies"]
    assert (policy["preemptions"], policy["finish"]["mean"]) == (1, 3600 + 1200)
    assert "no pool has a price" in said.err


def test_recorded_prices_are_paid(cli: Cli, tmp_path: Path) -> None:
    """``--price POOL=market``: an hour at $1, an hour at $3, and each round follows the prices of its own market."""
    recording = {"metadata": {"gap_seconds": 3600}, "data": [1, 1], "prices": [1.0, 3.0]}
    (tmp_path / "zone.json").write_text(json.dumps(recording))
    said = cli(
        "simulate", "jobs.py", "train", "--work", "2h", "--startup", "0", "--market", "spot=trace:zone.json",
        "--price", "spot=market", "--policy", "default", "--seeds", "3", "--json",
    )  # fmt: skip
    (policy,) = json.loads(said.out)["policies"]
    assert policy["dollars"] == pytest.approx(3 * 4.0), said.err


def test_the_configured_queues_and_pools_are_used(cli: Cli, tmp_path: Path) -> None:
    """With their prices, limits and markets."""
    (tmp_path / "flyteish.toml").write_text(
        textwrap.dedent("""
        [queues.default]
        action_concurrency = 1
        [pools.cheap]
        medium = "spot"
        price_per_hour = 0.36
        startup = 0
        [pools.cheap.market]
        kind = "script"
        reclaims = ["10m"]
        notice_seconds = 0
        [pools.dear]
        price_per_hour = 3.6
        """)
    )
    said = cli("simulate", "jobs.py", "train", "--work", "1h", "--count", "2", "--policy", "as-written", "--json")
    (policy,) = json.loads(said.out)["policies"]
    assert policy["finish"]["most"] == 4200 + 3600, said.err
    assert policy["dollars"] == pytest.approx(0.0001 * 7800)


def test_scenarios_of_a_file_are_found_by_name(cli: Cli) -> None:
    """Their own policies and pools; options replace what they name."""
    said = cli("simulate", "scenarios.py", "calm", "--json")
    (policy,) = json.loads(said.out)["policies"]
    assert (policy["policy"], policy["preemptions"]) == ("mine", 1)
    said = cli(
        "simulate", "scenarios.py", "calm", "--policy", "mine", "--policy", "default", "--market", "spot=script:"
    )
    assert [line.split()[0] for line in said.out.splitlines()] == ["policy", "mine", "default"]
    assert cli("simulate", "scenarios.py:rough").code == 0


def test_a_recorded_run_is_simulated(cli: Cli, tmp_path: Path) -> None:
    """What ran for real, with its children, is what the simulation works through."""
    from tests.cli.conftest import FLOWS, STEPS

    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "steps.py").write_text(STEPS)
    assert cli("run", "--name", "real", "flows.py", "main", "--data", "[1, 2, 3]").code == 0
    said = cli("simulate", "--run", "real", *PRICED, "--json")
    assert said.code == 0, said.err
    written, alone = json.loads(said.out)["policies"]
    assert written["actions"] == alone["actions"] == 4
    assert written["spot_seconds"] > 0
    assert alone["spot_seconds"] == 0
    both = cli("simulate", "--run", "real", "--run", "last", "--replay-failures", "--json")
    assert json.loads(both.out)["policies"][0]["runs"] == 2


def test_a_recorded_run_brings_its_prices_along(cli: Cli, tmp_path: Path) -> None:
    """Where the configuration has none for a pool; one that is said counts."""
    from tests.cli.conftest import FLOWS

    (tmp_path / "flows.py").write_text(FLOWS)
    configured = tmp_path / "flyteish.toml"
    configured.write_text("[pools.on-demand]\nprice_per_hour = 3600.0\n[queues.default]\n")
    assert cli("run", "--name", "paid", "flows.py", "square", "--x", "3").code == 0
    configured.write_text("[pools.on-demand]\n[queues.default]\n")
    dear = json.loads(cli("simulate", "--run", "paid", "--json").out)["policies"][1]["dollars"]
    assert dear > 0
    said = cli("simulate", "--run", "paid", "--json", "--price", "on-demand=1800")
    assert json.loads(said.out)["policies"][1]["dollars"] == dear / 2


WRONG = {
    "": "give a FILE with scenarios or tasks, or --run RUN",
    "jobs.py --work 1h": "give a task of jobs.py: train, report",
    "jobs.py trian --work 1h": "there is no|has no task 'trian'; did you mean train?",
    "scenarios.py": "give a scenario of scenarios.py: calm, rough",
    "scenarios.py clam": "has no scenario or task 'clam'; did you mean calm?",
    "scenarios.py calm --work 3": "--work is for a task of a FILE: calm is a Scenario",
    "jobs.py train": "give --work, such as --work 48h",
    "jobs.py train --work 1y": "--work: '1y' is not a|--work: '1y' is not accepted",
    "jobs.py train --work lognromal:3": "did you mean lognormal?",
    "jobs.py train --work 1h --save-seconds x": "--save-seconds: 'x' is not a time",
    "jobs.py train --work 1h --failure-rate 2": "--failure-rate: '2' is not a number from 0 to 1",
    "jobs.py train --work 1h --policy uniform": "there is no policy 'uniform'; did you mean uniform-progress?",
    "jobs.py train --work 1h --market sopt=random": "there is no pool 'sopt'; did you mean spot?",
    "jobs.py train --work 1h --market spot": "--market 'spot' is not accepted: expected POOL=MARKET",
    "jobs.py train --work 1h --market spot=rnd:": "'rnd' is no kind of market; did you mean random?",
    "jobs.py train --work 1h --market spot=random:3": "'3' is not accepted: expected NAME=VALUE",
    "jobs.py train --work 1h --market spot=random:sed=3": "unknown key '--market spot.sed'",
    "jobs.py train --work 1h --market spot=trace": "expected trace:PATH",
    "jobs.py train --work 1h --market spot=trace:no.json": "trace file",
    "jobs.py train --work 1h --market spot=script:10x": "--market spot.reclaims[0]='10x'",
    "jobs.py train --work 1h --price spot=much": "--price spot='much' is not accepted",
    "jobs.py train --work 1h --price spot=market": "a market with recorded prices",
    "jobs.py train --work 1h --seeds 0": "'0' is not a number from 1",
    "jobs.py train --work 1h --picture no/such/folder.svg": "cannot be written",
    "jobs.py train --work 1h --replay-failures": "--replay-failures goes with --run",
    "jobs.py --run r1": "--run takes the place of FILE",
    "--run r1 --work 1h": "--work is for a task",
    "--run r1": "no run 'r1'",
    "jobs.py train --wrok 1h": "unknown option --wrok; did you mean --work",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_says_what_would_be_right(cli: Cli, line: str) -> None:
    """On standard error, with exit code 2, and nothing on standard output."""
    said = cli("simulate", *line.split())
    assert (said.code, said.out) == (2, "")
    assert any(words in said.err for words in WRONG[line].split("|")), said.err
