"""Python values as bytes and back: self-describing, exact, the same bytes for equal values.

The wire is msgpack. What msgpack keeps exactly (None, bool, int, float, str, bytes, lists, dicts with such
keys) is written as it is; everything else is an extension whose number says which kind of ``kinds`` or
``third_party`` put it there, and what no kind fits goes by cloudpickle, if the policy lets it. Decoding needs no
annotation, and trusts nothing that it reads: see ``kind_checks``.

Two limits, by design: an object that appears twice in a value arrives as two objects; and pickles of equal
objects may differ, so a pickled argument identifies its call only as far as its pickle agrees.

Must not know about annotations, parameters or tasks beyond the owner's name that it puts into messages.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec.msgpack import Ext

from flyteish._authoring.values import kinds, third_party
from flyteish._authoring.values.current_blobs import INLINE_LIMIT, shelve, unshelve
from flyteish._authoring.values.drafts import SCALARS, Draft, Later, at_once, drafting, weight
from flyteish._authoring.values.kind_checks import exactly
from flyteish._authoring.values.kinds import (
    BIG_INT,
    MAP,
    PICKLE,
    REFERENCE,
    WILD_TEXT,
    Kind,
    NoEncoding,
)
from flyteish._authoring.values.names import Names
from flyteish._authoring.values.snapshots import PrivateCopy, snapshot
from flyteish._authoring.values.unserialisable import Unserialisable, full_name, full_name_of, serialization_error
from flyteish.errors import FlyteishError, SerializationError

_TEXT: frozenset[type] = frozenset({str, bytes})

_KINDS = {**kinds.KINDS, **third_party.KINDS}
_write = msgspec.msgpack.Encoder().encode
#: Types whose kind a codec remembers; more come only from programs that make classes without end.
_REMEMBERED_TYPES = 1024


class PickleWarning(UserWarning):
    """A value travels by cloudpickle: tied to this Python and these libraries, and opaque to people."""


def _warn(message: str) -> None:
    warnings.warn(message, PickleWarning, stacklevel=2)


@dataclass(frozen=True, slots=True)
class PicklePolicy:
    """Whether values may travel by cloudpickle, and who is told when one does (once per task and type)."""

    allow_pickle: bool = True
    notice: Callable[[str], None] = _warn


_DEFAULT_POLICY = PicklePolicy()
current_pickle_policy: ContextVar[PicklePolicy] = ContextVar("flyteish_pickle", default=_DEFAULT_POLICY)


def let_pickle(allowed: bool) -> Token[PicklePolicy] | None:
    """Follow a session's configuration from here on; returns what undoes it, None where nothing had to change."""
    policy = current_pickle_policy.get()
    if policy.allow_pickle is allowed:
        return None
    return current_pickle_policy.set(replace(policy, allow_pickle=allowed))


@contextmanager
def pickling(allowed: bool) -> Iterator[None]:
    """Within it, values travel by cloudpickle only where ``allowed``."""
    token = let_pickle(allowed)
    try:
        yield
    finally:
        if token is not None:
            current_pickle_policy.reset(token)


