"""Flyte 1's ``map_task``: a task called once per row of its lists, several at a time.

Decides how lists become calls and how many of them must succeed. Must not know how a call is carried out: the calls
are ``flyteish.map``'s.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, Generic, NamedTuple, Optional, TypeVar, overload

from flyteish._authoring.attempt.context import current_attempt
from flyteish._authoring.tasks.map import map_named
from flyteish._authoring.tasks.task import Task
from flyteish._authoring.values.task_reference import needs_value, reference_for
from flyteish._core.model.settings import SILENT
from flyteish.compat.flytekit.tasks import FlyteTask
from flyteish.errors import ConfigurationError, InputTypeError

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Partial = functools.partial[Any]


class MapTask(Generic[R_co]):
    """What ``map_task`` gives: call it with a list for each parameter. Results are in the lists' order."""

    def __init__(self, target: _Target) -> None:
        self._target = target

    def __repr__(self) -> str:
        return f"map_task({self._target.task!r})"

    def __call__(self, **lists: Sequence[Any]) -> list[R_co]:
        """The results; None in the place of each call that failed and may.

        Inside a run the calls are actions of the task that makes them; outside one they are a run.

        Raises:
            TypeError: the task does not take these parameters, or one of them is no list.
            ValueError: the lists differ in length.
            Exception: what a call raised, where more failed than may; the others are cancelled.
        """
        task, bound = self._target.task, self._target.bound
        for name, given in lists.items():
            if isinstance(given, str | bytes) or not isinstance(given, Sequence):
                raise InputTypeError(f"map_task({task.name}): {name}=<{type(given).__name__}>: expected a list")
        try:
            inspect.signature(task.function).bind(**bound, **lists)
        except TypeError as error:
            raise InputTypeError(f"map_task({task.name}): {error}") from None
        if not lists:
            raise InputTypeError(f"map_task({task.name}): expected a list for at least one parameter")
        whole = {name: list(given) for name, given in lists.items()}
        spread = _Spread(self._target, tuple(lists))
        if current_attempt() is not None:
            return spread(**whole, **bound)
        root: FlyteTask[..., list[R_co]] = FlyteTask(spread, task.environment, SILENT)
        return root(**whole, **bound)


@overload
def map_task(target: Task[..., R], concurrency: int | None = None) -> MapTask[R]: ...


@overload
def map_task(
    target: Task[..., R],
    concurrency: int | None = None,
    min_successes: int | None = None,
    min_success_ratio: float = 1.0,
) -> MapTask[R | None]: ...


@overload
def map_task(
    target: Partial,
    concurrency: int | None = None,
    min_successes: int | None = None,
    min_success_ratio: float = 1.0,
) -> MapTask[Any]: ...


def map_task(
    target: Task[..., Any] | Partial,
    concurrency: int | None = None,
    min_successes: int | None = None,
    min_success_ratio: float = 1.0,
) -> MapTask[Any]:
    """Have a task called once per row of its lists: ``map_task(train)(rate=[0.1, 0.2], epochs=[5, 9])``.

    Args:
        target: a task, or a ``functools.partial`` of one with keyword arguments that are the same in every call.
        concurrency: calls in flight at most. 0 and None (default): all at once.
        min_successes: how many calls must succeed. Default: as ``min_success_ratio`` says.
        min_success_ratio: the share of calls that must succeed, 0..1. Default: 1, all.

    Raises:
        ConfigurationError: a parameter is not accepted; names it, the value and what is.
    """
    task, args, bound = (
        (target.func, target.args, target.keywords) if isinstance(target, functools.partial) else (target, (), {})
    )
    if not isinstance(task, Task) or args:
        raise ConfigurationError(
            f"target={target!r} of map_task is not accepted: expected a task, or a functools.partial of one that binds "
            "keyword arguments"
        )
    if concurrency is not None and not _is_count(concurrency):
        raise _refused("concurrency", concurrency, "an int >= 0 (0 = unlimited) or None")
    if min_successes is not None and not _is_count(min_successes):
        raise _refused("min_successes", min_successes, "an int >= 0 or None")
    ratio: object = min_success_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise _refused("min_success_ratio", ratio, "a number from 0 to 1")
    share = min_success_ratio if min_successes is None else 0.0
    return MapTask(_Target(task, bound, concurrency or 0, min_successes or 0, share))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refused(name: str, value: object, accepted: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} of map_task is not accepted: expected {accepted}")


