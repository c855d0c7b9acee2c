"""Declaring tasks: what an environment accepts, what it refuses and in which words, and what becomes of functions."""

from __future__ import annotations

import functools
import inspect
import sys
import textwrap
import types
import warnings
from datetime import timedelta
from typing import Any

import pytest

import flyteish as flyte
from flyteish._authoring.tasks.environment import EnvironmentOptions
from flyteish._authoring.tasks.options import TaskOptions
from flyteish._core.model.setting_rules import ENVIRONMENT_ONLY, FIELDS, matrix
from flyteish._core.model.settings import Level, Opinions, Settings
from flyteish.errors import ConfigurationError, TaskDefinitionError

ENVIRONMENT_FIELDS = [field.name for field in FIELDS if Level.ENVIRONMENT in field.levels]
TASK_FIELDS = [field.name for field in FIELDS if Level.TASK in field.levels]
RUN_FIELDS = [field.name for field in FIELDS if Level.RUN in field.levels]
OVERRIDE_FIELDS = [field.name for field in FIELDS if Level.OVERRIDE in field.levels]


def keywords(function: Any) -> set[str]:
    kinds = inspect.signature(function).parameters.values()
    assert not [parameter for parameter in kinds if parameter.kind is parameter.VAR_KEYWORD]
    return {parameter.name for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY}


def test_the_settings_matrix_stands_in_the_docstring() -> None:
    """The table in `TaskEnvironment`'s docstring is the one that the settings themselves make."""
    assert matrix() in inspect.cleandoc(flyte.TaskEnvironment.__doc__ or "")


def test_the_signatures_say_what_the_matrix_says() -> None:
    """Each level takes exactly the parameters that the matrix gives it, and takes them by name."""
    own = {"description", "depends_on", "include"}
    assert keywords(flyte.TaskEnvironment) == own | set(ENVIRONMENT_FIELDS)
    assert keywords(flyte.TaskEnvironment.clone_with) == own | set(ENVIRONMENT_FIELDS)
    assert keywords(flyte.TaskEnvironment.task) == set(TASK_FIELDS)
    assert keywords(flyte.AsyncTask.override) == set(OVERRIDE_FIELDS)
    for with_runcontext in (flyte.with_runcontext, flyte.Session.with_runcontext):
        run_only = {"name", "overwrite_cache", "disable_run_cache", "command"}
        assert keywords(with_runcontext) - run_only == set(RUN_FIELDS)


def test_every_setting_is_known_wherever_settings_are_listed() -> None:
    """What may be said, what is kept of it and what is resolved from it have the same names."""
    names = {field.name for field in FIELDS}
    assert set(Opinions.__struct_fields__) == names
    assert set(Settings.__struct_fields__) == names | {"sources"}
    assert EnvironmentOptions.__optional_keys__ | TaskOptions.__optional_keys__ == names | set(ENVIRONMENT_ONLY)
    shown = list(inspect.signature(flyte.TaskEnvironment.task).parameters)[2:]
    assert shown == TASK_FIELDS


@pytest.mark.parametrize("name", ["my_env", "my-env", "env", "env2", "a_b_c", "2fast", "my-env_2"])
def test_names_in_snake_case_or_kebab_case_are_accepted(name: str) -> None:
    """The names that Flyte accepts are accepted."""
    assert flyte.TaskEnvironment(name).name == name


@pytest.mark.parametrize("name", ["", "My_Env", "my env", "my.env", "_env", "env_", "a__b", "ümlaut", "a\n", None, 7])
def test_other_names_are_refused(name: Any) -> None:
    """A name that could be confused in a task's full name is refused where it is written."""
    with pytest.raises(ConfigurationError, match="snake_case or kebab-case") as caught:
        flyte.TaskEnvironment(name)
    assert f"name={name!r}" in str(caught.value)


@pytest.mark.parametrize(
    "parameter, value, accepted",
    [
        ("retries", -1, "an int >= 0"),
        ("retries", True, "an int >= 0"),
        ("timeout", -1, "seconds >= 0"),
        ("timeout", timedelta(seconds=-1), "seconds >= 0"),
        ("cache", "always", "'auto', 'override', 'disable'"),
        ("interruptible", "yes", "True, False or SpotPolicy"),
        ("queue", "", "the name of a queue"),
        ("queue", None, "the name of a queue"),
        ("priority", 0, "an int from 1 to 100"),
        ("priority", "urgent", "'min', 'medium', 'max'"),
        ("resources", "1 cpu", "Resources"),
        ("env_vars", {"A": 1}, "a mapping of str to str"),
        ("secrets", [1], "Secret"),
        ("pod_template", 7, "mapping"),
        ("service_account", 7, "a str or None"),
        ("image", "", "Image"),
        ("image", 7, "Image"),
        ("description", "x" * 256, "255"),
        ("depends_on", ["other"], "a list of TaskEnvironment"),
        ("include", "data.csv", "a list of paths"),
    ],
)
def test_a_wrong_value_is_refused_at_construction(parameter: str, value: Any, accepted: str) -> None:
    """The error names the parameter, the environment, the value and what is accepted."""
    with pytest.raises(ConfigurationError) as caught:
        flyte.TaskEnvironment("my_env", **{parameter: value})
    message = str(caught.value)
    assert parameter in message
    assert "TaskEnvironment('my_env')" in message
    assert accepted in message
    assert "A" in message if parameter == "env_vars" else repr(value) in message