class Codec:
    """Encodes and decodes the values of one owner (a task), whose module and classes it can name.

    Safe to use from several threads: what it remembers is only ever added to.
    """

    __slots__ = ("_by_type", "_read", "_recent", "_said", "names", "owner")

    def __init__(self, owner: str = "flyteish", names: Names | None = None) -> None:
        self.owner = owner
        self.names = Names() if names is None else names
        self._by_type: dict[type, Kind] = {}
        self._said: set[str] = set()
        self._recent: WeakValueDictionary[int, Later] = WeakValueDictionary()
        """Large objects that are being packed, by their ids."""
        self._read = msgspec.msgpack.Decoder(ext_hook=self._revive).decode

    def __repr__(self) -> str:
        return f"Codec({self.owner!r})"

    def encode(self, value: object, where: str = "the value") -> bytes:
        """The value's bytes. Raises SerializationError; errors of the blob store pass through."""
        try:
            with at_once():
                return self.seal(self.lower(value))
        except (Unserialisable, RecursionError) as trouble:
            raise serialization_error(trouble, f"{self.owner}: {where}", "value") from trouble

    def decode(self, data: bytes | memoryview) -> Any:
        """A fresh value. Raises SerializationError; errors of the blob store pass through."""
        try:
            return self._read(data)
        except (FlyteishError, OSError, MemoryError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SerializationError(f"{self.owner}: a recorded value cannot be read: {reason}") from error

    # -- encoding ----------------------------------------------------------------------------------

    def lower(self, value: Any) -> Any:
        """The value in terms of what ``seal`` can write. Plain lists and dicts are not copied."""
        cls = type(value)
        if cls in SCALARS:
            return self._lower_text(value) if cls in _TEXT and len(value) > INLINE_LIMIT else value
        if cls is list:
            return self._lower_plain(value, value) if SCALARS.issuperset(map(type, value)) else self._lower_each(value)
        if cls is dict:
            return self._lower_dict(value)
        return self._lower_kind(value, cls)

    def _lower_text(self, value: Any) -> Any:
        """A large text or bytes: immutable, so it may be packed later as it is."""
        draft = drafting.get()
        return value if draft is None else draft.later(lambda: value, len(value))

    def _lower_plain(self, value: Any, items: Any) -> Any:
        """A list or dict of scalars: as it is, or a copy of it that is packed later."""
        draft = drafting.get()
        if draft is None or not (size := weight(items)):
            return value
        copied = value.copy()
        return draft.later(lambda: copied, size)

    @staticmethod
    def seal(lowered: Any) -> bytes:
        """Write what ``lower`` returned."""
        try:
            return _write(lowered)
        except (OverflowError, UnicodeEncodeError):  # rare enough to look for only now
            return _write(_mend(lowered))
        except ValueError as error:
            raise Unserialisable(type(lowered), str(error)) from error

    def _lower_each(self, items: Iterable[Any]) -> list[Any]:
        lowered: list[Any] = []
        draft = drafting.get()
        before = 0 if draft is None else draft.count
        try:
            for item in items:
                lowered.append(self.lower(item))
        except Unserialisable as trouble:
            trouble.steps.append(f"[{len(lowered)}]")
            raise
        if draft is not None:
            draft.note(lowered, before)
        return lowered

    def _lower_dict(self, value: dict[Any, Any]) -> Any:
        if not SCALARS.issuperset(map(type, value)):
            return self._extension(MAP, self._lower_opaque(MAP.pack(value)))
        if SCALARS.issuperset(map(type, value.values())):
            return self._lower_plain(value, value.values())
        return self._lower_values(value, "[{!r}]")

    def _lower_values(self, value: dict[Any, Any], step: str) -> dict[Any, Any]:
        lowered: dict[Any, Any] = {}
        draft = drafting.get()
        before = 0 if draft is None else draft.count
        key: Any = None
        try:
            for key, item in value.items():
                lowered[key] = self.lower(item)
        except Unserialisable as trouble:
            trouble.steps.append(step.format(key))
            raise
        if draft is not None:
            draft.note(lowered, before)
        return lowered

    def _lower_opaque(self, state: Any) -> Any:
        """Lower a state whose layout is ours, so that a path into it would only confuse."""
        try:
            return self.lower(state)
        except Unserialisable as trouble:
            trouble.steps.clear()
            raise

    def _lower_kind(self, value: Any, cls: type) -> Any:
        kind = self._by_type.get(cls)
        if kind is None:
            kind = self._remember(cls)
        if kind is PICKLE:
            return self._pickled(value, "flyteish has no encoding for it")
        if kind is REFERENCE:
            name = self.names.of(value)
            if name is None:
                return self._pickled(value, f"{full_name_of(value)} is not at the top of a module that can be imported")
            return self._extension(kind, name)
        draft = drafting.get()
        if draft is not None and (later := self._put_off(draft, value, cls)) is not None:
            return later
        try:
            state = kind.pack(value)
        except NoEncoding as reason:
            return self._pickled(value, str(reason))
        except SerializationError as error:
            raise Unserialisable(cls, str(error)) from error
        return self._extension(kind, self._lower_state(kind, state))

    def _put_off(self, draft: Draft, value: Any, cls: type) -> Later | None:
        """A large object, copied; a fan-out over one object shares a copy, for as long as it is not packed."""
        known = self._recent.get(id(value))
        if known is not None and isinstance(taken := known.taken, PrivateCopy) and taken.is_still(value):
            return draft.again(known)
        copied = snapshot(value, cls)
        if copied is None:
            return None
        later = draft.later(lambda: self.lower(copied.value), copied.size, copied)
        if copied.of is not None:
            self._recent[id(value)] = later
        return later

    def _lower_state(self, kind: Kind, state: Any) -> Any:
        match kind.shape:
            case "items":
                return self._lower_each(state)
            case "unordered":  # the order of a set says nothing, and differs between processes
                with at_once():
                    return [msgspec.Raw(item) for item in sorted([self.seal(self._lower_opaque(i)) for i in state])]
            case "object":
                cls, fields, *more = state
                draft = drafting.get()
                before = 0 if draft is None else draft.count
                lowered = [self.lower(cls), self._lower_values(fields, ".{}")]
                lowered += [self._lower_opaque(part) for part in more]
                if draft is not None:
                    draft.note(lowered, before)
                return lowered
            case _:
                return self._lower_opaque(state)

    def _extension(self, kind: Kind, lowered: Any) -> Any:
        draft = drafting.get()
        if draft is not None and draft.holds(lowered):
            return draft.extension(kind.code, lowered)
        return Ext(kind.code, self.seal(lowered))

    def _remember(self, cls: type) -> Kind:
        kind = kinds.kind_of(cls)
        if kind is None:
            kind = third_party.kind_of(cls)
        if kind is None:
            kind = PICKLE
        if len(self._by_type) < _REMEMBERED_TYPES:
            self._by_type[cls] = kind
        return kind

    def _pickled(self, value: Any, reason: str) -> Any:
        policy = current_pickle_policy.get()
        name = full_name_of(value) if isinstance(value, type) else full_name(type(value))
        if not policy.allow_pickle:
            raise Unserialisable(
                type(value),
                f"{reason}, and pickling is refused by configuration; use a dataclass, a pydantic model or "
                "flyteish.io.File, give the class __flyteish_pack__ and __flyteish_unpack__, or allow pickle",
            )
        try:
            data = importlib.import_module("cloudpickle").dumps(value, protocol=5)
        except RecursionError:
            raise
        except Exception as error:  # a reducer is the user's code: it may raise anything
            raise Unserialisable(type(value), str(error) or type(error).__name__) from error
        if name not in self._said:
            self._said.add(name)
            policy.notice(f"{self.owner}: {name} travels by cloudpickle ({reason})")
        draft = drafting.get()
        if draft is not None and len(data) > INLINE_LIMIT:
            return self._extension(PICKLE, draft.later(lambda: self.lower(shelve(data)), len(data)))
        return self._extension(PICKLE, self.lower(shelve(data)))

    # -- decoding ----------------------------------------------------------------------------------

    def _revive(self, code: int, data: memoryview) -> Any:
        kind = _KINDS.get(code)
        if kind is None:
            raise SerializationError(f"{self.owner}: written by a newer flyteish (kind {code} is not known here)")
        state = self._read(data)
        if kind is REFERENCE:
            return self.names.find(exactly(str, state), may_import=current_pickle_policy.get().allow_pickle)
        if kind is PICKLE:
            return self._unpickled(state)
        return kind.unpack(state)

    def _unpickled(self, state: Any) -> Any:
        if not current_pickle_policy.get().allow_pickle:
            raise SerializationError(f"{self.owner}: the value was pickled, and pickling is refused by configuration")
        from flyteish._authoring.values.unpickling import unpickle  # here, since few programs need it

        return unpickle(unshelve(state))


def _mend(lowered: Any) -> Any:
    """The same, with integers beyond 64 bits and text that UTF-8 cannot carry as extensions."""
    match lowered:
        case bool() | Ext():
            return lowered
        case int():
            return lowered if -(2**63) <= lowered < 2**64 else Ext(BIG_INT.code, _write(BIG_INT.pack(lowered)))
        case str():
            return lowered if _is_utf8(lowered) else Ext(WILD_TEXT.code, _write(WILD_TEXT.pack(lowered)))
        case list():
            return [_mend(item) for item in lowered]
        case dict():
            pairs = [[_mend(key), _mend(item)] for key, item in lowered.items()]
            if any(isinstance(key, Ext) for key, _ in pairs):
                return Ext(MAP.code, _write(pairs))
            return dict(pairs)
        case _:
            return lowered


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
