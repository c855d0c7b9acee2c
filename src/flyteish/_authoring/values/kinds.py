"""How each kind of Python object is taken apart into simpler values, and put together again.

A kind's number is part of the stored format: never reuse one. Must not know about annotations, tasks or bytes
on the wire; ``values`` encodes what comes out here, and asks ``foreign`` for the kinds of other libraries.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import importlib
import pathlib
import re
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from flyteish._authoring.values.current_blobs import BlobAddress

Shape = Literal["opaque", "items", "unordered", "object"]


class NoEncoding(Exception):  # noqa: N818 - a signal inside encoding: this one goes by pickle after all
    """This particular object does not survive its kind's encoding exactly."""


class Kind(NamedTuple):
    """One row of the tables below."""

    code: int
    """On the wire, 0..127."""
    pack: Callable[[Any], Any]
    """Object to state. Shape "object": to ``(class, {field: value}, *more)``."""
    unpack: Callable[[Any], Any]
    """State to a fresh object."""
    shape: Shape = "opaque"
    """How paths in error messages read, and whether encoded items must be sorted ("unordered")."""


def _keep(state: Any) -> Any:
    return state


# -- plain Python ----------------------------------------------------------------------------------


def _pack_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _pairs(value: dict[Any, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _pack_datetime(value: dt.datetime) -> object:
    if value.tzinfo is None and not value.fold:
        return value.isoformat()
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo]


def _unpack_datetime(state: Any) -> dt.datetime:
    if isinstance(state, str):
        return dt.datetime.fromisoformat(state)
    text, fold, zone = state
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _pack_time(value: dt.time) -> object:
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo]


def _unpack_time(state: Any) -> dt.time:
    text, fold, zone = state
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _pack_zone(value: Any) -> str:
    if value.key is None:
        raise NoEncoding("a ZoneInfo without a key cannot be found again by name")
    return str(value.key)


def _imported(module: str, name: str) -> Callable[..., Any]:
    """A constructor that is imported when first used."""

    def build(*state: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*state, **named)

    return build


_FRACTION = _imported("fractions", "Fraction")
_UUID = _imported("uuid", "UUID")