def test_values_of_environment_variables_are_never_shown() -> None:
    """A refused mapping of environment variables may hold secrets: its names are shown, its values are not."""
    with pytest.raises(ConfigurationError) as caught:
        flyte.TaskEnvironment("my_env", env_vars={"TOKEN": "hunter2", "N": 1})  # type: ignore[dict-item]
    assert "hunter2" not in str(caught.value)


def test_unknown_parameters_are_refused_where_they_are_written() -> None:
    """A misspelt parameter is a TypeError at every level, as for any function, and says what may have been meant."""
    env = flyte.TaskEnvironment("my_env")
    said = r"TaskEnvironment\(\) got an unexpected keyword argument 'interruptable'; did you mean interruptible\?"
    with pytest.raises(TypeError, match=said):
        flyte.TaskEnvironment("other", interruptable=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"task\(\) got an unexpected keyword argument 'retrys'"):
        env.task(retrys=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"clone_with\(\) .* 'quue'; did you mean queue\?"):
        env.clone_with("other", quue="gpu")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"override\(\) .* 'report'"):
        env.task(_a_function).override(report=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"with_runcontext\(\) .* 'retries'"):
        flyte.with_runcontext(retries=1)  # type: ignore[call-arg]


def _a_function() -> None: ...


def test_a_clone_keeps_what_is_not_said() -> None:
    """`clone_with` takes over every setting but those that it names; falsy ones are named too."""
    other = flyte.TaskEnvironment("other")
    image = flyte.Image.from_base("python:3.12")
    env = flyte.TaskEnvironment(
        "my_env",
        description="first",
        image=image,
        depends_on=[other],
        include=["a.txt"],
        retries=3,
        interruptible=True,
        queue="gpu",
        timeout=60,
        env_vars={"A": "1"},
        secrets="token",
        priority="max",
        cache="auto",
        resources=flyte.Resources(cpu=2),
    )
    clone = env.clone_with("clone")
    assert (clone.description, clone.image, clone.depends_on, clone.include) == ("first", image, (other,), ("a.txt",))
    assert clone.opinions == env.opinions
    changed = env.clone_with("changed", retries=0, interruptible=False, env_vars={}, description=None)
    assert changed.description is None
    assert changed.opinions.said()["retries"].count == 0
    assert changed.opinions.said()["interruptible"] is None
    assert changed.opinions.said()["env_vars"] == {}
    assert changed.opinions.said()["queue"] == "gpu"
    assert changed.clone_with("again").opinions == changed.opinions


def test_a_clone_has_tasks_of_its_own() -> None:
    """Tasks declared in one of two clones do not appear in the other."""
    env = flyte.TaskEnvironment("my_env")

    @env.task
    def one() -> int:
        return 1

    clone = env.clone_with("clone")
    clone.task(one.function)
    assert list(env.tasks) == ["my_env.one"]
    assert list(clone.tasks) == ["clone.one"]
    assert clone.tasks["clone.one"].environment is clone


def test_dependencies_can_be_added_later() -> None:
    """`add_dependency` keeps each environment once and refuses itself and strangers."""
    first, second, env = (flyte.TaskEnvironment(name) for name in ("first", "second", "env"))
    env.add_dependency(first)
    env.add_dependency(second, first)
    assert env.depends_on == (first, second)
    with pytest.raises(ConfigurationError, match="other environments than itself"):
        env.add_dependency(env)
    with pytest.raises(ConfigurationError, match="a list of TaskEnvironment"):
        env.add_dependency("first")  # type: ignore[arg-type]
    assert env.depends_on == (first, second)


def test_tasks_are_known_by_environment_and_function() -> None:
    """A task's name is `<environment>.<function>`, and the mapping of tasks can't be changed from outside."""
    env = flyte.TaskEnvironment("my-env")

    @env.task
    async def train(data: list[int]) -> int:
        return len(data)

    assert train.name == "my-env.train"
    assert dict(env.tasks) == {"my-env.train": train}
    with pytest.raises(TypeError):
        env.tasks["x"] = train  # type: ignore[index]


