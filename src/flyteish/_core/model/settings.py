"""Who wins: the levels of settings, and the one merge that serves them all.

A level that says nothing is silent (``UNSET``); ``0``, ``False``, ``""``, ``{}`` are opinions. Must not know
which session, run or call the opinions come from: it is given them in order (spec: settings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from flyteish._core.model.images import Image
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.resources import NO_AMOUNTS, Amounts, Resources
from flyteish.errors import ConfigurationError


class Level(StrEnum):
    """From general to specific; the most specific level that says something wins."""

    QUEUE = "queue defaults"
    SESSION = "session config"
    ENVIRONMENT = "TaskEnvironment"
    TASK = "@env.task"
    RUN = "with_runcontext"
    OVERRIDE = ".override()"
    DEFAULT = "built-in default"


class Cache(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Whether a task's result is kept and reused for equal inputs.

    Args:
        behavior: ``"auto"`` reuses and stores, ``"override"`` computes anew and stores, ``"disable"`` neither.
        version_override: stands for the function's code; default: a digest of the function's source.
        ignored_inputs: parameter names that do not count in the key.
        salt: any text that is mixed into the key.
    """

    behavior: str = "auto"
    version_override: str | None = None
    ignored_inputs: tuple[str, ...] = ()
    salt: str = ""

    def __post_init__(self) -> None:
        if self.behavior not in ("auto", "override", "disable"):
            raise ConfigurationError(
                f"Cache.behavior={self.behavior!r} is not accepted: expected 'auto', 'override' or 'disable'"
            )
        if self.version_override is not None and not isinstance(self.version_override, str):
            raise ConfigurationError(
                f"Cache.version_override={self.version_override!r} is not accepted: expected a str or None"
            )
        given: object = self.ignored_inputs
        names = (given,) if isinstance(given, str) else tuple(self.ignored_inputs)
        msgspec.structs.force_setattr(self, "ignored_inputs", names)


class Secret(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """The *name* of a secret; its value is looked up when an attempt starts and is never stored.

    Args:
        key: the secret's name where secrets are kept (the session's ``secrets``, else the environment).
        group: an optional prefix of the name.
        as_env_var: the environment variable that the attempt sees. Default: the key in upper case.
    """

    key: str
    group: str | None = None
    as_env_var: str | None = None

    @property
    def env_name(self) -> str:
        return self.as_env_var or self.key.upper().replace("-", "_").replace(".", "_")


class Opinions(msgspec.Struct, frozen=True):
    """What one level says, checked; a silent field is ``UNSET`` (and is not encoded)."""

    resources: Resources | UnsetType = UNSET
    env_vars: dict[str, str] | UnsetType = UNSET
    secrets: tuple[Secret, ...] | UnsetType = UNSET
    pod_template: Any = UNSET
    service_account: str | UnsetType | None = UNSET
    cache: Cache | UnsetType = UNSET
    interruptible: SpotPolicy | UnsetType | None = UNSET
    queue: str | UnsetType = UNSET
    retries: RetryStrategy | UnsetType = UNSET
    timeout: Timeout | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    idempotent: bool | UnsetType = UNSET
    short_name: str | UnsetType | None = UNSET
    report: bool | UnsetType = UNSET
    links: tuple[str, ...] | UnsetType = UNSET
    docs: str | UnsetType | None = UNSET
    triggers: tuple[Any, ...] | UnsetType = UNSET
    image: Image | UnsetType | None = UNSET

    def said(self) -> dict[str, Any]:
        """The fields that say something."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}

    def __repr__(self) -> str:
        return "Opinions(" + ", ".join(f"{k}={show(k, v)}" for k, v in self.said().items()) + ")"


SILENT: Final = Opinions()


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """The levels that a call inherits from where it happens: session, queues and run."""

    session: Opinions = SILENT
    queues: dict[str, Opinions] = {}
    run: Opinions = SILENT
    allow_pickle: bool = True
    """Whether values of the run may travel by cloudpickle: no setting, but inherited in the same way."""


class Settings(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The one resolved value that is stored with an action; ``sources`` says which level each field is from."""

    resources: Resources = Resources()
    env_vars: dict[str, str] = {}
    secrets: tuple[Secret, ...] = ()
    pod_template: Any = None
    service_account: str | None = None
    cache: Cache = Cache(behavior="disable")
    interruptible: SpotPolicy | None = None
    queue: str = "default"
    retries: RetryStrategy = RetryStrategy()
    timeout: Timeout = Timeout()
    priority: int = 50
    idempotent: bool = True
    short_name: str | None = None
    report: bool = False
    links: tuple[str, ...] = ()
    docs: str | None = None
    triggers: tuple[Any, ...] = ()
    sources: dict[str, str] = {}
    image: Image | None = None

    @cached_property
    def amounts(self) -> Amounts:
        """The resources as numbers: read whenever an attempt is weighed, so worked out once."""
        return NO_AMOUNTS if self.resources == _NO_RESOURCES else self.resources.amounts()

    def source(self, field: str) -> str:
        """Which level decided ``field``."""
        return self.sources.get(field, Level.DEFAULT.value)

    def __repr__(self) -> str:
        shown = [f"{name}={show(name, getattr(self, name))}" for name in self.sources]
        return f"Settings({', '.join(shown)})"


_NO_RESOURCES = Resources()


def show(name: str, value: object) -> str:
    """A setting as its author would write it; environment variables by name only, since values may be secrets."""
    if name == "env_vars" and isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}=***" for key in value) + "}"
    if name == "interruptible" and (value is None or value == SpotPolicy()):
        return str(value is not None)
    if name == "retries" and isinstance(value, RetryStrategy) and value == RetryStrategy(count=value.count):
        return str(value.count)
    if name == "cache" and isinstance(value, Cache) and value == Cache(behavior=value.behavior):
        return repr(value.behavior)
    return repr(value)


def merge(layers: Sequence[tuple[Level, Opinions]]) -> Settings:
    """The resolved settings: for each field the last layer that says it. The only merge there is."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for level, layer in layers:
        for name, value in layer.said().items():
            values[name] = value
            sources[name] = level.value
    return Settings(**values, sources=sources)


def resolve(scope: Scope, environment: Opinions, task: Opinions, override: Opinions) -> Settings:
    """Who wins for one call: queue < session < environment < task < run < override.

    A queue's defaults depend on the queue, which the other levels choose, so that is settled first.
    """
    layers = [
        (Level.SESSION, scope.session),
        (Level.ENVIRONMENT, environment),
        (Level.TASK, task),
        (Level.RUN, scope.run),
        (Level.OVERRIDE, override),
    ]
    settled = merge(layers)
    defaults = scope.queues.get(settled.queue)
    return settled if defaults is None else merge([(Level.QUEUE, defaults), *layers])
