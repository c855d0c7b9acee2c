"""Reads annotations: resolves their names, compiles them into checks, lists the classes they mention.

Must not know what the checks are applied to.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flyteish._authoring.values import typecheck
from flyteish._authoring.values.typecheck import ANYTHING, Check, Mismatch, label

_NO_OPINION: tuple[Any, ...] = (
    Any, object, inspect.Parameter.empty, typing.NoReturn, typing.Never, typing.Self,
)  # fmt: skip
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, abc.Mapping, abc.MutableMapping)
# What can be iterated more than once: looking at the items takes nothing away.
_COLLECTIONS = (
    list, set, frozenset, collections.deque, abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet,
)  # fmt: skip
_FIELD_MARKS = (
    "__dataclass_fields__", "__struct_fields__", "__attrs_attrs__", "__pydantic_fields__", "_fields",
)  # fmt: skip
_LOOSE = (abc.Collection, abc.Iterable, abc.Container, abc.Reversible)


class UnusableAnnotationError(Exception):
    """An annotation that cannot be resolved or is no type; says why."""


def resolve(annotation: Any, namespace: dict[str, Any], local: Mapping[str, Any]) -> Any:
    """The annotation with every name in it looked up. ``Annotated`` is kept."""
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, namespace, dict(local), include_extras=True)["it"]
    except NameError as error:
        raise UnusableAnnotationError(
            f"{error}; names in annotations must be visible where the function is defined at run time "
            "(not only under `if TYPE_CHECKING`)"
        ) from error
    except Exception as error:  # an annotation is an expression: evaluating it may raise anything
        raise UnusableAnnotationError(f"{type(error).__name__}: {error}") from error


def closure_of(function: Any) -> dict[str, Any]:
    """What the function's body sees of the functions around it."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def compile_check(annotation: Any) -> Check:
    """The check for a resolved annotation. Raises UnusableAnnotationError."""
    if annotation is None:
        annotation = type(None)
    if (known := typecheck.scalar(annotation)) is not None:
        return known
    if any(annotation is free for free in _NO_OPINION):
        return ANYTHING
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _compile_generic(annotation, origin, arguments)
    if isinstance(annotation, type):
        return _compile_class(annotation)
    return _compile_special(annotation)


def _compile_special(annotation: Any) -> Check:
    if isinstance(annotation, typing.NewType):
        return compile_check(annotation.__supertype__)
    if isinstance(annotation, typing.TypeVar):
        if annotation.__constraints__:
            return compile_check(typing.Union[annotation.__constraints__])  # noqa: UP007 - made at run time
        return ANYTHING if annotation.__bound__ is None else compile_check(annotation.__bound__)
    if annotation is typing.LiteralString:
        return compile_check(str)
    if type(annotation).__name__ == "TypeAliasType":
        return _later(annotation)
    if type(annotation).__module__ in ("typing", "typing_extensions"):
        return ANYTHING  # forms that say nothing about single values
    raise UnusableAnnotationError(f"{annotation!r} is not a type")


def _later(alias: Any, arguments: tuple[Any, ...] = ()) -> Check:
    """``type Json = ... Json ...`` may mean itself, so it is compiled when a value first asks."""
    compiled: list[Check] = []

    def conform(value: Any) -> Any:
        if not compiled:
            meaning = alias.__value__
            given = dict(zip(alias.__type_params__, arguments, strict=False))
            if given and (parameters := getattr(meaning, "__parameters__", ())):
                meaning = meaning[tuple(given.get(parameter, Any) for parameter in parameters)]
            compiled.append(compile_check(meaning))
        return compiled[0].conform(value)

    return Check(str(alias), conform)


def _compile_class(cls: Any) -> Check:
    if typing.is_typeddict(cls):
        return _compile_typed_dict(cls)
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return ANYTHING
    if cls in _MAPPINGS:
        return typecheck.mapping(cls, ANYTHING, ANYTHING, label(cls))
    return typecheck.instance(cls, label(cls))


