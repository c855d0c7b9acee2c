"""What each setting is: its levels, what is accepted, what it means; and what one level says, checked by that.

The one table of settings: the matrix in the documentation is made from it. Must not know who wins (``settings``), nor
how a setting is written down (in Python, in a file, on a command line).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from msgspec import UNSET

from flyteish._core.model.images import Image
from flyteish._core.model.policies import RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import SILENT, Cache, Level, Opinions, Secret, show
from flyteish.errors import ConfigurationError

PRIORITIES: Final = {"min": 1, "medium": 50, "max": 100}


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


def _image(value: object) -> Image | None:
    if value is None or isinstance(value, Image):
        return value
    if isinstance(value, str) and value.strip():
        return Image(value)
    raise Refused("Image(...), the reference of an image, or None")


class Field(NamedTuple):
    """One row of the matrix: who may say it, what is accepted, what it means."""

    name: str
    levels: tuple[Level, ...]
    accept: Callable[[object], Any]
    meaning: str


_E, _T, _O, _R = Level.ENVIRONMENT, Level.TASK, Level.OVERRIDE, Level.RUN
FIELDS: Final[tuple[Field, ...]] = (
    Field("image", (_E,), _image, "container image of the tasks"),
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
    "depends_on": "environments deployed together with this one",
    "include": "extra files that travel with the code",
}
