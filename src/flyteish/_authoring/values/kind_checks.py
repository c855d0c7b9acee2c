"""Whether what stored or received bytes name, or hold, is of the kind that it stands for; found out without its code.

Bytes may come from a worker that was taken over, or from a journal that somebody edited. So nothing in them is
called, indexed or iterated, and no attribute of it is asked for, before it has passed here: classes are looked at
in their ``__dict__``, where neither descriptors nor metaclasses nor a module's ``__getattr__`` have a say. What is
wrong raises ``ValueError``, which the codec turns into an error for people. Must not know which kind has which number.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Final, TypeVar

T = TypeVar("T")

MISSING: Final[Any] = object()
_MRO: Any = type.__dict__["__mro__"].__get__
_NAMESPACE: Any = type.__dict__["__dict__"].__get__


# -- classes -----------------------------------------------------------------------------------------------------


def is_class(thing: Any) -> bool:
    """Whether it is a class, whatever it says of itself."""
    return issubclass(type(thing), type)


def bases_of(cls: Any) -> tuple[type, ...]:
    """The class and its bases in order, as the interpreter has them."""
    return _MRO(cls)  # type: ignore[no-any-return]


def namespace_of(cls: Any) -> Mapping[str, Any]:
    """What the class itself declares."""
    return _NAMESPACE(cls)  # type: ignore[no-any-return]


def declared(cls: Any, name: str) -> Any:
    """What the class or the first of its bases declares under that name, unbound; ``MISSING``: none does."""
    for base in _MRO(cls):
        found = _NAMESPACE(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def is_subclass(thing: Any, base: type) -> bool:
    """Whether it is a class that has ``base`` among its bases: registering does not count, hooks are not asked."""
    return is_class(thing) and any(each is base for each in _MRO(thing))


def subclass_of(base: type, thing: Any) -> Any:
    """The thing, which is a subclass of ``base``."""
    if not is_subclass(thing, base):
        raise ValueError(f"{shown(thing)} stands where a subclass of {base.__qualname__} belongs")
    return thing


def makes_instances_itself(cls: Any) -> bool:
    """Whether making or unpickling an instance is left to ``object``, so that there is a way around its code."""
    return all(declared(cls, name) is namespace_of(object)[name] for name in ("__new__", "__reduce__", "__reduce_ex__"))


def shown(thing: Any) -> str:
    """What it is, for messages: neither its ``repr`` nor its metaclass are asked."""
    if is_class(thing):
        return f"the class {type.__dict__['__qualname__'].__get__(thing)}"
    return f"a {type.__dict__['__name__'].__get__(type(thing))}"


# -- states ------------------------------------------------------------------------------------------------------


def exactly(kind: type[T], state: Any) -> T:
    """The state, which is of this very type."""
    if type(state) is not kind:
        raise ValueError(f"{shown(state)} stands where {kind.__name__} belongs")
    return state


def is_one_of(kinds: tuple[type, ...], state: Any) -> bool:
    """Whether it is of one of these very types. Not ``in``: a class may say that it equals another."""
    return any(type(state) is kind for kind in kinds)


def one_of(kinds: tuple[type, ...], state: Any) -> Any:
    """The state, which is of one of these very types."""
    if not is_one_of(kinds, state):
        raise ValueError(f"{shown(state)} stands where {' or '.join(kind.__name__ for kind in kinds)} belongs")
    return state


def listed(state: Any, *lengths: int) -> list[Any]:
    """The state, which is a list, and has one of these lengths where any are given."""
    if type(state) is not list:
        raise ValueError(f"{shown(state)} stands where a list belongs")
    if lengths and len(state) not in lengths:
        raise ValueError(f"{len(state)} items stand where {' or '.join(map(str, lengths))} belong")
    return state


def numbers(state: Any, *lengths: int) -> list[int]:
    """The state, which is a list of whole numbers."""
    for number in listed(state, *lengths):
        one_of((int, bool), number)
    return state  # type: ignore[no-any-return]


def pairs(state: Any) -> Any:
    """The state, which is a list of pairs."""
    for pair in listed(state):
        listed(pair, 2)
    return state


def named(state: Any) -> dict[str, Any]:
    """The state, which is a dict whose keys are text."""
    for name in exactly(dict, state):
        exactly(str, name)
    return state  # type: ignore[no-any-return]


# -- attributes --------------------------------------------------------------------------------------------------


def put_attribute(instance: Any, name: str, value: Any, put: Any = object.__setattr__) -> None:
    """Give an instance an attribute as it was recorded, past properties and other descriptors of its class.

    What such a descriptor keeps lies in the instance's ``__dict__``, and is recorded under its own name.
    """
    found = declared(type(instance), name)
    if found is MISSING or type(found) is types.MemberDescriptorType or not _takes_over(found):
        put(instance, name, value)
        return
    if type(declared(type(instance), "__dict__")) is not types.GetSetDescriptorType:
        raise ValueError(f"{name!r} is computed by {shown(type(instance))}, and cannot be restored")
    object.__getattribute__(instance, "__dict__")[name] = value


def _takes_over(found: Any) -> bool:
    kind = type(found)
    return declared(kind, "__set__") is not MISSING or declared(kind, "__delete__") is not MISSING