def _compile_generic(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Check:
    expected = label(annotation)
    if not arguments and (origin is not tuple or annotation is typing.Tuple):  # noqa: UP006 - `typing.List` alone
        return compile_check(origin)
    if origin is typing.Annotated:
        return compile_check(arguments[0])
    if origin in (typing.Union, types.UnionType):
        members = [compile_check(member) for member in arguments]
        free = any(member is ANYTHING for member in members)
        return ANYTHING if free else typecheck.union(members, expected)
    if origin is typing.Literal:
        return typecheck.literal(arguments, expected)
    if origin in (typing.Unpack, typing.Required, typing.NotRequired, typing.Final):
        return compile_check(arguments[0])
    if origin is tuple:
        return _compile_tuple(arguments, expected)
    if origin in _MAPPINGS:
        key, item = (compile_check(argument) for argument in arguments)
        return typecheck.mapping(origin, key, item, expected)
    if origin is collections.Counter:
        return typecheck.mapping(origin, compile_check(arguments[0]), ANYTHING, expected)
    if origin in _COLLECTIONS:
        return typecheck.sequence(origin, compile_check(arguments[0]), expected)
    if origin in _LOOSE:
        return _compile_loose(origin, compile_check(arguments[0]), expected)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and origin is numpy.ndarray and len(arguments) == 2:
        return _compile_array(numpy, arguments[1], expected)
    if isinstance(origin, type):
        return _compile_class(origin)
    # A generic alias of Python 3.12's `type` statement.
    return _later(origin, arguments) if hasattr(origin, "__value__") else ANYTHING


def _compile_tuple(arguments: tuple[Any, ...], expected: str) -> Check:
    if len(arguments) == 2 and arguments[1] is ...:
        return typecheck.sequence(tuple, compile_check(arguments[0]), expected)
    if any(typing.get_origin(argument) is typing.Unpack for argument in arguments):
        return typecheck.sequence(tuple, ANYTHING, expected)
    return typecheck.fixed_tuple([compile_check(argument) for argument in arguments], expected)


def _compile_loose(origin: type, item: Check, expected: str) -> Check:
    """Iterables: the items of a plain container are checked; another's would be used up by looking."""
    plain = typecheck.sequence(origin, item, expected)

    def conform(value: Any) -> Any:
        if isinstance(value, list | tuple | set | frozenset):
            return plain.conform(value)
        if isinstance(value, origin):
            return value
        raise Mismatch(expected, value)

    return Check(expected, conform)


def _compile_array(numpy: Any, dtype: Any, expected: str) -> Check:
    """``NDArray[float64]``: the element type counts, the shape's annotation says too little to check."""
    arguments = typing.get_args(dtype)
    element = arguments[0] if arguments else None
    if not isinstance(element, type):
        element = numpy.generic

    def conform(value: Any) -> Any:
        if not isinstance(value, numpy.ndarray):
            raise Mismatch(expected, value)
        if not issubclass(value.dtype.type, element):
            raise Mismatch(expected, value, f"whose dtype is {value.dtype}")
        return value

    return Check(expected, conform)


def _compile_typed_dict(cls: Any) -> Check:
    compiled: list[Check] = []

    def conform(value: Any) -> Any:
        if not compiled:  # when a value first asks: a TypedDict may contain itself
            hints = typing.get_type_hints(cls, include_extras=True)
            fields = {name: compile_check(hint) for name, hint in hints.items()}
            required = frozenset(name for name, hint in hints.items() if _is_required(cls, name, hint))
            compiled.append(typecheck.typed_dict(fields, required, label(cls)))
        return compiled[0].conform(value)

    return Check(label(cls), conform)


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    # The class's own key sets miss what stands in string annotations.
    while (origin := typing.get_origin(hint)) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    return name in cls.__required_keys__


# -- classes that annotations mention --------------------------------------------------------------


def classes_in(annotation: Any) -> Iterator[type]:
    """Classes that values of this annotation may be made of, through fields and type arguments."""
    seen: set[int] = set()
    stack = [annotation]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, str):
            continue
        seen.add(id(item))
        stack.extend(typing.get_args(item))
        stack.append(typing.get_origin(item))
        if isinstance(item, type) and item.__module__ != "builtins":
            yield item
            if not issubclass(item, enum.Enum) and _has_fields(item):
                stack.extend(_field_hints(item))


def _has_fields(cls: Any) -> bool:
    return typing.is_typeddict(cls) or any(hasattr(cls, name) for name in _FIELD_MARKS)


def _field_hints(cls: Any) -> list[Any]:
    get_hints: Callable[[Any], dict[str, Any]] = typing.get_type_hints
    try:
        return list(get_hints(cls).values())
    except Exception:  # names that only the class's author can see: its fields' classes stay unknown
        return [field.type for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
