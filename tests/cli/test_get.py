"""`flyteish get`, `why`, `plan`, `logs`, `config show`: what can be seen of runs, live ones and ended ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyteish import Queue, Session, TaskEnvironment
from flyteish.cli.exit_codes import MEANINGS, ExitCode
from tests.cli.conftest import Cli

env = TaskEnvironment(name="seen")


@env.task(interruptible=True, retries=1)
async def double(x: int) -> int:
    return 2 * x


@env.task
async def main(n: int) -> int:
    return sum([await double(i) for i in range(n)])


@env.task
async def fail() -> None:
    raise ValueError("no")


@pytest.fixture
def finished() -> tuple[str, str]:
    """The names of two runs that are over: one failed, one succeeded after it."""
    with Session() as session:
        failed = session.run(fail).wait(20).name
        return failed, session.run(main, n=2).wait(20).name


@pytest.fixture
def held() -> Iterator[Session]:
    """A live controller whose only queue starts nothing."""
    with Session(queues=[Queue("default", state="held"), Queue("other")]) as session:
        yield session


def test_runs_are_listed_newest_first(cli: Cli, finished: tuple[str, str]) -> None:
    """A line for each, with a heading, fields two or more blanks apart, and nothing of a terminal's."""
    failed, succeeded = finished
    said = cli("get", "runs")
    heading, first, second = said.out.splitlines()
    assert heading.split() == ["RUN", "PHASE", "TASK", "QUEUE", "SUBMITTED", "TOOK"]
    assert re.split(" {2,}", first)[:4] == [succeeded, "succeeded", "seen.main", "default"]
    assert re.split(" {2,}", second)[:4] == [failed, "failed", "seen.fail", "default"]
    assert "\x1b" not in said.out
    assert cli("get", "runs", "--limit", "1").out.count("\n") == 2


def test_json_has_every_field_for_programs(cli: Cli, finished: tuple[str, str]) -> None:
    """Times are seconds since the epoch; what is missing is null."""
    row = json.loads(cli("get", "runs", "--json").out)[0]
    assert (row["run"], row["phase"], row["actions"]) == (finished[1], "succeeded", 3)
    assert row["seconds"] == row["ended_at"] - row["submitted_at"]
    actions = json.loads(cli("get", "actions", "last", "--json").out)
    assert [action["task"] for action in actions] == ["seen.main", "seen.double", "seen.double"]
    assert {action["phase"] for action in actions} == {"succeeded"}
    attempts = json.loads(cli("get", "attempts", "last", "--json").out)
    assert [(each["medium"], each["end"]) for each in attempts] == [
        ("on-demand", "succeeded"), ("spot", "succeeded"), ("spot", "succeeded"),
    ]  # fmt: skip


def test_actions_and_attempts_are_tables_too(cli: Cli, finished: tuple[str, str]) -> None:
    """Attempts of one action, found by the beginning of its id, or of all."""
    assert cli("get", "actions", finished[1]).out.count("seen.double") == 2
    child = json.loads(cli("get", "actions", "last", "--json").out)[1]["action"]
    assert cli("get", "attempts", finished[1]).out.count("\n") == 4
    (line,) = cli("get", "attempts", finished[1], child[:8]).out.splitlines()[1:]
    assert line.startswith(f"{child}  1        seen.double  1/2  spot")
    assert cli("get", "attempts", f"{finished[1]}/{child}").out.splitlines()[1:] == [line]


def test_a_home_without_runs_is_said_to_be_one(cli: Cli, flyteish_home: Path) -> None:
    """On standard error, so that nothing is nothing in a pipe; looking creates nothing."""
    said = cli("get", "runs")
    assert (said.code, said.out) == (0, "")
    assert said.err == f"no runs in {flyteish_home}\n"
    assert json.loads(cli("get", "runs", "--json").out) == []
    assert not flyteish_home.exists()


