"""``flyteish.compat.flytekit``: what its parameters mean, what a call is, and what it refuses."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import Cache, Resources, RetryStrategy, Run, Session, SpotPolicy, ctx, testing
from flyteish.compat import flytekit
from flyteish.compat.flytekit import current_context, map_task, task, workflow
from flyteish.compat.flytekit.exceptions.user import FlyteRecoverableException
from flyteish.compat.flytekit.tasks import environment_name
from flyteish.errors import ConfigurationError, InputTypeError, TaskDefinitionError
from tests.compat.attempts import PATIENCE


@pytest.fixture
def session() -> Iterator[Session]:
    with testing.spot_session() as opened:
        yield opened


@task
def double(x: int, by: int = 2) -> int:
    return x * by


@task
def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


@task
def whoami() -> tuple[str, str]:
    context = current_context()
    assert Path(context.working_directory).is_dir()
    context.logging.info("here")
    return context.execution_id.name, context.task_id.name


@workflow
def inner(x: int) -> int:
    return double(x=double(x=x))


@workflow()
def outer(x: int) -> list[int]:
    return [inner(x=x), *map_task(double)(x=[x, x])]


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_call_outside_a_run_is_a_run(session: Session) -> None:
    """It is on record with its task's name, has a context, and gives the plain value."""
    run, name = whoami()
    assert name == "tests-compat-test-flytekit.whoami"
    assert session.resume(run).record().task == name
    assert session.resume(run).phase == "succeeded"


def test_a_workflow_is_a_run_and_its_tasks_are_actions(session: Session) -> None:
    """Workflows nest; values are plain, and each call is an action beneath the one that made it."""
    run = session.run(outer, x=3)
    assert run.result(PATIENCE) == [12, 6, 6]
    names = [action.profile.task.rpartition(".")[2] for action in run.actions()]
    assert sorted(names) == sorted(["outer", "inner", *["double"] * 4])
    assert outer(x=1) == [4, 2, 2]


def test_an_error_comes_as_itself_with_its_story(session: Session) -> None:
    """The caller catches what the task raised; the note tells of its attempts."""
    with pytest.raises(ValueError, match="2 is even") as caught:
        odd_only(x=2)
    assert any("attempts of" in note for note in caught.value.__notes__)


def test_a_failure_is_retried_whatever_it_is(session: Session) -> None:
    """FlyteRecoverableException and others alike, unless ``retry_on`` says that only the former are."""
    kinds = [FlyteRecoverableException, ConnectionError]
    tries: list[int] = []

    def fails(kind: int) -> None:
        tries.append(ctx().attempt)
        raise kinds[kind]("again")

    only = RetryStrategy(count=1, retry_on=FlyteRecoverableException)
    cases: list[tuple[int | RetryStrategy, int, list[int]]] = [
        (1, 0, [1, 2]),
        (1, 1, [1, 2]),
        (only, 0, [1, 2]),
        (only, 1, [1]),
    ]
    for retries, kind, expected in cases:
        tries.clear()
        with pytest.raises(kinds[kind]):
            task(retries=retries)(fails)(kind=kind)
        assert tries == expected


def test_a_call_from_a_running_loop_waits_as_well(session: Session) -> None:
    """As in a notebook: the plain call blocks, ``aio`` is awaited, and both are runs."""

    async def cell() -> tuple[int, int]:
        return double(x=1), await double.aio(x=2)

    assert asyncio.run(cell()) == (2, 4)


async def test_a_wait_that_is_broken_off_ends_the_run(session: Session) -> None:
    """Cancelling the await aborts what it waited for."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    names: list[str] = []

    @task
    def waits() -> None:
        names.append(ctx().run)
        loop.call_soon_threadsafe(begun.set)
        ctx().interruption.wait_sync(PATIENCE)

    call = asyncio.create_task(waits.aio())
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    run: Run[None] = session.resume(names[0], waits)
    await asyncio.to_thread(run.wait, PATIENCE)
    assert run.phase == "aborted"


def test_arguments_are_checked_where_the_call_stands(session: Session) -> None:
    """A wrong argument is a TypeError that names the task."""
    with pytest.raises(TypeError, match="double"):
        double(y=1)  # type: ignore[call-arg]
    with pytest.raises(InputTypeError, match="'x' expects int"):
        double(x="1")  # type: ignore[arg-type]


def test_flyteish_is_there_for_the_rest(session: Session) -> None:
    """What a task is made with can be overridden for a call, and ``forward`` is the plain function."""
    assert double.override(retries=1, queue="default")(x=4) == 8
    assert double.forward(x=5) == 10
    assert double.plan().attempts[0].medium == "on-demand"


# -- parameters --------------------------------------------------------------------------------------------------------


def test_parameters_become_settings() -> None:
    """Flyte 1's words for what ``@env.task`` calls otherwise."""

    @task(
        cache=True, cache_version="1", cache_ignore_input_vars=("b",), retries=2, interruptible=True,
        timeout=timedelta(minutes=5), container_image="ghcr.io/me/it:1", environment={"A": "1"},
        requests=flytekit.Resources(cpu="500m", mem="1Gi"), limits=flytekit.Resources(cpu="2", gpu="2"),
    )  # fmt: skip
    def everything(a: int, b: int) -> int:
        return a

    settings = everything.settings()
    assert settings.cache == Cache(version_override="1", ignored_inputs=("b",))
    assert settings.retries == RetryStrategy(count=2)
    assert settings.interruptible == SpotPolicy(budget="single")
    assert settings.timeout.max_runtime == 300
    assert settings.env_vars == {"A": "1"}
    assert settings.resources == Resources(cpu="500m", memory="1Gi", gpu=2)
    assert everything.settings().image == flyteish.Image("ghcr.io/me/it:1")


