"""``TaskEnvironment``: where tasks are declared, and the defaults that they share.

Decides what a declaration may say and under which name a task is known. Must not know how a task is called
(``task``), nor who runs it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

import msgspec
from msgspec import UNSET

from flyteish._authoring.tasks.options import SharedOptions, TaskOptions, check_function, refuse_strangers, takes
from flyteish._authoring.tasks.task import AsyncTask, SyncTask, Task
from flyteish._core.model.images import Image
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, Opinions
from flyteish.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")

_NAME: Final = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_DESCRIPTION_LIMIT: Final = 255


class TaskDecorator(Protocol):
    """What ``@env.task(...)`` with parameters gives: it keeps the function's signature."""

    @overload  # the more special one first: that is what tells `async def` from `def`
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class EnvironmentOptions(SharedOptions, total=False):
    """What an environment may say: the settings that its tasks share, and what is its own."""

    description: str | None
    image: Image | str | None
    depends_on: Sequence[TaskEnvironment]
    include: Sequence[str]


class TaskEnvironment:
    """A named group of tasks with the settings that they share.

    ::

        env = flyteish.TaskEnvironment("training", interruptible=True, retries=2)

        @env.task
        async def train(data: list[float]) -> float: ...

    The name is snake_case or kebab-case; a task is known as ``<name>.<function>``. Every other parameter is
    optional, and one that is left out says nothing; ``0``, ``False``, ``""`` and ``{}`` are opinions. Of the
    levels that say something the most specific wins: override > run > @env.task > TaskEnvironment > session >
    queue.

    setting          TaskEnvironment  @env.task  override  run  meaning
    ---------------  ---------------  ---------  --------  ---  ----------------------------------------------------------------
    name             required         -          -         -    snake_case or kebab-case
    description      yes              -          -         -    for people
    depends_on       yes              -          -         -    environments deployed together with this one
    include          yes              -          -         -    extra files that travel with the code
    image            yes              -          -         -    container image of the tasks
    resources        yes              yes        yes       -    what one attempt needs; replaced, not merged
    env_vars         yes              yes        yes       yes  environment variables of the attempt
    secrets          yes              yes        yes       -    names of secrets the attempt sees as environment variables
    pod_template     yes              yes        yes       -    Kubernetes only
    service_account  yes              yes        yes       -    Kubernetes only
    cache            yes              yes        yes       yes  reuse of results for equal inputs
    interruptible    yes              yes        yes       yes  whether, and how, it may run on spot
    queue            yes              yes        yes       yes  the line it waits in
    retries          yes              yes        yes       -    user retries and their back-off
    timeout          yes              yes        yes       -    max_runtime, max_queued_time, deadline
    priority         yes              yes        yes       yes  order within the queue, 1..100
    idempotent       -                yes        yes       -    False: its effects must not happen twice, so it is kept off spot
    short_name       -                yes        yes       -    a name for people
    report           -                yes        -         -    the task writes a report
    links            -                yes        yes       -    URLs shown with the action
    docs             -                yes        -         -    documentation shown with the task
    triggers         -                yes        -         -    when a platform starts it

    Raises:
        ConfigurationError: names the parameter, the environment, the value and what is accepted.
    """  # noqa: E501 - the table is made from the settings themselves

    @takes(EnvironmentOptions)
    def __init__(self, name: str, **options: Unpack[EnvironmentOptions]) -> None:
        refuse_strangers("TaskEnvironment", TaskEnvironment.__init__, options)
        self.name: Final = _checked_name(name)
        self.description: Final = self._checked_description(options.pop("description", None))
        self._depends_on = self._checked_dependencies(options.pop("depends_on", ()))
        self.include: Final = self._checked_include(options.pop("include", ()))
        self.opinions: Final[Opinions] = opinions(Level.ENVIRONMENT, repr(self), options)
        self._tasks: dict[str, Task[..., Any]] = {}

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The tasks declared in this environment, by full name, in order of declaration."""
        return MappingProxyType(self._tasks)

    @property
    def depends_on(self) -> tuple[TaskEnvironment, ...]:
        """The environments that are deployed together with this one."""
        return self._depends_on

    @property
    def image(self) -> Image | None:
        """What its tasks run in where that is a container, if it says so."""
        return self.opinions.image or None

    def add_dependency(self, *environments: TaskEnvironment) -> None:
        """Name more environments that are deployed together with this one; each is kept once."""
        self._depends_on = self._checked_dependencies((*self._depends_on, *environments))

    @takes(EnvironmentOptions)
    def clone_with(self, name: str, **changes: Unpack[EnvironmentOptions]) -> Self:
        """An environment like this one under another name, without its tasks; what is left out stays as it is here.

        Raises:
            ConfigurationError: as for a new environment.
        """
        refuse_strangers("clone_with", TaskEnvironment.clone_with, changes)
        said = {parameter: value for parameter, value in changes.items() if value is not UNSET}
        return type(self)(name, **{**self._parameters(), **said})

    def _parameters(self) -> dict[str, Any]:
        own = self.opinions.said()
        if "interruptible" in own and own["interruptible"] is None:
            own["interruptible"] = False  # how "no spot" is said; None is how it is kept
        return {
            "description": self.description,
            "depends_on": self._depends_on,
            "include": self.include,
            **own,
        }

    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...

    @overload
    def task(self, **options: Unpack[TaskOptions]) -> TaskDecorator: ...

    @takes(TaskOptions)
    def task(self, function: Callable[..., Any] | None = None, **options: Unpack[TaskOptions]) -> Any:
        """Declare a function to be a task: ``@env.task``, or ``@env.task(retries=2, ...)``.

        An ``async def`` becomes an ``AsyncTask``, a ``def`` a ``SyncTask``; both keep the function's signature.
        What each parameter means, and who wins, is in the table of ``TaskEnvironment``.

        Raises:
            ConfigurationError: a setting is not accepted; names it, the value and what is.
            TaskDefinitionError: the object cannot become a task; says why and what to do.
        """
        refuse_strangers("task", TaskEnvironment.task, options)
        declared = opinions(Level.TASK, f"@env.task of {self!r}", options)
        if function is None:
            return lambda function: self._declare(function, declared)
        return self._declare(function, declared)

    def _declare(self, function: Any, declared: Opinions) -> Task[..., Any]:
        kind = AsyncTask if check_function(function, self.name) == "async" else SyncTask
        task: Task[..., Any] = kind(function, self, declared)
        task.check_cache(declared.cache)
        earlier = self._tasks.get(task.name)
        if earlier is not None and not _replaces_silently(function):
            warnings.warn(
                f"task {task.name!r} is defined twice: at {_place(earlier.function)} and at {_place(function)}; "
                "the later definition is used. Rename one of the functions",
                UserWarning,
                stacklevel=3,  # the line of the decorator
            )
        self._tasks[task.name] = task
        return task

    def __getstate__(self) -> dict[str, Any]:
        # A task that travels by value takes its environment along, but not its siblings.
        return {**self.__dict__, "_tasks": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        image = state.pop("image", None)  # of one that was pickled before images were settings
        self.__dict__.update(state)
        if image is not None:
            said = opinions(Level.ENVIRONMENT, repr(self), {"image": image})
            self.__dict__["opinions"] = msgspec.structs.replace(self.opinions, image=said.image)

    def __repr__(self) -> str:
        return f"TaskEnvironment({self.name!r})"

    # -- checks of what only an environment may say ------------------------------------------------------------

    def _refuse(self, parameter: str, value: object, accepted: str) -> ConfigurationError:
        return ConfigurationError(f"{parameter}={value!r} in {self!r} is not accepted: expected {accepted}")

    def _checked_description(self, value: object) -> str | None:
        if value is None or (isinstance(value, str) and len(value) <= _DESCRIPTION_LIMIT):
            return value
        raise self._refuse("description", value, f"a str of at most {_DESCRIPTION_LIMIT} characters, or None")

    def _checked_dependencies(self, value: object) -> tuple[TaskEnvironment, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, TaskEnvironment) for item in value):
            raise self._refuse("depends_on", value, "a list of TaskEnvironment")
        if any(item is self for item in value):
            raise self._refuse("depends_on", value, "other environments than itself")
        return tuple(dict.fromkeys(value))

    def _checked_include(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise self._refuse("include", value, "a list of paths or patterns")
        return tuple(value)


def _checked_name(name: object) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f"name={name!r} of a TaskEnvironment is not accepted: expected snake_case or kebab-case "
        "(lower-case letters, digits, single _ or -), such as 'my_env' or 'my-env'"
    )


def _replaces_silently(function: Any) -> bool:
    """A notebook or prompt: running a cell again is how a task is edited there."""
    return function.__module__ == "__main__" and not hasattr(sys.modules.get("__main__"), "__file__")


def _place(function: Any) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