def test_unknown_runs_and_actions_are_answered_with_near_names(cli: Cli, finished: tuple[str, str]) -> None:
    """Exit code 2. A run can be named by its beginning, where that says which."""
    near = finished[1][:-1] + "-"
    said = cli("why", near)
    assert said.code == 2
    assert f"RunNotFoundError: no run '{near}' in " in said.err
    assert finished[1] in said.err
    assert "2 runs begin with 'r'" in cli("why", "r").err
    assert "has no action 'duble'; did you mean" in cli("why", "last", "duble").err
    assert cli("why", finished[0]).code == 0


@pytest.mark.parametrize(
    "argv, words",
    [
        (["gett"], "there is no 'gett'; did you mean get?"),
        (["get", "run"], "there is no 'run'; did you mean runs?"),
        (["get", "runs", "--limt", "3"], "unknown option --limt; did you mean --limit?"),
        (["get", "runs", "--limit", "0"], "'0' is not a number from 1"),
        (["queue", "hold"], "required: NAME"),
        ([], "required: COMMAND"),
        (["abort", "r", "--wait", "soon"], "'soon' is not a number of seconds"),
    ],
)
def test_wrong_usage_is_one_line_with_near_names(cli: Cli, argv: list[str], words: str) -> None:
    """Exit code 2, and where the help is."""
    said = cli(*argv)
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "--help)" in said.err or "unknown option" in said.err


def test_why_tells_the_story_and_the_live_reason(cli: Cli, held: Session) -> None:
    """Of a live run also what it waits for, as its controller says."""
    run = held.run(main, n=1)
    said = cli("why", run.name)
    while "HELD" not in said.out:  # the controller writes its picture once a second
        said = cli("why", run.name)
    assert "HELD: an operator holds the queue" in said.out.splitlines()[-1]
    document = json.loads(cli("why", run.name, "--json").out)
    assert (document["reason"], document["place"], document["task"]) == ("HELD", 1, "seen.main")
    assert re.search(rf"^{run.name}  active +seen.main", cli("get", "runs", "--active").out, re.M)


def test_why_of_an_interrupted_run_says_how_to_go_on(cli: Cli) -> None:
    """Nobody works on it: the phase says so, and the last line is the command."""
    with Session(queues=[Queue("default", state="held")]) as session:
        run = session.run(main, n=1).name
    assert cli("why", run).out.splitlines()[-1] == f"no controller works on it: flyteish resume {run}"
    assert f"{run}  interrupted" in cli("get", "runs").out
    assert "interrupted" in cli("get", "actions", run).out


def test_queues_and_pools_of_a_live_controller(cli: Cli, held: Session) -> None:
    """What is in them now."""
    held.run(main, n=1)
    rows: list[dict[str, Any]] = []
    while not rows or not rows[0]["waiting"] + rows[0]["active_runs"]:
        rows = json.loads(cli("get", "queues", "--json").out)
    assert [(row["queue"], row["state"]) for row in rows] == [("default", "held"), ("other", "active")]
    assert [row["pool"] for row in json.loads(cli("get", "pools", "--json").out)] == ["spot", "on-demand"]


def test_queues_and_pools_of_the_configuration(cli: Cli, tmp_path: Path) -> None:
    """Where no controller lives, with the states that operators left."""
    (tmp_path / "flyteish.toml").write_text("[pools.p]\ncapacity = 3\nprice_per_hour = 0.5\n[queues.q]\n")
    row = ["p", "on-demand", "inline", "0", "3", "-", "no", "0.5", "0", "0", "0%"]
    assert cli("get", "pools").out.splitlines()[1].split() == row
    assert cli("get", "queues").out.splitlines()[1].split() == ["q", "active", "0", "0", "0", "0", "p"]
    cli("queue", "drain", "q")
    assert cli("get", "queues").out.splitlines()[1].split()[1] == "draining"