def test_what_is_not_said_is_left_to_the_session(tmp_path: Path) -> None:
    """A task that says nothing takes the session's defaults, and ``False`` is an opinion."""

    @task(cache=False, interruptible=False)
    def says_no() -> None: ...

    assert double.declared.said() == {}
    assert says_no.settings().cache == Cache(behavior="disable")
    assert says_no.declared.said().keys() == {"cache", "interruptible"}


def test_results_are_reused_for_a_version(session: Session) -> None:
    """Equal inputs give the kept result until the version changes; a version alone keeps nothing."""
    computed: list[int] = []

    def square(x: int, note: str = "") -> int:
        computed.append(x)
        return x * x

    kept = task(cache=True, cache_version="1", cache_ignore_input_vars=["note"])(square)
    assert [kept(x=3), kept(x=3, note="other")] == [9, 9]
    assert computed == [3]
    assert task(cache=True, cache_version="2")(square)(x=3) == 9
    unkept = task(cache_version="2")(square)
    assert [unkept(x=3), unkept(x=3)] == [9, 9]
    assert computed == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"cache": True}, r"cache_version='' in @task\(cache=True\)"),
        ({"cache": "auto"}, r"cache='auto' in @task is not accepted: expected True or False"),
        ({"retries": -1}, r"retries=-1 in @task is not accepted"),
        ({"interruptible": "yes"}, r"interruptible='yes' in @task is not accepted"),
        ({"timeout": -1}, r"timeout=-1 in @task"),
        ({"environment": {"A": 1}}, r"environment in @task: the value of A is not accepted"),
        ({"environment": ["A"]}, r"environment in @task is not accepted"),
        ({"container_image": ""}, r"container_image='' in @task"),
        ({"requests": {"cpu": 1}}, r"requests=\{'cpu': 1\} in @task is not accepted"),
        ({"limits": Resources(cpu=1)}, r"limits=Resources\(cpu=1\) in @task is not accepted"),
        ({"cache": True, "cache_version": "1", "cache_ignore_input_vars": ("z",)}, r"names 'z', which .*"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_where_it_is_written(parameters: dict, message: str) -> None:
    """The message names the parameter as it is called here, the value and what is accepted."""
    with pytest.raises(ConfigurationError, match=message):
        task(**parameters)(lambda_free)


def lambda_free(x: int) -> int:
    return x


@pytest.mark.parametrize("field, value", [("mem", "2Q"), ("cpu", -1), ("gpu", ""), ("ephemeral_storage", 1.5)])
def test_a_wrong_amount_is_refused(field: str, value: Any) -> None:
    """By the field's name here, not by ours."""
    with pytest.raises(ConfigurationError, match=rf"Resources\.{field}={value!r} is not accepted: expected"):
        flytekit.Resources(**{field: value})


def test_unknown_parameters_and_other_kinds_of_functions_are_refused() -> None:
    """Nothing that Flyte 1 knows is accepted and ignored."""
    with pytest.raises(TypeError, match="enable_deck"):
        task(enable_deck=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="interruptible"):
        workflow(interruptible=True)  # type: ignore[call-overload]

    async def awaited() -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"awaited.*async def.*TaskEnvironment"):
        task(awaited)
    with pytest.raises(TaskDefinitionError, match="already"):
        task(double)


def test_tasks_are_named_after_their_module() -> None:
    """In kebab-case, a script after its file, so that a worker that runs the script calls it the same."""

    def named(**variables: object) -> str:
        def function() -> None: ...

        function.__module__ = str(variables.pop("module"))
        made = type("Function", (), {"__module__": function.__module__, "__globals__": variables})()
        return environment_name(made)

    assert named(module="my_project.Train_it") == "my-project-train-it"
    assert named(module="__main__", __file__="/a/fit_model.py", __package__=None) == "fit-model"
    assert named(module="__mp_main__", __file__="/a/fit_model.py", __package__="") == "fit-model"
    assert named(module="__main__", __file__="/a/pkg/run.py", __package__="pkg") == "pkg-run"
    assert named(module="__main__") == "main"
    assert named(module="日本") == "tasks"


# -- map_task ----------------------------------------------------------------------------------------------------------


def test_a_map_outside_a_run_is_one_run(session: Session) -> None:
    """Results are in the lists' order; what is bound is the same for all."""
    assert map_task(double)(x=[1, 2], by=[3, 4]) == [3, 8]
    assert map_task(functools.partial(double, by=5), concurrency=1)(x=range(3)) == [0, 5, 10]
    assert map_task(double)(x=[]) == []


