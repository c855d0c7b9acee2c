"""Annotations compiled into checks: does this value conform, and if not, what exactly is wrong where?

A value that conforms is returned itself, not copied, with one documented exception: numbers and text arrive
as what the annotation says. Where ``float`` is declared, an int becomes a float (as in the language's own
rules) if it can without loss, and a numpy scalar or other subclass becomes the plain Python number. A bool is
no int here, a str no Path, a tuple no list. Instances of dataclasses, models and other classes are checked by
class only: their fields were their own constructor's business.

Must not know about parameters, results or encoding.
"""

from __future__ import annotations

import collections.abc as abc
import copy
import math
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_KEEPS_ANYTHING: frozenset[type] = frozenset()


class Mismatch(Exception):  # noqa: N818 - travels inside this package, and becomes an Input- or OutputTypeError
    """A value that does not conform, and the way to it, innermost step first."""

    def __init__(self, expected: str, value: object, reason: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value
        self.reason = reason
        self.steps: list[str] = []

    def path(self, root: str) -> str:
        """Where the value is, such as ``rows[3]['name']``."""
        return root + "".join(reversed(self.steps))


class Check(NamedTuple):
    """A compiled annotation."""

    expected: str
    """The annotation, for messages."""
    conform: Callable[[Any], Any]
    """Returns the value, converted where the module's docstring says so. Raises Mismatch."""
    exact: frozenset[type] = frozenset()
    """Types whose every instance conforms as it is: a shortcut for the common case, at the speed of C."""


ANYTHING = Check("anything", lambda value: value)


def describe(value: object) -> str:
    """A value in a message: its type, and its beginning."""
    if value is None:
        return "None"
    try:
        text = _SHORT.repr(value)
    except Exception:  # a __repr__ may be broken without the value being so
        text = "..."
    return f"{label(type(value))} ({text})"


_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 60


def label(annotation: Any) -> str:
    """An annotation or type as people write it."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    if typing.get_origin(annotation) in (typing.Annotated, typing.Unpack):
        return label(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(label(member) for member in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return f"Literal[{', '.join(map(repr, typing.get_args(annotation)))}]"
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return _type_name(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if arguments and isinstance(origin, type) and origin.__qualname__ != "Callable":
        return f"{label(origin)}[{', '.join(label(argument) for argument in arguments)}]"
    return repr(annotation).replace("typing.", "")


def _type_name(cls: type) -> str:
    root, name = cls.__module__.partition(".")[0], cls.__qualname__.rpartition("<locals>.")[2]
    if root in _EVIDENT:
        return name
    return f"{root if root in _FACADES else cls.__module__}.{name}"


#: Modules that say nothing which the class's name doesn't; the script has two names (see ``_worker.loader``).
_EVIDENT = frozenset(
    ["builtins", "collections", "typing", "__main__", "__mp_main__", "datetime", "decimal", "pathlib", "uuid", "enum"]
)
#: Libraries whose classes are known by the package, not by the module that they are written in.
_FACADES = frozenset(["flyteish", "numpy", "pandas", "polars", "pyarrow"])


# -- numbers and text ------------------------------------------------------------------------------


def _numpy_scalar(value: Any, *families: str) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and any(isinstance(value, getattr(numpy, family)) for family in families)


def _to_bool(value: Any) -> bool:
    if type(value) is bool or _numpy_scalar(value, "bool_"):
        return bool(value)
    raise Mismatch("bool", value)


def _to_int(value: Any) -> int:
    if (isinstance(value, int) and not isinstance(value, bool)) or _numpy_scalar(value, "integer"):
        return int(value)
    raise Mismatch("int", value)


def _to_float(value: Any) -> float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not isinstance(value, float) and not _numpy_scalar(value, "floating", "integer"):
        raise Mismatch("float", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    # An int must be compared as an int: numpy would round it to a float first.
    same = number == (int(value) if _numpy_scalar(value, "integer") else value)
    if not same and not value != value:
        raise Mismatch("float", value, "which no float holds exactly")
    return number


def _to_complex(value: Any) -> complex:
    if isinstance(value, complex) or _numpy_scalar(value, "complexfloating"):
        return complex(value)
    try:
        return complex(_to_float(value))
    except Mismatch as mismatch:
        raise Mismatch("complex", value, mismatch.reason) from None


def _to_str(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    raise Mismatch("str", value)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    raise Mismatch("bytes", value)


def _to_none(value: Any) -> None:
    if value is not None:
        raise Mismatch("None", value)


_SCALARS: dict[Any, Check] = {
    bool: Check("bool", _to_bool, frozenset({bool})),
    int: Check("int", _to_int, frozenset({int})),
    float: Check("float", _to_float, frozenset({float})),
    complex: Check("complex", _to_complex, frozenset({complex})),
    str: Check("str", _to_str, frozenset({str})),
    bytes: Check("bytes", _to_bytes, frozenset({bytes})),
    type(None): Check("None", _to_none, frozenset({type(None)})),
}


# -- containers ------------------------------------------------------------------------------------


def conform_each(items: Iterable[Any], check: Check) -> list[Any] | None:
    """The items converted; None where each of them is fine as it is."""
    if check is ANYTHING or check.exact.issuperset(map(type, items)):
        return None
    conform, converted, changed = check.conform, [], False
    try:
        for item in items:
            converted.append(conform(item))
            changed = changed or converted[-1] is not item
    except Mismatch as mismatch:
        mismatch.steps.append(f"[{len(converted)}]")
        raise
    return converted if changed else None


def sequence(kind: Any, item: Check, expected: str) -> Check:
    """Lists, tuples of any length, and what is like them."""

    def conform(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Mismatch(expected, value)
        try:
            converted = conform_each(value, item)
        except Mismatch as mismatch:
            if isinstance(value, abc.Set):  # which has no places
                mismatch.steps[-1] = "{...}"
            raise
        return value if converted is None else _rebuilt(value, converted, expected)

    return Check(expected, conform, frozenset({kind}) if item is ANYTHING else _KEEPS_ANYTHING)


def _rebuilt(value: Any, items: list[Any], expected: str) -> Any:
    """A container of the same class, with converted items."""
    if isinstance(value, tuple):
        return tuple.__new__(type(value), items)
    if isinstance(value, frozenset):
        return type(value)(items)
    if not isinstance(value, list | set | abc.MutableSequence):
        raise Mismatch(expected, value, "whose items are not of exactly that type")
    copied = copy.copy(value)
    copied.clear()
    copied.update(items) if isinstance(copied, set) else copied.extend(items)
    return copied


def fixed_tuple(checks: list[Check], expected: str) -> Check:
    """Tuples of a given length."""

    def conform(value: Any) -> Any:
        if not isinstance(value, tuple):
            raise Mismatch(expected, value)
        if len(value) != len(checks):
            raise Mismatch(expected, value, f"whose length is {len(value)}, not {len(checks)}")
        converted: list[Any] = []
        try:
            for check, item in zip(checks, value, strict=True):
                converted.append(item if type(item) in check.exact else check.conform(item))
        except Mismatch as mismatch:
            mismatch.steps.append(f"[{len(converted)}]")
            raise
        same = all(new is old for new, old in zip(converted, value, strict=True))
        return value if same else tuple.__new__(type(value), converted)

    return Check(expected, conform)


def mapping(kind: Any, key: Check, item: Check, expected: str) -> Check:
    """Dicts, and what is like them."""

    def conform(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Mismatch(expected, value)
        try:
            keys = conform_each(value, key)
        except Mismatch as mismatch:
            mismatch.steps[-1] = f".keys(){mismatch.steps[-1]}"
            raise
        try:
            items = conform_each(value.values(), item)
        except Mismatch as mismatch:
            place = int(mismatch.steps[-1][1:-1])
            mismatch.steps[-1] = f"[{list(value)[place]!r}]"
            raise
        if keys is None and items is None:
            return value
        keys = list(value) if keys is None else keys
        return _refilled(value, keys, value.values() if items is None else items, expected)

    exact = frozenset({kind}) if key is item is ANYTHING else _KEEPS_ANYTHING
    return Check(expected, conform, exact)


def _refilled(value: Any, keys: Iterable[Any], items: Iterable[Any], expected: str) -> Any:
    if not isinstance(value, abc.MutableMapping):
        raise Mismatch(expected, value, "whose keys and values are not of exactly that type")
    pairs = dict(zip(keys, items, strict=True))
    copied = copy.copy(value)
    copied.clear()
    copied.update(pairs)
    return copied


def typed_dict(fields: Mapping[str, Check], required: frozenset[str], expected: str) -> Check:
    """Dicts with named keys. An undeclared key is refused: it is a misspelling more often than not."""

    def conform(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mismatch(expected, value)
        if missing := sorted(required - value.keys()):
            raise Mismatch(expected, value, f"which lacks {', '.join(map(repr, missing))}")
        if unknown := [key for key in value if key not in fields]:
            raise Mismatch(expected, value, f"which has {', '.join(map(repr, unknown))} besides")
        changed = {}
        for key, item in value.items():
            try:
                new = fields[key].conform(item)
            except Mismatch as mismatch:
                mismatch.steps.append(f"[{key!r}]")
                raise
            if new is not item:
                changed[key] = new
        return {**value, **changed} if changed else value

    return Check(expected, conform)


# -- choices and classes ---------------------------------------------------------------------------


def union(members: list[Check], expected: str) -> Check:
    """The first member that takes the value as it is, else the first that takes it converted."""
    exact = frozenset().union(*(member.exact for member in members))

    def conform(value: Any) -> Any:
        if type(value) in exact:
            return value
        candidates: list[Any] = []
        mismatches: list[Mismatch] = []
        for member in members:
            try:
                new = member.conform(value)
            except Mismatch as mismatch:
                mismatches.append(mismatch)
                continue
            if new is value:
                return value
            candidates.append(new)
        if candidates:
            return candidates[0]
        deep = [mismatch for mismatch in mismatches if mismatch.steps or mismatch.reason]
        raise deep[0] if len(deep) == 1 else Mismatch(expected, value)

    return Check(expected, conform, exact)


def literal(choices: tuple[Any, ...], expected: str) -> Check:
    """One of these values, of the same type."""

    def conform(value: Any) -> Any:
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
        raise Mismatch(expected, value)

    return Check(expected, conform)


def instance(cls: type, expected: str) -> Check:
    """Instances of a class, its subclasses' too."""

    def conform(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        raise Mismatch(expected, value)

    return Check(expected, conform, frozenset({cls}))


def scalar(cls: Any) -> Check | None:
    """The check for a plain number or text."""
    # Other annotations may have no hash: `Annotated[int, {"unit": "s"}]`.
    return _SCALARS.get(cls) if isinstance(cls, type) else None
