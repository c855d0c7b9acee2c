"""``AsyncTask`` and ``SyncTask``: a declared function that can be called, overridden and planned.

Decides what a call means where it is made: outside a running attempt it is the plain function, inside one it is
an action of the run. Must not know how an action is submitted or who runs it (``calling`` does, which is imported by
the first call: programs that only declare tasks start fast), nor how environments are made.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, Self, TypeVar, Unpack

import msgspec
from msgspec import UNSET, UnsetType

from flyteish._authoring.tasks.options import Environment, OverrideOptions, refuse_strangers, takes
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import SILENT, Cache, Level, Opinions, Scope, Settings, resolve
from flyteish.errors import ConfigurationError, SerializationError

if TYPE_CHECKING:
    from flyteish._authoring.tasks.signature import TaskSignature
    from flyteish._core.model.values import Profile
    from flyteish._core.rules.plan import Plan
    from flyteish._learning.forecasts import Forecast
    from flyteish.interfaces import BlockingContent

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T", bound="Task[..., Any]")


#: Attributes that are computed again where a task arrives by value.
_REMADE: Final = frozenset({"signature", "profile_key"})


class Task(Generic[P, R]):
    """A declared function: what ``@env.task`` makes of it.

    ``name`` is ``<environment>.<function>``, ``function`` the plain function, ``environment`` where it was
    declared. Made by ``TaskEnvironment.task``, never directly.
    """

    is_async: ClassVar[bool]
    __flyteish_task__: Final = True

    def __init__(self, function: Callable[..., Any], environment: Environment, declared: Opinions) -> None:
        wrapped: Any = self
        functools.update_wrapper(wrapped, function)
        self.function: Final = function
        self.environment: Final = environment
        self.name: Final = f"{environment.name}.{function.__name__}"
        self.declared: Final = declared
        self.overridden: Opinions = SILENT
        self.base: Task[P, R] = self
        """The task as declared; another object where this one came from ``override``."""

    @property
    def func(self) -> Callable[..., Any]:
        """The plain function, by Flyte's name for it."""
        return self.function

    @property
    def short_name(self) -> str:
        """The name for people; the function's own where nobody gave one."""
        return self.settings().short_name or self.function.__name__

    @functools.cached_property
    def signature(self) -> TaskSignature:
        """How calls are bound, and how inputs and results travel. Made when first used: all types exist then.

        Raises:
            TaskDefinitionError: an annotation or a parameter cannot be used by a task.
        """
        if self.base is not self:
            return self.base.signature
        from flyteish._authoring.tasks.signature import TaskSignature

        return TaskSignature.of(self.function, self.name)

    def settings(self, scope: Scope = Scope()) -> Settings:  # noqa: B008 - a frozen value
        """What a call from ``scope`` would run with, each field with the level it came from."""
        return resolve(scope, self.environment.opinions, self.declared, self.overridden)

    def plan(
        self,
        scope: Scope = Scope(),  # noqa: B008 - a frozen value
        *,
        work: float | None = None,
        changeover: float | None = None,
    ) -> Plan:
        """What each user attempt will run on and why, before anything runs; what is expected, and warnings.

        Args:
            scope: what the call would inherit. Default: nothing.
            work: its work as learned from earlier runs, seconds. Default: what ``SpotPolicy(work=...)`` says.
            changeover: start-up and restore in its queue's pools, seconds. Default: not known.
        """
        from flyteish._core.rules.plan import Known, plan

        saves = mentions(self.function, "checkpoint")
        return plan(self.settings(scope), Known(saves=saves, work=work, changeover=changeover))

    def forecast(
        self,
        *,
        work: Any = None,
        count: int = 1,
        rounds: int = 200,
        seed: int = 0,
        checkpoint_every: float | timedelta | None = None,
        ahead: int | None = None,
    ) -> Forecast:
        """When a run of it will finish and what it will cost, from simulated runs in the session in use.

        Blocks for a second or two at most; in async code use ``await asyncio.to_thread(task.forecast)``. It is
        remembered, and the next runs of the task with the same settings are compared with it.

        Args:
            work: work of one run on an undisturbed machine: seconds, a timedelta, a distribution or a ``WorkModel``
                of ``flyteish.simulation``. Default: as its past runs had it, else ``SpotPolicy(work=...)``.
            count: runs that are started at once.
            rounds: how often they are simulated, at most; fewer where one takes long.
            seed: of what is drawn: another one, another forecast.
            checkpoint_every: seconds of work between checkpoints. Default: as seen in past runs.
            ahead: actions that are in its queue before it, taken to be like it. Default: those there now. They matter
                only where the queue or its pools are limited.

        Raises:
            ConfigurationError: nothing is known of its work, or a parameter is not accepted.
            UnknownQueueError: its queue is not configured.
        """
        from flyteish import _in_use

        found: Forecast = _in_use.any_session().forecast(
            self, work=work, count=count, rounds=rounds, seed=seed, checkpoint_every=checkpoint_every, ahead=ahead
        )
        return found

    @takes(OverrideOptions)
    def override(self, **options: Unpack[OverrideOptions]) -> Self:
        """The same task with other settings for the calls made through it; the most specific level.

        What is left out stays as it is; ``retries=0`` and ``interruptible=False`` are opinions. Overrides of
        an override add up, the later winning.

        Raises:
            ConfigurationError: names the parameter, the task, the value and what is accepted.
        """
        refuse_strangers("override", Task.override, options)
        said = opinions(Level.OVERRIDE, f"{self.name}.override()", options)
        self.check_cache(said.cache)
        return _derived(self, Opinions(**{**self.overridden.said(), **said.said()}))

    def check_cache(self, cache: Cache | UnsetType) -> None:
        """Refuse a cache that ignores parameters which the function does not have.

        Only one said for this very task: an environment's is shared by tasks with other parameters.
        """
        if cache is UNSET or not cache.ignored_inputs:
            return
        parameters = inspect.signature(self.function).parameters
        if strangers := [name for name in cache.ignored_inputs if name not in parameters]:
            raise ConfigurationError(
                f"Cache.ignored_inputs names {', '.join(map(repr, strangers))}, which {self.name} does not have; "
                f"its parameters are {', '.join(parameters) or 'none'}"
            )

    @functools.cached_property
    def profile_key(self) -> object:
        """Stands for this task with these overrides where resolved settings are remembered (see ``profile``).

        By content, so that ``f.override(...)`` in a loop is resolved once and not once per turn.
        """
        if self.overridden == SILENT:
            return self.base
        return (self.base, msgspec.msgpack.encode(self.overridden))

    def pickled(self, scope: Scope) -> bytes | None:
        """The function pickled as it is now, where no other process can import it, and it may and can be pickled."""
        from flyteish._authoring.values.task_reference import pickled

        try:
            return pickled(self) if scope.allow_pickle else None
        except SerializationError:
            # A local function over something that cannot be pickled still runs in this process; a worker that is
            # asked for it says why it cannot.
            return None

    def profile(self, scope: Scope, blobs: BlockingContent, pickled: bytes | UnsetType | None = UNSET) -> Profile:
        """The task with its settings resolved: once for all calls of a template within one attempt.

        May block, where the function has to be carried by value. ``pickled`` is what ``pickled()`` gave, if that was
        called before.
        """
        from flyteish._authoring.values.task_reference import by_value, reference_for
        from flyteish._core.model.values import Profile

        settings = self.settings(scope)
        data = self.pickled(scope) if pickled is UNSET else pickled
        profile = Profile(
            key="",
            task=self.name,
            settings=settings,
            reference=by_value(self, data, blobs) if data is not None else reference_for(self),
            is_async=self.is_async,
            cache_version=self.cache_version(settings.cache),
        )
        key = _digest(msgspec.msgpack.encode(profile))
        return msgspec.structs.replace(profile, key=key)

    def cache_version(self, cache: Cache) -> str | None:
        """What stands for the function's code in cache keys; None where no results are kept."""
        if cache.behavior == "disable":
            return None
        return cache.version_override or self.base._code_version

    @functools.cached_property
    def _code_version(self) -> str:
        try:
            text = inspect.getsource(self.function)
        except (OSError, TypeError):  # typed at a prompt, or its file is gone
            text = repr(_code_facts(self.function.__code__))
        return _digest(text.encode())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By name where it can be imported, else by value, as functions travel."""
        if self.base is not self:
            return _derived, (self.base, self.overridden)
        module, name = self.function.__module__, self.function.__qualname__
        if module != "__main__" and module in sys.modules and _attribute(sys.modules[module], name) is self:
            return _imported, (module, name)
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _REMADE}

    def __repr__(self) -> str:
        said = f".override{repr(self.overridden).removeprefix('Opinions')}" if self.overridden.said() else ""
        return f"<{type(self).__name__} {self.name}{said}>"

    @abstractmethod
    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call it from async code."""