# -- the calls ---------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """What was asked of ``map_task``, checked."""

    task: Task[..., Any]
    bound: dict[str, Any]
    """Arguments that are the same in every call."""
    concurrency: int
    """0: unlimited."""
    least: int
    least_share: float
    """How many calls must succeed, at the least, and which share of all of them."""

    def may_fail(self, rows: int) -> int:
        share = math.ceil(rows * self.least_share - 1e-9)  # 10 * 0.7 is a little more than 7
        return rows - min(rows, max(self.least, share))


class _Spread:
    """Makes the calls. Outside a run it is the function of the task that makes them.

    Its signature is the target's with lists for ``lists``, and its module is the target's: so its inputs travel as any
    do, classes of the module among them. To a worker it goes with the target by name, a script's too.
    """

    def __init__(self, target: _Target, lists: tuple[str, ...]) -> None:
        self._target = target
        self._lists = lists
        function = target.task.function
        self.__module__ = function.__module__
        self.__name__ = f"map_{function.__name__}"
        self.__qualname__ = f"map_task.<locals>.{self.__name__}"  # nothing that can be imported

    @property
    def __globals__(self) -> dict[str, Any]:
        namespace: dict[str, Any] = self._target.task.function.__globals__
        return namespace

    @property
    def __signature__(self) -> inspect.Signature:
        task = self._target.task
        annotations = {each.name: each.annotation for each in task.signature.parameters}
        parameters = []
        for name in (*self._lists, *self._target.bound):
            one = _usable(annotations.get(name, Any))
            hint = list[one] if name in self._lists else one  # type: ignore[valid-type]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint))
        one = _usable(task.signature.result_annotation)
        result = list[Optional[one]]  # type: ignore[valid-type]  # noqa: UP045 - made at run time
        return inspect.Signature(parameters, return_annotation=result)

    def __call__(self, **given: Any) -> list[Any]:
        task = self._target.task
        lists = {name: given[name] for name in self._lists}
        rows = len(lists[self._lists[0]])
        may_fail = self._target.may_fail(rows)
        bound = {name: given[name] for name in self._target.bound}
        results: list[Any] = []
        failed = 0
        calls = map_named(task, lists, bound, self._target.concurrency)
        try:
            for result in calls:
                if isinstance(result, Exception):
                    failed += 1
                    if failed > may_fail:
                        result.add_note(f"map_task({task.name}): {failed} of {rows} calls failed, {may_fail} may")
                        raise result
                    result = None
                results.append(result)
        finally:
            calls.close()
        return results

    def __reduce__(self) -> Any:
        # What is bound travels with the inputs; here its names are enough.
        task, *asked = self._target._replace(bound=dict.fromkeys(self._target.bound))
        reference = reference_for(task)
        if reference.file is None or needs_value(reference) or task.base is not task:
            return _spread, (task, asked, self._lists)
        return _spread_in_script, ((reference.file, reference.module, reference.name), asked, self._lists)


def _usable(annotation: Any) -> Any:
    return Any if annotation is inspect.Parameter.empty else annotation


def _spread(task: Task[..., Any], asked: list[Any], lists: tuple[str, ...]) -> _Spread:
    return _Spread(_Target(task, *asked), lists)


def _spread_in_script(where: tuple[str, str, str], asked: list[Any], lists: tuple[str, ...]) -> _Spread:
    from flyteish._worker.loader import script_module

    file, module, name = where
    task: Any = reduce(getattr, name.split("."), script_module(file, module))
    return _spread(task, asked, lists)
