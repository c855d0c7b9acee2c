"""`flyteish run` in this process: options from signatures, results, errors, exit codes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from flyteish import Session
from tests.cli.conftest import Cli


def test_a_result_goes_to_standard_output_and_progress_to_standard_error(cli: Cli, flows: Path) -> None:
    """So that the result can be piped; each line of progress has time, action, task and text."""
    said = cli("run", flows, "main", "--data", "[1, 2, 3]")
    assert (said.code, said.out) == (0, "adding\n14\n")
    lines = said.err.splitlines()
    assert re.fullmatch(r"run r\w{12} of flows.main", lines[0])
    assert re.search(r"^\d\d:\d\d:\d\d a0 flows.main attempt 1 starts on on-demand \(on-demand\): ", said.err, re.M)
    assert len(re.findall(r"flows.square attempt 1 starts on spot \(spot\)", said.err)) == 3
    assert re.search(r"run r\w+ succeeded after .*; 4 actions; attempts: 3 on spot, 1 on on-demand", lines[-1])


def test_json_is_the_only_thing_on_standard_output(cli: Cli, flows: Path) -> None:
    """What tasks print goes elsewhere then."""
    said = cli("run", "--json", "--quiet", flows, "main", "--data=[3]")
    document = json.loads(said.out)
    assert (document["task"], document["phase"], document["exit_code"], document["result"]) == (
        "flows.main", "succeeded", 0, 9,
    )  # fmt: skip
    assert document["cost"]["spot_seconds"] > 0
    assert said.err == "adding\n"


def test_structured_values_travel_both_ways(cli: Cli, flows: Path, tmp_path: Path) -> None:
    """A dataclass is given as JSON, also from a file, and printed readably or as JSON."""
    file = tmp_path / "settings.json"
    file.write_text('{"rate": 0.5, "layers": [1, 2]}')
    said = cli("run", "--quiet", flows, "echo", "--value", f"@{file}")
    assert (said.code, said.out) == (0, "Settings(rate=0.5, layers=[1, 2])\n")
    said = cli("run", "--quiet", "--json", flows, "echo", "--value", file.read_text())
    assert json.loads(said.out)["result"] == {"rate": 0.5, "layers": [1, 2]}


@pytest.mark.parametrize("flag, word", [("--dry-run", "True"), ("--dry_run", "True"), ("--no-dry_run", "False")])
def test_flags_and_both_spellings(cli: Cli, tmp_path: Path, flag: str, word: str) -> None:
    """A bool is a flag with its opposite; - and _ are the same."""
    file = _file(tmp_path, "async def main(dry_run: bool = False) -> str: return str(dry_run)")
    assert cli("run", "--quiet", file, "main", flag).out == f"{word}\n"


def test_every_kind_of_parameter_can_be_given(cli: Cli, tmp_path: Path) -> None:
    """Positional-only, starred and keyword-only ones too."""
    file = _file(
        tmp_path,
        "async def main(a: int, /, b: int = 2, *rest: int, c: str, **more: float) -> list: "
        "return [a, b, list(rest), c, more]",
    )
    said = cli("run", "--quiet", file, "main", "--a", "1", "--rest", "[3, 4]", "--c", "x", "--more", '{"k": 0.5}')
    assert said.out == "[1, 2, [3, 4], 'x', {'k': 0.5}]\n"
    assert cli("run", "--quiet", file, "main", "--a", "1", "--c", "x").out == "[1, 2, [], 'x', {}]\n"


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "missing --data (list[int]) (see flyteish run"),
        (["--data", '[1, "a"]'], "--data: '[1, \"a\"]' cannot be read as list[int]: "),
        (["--data", "[]", "--colour", "GREEN"], "--colour: 'GREEN' cannot be read as Colour: expected RED or BLUE"),
        (["--dota", "[1]"], "unknown option --dota; did you mean --data?"),
        (["--data", "[1]", "--queue", "q"], "--queue is an option of `flyteish run`: give it before FILE"),
        (["--data", "[1]", "more"], "unexpected argument 'more'"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_accepted(cli: Cli, flows: Path, options: list[str], words: str) -> None:
    """One line, exit code 2, and nothing is started."""
    said = cli("run", flows, "main", *options)
    assert said.code == 2
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    assert cli("get", "runs", "--json").out == "[]\n"


def test_help_of_a_task_shows_what_its_author_wrote(cli: Cli, flows: Path) -> None:
    """Docstring, types and defaults; with --help in place of TASK the tasks of the file."""
    said = cli("run", flows, "main", "--help")
    assert said.code == 0
    text = " ".join(said.out.split())
    for words in (
        "Add the squares.",
        "--data VALUE list[int]; required",
        "--dry-run, --no-dry-run bool; default: False",
    ):
        assert words in text
    assert "main, echo, fail" in cli("run", flows, "--help").out


@pytest.mark.parametrize("name", ["main", "flows.main"])
def test_a_task_is_found_by_any_of_its_names(cli: Cli, flows: Path, name: str) -> None:
    """By variable, by environment and function; FILE:TASK is one way to say both."""
    assert cli("run", "--quiet", flows, name, "--data", "[2]").out == "adding\n4\n"
    assert cli("run", "--quiet", f"{flows}:{name.rpartition('.')[2]}", "--data", "[2]").out == "adding\n4\n"


def test_a_misspelt_task_or_file_is_answered_with_near_names(cli: Cli, flows: Path) -> None:
    """And with what there is."""
    said = cli("run", flows, "mian")
    assert said.code == 2
    assert "has no task 'mian'; did you mean main?; it has square, main" in said.err
    assert "there is no file" in (said := cli("run", flows.parent / "my-flow.py", "main")).err
    assert "did you mean my-flows.py?" in said.err
    assert f"give a task of {flows}: square, main" in cli("run", flows).err
    (flows.parent / "empty.py").write_text("")
    assert "has no tasks" in cli("run", flows.parent / "empty.py", "main").err
    assert "there is no file or module 'no.such.module'" in cli("run", "no.such.module", "main").err


def test_a_file_that_raises_shows_its_own_lines_only(cli: Cli, tmp_path: Path) -> None:
    """The traceback of the file, and one line that says what it is."""
    file = tmp_path / "broken.py"
    file.write_text("def f():\n    raise KeyError('gone')\nf()\n")
    said = cli("run", file, "main")
    assert said.code == 2
    assert f'File "{file}", line 2, in f' in said.err
    assert said.err.endswith(f"flyteish: {file} cannot be loaded: KeyError: 'gone'\n")
    assert "loader.py" not in said.err
    file.write_text("import no_such_module\n")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in cli("run", file, "main").err


def test_a_module_of_a_package_keeps_its_name_and_relative_imports(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By file or by dotted name; the process is left as it was found."""
    package = tmp_path / "shop" / "flows"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "base.py").write_text("START = 40\n")
    (package / "sums.py").write_text(
        "from flyteish import TaskEnvironment\nfrom .base import START\nenv = TaskEnvironment(name='sums')\n"
        "@env.task\nasync def main(n: int) -> str: return f'{__name__} {START + n}'\n"
    )
    path, program = list(sys.path), sys.modules["__main__"]
    assert cli("run", "--quiet", package / "sums.py", "main", "--n", "2").out == "shop.flows.sums 42\n"
    assert cli("run", "--quiet", "shop.flows.sums", "main", "--n", "3").out == "shop.flows.sums 43\n"
    assert (sys.path, sys.modules["__main__"]) == (path, program)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_failed_run_shows_the_tasks_traceback_and_the_attempts(cli: Cli, flows: Path) -> None:
    """What the author wrote, not what runs it; exit code 1."""
    said = cli("run", "--quiet", flows, "fail", "--why", "too hot")
    assert (said.code, said.out) == (1, "")
    assert f'File "{flows}", line' in said.err
    assert "ValueError: too hot" in said.err
    assert "attempt 1 ran on-demand" in said.err
    assert "flyteish/_worker" not in said.err
    document = json.loads(cli("run", "--quiet", "--json", flows, "fail").out)
    assert (document["exit_code"], document["error"]["type"], document["error"]["message"]) == (
        1, "ValueError", "no reason",
    )  # fmt: skip
    assert "result" not in document