@pytest.mark.parametrize("inside", [False, True])
def test_some_calls_may_fail(session: Session, inside: bool) -> None:
    """None stands for a call that failed and may; one too many raises its error."""

    @workflow
    def composed(ratio: float, xs: list[int]) -> list[int | None]:
        return map_task(odd_only, min_success_ratio=ratio)(x=xs)

    def mapped(ratio: float, xs: list[int]) -> list[int | None]:
        return composed(ratio=ratio, xs=xs) if inside else map_task(odd_only, min_success_ratio=ratio)(x=xs)

    assert mapped(0.5, [1, 2, 3, 4]) == [1, None, 3, None]
    assert mapped(0.7, [1, 2, 3, 4, 5, 6, 7, 9, 11, 13])[1:4] == [None, 3, None]
    with pytest.raises(ValueError, match="2 is even") as caught:
        mapped(1.0, [1, 2, 3])
    assert any("1 of 3 calls failed, 0 may" in note for note in caught.value.__notes__)
    with pytest.raises(ValueError, match="4 is even"):
        mapped(0.6, [1, 2, 3, 4])
    assert map_task(odd_only, min_successes=1)(x=[2, 4, 5]) == [None, None, 5]


def test_wrong_maps_are_refused(session: Session) -> None:
    """Before anything runs, with the task's name."""
    for parameters in ({"concurrency": -1}, {"min_success_ratio": 2}, {"min_successes": 0.5}):
        with pytest.raises(ConfigurationError, match=rf"{next(iter(parameters))}=.* of map_task is not accepted"):
            map_task(double, **parameters)
    for target in (lambda_free, functools.partial(double, 1)):
        with pytest.raises(ConfigurationError, match="expected a task"):
            map_task(target)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="x=<int>: expected a list"):
        map_task(double)(x=1)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="'y'"):
        map_task(double)(x=[1], y=[1])
    with pytest.raises(InputTypeError, match="at least one"):
        map_task(functools.partial(double, x=1))()
    with pytest.raises(ValueError, match="differ in length"):
        map_task(double)(x=[1], by=[1, 2])


SCRIPT = """
from dataclasses import dataclass
from flyteish import testing
from flyteish.compat.flytekit import map_task, task, workflow

@dataclass
class Point:
    x: int

@task
def move(point: Point, by: Point) -> Point:
    return Point(point.x + by.x)

@workflow
def path(points: list[Point]) -> list[Point]:
    return [move(point=point, by=Point(1)) for point in points]

if __name__ == "__main__":
    from functools import partial
    with testing.spot_session(engine="processes"):
        print(path(points=[Point(1)]), map_task(partial(move, by=Point(3)))(point=[Point(1), Point(2)]), move.name)
"""


def test_a_script_maps_over_its_own_classes_in_worker_processes(tmp_path: Path) -> None:
    """A script's tasks and classes are found in workers, also by the run that a map is."""
    file = tmp_path / "my_script.py"
    file.write_text(SCRIPT)
    run = [sys.executable, "-W", "error", str(file)]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "[Point(x=2)] [Point(x=4), Point(x=5)] my-script.move\n", ended.stderr


# -- current_context ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_bytes_a_file_or_a_directory(tmp_path: Path) -> None:
    """``write``/``read``, ``save``/``restore`` with Flyte 1's meaning, over the action's chain."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    with testing.attempt() as attempt:
        checkpoint = current_context().checkpoint
        assert (checkpoint.prev_exists(), checkpoint.read(), checkpoint.restore(tmp_path / "none")) == (
            False,
            None,
            None,
        )
        checkpoint.write(b"one")
        assert (checkpoint.prev_exists(), checkpoint.read()) == (True, b"one")
        checkpoint.save(str(folder / "a.txt"))
        assert checkpoint.read() == b"a"
        checkpoint.save(folder)
        with pytest.raises(ValueError, match="a directory"):
            checkpoint.read()
        assert checkpoint.restore(tmp_path / "back") == tmp_path / "back"
        assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a.txt", "b.txt"]
        with (folder / "b.txt").open("rb") as handle:
            checkpoint.save(handle)
        assert checkpoint.read() == b"b"
        assert len(attempt.checkpoints) == 4
        with pytest.raises(TypeError, match=r"save\(cp=<bytes>\)"):
            checkpoint.save(b"bytes")
        with pytest.raises(FileNotFoundError):
            checkpoint.save("nowhere")


def test_outside_a_task_there_is_none() -> None:
    """``current_context()`` can be called; its attributes say that no task runs."""
    assert "no task" in repr(current_context())
    with pytest.raises(AttributeError, match="only available inside a running task"):
        _ = current_context().checkpoint


def test_importing_it_loads_no_controller_and_no_flytekit() -> None:
    """Declaring is cheap: what runs tasks is loaded by the first call."""
    look = "import sys, flyteish.compat.flytekit as f; f.task; f.exceptions.user; print('\\n'.join(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", look], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(ended.stdout.split())
    assert not {"flyteish.session", "flyteish._controller", "flytekit", "pydantic", "sqlite3"} & loaded
