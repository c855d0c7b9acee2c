"""From the text of an option to a value of the parameter's type.

Decides how each type is spelt on a command line: plain text for what has a plain form, JSON for what has structure.
Whether the value fits the task is checked once more by the task's own signature. Must not know options or tasks.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from flyteish._authoring.values.typecheck import label
from flyteish.config_values import seconds


class UnreadableText(Exception):  # noqa: N818 - becomes a UsageError that names the option
    """The text is no value of the type; says what would be."""


def value_of(text: str, annotation: Any) -> Any:
    """The value. ``@file`` stands for what is in the file, ``@-`` for standard input, ``@@`` for a literal ``@``.

    Raises:
        UnreadableText: it is not a value of this type, or the file cannot be read.
    """
    kind = plain(annotation)
    if text.startswith("@@"):
        return _convert(text[1:], kind)
    if not text.startswith("@") or _is_place(kind):
        return _convert(text, kind)
    data = _content(text[1:])
    if kind is bytes:
        return data
    try:
        content = data.decode()
    except UnicodeDecodeError as error:
        raise UnreadableText(f"{text[1:]} is not UTF-8 text ({error.reason})") from error
    return _convert(content if kind is str else content.strip(), kind)


def plain(annotation: Any) -> Any:
    """The annotation without what says nothing about its values: ``Annotated``, ``Final``, ``NewType``, aliases."""
    while True:
        if typing.get_origin(annotation) in (typing.Annotated, typing.Final):
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _is_place(kind: Any) -> bool:
    """Whether a file's name is meant and not what is in it."""
    members = typing.get_args(kind) if _is_union(kind) else (kind,)
    return any(isinstance(each, type) and (issubclass(each, PurePath) or _is_content(each)) for each in members)


def _is_content(kind: type) -> bool:
    """``flyteish.io``'s File and Dir; a file that names them has imported that."""
    ours = sys.modules.get("flyteish.io")
    return ours is not None and issubclass(kind, (ours.File, ours.Dir))


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).expanduser().read_bytes()
    except OSError as error:
        raise UnreadableText(f"{name} cannot be read: {error.strerror}") from error


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _convert(text: str, kind: Any) -> Any:
    if kind is None or kind is type(None):
        return _read(text, "null", lambda given: {"null": None, "none": None}[given.lower()])
    if kind is Any or kind is object or kind is inspect.Parameter.empty:
        return _anything(text)
    if _is_union(kind):
        return _one_of(text, typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return _choice(text, {_spelt(choice): choice for choice in typing.get_args(kind)})
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
        if issubclass(kind, Enum):
            return _choice(
                text, {**{str(member.value): member for member in kind}, **kind.__members__}, kind.__members__
            )
        if issubclass(kind, PurePath):
            return kind(text)
        if _is_content(kind):
            return _stored(text, kind)
        if kind in _READERS:
            accepted, read = _READERS[kind]
            return _read(text, accepted, read)
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and _is_content(origin):
        return _stored(text, origin)
    return _structured(text, kind)


def _read(text: str, accepted: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except (ValueError, ArithmeticError, LookupError):
        raise UnreadableText(f"expected {accepted}") from None


_READERS: Final[dict[Any, tuple[str, Callable[[str], Any]]]] = {
    str: ("a text", str),
    bytes: ("a text", str.encode),
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: ("a whole number", int),
    float: ("a number", float),
    complex: ("a complex number", complex),
    Decimal: ("a decimal number", Decimal),
    Fraction: ("a fraction such as 1/3", Fraction),
    UUID: ("a UUID", UUID),
    datetime: ("a time such as 2025-03-01T12:00:00", datetime.fromisoformat),
    date: ("a date such as 2025-03-01", date.fromisoformat),
    time: ("a time of day such as 12:00:00", time.fromisoformat),
    timedelta: ("a time span such as 90s, 2h30m or PT2H30M", lambda text: timedelta(seconds=seconds(text))),
}


def _anything(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _one_of(text: str, members: tuple[Any, ...]) -> Any:
    """The first member that takes the text; ``str`` takes any, so it comes last."""
    reasons = []
    for member in sorted(members, key=lambda each: plain(each) is str):
        try:
            return _convert(text, plain(member))
        except UnreadableText as error:
            reasons.append(str(error))
    raise UnreadableText("; or ".join(dict.fromkeys(reasons)))


def _spelt(choice: Any) -> str:
    if isinstance(choice, Enum):
        return choice.name
    return "null" if choice is None else str(choice)


def _choice(text: str, choices: dict[str, Any], shown: typing.Iterable[str] | None = None) -> Any:
    if text in choices:
        return choices[text]
    raise UnreadableText(f"expected {' or '.join(choices if shown is None else shown)}")


def _stored(text: str, kind: Any) -> Any:
    if "://" in text:
        return kind.from_existing_remote(text)
    try:
        return kind.from_local_sync(Path(text).expanduser())
    except OSError as error:
        raise UnreadableText(str(error)) from error


# -- structure -------------------------------------------------------------------------------------------------------


def _structured(text: str, kind: Any) -> Any:
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UnreadableText(f"expected JSON for {label(kind)} ({error})") from None
    try:
        return msgspec.convert(data, kind, dec_hook=_foreign)
    except msgspec.ValidationError as error:
        raise UnreadableText(f"it does not fit {label(kind)}: {error}") from None
    except TypeError:  # unions of several classes, generics of others: pydantic knows more of them
        return _by_pydantic(data, kind)


def _foreign(kind: type, data: Any) -> Any:
    """Types that msgspec does not know: it adds to the error where in the JSON it happened."""
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return kind.model_validate(data)  # type: ignore[attr-defined]
    if issubclass(kind, PurePath) and isinstance(data, str):
        return kind(data)
    if _is_content(kind) and isinstance(data, str):
        return _stored(data, kind)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        return numpy.asarray(data)
    raise ValueError(f"a {label(kind)} cannot be given on the command line")


def _by_pydantic(data: Any, kind: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnreadableText(
            f"it does not fit {label(kind)}: {first['msg']}{f' at {where}' if where else ''}"
        ) from None
    except Exception as error:  # pydantic has many ways to say that it makes no schema of a type
        raise UnreadableText(f"a {label(kind)} cannot be given on the command line") from error
