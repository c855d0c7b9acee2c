"""How each kind of Python object is taken apart into simpler values, and put together again.

A kind's number is part of the stored format: never reuse one. Taking apart may call what the object's class
offers. Putting together calls nothing that ``kind_checks`` has not found to be of its kind, and then no more than
what the class declares for it: ``__flyteish_unpack__``, the default factory of a field that the record lacks, a
Struct's ``__post_init__``, an Enum's ``_missing_``, and the hash of what becomes a key. Must not know about
annotations, tasks or bytes on the wire; ``codec`` encodes what comes out here, and asks ``third_party`` for the
kinds of other libraries.
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

from flyteish._authoring.values import kind_checks as check
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
    if type(state) is str:
        return dt.datetime.fromisoformat(state)
    text, fold, zone = _moment(state)
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _pack_time(value: dt.time) -> object:
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo]


def _unpack_time(state: Any) -> dt.time:
    text, fold, zone = _moment(state)
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _moment(state: Any) -> tuple[str, int, dt.tzinfo | None]:
    text, fold, zone = check.listed(state, 3)
    if zone is not None:
        check.subclass_of(dt.tzinfo, type(zone))
    return check.exactly(str, text), check.exactly(int, fold), zone


def _unpack_timezone(state: Any) -> dt.timezone:
    offset, *name = check.listed(state, 1, 2)
    return dt.timezone(check.exactly(dt.timedelta, offset), *(check.exactly(str, each) for each in name))


def _pack_zone(value: Any) -> str:
    if value.key is None:
        raise NoEncoding("a ZoneInfo without a key cannot be found again by name")
    return str(value.key)


def _from_text(module: str, name: str) -> Callable[[Any], Any]:
    """A constructor that takes text, imported when first used."""
    return lambda state: getattr(importlib.import_module(module), name)(check.exactly(str, state))


def _unpack_uuid(state: Any) -> Any:
    return importlib.import_module("uuid").UUID(bytes=check.exactly(bytes, state))


def _unpack_fraction(state: Any) -> Any:
    return importlib.import_module("fractions").Fraction(*check.numbers(state, 2))


def _unpack_complex(state: Any) -> complex:
    real, imaginary = check.listed(state, 2)
    return complex(check.exactly(float, real), check.exactly(float, imaginary))


def _unpack_deque(state: Any) -> Any:
    longest, items = check.listed(state, 2)
    return collections.deque(check.listed(items), check.one_of((int, type(None)), longest))


def _unpack_defaultdict(state: Any) -> Any:
    factory, content = check.listed(state, 2)
    return collections.defaultdict(factory, check.pairs(content))


def _unpack_counter(state: Any) -> Any:
    counter: collections.Counter[Any] = collections.Counter()
    dict.update(counter, check.pairs(state))  # Counter's own update adds, which fails on counts that are no numbers
    return counter


def _unpack_pattern(state: Any) -> Any:
    pattern, flags = check.listed(state, 2)
    return re.compile(check.one_of((str, bytes), pattern), check.exactly(int, flags))


def _unpack_path(state: Any) -> Any:
    name, text = check.listed(state, 2)
    return _PATHS[check.exactly(str, name)](check.exactly(str, text))


BIG_INT = Kind(1, _pack_int, lambda state: int.from_bytes(check.exactly(bytes, state), "big", signed=True))
WILD_TEXT = Kind(
    2,
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda state: check.exactly(bytes, state).decode("utf-8", "surrogatepass"),
)
MAP = Kind(3, _pairs, lambda state: dict(check.pairs(state)))
TUPLE = Kind(4, list, lambda state: tuple(check.listed(state)), "items")
REFERENCE = Kind(5, _keep, _keep)  # a class or function by name; the codec knows the names
PICKLE = Kind(6, _keep, _keep)  # by cloudpickle; the codec knows whether that is allowed
BLOB_ADDRESS = Kind(7, str, lambda state: BlobAddress(check.exactly(str, state)))

_PLAIN: dict[type, Kind] = {
    tuple: TUPLE,
    set: Kind(8, list, lambda state: set(check.listed(state)), "unordered"),
    frozenset: Kind(9, list, lambda state: frozenset(check.listed(state)), "unordered"),
    bytearray: Kind(10, bytes, lambda state: bytearray(check.exactly(bytes, state))),
    complex: Kind(11, lambda value: [value.real, value.imag], _unpack_complex),
    range: Kind(12, lambda value: [value.start, value.stop, value.step], lambda state: range(*check.numbers(state, 3))),
    slice: Kind(13, lambda value: [value.start, value.stop, value.step], lambda state: slice(*check.listed(state, 3))),
    dt.datetime: Kind(14, _pack_datetime, _unpack_datetime),
    dt.date: Kind(15, dt.date.isoformat, lambda state: dt.date.fromisoformat(check.exactly(str, state))),
    dt.time: Kind(16, _pack_time, _unpack_time),
    dt.timedelta: Kind(
        17,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda state: dt.timedelta(*check.numbers(state, 3)),
    ),
    BlobAddress: BLOB_ADDRESS,
    dt.timezone: Kind(18, lambda value: list(value.__getinitargs__()), _unpack_timezone),
}

# By name, so that nobody pays for importing what no value uses.
_NAMED: dict[str, Kind] = {
    "zoneinfo.ZoneInfo": Kind(19, _pack_zone, _from_text("zoneinfo", "ZoneInfo")),
    "decimal.Decimal": Kind(20, str, _from_text("decimal", "Decimal")),
    "uuid.UUID": Kind(21, lambda value: value.bytes, _unpack_uuid),
    "fractions.Fraction": Kind(22, lambda value: [value.numerator, value.denominator], _unpack_fraction),
    "collections.OrderedDict": Kind(23, _pairs, lambda state: collections.OrderedDict(check.pairs(state))),
    "collections.deque": Kind(24, lambda value: [value.maxlen, list(value)], _unpack_deque),
    "collections.defaultdict": Kind(25, lambda value: [value.default_factory, _pairs(value)], _unpack_defaultdict),
    "collections.Counter": Kind(26, _pairs, _unpack_counter),
    "re.Pattern": Kind(27, lambda value: [value.pattern, value.flags], _unpack_pattern),
}

_PATH = Kind(28, lambda path: [type(path).__name__, str(path)], _unpack_path)
_PATHS: dict[str, Callable[[str], Any]] = {
    kind.__name__: kind
    for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}


# -- classes that people write ---------------------------------------------------------------------


def _pack_enum(member: Any) -> list[Any]:
    if member._name_ in type(member).__members__:
        return [type(member), member._name_]
    return [type(member), None, member._value_]  # flags joined with |


#: What members that are not declared are made of: flags joined with |, or what ``_missing_`` knows to read.
_ENUM_VALUES = (int, str, bytes, float, type(None))


def _unpack_enum(state: Any) -> Any:
    kind, name, *value = check.listed(state, 2, 3)
    cls = check.subclass_of(enum.Enum, kind)
    if value:
        check.one_of(_ENUM_VALUES, value[0])
    # Not through the class: its metaclass may say otherwise what indexing and calling mean.
    return enum.EnumType.__call__(cls, *value) if value else enum.EnumType.__getitem__(cls, check.exactly(str, name))


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
    cls, recorded = check.listed(state, 2)
    if not _is_record(cls):
        raise ValueError(f"{check.shown(cls)} stands where a dataclass or an attrs class belongs")
    instance = object.__new__(cls)
    for name, value in check.named(recorded).items():
        check.put_attribute(instance, name, value)
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if field.name not in recorded:
            _fill(instance, field)
    return instance


def _is_record(cls: Any) -> bool:
    return (
        check.is_class(cls)
        and (
            type(check.declared(cls, "__dataclass_fields__")) is dict
            or check.is_subclass(type(check.declared(cls, "__attrs_attrs__")), tuple)
        )
        and check.makes_instances_itself(cls)
    )


def _fill(instance: Any, field: dataclasses.Field[Any]) -> None:
    """A field that the recorded value lacks: the class has gained it since."""
    if field.default_factory is not dataclasses.MISSING:
        check.put_attribute(instance, field.name, field.default_factory())
    elif field.default is not dataclasses.MISSING:
        check.put_attribute(instance, field.name, field.default)
    elif field.init:
        cls = type(instance).__qualname__
        raise LookupError(f"the recorded {cls} has no field {field.name!r}, which {cls} now requires")


def _pack_struct(value: Any) -> tuple[type, dict[str, Any]]:
    names = value.__struct_fields__
    state = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return type(value), {**state, **_extras(value, names)}


def _unpack_struct(state: Any) -> Any:
    kind, recorded = check.listed(state, 2)
    cls = check.subclass_of(msgspec.Struct, kind)
    # A class that makes its instances by code of its own cannot be a Struct that anybody has made one of.
    if check.declared(type(cls), "__call__") is not _CALL or check.declared(cls, "__new__") is not _NEW:
        raise ValueError(f"{check.shown(cls)} makes its instances by code of its own")
    check.named(recorded)
    fields = {name: recorded.pop(name) for name in cls.__struct_fields__ if name in recorded}
    instance = cls(**fields)
    if hasattr(cls, "__post_init__"):  # it has seen these values before, and may have changed them
        for name, value in fields.items():
            msgspec.structs.force_setattr(instance, name, value)
    for name, value in recorded.items():
        check.put_attribute(instance, name, value, msgspec.structs.force_setattr)
    return instance


_CALL = check.declared(type(msgspec.Struct), "__call__")
_NEW = check.declared(msgspec.Struct, "__new__")


def _pack_named_tuple(value: Any) -> tuple[type, dict[str, Any]]:
    return type(value), dict(zip(value._fields, value, strict=True))


def _unpack_named_tuple(state: Any) -> Any:
    kind, recorded = check.listed(state, 2)
    cls = check.subclass_of(tuple, kind)
    names, defaults = check.declared(cls, "_fields"), check.declared(cls, "_field_defaults")
    if type(names) is not tuple or type(defaults) is not dict:
        raise ValueError(f"{check.shown(cls)} stands where a NamedTuple belongs")
    fields = {**defaults, **check.named(recorded)}
    if missing := [name for name in names if name not in fields]:
        raise LookupError(f"the recorded {check.shown(cls)} has no field {missing[0]!r}, which it now requires")
    return tuple.__new__(cls, [fields[name] for name in names])


def _pack_portable(value: Any) -> tuple[Any, ...]:
    return type(value), {}, value.__flyteish_pack__()


def _unpack_portable(state: Any) -> Any:
    cls, _, packed = check.listed(state, 3)
    unpack: Any = check.declared(cls, "__flyteish_unpack__") if check.is_class(cls) else None
    if (
        not check.is_one_of((classmethod, staticmethod), unpack)
        or check.declared(cls, "__flyteish_pack__") is check.MISSING
    ):
        raise ValueError(f"{check.shown(cls)} stands where a class with __flyteish_unpack__ belongs")
    return unpack.__get__(None, cls)(packed)


_ENUM = Kind(29, _pack_enum, _unpack_enum)
_INSTANCE = Kind(30, _pack_instance, _unpack_instance, "object")
_STRUCT = Kind(31, _pack_struct, _unpack_struct, "object")
_NAMED_TUPLE = Kind(32, _pack_named_tuple, _unpack_named_tuple, "object")
_PORTABLE = Kind(33, _pack_portable, _unpack_portable, "object")


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
    return _PATH if cls in _PATHS.values() else None


KINDS: dict[int, Kind] = {
    kind.code: kind
    for kind in (
        BIG_INT, WILD_TEXT, MAP, REFERENCE, PICKLE, _PATH, _ENUM, _INSTANCE, _STRUCT, _NAMED_TUPLE, _PORTABLE,
        *_PLAIN.values(), *_NAMED.values(),
    )
}  # fmt: skip