def test_a_deadline_has_an_exit_code_of_its_own(cli: Cli, flows: Path) -> None:
    """4: the run timed out."""
    said = cli("run", "--quiet", flows, "late")
    assert said.code == 4
    assert "flyteish: ActionTimedOutError: flows.late" in said.err


def test_a_file_is_given_by_its_path(cli: Cli, tmp_path: Path) -> None:
    """Its content is stored with the run."""
    (tmp_path / "notes.txt").write_text("read me")
    file = _file(
        tmp_path,
        "async def main(notes: flyteish.io.File) -> str:\n"
        "    async with notes.open('rb') as handle:\n        return (await handle.read()).decode()",
    )
    assert cli("run", "--quiet", file, "main", "--notes", "notes.txt").out == "read me\n"
    assert "cannot be read as flyteish.File: " in cli("run", file, "main", "--notes", "note.txt").err


def test_options_of_the_run_apply_to_it(cli: Cli, tmp_path: Path) -> None:
    """Queue, priority, medium, environment and name, which stand before FILE."""
    (tmp_path / "flyteish.toml").write_text("[queues.default]\n[queues.quick]\n")
    file = _file(
        tmp_path,
        "async def main() -> list:\n    c = flyteish.ctx()\n    return [c.queue, os.environ['WHO'], c.run, c.medium]",
        "retries=1",
    )
    said = cli("run", "--queue", "quick", "--priority", "max", "--interruptible", "--env", "WHO=me", "--name", "mine",
               file, "main")  # fmt: skip
    assert said.out == "['quick', 'me', 'mine', 'spot']\n"
    (row,) = json.loads(cli("get", "runs", "--json").out)
    assert (row["run"], row["queue"]) == ("mine", "quick")
    assert "--env WHO=*** " in row["command"].replace("'", "")
    assert row["entry"] == f"{file}:main"
    assert "there is such a run already" in (said := cli("run", "--name", "mine", file, "main")).err
    assert said.code == 2


