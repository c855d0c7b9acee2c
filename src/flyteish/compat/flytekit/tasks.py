"""Flyte 1's ``@task`` and ``@workflow``, made into tasks of flyteish.

Decides what their parameters mean here, by which name a task is known, and that a call outside a run is a run. Must not
know how a run is carried out, nor what becomes of a policy.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, overload

from msgspec import UNSET, UnsetType

from flyteish._authoring.attempt.context import current_attempt
from flyteish._authoring.tasks.environment import TaskEnvironment
from flyteish._authoring.tasks.options import check_function
from flyteish._authoring.tasks.task import SyncTask
from flyteish._authoring.values.task_reference import SCRIPT_MODULE
from flyteish._core.model.images import Image
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import SILENT, Cache, Level, Opinions
from flyteish.compat.flytekit.policies import SINGLE_BUDGET
from flyteish.compat.flytekit.resources import Resources, needed
from flyteish.errors import ConfigurationError, TaskDefinitionError

if TYPE_CHECKING:
    from flyteish._controller.run_handle import Run

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_BROKEN_OFF: Final = "the call that waited for it was broken off"


class FlyteTask(SyncTask[P, R_co]):
    """What ``@task`` and ``@workflow`` make of a ``def``: calling it gives its value, as calling the function does.

    Outside a run the call is a run of its own in the current session, with retries, checkpoints and preemptions. Inside
    one it is an action of that run. ``.override(...)`` and all else that tasks have is there as well.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it and wait for its value.

        Raises:
            TypeError: arguments do not fit the signature.
            Exception: what the task raised, with the story of the attempts as a note.
        """
        if current_attempt() is None:
            return run_blocking(self, args, kwargs)
        return super().__call__(*args, **kwargs)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """The form to await: the caller's event loop goes on."""
        if current_attempt() is None:
            return _run_awaited(self, args, kwargs)
        return super().aio(*args, **kwargs)


class FlyteTaskDecorator(Protocol):
    """What ``@task(...)`` with parameters gives: it keeps the function's signature."""

    def __call__(self, function: Callable[P, R], /) -> FlyteTask[P, R]: ...


class TaskDecorators:
    """``task``: Flyte 1's decorator; ``spot`` is what its ``interruptible=True`` means."""

    def __init__(self, spot: SpotPolicy) -> None:
        self._spot = spot

    def __repr__(self) -> str:
        return f"<@task, interruptible=True is {self._spot!r}>"

    @overload
    def __call__(self, function: Callable[P, R], /) -> FlyteTask[P, R]: ...

    @overload
    def __call__(
        self,
        *,
        cache: bool | UnsetType = UNSET,
        cache_version: str = "",
        cache_ignore_input_vars: Sequence[str] = (),
        retries: int | RetryStrategy | UnsetType = UNSET,
        interruptible: bool | SpotPolicy | None = None,
        timeout: float | timedelta | Timeout | UnsetType | None = UNSET,
        container_image: Image | str | None = None,
        environment: Mapping[str, str] | None = None,
        requests: Resources | None = None,
        limits: Resources | None = None,
    ) -> FlyteTaskDecorator: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        cache: bool | UnsetType = UNSET,
        cache_version: str = "",
        cache_ignore_input_vars: Sequence[str] = (),
        retries: int | RetryStrategy | UnsetType = UNSET,
        interruptible: bool | SpotPolicy | None = None,
        timeout: float | timedelta | Timeout | UnsetType | None = UNSET,
        container_image: Image | str | None = None,
        environment: Mapping[str, str] | None = None,
        requests: Resources | None = None,
        limits: Resources | None = None,
    ) -> Any:
        """Declare a ``def`` to be a task: ``@task``, or ``@task(retries=2, ...)``. It keeps its signature.

        Args:
            cache: reuse results for equal inputs; wants a ``cache_version``. Default: not said, so no.
            cache_version: stands for the function's code. Without ``cache=True`` it does nothing.
            cache_ignore_input_vars: parameters that do not count as inputs.
            retries: tries after the first. Every exception is retried, save ``NonRecoverableError``. Default: 0.
            interruptible: whether it may run on spot, or ``FIRST_PREEMPTION``, ``SINGLE_BUDGET`` or any
                ``SpotPolicy``. Default: not said, so no.
            timeout: running time of one attempt, in seconds or as timedelta; 0 is unlimited, the default.
            container_image: Kubernetes only.
            environment: environment variables of the attempt.
            requests, limits: what one attempt needs; a limit counts where nothing is requested.

        Raises:
            ConfigurationError: a parameter is not accepted; names it, the value and what is.
            TaskDefinitionError: the object cannot become a task; says why and what to do.
        """
        policy = self._spot if interruptible is True else UNSET if interruptible is None else interruptible
        declared = opinions(
            Level.TASK,
            "@task",
            {
                "cache": _cache(cache, cache_version, cache_ignore_input_vars),
                "retries": retries,
                "interruptible": policy,
                "timeout": timeout,
                "env_vars": _variables(environment),
                "resources": needed(requests, limits),
            },
        )
        image = _image(container_image)
        if function is None:
            return lambda function: _declared(function, declared, image)
        return _declared(function, declared, image)