def test_the_function_can_be_recognised_in_its_task() -> None:
    """Name, docstring, module, signature and attributes are those of the function, which is kept as it is."""
    env = flyte.TaskEnvironment("my_env")

    def train(data: list[int], *, epochs: int = 3) -> float:
        """Fit the model."""
        return epochs / len(data)

    train.owner = "me"  # type: ignore[attr-defined]
    task: Any = env.task(train)
    assert (task.__name__, task.__qualname__, task.__module__) == ("train", train.__qualname__, __name__)
    assert task.__doc__ == "Fit the model."
    assert task.__wrapped__ is task.function is task.func is train
    assert inspect.signature(task) == inspect.signature(train)
    assert task.owner == "me"
    assert task.short_name == "train"
    assert repr(task) == "<SyncTask my_env.train>"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 cannot mark objects as coroutine functions")
def test_async_tasks_are_coroutine_functions() -> None:
    """Frameworks that ask `inspect.iscoroutinefunction` get the function's answer."""
    env = flyte.TaskEnvironment("my_env")

    @env.task
    async def train() -> None: ...

    assert inspect.iscoroutinefunction(train)


class Model:
    @staticmethod
    def fit() -> None: ...

    def predict(self) -> None: ...

    @classmethod
    def load(cls) -> None: ...

    def __call__(self) -> None: ...


def numbers():
    yield 1


async def letters():
    yield "a"


@pytest.mark.parametrize(
    "thing, reason",
    [
        (lambda: 1, "lambda has no name"),
        (numbers, "generator"),
        (letters, "generator"),
        (Model, "class"),
        (Model(), "not a function"),
        (Model().predict, "method"),
        (Model.load, "method"),
        (Model.__dict__["load"], "method"),
        (functools.partial(print), "not a function"),
        (print, "not a function"),
        (7, "not a function"),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_the_reason(thing: Any, reason: str) -> None:
    """Generators, lambdas, classes, methods and callables of other kinds are refused where they are declared."""
    env = flyte.TaskEnvironment("my_env")
    with pytest.raises(TaskDefinitionError, match=reason) as caught:
        env.task(thing)
    assert "'my_env'" in str(caught.value)
    with pytest.raises(TaskDefinitionError, match=reason):
        env.task(retries=1)(thing)
    assert not env.tasks


def test_a_task_cannot_become_a_task_again() -> None:
    """Decorating twice is an error that says how to get at the function."""
    env = flyte.TaskEnvironment("my_env")
    task = env.task(plain)
    with pytest.raises(TaskDefinitionError, match=r"my_env\.plain\.function"):
        env.task(task)


def plain(x: int) -> int:
    return x


def test_a_wrong_setting_is_refused_at_decoration() -> None:
    """The error comes from the line of the decorator, before the function is even looked at."""
    env = flyte.TaskEnvironment("my_env")
    with pytest.raises(ConfigurationError, match=r"retries=-1 in @env.task of TaskEnvironment\('my_env'\)"):
        env.task(retries=-1)
    with pytest.raises(ConfigurationError, match=r"ignored_inputs.*'y'.*my_env\.plain"):
        env.task(cache=flyte.Cache("auto", ignored_inputs=("y",)))(plain)
    assert env.task(cache=flyte.Cache("auto", ignored_inputs=("x",)))(plain).name == "my_env.plain"


def test_defining_a_task_twice_warns() -> None:
    """The later definition is used, and the warning names both places and points at the decorator."""
    env = flyte.TaskEnvironment("my_env")
    env.task(plain)
    with pytest.warns(UserWarning, match=r"'my_env.plain' is defined twice") as caught:
        again = env.task(plain)
    assert env.tasks["my_env.plain"] is again
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="twice") as caught:
        env.task(retries=1)(plain)
    assert caught[0].filename == __file__


def test_in_a_notebook_it_replaces_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is run again, in a `__main__` without a file, replaces its task without a word."""
    notebook = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    env = flyte.TaskEnvironment("my_env")
    notebook.__dict__["env"] = env
    cell = textwrap.dedent("""
        @env.task
        def train():
            return 1
    """)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(cell, notebook.__dict__)
        exec(cell.replace("1", "2"), notebook.__dict__)
    assert notebook.__dict__["env"].tasks["my_env.train"].forward() == 2


def test_environments_show_what_they_are() -> None:
    """Their `repr` is worth reading."""
    assert repr(flyte.TaskEnvironment("my_env", image="python:3.12")) == "TaskEnvironment('my_env')"