@pytest.mark.parametrize(
    "options, words",
    [
        (["--queue", "nope"], "UnknownQueueError: .*unknown queue 'nope'"),
        (["--priority", "900"], "priority=900 .* is not accepted"),
        (["--env", "WHO"], "--env 'WHO' is not accepted: expected NAME=VALUE"),
        (["--overwrite-cache", "--no-cache"], "not allowed with argument"),
        (["--qeue", "q"], "unknown option --qeue; did you mean --queue"),
        (["--config", "none.toml"], "none.toml"),
    ],
)
def test_a_wrong_option_of_the_run_is_refused(cli: Cli, flows: Path, options: list[str], words: str) -> None:
    """Exit code 2, in one line."""
    said = cli("run", *options, flows, "main", "--data", "[]")
    assert said.code == 2
    assert re.search(words, said.err)
    assert said.err.count("\n") == 1


def test_a_store_that_another_controller_owns_is_code_5(cli: Cli, flows: Path) -> None:
    """The message names the process."""
    with Session():
        said = cli("run", flows, "main", "--data", "[]")
    assert said.code == 5
    assert said.err.startswith("flyteish: StoreLockedError: ")
    assert said.err.count("\n") == 1


def test_a_cached_result_is_said_to_be_one(cli: Cli, tmp_path: Path) -> None:
    """And --overwrite-cache and --no-cache compute anew."""
    file = _file(tmp_path, "async def main(x: int = 1) -> int:\n    print('computed')\n    return x", "cache='auto'")
    assert cli("run", file, "main").out == "computed\n1\n"
    said = cli("run", file, "main")
    assert said.out == "1\n"
    assert "succeeded: its result was in the cache" in said.err
    assert cli("run", "--no-cache", file, "main").out == "computed\n1\n"
    assert cli("run", "--overwrite-cache", file, "main").out == "computed\n1\n"


def test_many_actions_are_counted_and_not_listed(cli: Cli, tmp_path: Path) -> None:
    """Failures still get their line."""
    file = _file(
        tmp_path,
        "async def main(n: int = 300) -> int:\n"
        "    found = await asyncio.gather(*[one(i) for i in range(n)], return_exceptions=True)\n"
        "    return sum(isinstance(each, ValueError) for each in found)\n\n"
        "@env.task\nasync def one(i: int) -> int:\n    if i == 299: raise ValueError('last')\n    return i\n",
    )
    said = cli("run", file, "main")
    assert said.out == "1\n"
    assert len(said.err.splitlines()) < 1000
    assert "ended: user error (ValueError: last" in said.err
    assert "301 actions" in said.err.splitlines()[-1]


def _file(folder: Path, function: str, options: str = "") -> Path:
    file = folder / "one_off.py"
    file.write_text(
        "import asyncio, os\nimport flyteish\nfrom flyteish import TaskEnvironment\n"
        f"env = TaskEnvironment(name='one_off')\n@env.task({options})\n{function}\n"
    )
    return file
