"""Promises that only show from outside: what is left on disk and among processes, and what a program gets back.

Each runs a program of its own, as a user would, since the promise is about what is there when it is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import flyteish
from flyteish import Cache, Pool, Session
from flyteish._authoring.values.codec import PickleWarning
from flyteish.config import load_config
from flyteish.errors import ConfigurationError, SerializationError
from tests.session import outside_program as program

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


def run_program(what: str, home: Path) -> subprocess.CompletedProcess[str]:
    temporary = home.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", program.__file__, what, str(home)],
        env=variables, cwd=home.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def is_gone(pid: int) -> bool:
    """Not there, or only a zombie that waits for a parent which does not reap."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_class_of_the_program_comes_back_from_a_worker(tmp_path: Path) -> None:
    """An object that travels by cloudpickle is found again where its class is the program's own."""
    ended = run_program("plain", tmp_path / "home")
    assert (ended.stdout, ended.returncode) == ("7\n", 0), ended.stderr


def test_processes_that_a_task_left_end_with_the_session(tmp_path: Path) -> None:
    """A worker takes what its tasks started with it, also where it ends in peace."""
    home = tmp_path / "home"
    ended = run_program("child", home)
    assert ended.returncode == 0, ended.stderr
    pid = int((home / "child").read_text())
    until = time.monotonic() + PATIENCE
    while not is_gone(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert is_gone(pid)


def test_a_killed_program_litters_nothing_but_its_home(tmp_path: Path) -> None:
    """Private files of attempts lie in the home, and the next session removes those of a session that was killed."""
    home = tmp_path / "home"
    ended = run_program("killed", home)
    assert ended.returncode == -9, ended.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((home / "scratch").rglob("checkpoint"))
    with Session(home=home):
        assert not list((home / "scratch").rglob("checkpoint"))


class Opaque:
    """Nothing but cloudpickle carries it."""


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_pickle_is_refused_where_the_configuration_says_so(engine: str, tmp_path: Path) -> None:
    """With ``allow_pickle=False`` neither an argument, nor a result, nor a child's argument travels by cloudpickle."""
    config = load_config(home=tmp_path, allow_pickle=False, pools=[Pool("only", engine=engine)])
    with Session(config=config) as session:
        with pytest.raises(SerializationError, match=r"parameter 'value'.*refused by configuration"):
            session.run(program.take, Opaque())
        with pytest.raises(SerializationError, match=r"result.*refused by configuration"):
            session.run(program.give).result(PATIENCE)
        with pytest.raises(SerializationError, match=r"parameter 'value'.*refused by configuration"):
            session.run(program.pass_on).result(PATIENCE)
        assert session.run(program.take, 1).result(PATIENCE) is None


def test_private_files_of_inline_attempts_lie_in_the_home(tmp_path: Path) -> None:
    """The notice's file of an inline attempt is below the home, and gone after it."""
    with Session(home=tmp_path / "home") as session:
        path = Path(session.run(program.notice_file).result(PATIENCE))
    assert (tmp_path / "home") in path.parents
    assert not path.parent.exists()


def test_an_override_may_not_ignore_a_parameter_that_is_not_there() -> None:
    """A misspelt name in ``ignored_inputs`` is refused where it is written, as at ``@env.task``."""
    env = flyteish.TaskEnvironment(name="ignoring")

    @env.task
    def train(data: int, verbose: bool = False) -> int:
        return data

    assert train.override(cache=Cache(ignored_inputs=("verbose",))).name == "ignoring.train"
    with pytest.raises(ConfigurationError, match=r"ignored_inputs names 'verbos'.*ignoring\.train.*data, verbose"):
        train.override(cache=Cache(ignored_inputs=("verbos",)))


@pytest.mark.parametrize("section", ["queues", "pools"])
def test_no_queues_and_no_pools_at_all_are_refused(section: str, tmp_path: Path) -> None:
    """An empty list says something: it is not taken for "the default ones"."""
    with pytest.raises(ConfigurationError, match=rf"{section}=\[\] is not accepted: expected at least one"):
        Session(home=tmp_path, **{section: []})  # type: ignore[arg-type]


def test_the_name_for_people_is_shown(tmp_path: Path) -> None:
    """``short_name``, ``links`` and ``docs`` are recorded with the action and shown by ``flyteish get actions``."""
    env = flyteish.TaskEnvironment(name="shown")

    @env.task(short_name="Nightly training", links=["https://board"], docs="https://manual")
    def train() -> int:
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PickleWarning)
        with Session(home=tmp_path) as session:
            run = session.run(train)
            assert run.result(PATIENCE) == 1
    look = [sys.executable, "-m", "flyteish", "get", "actions", run.name, "--home", str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    table = subprocess.run(look, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert "Nightly training" in table.stdout
    listed = subprocess.run([*look, "--json"], env=variables, capture_output=True, text=True, timeout=60, check=True)
    (row,) = json.loads(listed.stdout)
    assert (row["short_name"], row["links"], row["docs"]) == ("Nightly training", ["https://board"], "https://manual")
