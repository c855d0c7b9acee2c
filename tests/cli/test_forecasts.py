"""`flyteish plan --forecast`, `run --forecast` and `forecasts`."""

from __future__ import annotations

import json
from pathlib import Path

from flyteish.cli.exit_codes import ExitCode
from tests.cli.conftest import Cli


def test_a_plan_with_a_forecast(cli: Cli, flows: Path) -> None:
    """Options may stand before FILE or after TASK; nothing runs, and nothing is claimed."""
    for words in (
        ["plan", "--forecast", "--work", "2h", "--rounds", "3", flows, "square"],
        ["plan", flows, "square", "--forecast", "--work", "2h", "--rounds", "3"],
    ):
        said = cli(*words)
        assert said.code == ExitCode.OK, said.err
        assert "user attempt 1: spot" in said.out
        assert "forecast of flows.square in queue default (3 simulated runs)" in said.out
        assert "based on     the given work of 2 h" in said.out
    document = json.loads(cli("plan", flows, "main", "--forecast", "--work", "exponential:10m", "--json").out)
    assert document["forecast"]["task"] == "flows.main"
    assert len(document["forecast"]["finish"]["values"]) == 21
    assert "forecast" not in json.loads(cli("plan", flows, "main", "--json").out)


def test_what_a_forecast_needs(cli: Cli, flows: Path) -> None:
    """The work of a task that never ran; its options without --forecast are a mistake."""
    said = cli("plan", flows, "square", "--forecast")
    assert said.code == ExitCode.USAGE
    assert "no run of it has succeeded yet" in said.err
    assert "--work 2h on the command line" in said.err
    assert "--work goes with --forecast" in cli("plan", flows, "square", "--work", "2h").err
    assert "--checkpoint-every: 'often' is not a time" in cli(
        "plan", flows, "square", "--forecast", "--work", "2h", "--checkpoint-every", "often"
    ).err  # fmt: skip


def test_runs_are_listed_beside_their_forecasts(cli: Cli, flows: Path) -> None:
    """A first run has none; those after it do, made by plan or by run, and they are summed up."""
    assert "no run has been compared with a forecast yet" in cli("forecasts").err
    first = cli("run", "--forecast", flows, "square", "--x", "2")
    assert (first.code, first.out.strip()) == (ExitCode.OK, "4")
    assert "no forecast: " in first.err
    second = cli("run", "--forecast", flows, "square", "--x", "3")
    assert "forecast of flows.square" in second.err
    assert "based on     one past run of flows.square" in second.err
    assert cli("plan", flows, "square", "--forecast", "--work", "1h").code == ExitCode.OK
    assert cli("run", flows, "square", "--x", "4").code == ExitCode.OK

    listed = cli("forecasts").out.splitlines()
    assert listed[0].split()[:4] == ["RUN", "TASK", "SUBMITTED", "PHASE"]
    assert len(listed) == 4
    assert listed[3].startswith("of 2 runs ")
    document = json.loads(cli("forecasts", "--json").out)
    assert round(document["runs"][0]["p50"], 1) == 3600.0
    assert document["runs"][0]["rank"] == 0.0
    assert document["calibration"]["runs"] == 2
    assert len(json.loads(cli("forecasts", "--limit", "1", "--json").out)["runs"]) == 1
    assert json.loads(cli("forecasts", "--task", "flows.main", "--json").out)["runs"] == []
    assert cli("why", "last").out.splitlines()[-1].startswith("forecast: 60 min (p50)")
