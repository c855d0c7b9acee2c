"""Who wins: the levels of settings, what each may say, and the one merge that serves them all.

A level that says nothing is silent (``UNSET``); ``0``, ``False``, ``""``, ``{}`` are opinions. Must not know
which session, run or call the opinions come from: it is given them in order (spec: settings).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.resources import NO_AMOUNTS, Amounts, Resources
from flyteish.errors import ConfigurationError

PRIORITIES: Final = {"min": 1, "medium": 50, "max": 100}


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


# -- what each setting accepts ------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818 - internal: carries what would have been accepted
    pass


def _resources(value: object) -> Resources:
    if isinstance(value, Resources):
        return value
    if value is None:
        return Resources()
    raise Refused("Resources(cpu=..., memory=..., gpu=...)")


def _env_vars(value: object) -> dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(k, str) and k and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise Refused("a mapping of str to str")


def _secrets(value: object) -> tuple[Secret, ...]:
    items = (value,) if isinstance(value, str | Secret) else () if value is None else value
    if isinstance(items, Sequence) and all(isinstance(item, str | Secret) and item for item in items):
        return tuple(Secret(key=item) if isinstance(item, str) else item for item in items)
    raise Refused("a name, Secret(...) or a list of them")


def _cache(value: object) -> Cache:
    if isinstance(value, Cache):
        return value
    if isinstance(value, str) and value in ("auto", "override", "disable"):
        return Cache(behavior=value)
    raise Refused("'auto', 'override', 'disable' or Cache(...)")


def _interruptible(value: object) -> SpotPolicy | None:
    if isinstance(value, SpotPolicy):
        return value
    if isinstance(value, bool):
        return SpotPolicy() if value else None
    raise Refused("True, False or SpotPolicy(...)")


def _retries(value: object) -> RetryStrategy:
    if isinstance(value, RetryStrategy):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return RetryStrategy(count=value)
    raise Refused("an int >= 0 or RetryStrategy(...)")


def _timeout(value: object) -> Timeout:
    if isinstance(value, Timeout):
        return value
    if value is None:
        return Timeout()
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        try:
            return Timeout(max_runtime=value)
        except ConfigurationError:
            pass  # refused below, in the words of this setting
    raise Refused("seconds >= 0, a timedelta >= 0, Timeout(...), or None for unlimited")


def _priority(value: object) -> int:
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100:
        return value
    raise Refused("'min', 'medium', 'max' or an int from 1 to 100")


def _queue(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise Refused("the name of a queue")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise Refused("a str or None")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Refused("True or False")


def _strings(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise Refused("a list of str")


def _values(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _pod_template(value: object) -> object:
    if value is None or isinstance(value, str | Mapping):
        return dict(value) if isinstance(value, Mapping) else value
    raise Refused("the name of a pod template, a mapping in Kubernetes' form, or None")


class Field(NamedTuple):
    """One row of the matrix: who may say it, what is accepted, what it means."""

    name: str
    levels: tuple[Level, ...]
    accept: Callable[[object], Any]
    meaning: str


_E, _T, _O, _R = Level.ENVIRONMENT, Level.TASK, Level.OVERRIDE, Level.RUN
FIELDS: Final[tuple[Field, ...]] = (
    Field("resources", (_E, _T, _O), _resources, "what one attempt needs; replaced, not merged"),
    Field("env_vars", (_E, _T, _O, _R), _env_vars, "environment variables of the attempt"),
    Field("secrets", (_E, _T, _O), _secrets, "names of secrets the attempt sees as environment variables"),
    Field("pod_template", (_E, _T, _O), _pod_template, "Kubernetes only"),
    Field("service_account", (_E, _T, _O), _text, "Kubernetes only"),
    Field("cache", (_E, _T, _O, _R), _cache, "reuse of results for equal inputs"),
    Field("interruptible", (_E, _T, _O, _R), _interruptible, "whether, and how, it may run on spot"),
    Field("queue", (_E, _T, _O, _R), _queue, "the line it waits in"),
    Field("retries", (_E, _T, _O), _retries, "user retries and their back-off"),
    Field("timeout", (_E, _T, _O), _timeout, "max_runtime, max_queued_time, deadline"),
    Field("priority", (_E, _T, _O, _R), _priority, "order within the queue, 1..100"),
    Field(
        "idempotent",
        (_T, _O),
        _flag,
        "False: its effects must not happen twice, so it is kept off spot",
    ),
    Field("short_name", (_T, _O), _text, "a name for people"),
    Field("report", (_T,), _flag, "the task writes a report"),
    Field("links", (_T, _O), _strings, "URLs shown with the action"),
    Field("docs", (_T,), _text, "documentation shown with the task"),
    Field("triggers", (_T,), _values, "when a platform starts it"),
)
_BY_NAME: Final = {field.name: field for field in FIELDS}
# Defaults below the environment may be given for anything a TaskEnvironment may say.
_GENERAL_LEVELS: Final = (Level.QUEUE, Level.SESSION)


def opinions(level: Level, where: str, said: Mapping[str, object]) -> Opinions:
    """What one level says, checked where it is written; silent parameters are left out.

    Raises:
        ConfigurationError: names the parameter, the place (``where``), the value and what is accepted.
    """
    checked: dict[str, Any] = {}
    for name, value in said.items():
        if value is UNSET:
            continue
        field = _BY_NAME.get(name)
        allowed = field is not None and (level in field.levels or (level in _GENERAL_LEVELS and _E in field.levels))
        if field is None or not allowed:
            raise ConfigurationError(f"{name}={value!r} may not be set in {where}; it takes {', '.join(_names(level))}")
        try:
            checked[name] = field.accept(value)
        except Refused as refused:
            shown = show(name, value)
            raise ConfigurationError(f"{name}={shown} in {where} is not accepted: expected {refused}") from None
    return Opinions(**checked) if checked else SILENT


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


def _names(level: Level) -> list[str]:
    general = level in _GENERAL_LEVELS
    return [field.name for field in FIELDS if level in field.levels or (general and _E in field.levels)]


def matrix() -> str:
    """The settings matrix as text: the table in ``TaskEnvironment``'s docstring is made from this."""
    rows: list[tuple[str, ...]] = [("name", "required", "-", "-", "-", "snake_case or kebab-case")]
    rows += [(name, "yes", "-", "-", "-", text) for name, text in ENVIRONMENT_ONLY.items()]
    for field in FIELDS:
        marks = ["yes" if level in field.levels else "-" for level in (_E, _T, _O, _R)]
        rows.append((field.name, *marks, field.meaning))
    head = ("setting", "TaskEnvironment", "@env.task", "override", "run", "meaning")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(6)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


ENVIRONMENT_ONLY: Final = {
    "description": "for people",
    "image": "container image of the tasks",
    "depends_on": "environments deployed together with this one",
    "include": "extra files that travel with the code",
}