def _unpack_counter(state: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    dict.update(counter, state)  # Counter's own update adds, which fails on counts that are not numbers
    return counter


BIG_INT = Kind(1, _pack_int, lambda state: int.from_bytes(state, "big", signed=True))
WILD_TEXT = Kind(
    2,
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda state: state.decode("utf-8", "surrogatepass"),
)
MAP = Kind(3, _pairs, dict)
TUPLE = Kind(4, list, tuple, "items")
REFERENCE = Kind(5, _keep, _keep)  # a class or function by name; the codec knows the names
PICKLE = Kind(6, _keep, _keep)  # by cloudpickle; the codec knows whether that is allowed
BLOB_ADDRESS = Kind(7, str, BlobAddress)

_PLAIN: dict[type, Kind] = {
    tuple: TUPLE,
    set: Kind(8, list, set, "unordered"),
    frozenset: Kind(9, list, frozenset, "unordered"),
    bytearray: Kind(10, bytes, bytearray),
    complex: Kind(11, lambda value: [value.real, value.imag], lambda state: complex(*state)),
    range: Kind(12, lambda value: [value.start, value.stop, value.step], lambda state: range(*state)),
    slice: Kind(13, lambda value: [value.start, value.stop, value.step], lambda state: slice(*state)),
    dt.datetime: Kind(14, _pack_datetime, _unpack_datetime),
    dt.date: Kind(15, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: Kind(16, _pack_time, _unpack_time),
    dt.timedelta: Kind(
        17, lambda value: [value.days, value.seconds, value.microseconds], lambda state: dt.timedelta(*state)
    ),
    BlobAddress: BLOB_ADDRESS,
    dt.timezone: Kind(18, lambda value: list(value.__getinitargs__()), lambda state: dt.timezone(*state)),
}

# By name, so that nobody pays for importing what no value uses.
_NAMED: dict[str, Kind] = {
    "zoneinfo.ZoneInfo": Kind(19, _pack_zone, _imported("zoneinfo", "ZoneInfo")),
    "decimal.Decimal": Kind(20, str, _imported("decimal", "Decimal")),
    "uuid.UUID": Kind(21, lambda value: value.bytes, lambda state: _UUID(bytes=state)),
    "fractions.Fraction": Kind(22, lambda value: [value.numerator, value.denominator], lambda state: _FRACTION(*state)),
    "collections.OrderedDict": Kind(23, _pairs, collections.OrderedDict),
    "collections.deque": Kind(
        24, lambda value: [value.maxlen, list(value)], lambda state: collections.deque(state[1], state[0])
    ),
    "collections.defaultdict": Kind(
        25,
        lambda value: [value.default_factory, _pairs(value)],
        lambda state: collections.defaultdict(*state),
    ),
    "collections.Counter": Kind(26, _pairs, _unpack_counter),
    "re.Pattern": Kind(27, lambda value: [value.pattern, value.flags], lambda state: re.compile(*state)),
}

_PATH = Kind(28, lambda path: [type(path).__name__, str(path)], lambda state: getattr(pathlib, state[0])(state[1]))
_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)


# -- classes that people write ---------------------------------------------------------------------


def _pack_enum(member: Any) -> list[Any]:
    if member._name_ in type(member).__members__:
        return [type(member), member._name_]
    return [type(member), None, member._value_]  # flags joined with |


def _unpack_enum(state: Any) -> Any:
    return state[0][state[1]] if len(state) == 2 else state[0](state[2])


def _extras(value: Any, fields: Iterable[str]) -> dict[str, Any]:
    """Attributes beside the declared fields (set in ``__post_init__``, say), as pickle would keep them."""
    cls, named = type(value), set(fields)
    return {
        name: item
        for name, item in getattr(value, "__dict__", {}).items()
        if name not in named and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def _field_names(cls: Any) -> list[str]:
    if hasattr(cls, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(cls)]
    return [field.name for field in cls.__attrs_attrs__]


def _pack_instance(value: Any) -> tuple[type, dict[str, Any]]:
    names = _field_names(type(value))
    state = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return type(value), {**state, **_extras(value, names)}


def _unpack_instance(state: Any) -> Any:
    cls, recorded = state
    instance = object.__new__(cls)
    for name, value in recorded.items():
        object.__setattr__(instance, name, value)
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if field.name not in recorded:
            _fill(instance, field)
    return instance


def _fill(instance: Any, field: dataclasses.Field[Any]) -> None:
    """A field that the recorded value lacks: the class has gained it since."""
    if field.default_factory is not dataclasses.MISSING:
        object.__setattr__(instance, field.name, field.default_factory())
    elif field.default is not dataclasses.MISSING:
        object.__setattr__(instance, field.name, field.default)
    elif field.init:
        cls = type(instance).__qualname__
        raise LookupError(f"the recorded {cls} has no field {field.name!r}, which {cls} now requires")


def _pack_struct(value: Any) -> tuple[type, dict[str, Any]]:
    names = value.__struct_fields__
    state = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return type(value), {**state, **_extras(value, names)}


def _unpack_struct(state: Any) -> Any:
    cls, recorded = state
    fields = {name: recorded.pop(name) for name in cls.__struct_fields__ if name in recorded}
    instance = cls(**fields)
    if hasattr(cls, "__post_init__"):  # it has seen these values before, and may have changed them
        for name, value in fields.items():
            msgspec.structs.force_setattr(instance, name, value)
    for name, value in recorded.items():
        setattr(instance, name, value)
    return instance


def _pack_named_tuple(value: Any) -> tuple[type, dict[str, Any]]:
    return type(value), dict(zip(value._fields, value, strict=True))


def _unpack_named_tuple(state: Any) -> Any:
    cls, recorded = state
    fields = {**cls._field_defaults, **recorded}
    return tuple.__new__(cls, [fields[name] for name in cls._fields])


def _pack_portable(value: Any) -> tuple[Any, ...]:
    return type(value), {}, value.__flyteish_pack__()


_ENUM = Kind(29, _pack_enum, _unpack_enum)
_INSTANCE = Kind(30, _pack_instance, _unpack_instance, "object")
_STRUCT = Kind(31, _pack_struct, _unpack_struct, "object")
_NAMED_TUPLE = Kind(32, _pack_named_tuple, _unpack_named_tuple, "object")
_PORTABLE = Kind(33, _pack_portable, lambda state: state[0].__flyteish_unpack__(state[2]), "object")


def has_plain_layout(cls: Any) -> bool:
    """Whether fields are all there is to an instance: no base with content, no pickling by hand."""
    return (
        cls.__new__ is object.__new__
        and cls.__reduce__ is object.__reduce__
        and cls.__reduce_ex__ is object.__reduce_ex__
        and (hasattr(cls, "__attrs_attrs__") or not _pickles_by_hand(cls))
    )


def _pickles_by_hand(cls: Any) -> bool:
    # `@dataclass(frozen=True, slots=True)` writes a pair of these itself.
    getstate = cls.__getstate__
    return getstate is not object.__getstate__ and getattr(getstate, "__module__", "") != "dataclasses"


def kind_of(cls: Any) -> Kind | None:
    """The kind that objects of exactly this class have; None: not of plain Python."""
    if (kind := _PLAIN.get(cls) or _NAMED.get(f"{cls.__module__}.{cls.__qualname__}")) is not None:
        return kind
    if hasattr(cls, "__flyteish_pack__"):
        return _PORTABLE
    if issubclass(cls, type | types.FunctionType | types.BuiltinFunctionType):
        return REFERENCE
    if issubclass(cls, enum.Enum):
        return _ENUM
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults"):
        return _NAMED_TUPLE
    if issubclass(cls, msgspec.Struct):
        return _STRUCT
    if (hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__attrs_attrs__")) and has_plain_layout(cls):
        return _INSTANCE
    return _PATH if cls in _PATHS else None


KINDS: dict[int, Kind] = {
    kind.code: kind
    for kind in (
        BIG_INT, WILD_TEXT, MAP, REFERENCE, PICKLE, _PATH, _ENUM, _INSTANCE, _STRUCT, _NAMED_TUPLE, _PORTABLE,
        *_PLAIN.values(), *_NAMED.values(),
    )
}  # fmt: skip