class AsyncTask(Task[P, R]):
    """A task made of an ``async def``: calling it gives a coroutine, as calling the function does."""

    is_async: ClassVar[bool] = True

    def __init__(self, function: Callable[..., Any], environment: Environment, declared: Opinions) -> None:
        super().__init__(function, environment, declared)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Inside a running attempt an action of the run, submitted when awaited; outside the plain function.

        Arguments are bound and checked here and now, so a wrong one is reported on this line. Cancelling the
        await cancels the action.

        Raises:
            TypeError: arguments do not fit the signature; ``InputTypeError`` where one is of the wrong type.
        """
        from flyteish._authoring.tasks.calling import call_async

        return call_async(self, args, kwargs)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The same as calling it; there so that both kinds of task can be called alike."""
        from flyteish._authoring.tasks.calling import call_async

        return call_async(self, args, kwargs)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The plain function, always: no action, no record, no retry."""
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine


class SyncTask(Task[P, R]):
    """A task made of a ``def``: calling it gives its value, as calling the function does."""

    is_async: ClassVar[bool] = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside a running attempt an action of the run, waited for; outside one the plain function.

        In an ``async def`` task the event loop goes on until the value is there; in a thread the call blocks, and
        Ctrl-C cancels the action. ``.aio()`` is the form to await.

        Raises:
            TypeError: arguments do not fit the signature; ``InputTypeError`` where one is of the wrong type.
            RuntimeError: made in a coroutine that asyncio runs as a task of its own, where it would block the loop.
        """
        from flyteish._authoring.tasks.calling import call_blocking

        value: R = call_blocking(self, args, kwargs)
        return value

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The form to await: the caller's event loop goes on. Outside an attempt it uses a thread."""
        from flyteish._authoring.tasks.calling import call_async

        return call_async(self, args, kwargs)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The plain function, always: no action, no record, no retry."""
        value: R = self.function(*args, **kwargs)
        return value


def mentions(function: Callable[..., Any], name: str) -> bool:
    """Whether the code of a function, or of one inside it, uses an attribute or a global of that name."""
    codes = [function.__code__]
    for code in codes:  # grows while it is walked
        if name in code.co_names:
            return True
        codes += [item for item in code.co_consts if isinstance(item, CodeType)]
    return False


def _digest(data: bytes) -> str:
    from hashlib import blake2b  # loads OpenSSL, a twentieth of what `import flyteish` takes

    return blake2b(data, digest_size=8).hexdigest()


def _code_facts(code: CodeType) -> tuple[object, ...]:
    constants = tuple(_code_facts(item) if isinstance(item, CodeType) else item for item in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, constants


def _derived(task: T, overridden: Opinions) -> T:
    other: T = object.__new__(type(task))
    other.__dict__.update(task.__dict__)
    other.__dict__.pop("profile_key", None)
    other.overridden = overridden
    return other


def _imported(module: str, name: str) -> Any:
    return _attribute(importlib.import_module(module), name)


def _attribute(thing: Any, path: str) -> Any:
    for part in path.split("."):
        thing = getattr(thing, part, None)
    return thing
