"""What a training loop changes, and how it is written to files and restored in place.

Values are stored by what they hold, not by reference, so a checkpoint needs nothing but itself. Must not know when
anybody saves, nor where the files go.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import msgspec

from flyteish._authoring.values.codec import Codec, PicklePolicy, current_pickle_policy
from flyteish._authoring.values.current_blobs import current_blobs
from flyteish.errors import CheckpointError, ConfigurationError, InputTypeError

_FIXED = (
    type(None), bool, int, float, complex, str, bytes, tuple, frozenset, range, type, ModuleType, FunctionType,
    BuiltinFunctionType, MethodType,
)  # fmt: skip


class Part(NamedTuple):
    """One piece of state."""

    name: str
    """What it is, for the check that a checkpoint fits."""
    write: Callable[[Path], object]
    """Write it to this path, where nothing is yet."""
    read: Callable[[Path], object]
    """Restore it from there."""


def part_of(state: Any, where: str) -> Part:
    """How this object is stored and restored in place.

    Raises:
        InputTypeError: nothing in it can change, so it can't be restored; says what to pass instead.
    """
    name, take, give = _access(state, where)
    codec = Codec("checkpoint.epochs()")

    def write(path: Path) -> None:
        with _by_value():
            path.write_bytes(codec.encode(take(), where))

    def read(path: Path) -> None:
        with _by_value():
            give(codec.decode(path.read_bytes()))

    return Part(name, write, read)


def checked_functions(save: Callable[[Path], object] | None, load: Callable[[Path], object] | None) -> Part | None:
    """The pair of functions that writes and restores what the author keeps elsewhere."""
    if save is None and load is None:
        return None
    for name, function in (("save", save), ("load", load)):
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"checkpoint.epochs({name}={function!r}) is not accepted: expected a plain function of one path, and "
                "save= and load= together (in async def tasks they run beside the loop)"
            )
    assert save is not None
    assert load is not None

    def write(path: Path) -> None:
        save(path)
        if not path.exists():
            raise CheckpointError(f"checkpoint.epochs(save={save!r}) wrote nothing to the path that it was given")

    return Part("save()", write, load)


class _by_value:  # noqa: N801 - used as a statement
    """Within it values hold all their content, and pickling, which is expected here, is not remarked on."""

    def __enter__(self) -> None:
        policy = current_pickle_policy.get()
        self._tokens = (
            current_blobs.set(None),
            current_pickle_policy.set(PicklePolicy(policy.allow_pickle, lambda _: None)),
        )

    def __exit__(self, *_: object) -> None:
        current_blobs.reset(self._tokens[0])
        current_pickle_policy.reset(self._tokens[1])


# -- kinds of state ---------------------------------------------------------------------------------------------

_Access = tuple[str, Callable[[], Any], Callable[[Any], object]]


def _access(state: Any, where: str) -> _Access:
    cls = type(state)
    take, give = getattr(state, "state_dict", None), getattr(state, "load_state_dict", None)
    if not isinstance(state, type) and callable(take) and callable(give):
        return f"state_dict of {cls.__qualname__}", take, give
    if cls in (list, bytearray):
        return cls.__name__, lambda: state, lambda saved: _refill(state, _exactly(cls, saved))
    if cls is dict or cls is set:
        return cls.__name__, lambda: state, lambda saved: _update(state, _exactly(cls, saved))
    if cls is deque:
        return "deque", lambda: list(state), lambda saved: (state.clear(), state.extend(_exactly(list, saved)))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(state, numpy.ndarray):
        return "array", lambda: state, lambda saved: _refill_array(state, _exactly(cls, saved))
    if _is_fixed(state):
        raise InputTypeError(
            f"checkpoint.epochs(): {where}, {_short(state)}, can't be restored in place: pass the list, dict or object "
            "that holds it, or save= and load="
        )
    if isinstance(state, msgspec.Struct):
        return (
            cls.__qualname__,
            lambda: msgspec.structs.asdict(state),
            lambda saved: _set_fields(state, _exactly(dict, saved)),
        )
    return cls.__qualname__, state.__getstate__, lambda saved: _set_state(state, saved)


def _is_fixed(state: Any) -> bool:
    if isinstance(state, _FIXED):
        return True
    if isinstance(state, msgspec.Struct):
        return state.__struct_config__.frozen
    parameters = getattr(type(state), "__dataclass_params__", None)
    if dataclasses.is_dataclass(state) and parameters is not None and parameters.frozen:
        return True
    # Neither attributes nor a way of its own: an opaque handle, such as a lock or a file.
    return state.__getstate__() is None


def _exactly(kind: type, saved: Any) -> Any:
    """What was saved, which has to be of the kind that it is restored into before anything is cleared for it."""
    if type(saved) is not kind:
        raise CheckpointError(f"the checkpoint holds a {type(saved).__qualname__} where a {kind.__qualname__} belongs")
    return saved


def _update(state: Any, saved: Any) -> None:
    state.clear()
    state.update(saved)


def _refill(state: Any, saved: Any) -> None:
    state[:] = saved


def _refill_array(state: Any, saved: Any) -> None:
    if state.shape != saved.shape or state.dtype != saved.dtype:
        raise CheckpointError(
            f"the checkpoint holds an array of {saved.dtype} {saved.shape}; it was to be restored into one of "
            f"{state.dtype} {state.shape}"
        )
    state[...] = saved


def _set_fields(state: Any, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        setattr(state, name, value)


def _set_state(state: Any, saved: Any) -> None:
    """As pickle does it."""
    own = getattr(state, "__setstate__", None)
    if own is not None:
        own(saved)
        return
    attributes, slots = saved if isinstance(saved, tuple) else (saved, None)
    if attributes is not None:
        vars(state).clear()
        vars(state).update(attributes)
    _set_fields(state, slots or {})


def _short(state: object) -> str:
    text = repr(state)
    return text if len(text) <= 40 else f"of type {type(state).__qualname__}"