def test_plan_says_what_would_run_where_and_runs_nothing(cli: Cli, flows: Path, tmp_path: Path) -> None:
    """A line for each user attempt, warnings, and the run's options applied."""
    said = cli("plan", flows, "square")
    assert said.out.splitlines() == [
        "flows.square in queue default (built-in default)",
        "user attempt 1: spot: interruptible, user attempt 1 of 3",
        "user attempt 2: spot: interruptible, user attempt 2 of 3",
        "user attempt 3: on-demand: final user attempt (retries=2)",
        "preemptions are not charged to retries and start again at the head of the line",
        "after 3 preemptions in a row without a new checkpoint the user attempt goes on-demand",
    ]
    assert "warning: interruptible with retries=0" in cli("plan", "--interruptible", flows, "main").out
    (tmp_path / "flyteish.toml").write_text("[pools.p]\n[queues.default]\n")
    document = json.loads(cli("plan", "--json", flows, "square").out)
    assert [row["medium"] for row in document["attempts"]] == ["spot", "spot", "on-demand"]
    assert document["warnings"] == ["queue 'default' feeds no spot pool: every attempt runs on-demand there"]
    assert json.loads(cli("get", "runs", "--json").out) == []
    assert "there is no queue 'dflt'; did you mean default?" in cli("plan", "--queue", "dflt", flows, "main").err


def test_config_show_says_where_each_value_is_from(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment variable, argument or built in."""
    (tmp_path / "flyteish.toml").write_text("max_threads = 7\n[defaults]\nenv_vars = { TOKEN = 'abc' }\n")
    monkeypatch.setenv("FLYTEISH_KEEP_DAYS", "9")
    lines = {line.split()[0]: line for line in cli("config", "show", "--home", tmp_path / "h").out.splitlines()}
    assert lines["max_threads"].endswith(f"{tmp_path / 'flyteish.toml'}")
    assert lines["keep_days"].split()[1:] == ["9.0", "environment", "variable", "FLYTEISH_KEEP_DAYS"]
    assert lines["home"].split()[1:] == [str(tmp_path / "h"), "argument"]
    assert lines["durability"].endswith("built-in default")
    assert "abc" not in "".join(lines.values())
    rows = json.loads(cli("config", "show", "--json").out)
    assert {"key": "max_threads", "value": "7", "source": str(tmp_path / "flyteish.toml")} in rows


def test_a_wrong_configuration_is_code_2(cli: Cli, tmp_path: Path) -> None:
    """One line; --traceback shows where it was raised."""
    (tmp_path / "flyteish.toml").write_text("max_thread = 7\n")
    said = cli("get", "runs")
    assert said.code == 2
    assert said.err.startswith("flyteish: ConfigurationError: ")
    assert "did you mean max_threads?" in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" in cli("get", "runs", "--traceback").err


def test_logs_show_what_attempts_printed(cli: Cli, flows: Path) -> None:
    """In the order in which they began, each under its heading where there are several."""
    flows.write_text(flows.read_text() + "\n@env.task\ndef two() -> None:\n    print('second')\n"
                     "@env.task\ndef one() -> None:\n    print('first')\n    two()\n")  # fmt: skip
    assert cli("run", "--quiet", flows, "one").code == 0
    logs = cli("logs", "last").out.splitlines()
    assert logs[0] == "==> a0 flows.one attempt 1 <=="
    assert logs[1] == "first"
    assert logs[2].endswith("flows.two attempt 1 <==")
    assert logs[3] == "second"
    assert cli("logs", "last", "two").out == "second\n"
    assert cli("logs", "last/a0", "--attempt", "1").out == "first\n"
    assert cli("logs", "last", "--follow").out.splitlines() == logs
    assert [row["text"] for row in json.loads(cli("logs", "last", "--json").out)] == ["first\n", "second\n"]
    assert (said := cli("logs", "last/a0", "--attempt", "7")).code == 2
    assert "has no attempt 7; it had 1" in said.err


def test_no_logs_is_said(cli: Cli, finished: tuple[str, str]) -> None:
    """On standard error; it is no failure."""
    said = cli("logs", finished[1])
    assert (said.code, said.out) == (0, "")
    assert "nothing was printed" in said.err


def test_help_lists_every_exit_code(cli: Cli) -> None:
    """The table in --help is the table in the code."""
    text = cli("--help").out
    for code in ExitCode:
        assert re.search(rf"^ +{code.value}  {re.escape(MEANINGS[code])}$", text, re.M)
    assert cli("--help").code == 0
    assert cli("--version").out.startswith("flyteish 0.")