task: Final = TaskDecorators(SINGLE_BUDGET)


@overload
def workflow(function: Callable[P, R], /) -> FlyteTask[P, R]: ...


@overload
def workflow() -> FlyteTaskDecorator: ...


def workflow(function: Callable[..., Any] | None = None, /) -> Any:
    """Declare a ``def`` that calls tasks to be a workflow; ``@workflow``, or ``@workflow()``.

    It is plain Python: a task that it calls runs there and then and gives a plain value, no promise.

    Raises:
        TaskDefinitionError: the object cannot become a workflow; says why and what to do.
    """
    if function is None:
        return lambda function: _declared(function, SILENT, None)
    return _declared(function, SILENT, None)


# -- declarations ------------------------------------------------------------------------------------------------


def _declared(function: Any, declared: Opinions, image: Image | str | None) -> FlyteTask[..., Any]:
    # An environment for each task, since Flyte 1 has images per task; its name is what they share.
    name = environment_name(function)
    environment = TaskEnvironment(name) if image is None else TaskEnvironment(name, image=image)
    if check_function(function, environment.name) == "async":
        raise TaskDefinitionError(
            f"{function.__qualname__} cannot become a task of Flyte 1's kind: it is an async def; "
            "declare it with flyteish.TaskEnvironment, whose tasks can be"
        )
    made: FlyteTask[..., Any] = FlyteTask(function, environment, declared)
    made.check_cache(declared.cache)
    return made


def environment_name(function: Any) -> str:
    """The module's name in kebab-case; a script's is its file's, so that it is the same in worker processes."""
    module = getattr(function, "__module__", None) or ""
    if module in ("__main__", SCRIPT_MODULE):
        variables = getattr(function, "__globals__", {})
        file, package = variables.get("__file__"), variables.get("__package__")
        module = f"{package or ''}.{Path(file).stem}" if isinstance(file, str) else module
    return "-".join(re.findall("[a-z0-9]+", module.lower())) or "tasks"


def _cache(cache: object, version: object, ignored: Sequence[str]) -> Cache | UnsetType:
    if cache is UNSET:
        return UNSET
    if not isinstance(cache, bool):
        raise ConfigurationError(f"cache={cache!r} in @task is not accepted: expected True or False")
    if not cache:
        return Cache(behavior="disable")
    if not isinstance(version, str) or not version:
        raise ConfigurationError(
            f"cache_version={version!r} in @task(cache=True) is not accepted: expected a str that stands for the "
            "function's code, such as '1'"
        )
    return Cache(version_override=version, ignored_inputs=tuple(ignored))


def _variables(environment: object) -> Any:
    if environment is None:
        return UNSET
    if isinstance(environment, Mapping) and all(isinstance(k, str) and k for k in environment):
        strangers = [key for key, value in environment.items() if not isinstance(value, str)]
        if not strangers:
            return environment
        # Names only: the values may be secrets.
        raise ConfigurationError(
            f"environment in @task: the value of {', '.join(strangers)} is not accepted: expected a str"
        )
    raise ConfigurationError("environment in @task is not accepted: expected a mapping of str to str")


def _image(image: object) -> Image | str | None:
    if image is None or isinstance(image, Image) or (isinstance(image, str) and image.strip()):
        return image
    raise ConfigurationError(
        f"container_image={image!r} in @task is not accepted: expected the reference of an image, or Image(...)"
    )


# -- calls outside a run -----------------------------------------------------------------------------------------


def run_blocking(task: FlyteTask[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
    """A run in the current session; its value. When the wait is broken off (Ctrl-C), so is the run."""
    if asyncio._get_running_loop() is None:
        run = _started(task, args, kwargs)
    else:
        # In a notebook. The run must not count on this thread's loop, which stands still until it is over.
        with ThreadPoolExecutor(1, "flyteish run") as elsewhere:
            run = elsewhere.submit(copy_context().run, _started, task, args, kwargs).result()
    try:
        return run.result()
    except BaseException:
        _break_off(run)
        raise


async def _run_awaited(task: FlyteTask[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
    run = _started(task, args, kwargs)
    try:
        return await run
    except BaseException:
        _break_off(run)
        raise


def _started(task: FlyteTask[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run[R]:
    from flyteish.default_session import current_session  # the controller, which declaring needs nothing of

    return current_session().run(task, *args, **kwargs)


def _break_off(run: Run[Any]) -> None:
    if not run.done():
        run.abort(_BROKEN_OFF)
