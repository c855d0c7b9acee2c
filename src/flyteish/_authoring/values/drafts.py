"""Values taken down where they must not change any more, and packed later, where there is time for it.

A caller on an event loop may neither pack, hash nor store what is large, and yet the value that travels is the value as
it was at the call. So lowering within a ``Draft`` copies what is large and may change (an array, a frame, a long list),
leaves a ``Later`` in its place, and encodes all else at once. ``finish``, on a thread, does the rest: the bytes are the
same as if all had been encoded together. Must not know what values mean, nor which thread it is on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TypeAlias

import msgspec
from msgspec.msgpack import Ext

from flyteish._authoring.values.current_blobs import INLINE_LIMIT
from flyteish._authoring.values.unserialisable import Unserialisable

#: Items. Longer plain lists and dicts are packed later.
MANY: Final = 8192
#: Exactly these types (not their subclasses) are written as they are, as items and as dict keys.
SCALARS: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str, bytes})
#: Of which no number is large.
NUMBERS: Final[frozenset[type]] = frozenset({type(None), bool, int, float})
_TEXT: Final[frozenset[type]] = frozenset({str, bytes})
_SHORT: Final = 1024  # characters, or half as many numbers
_FEW: Final = 8  # lists in a list, or texts
_Seal: TypeAlias = Callable[[Any], bytes]


class Later:
    """A part of a value that is lowered by ``finish``: its own copy of what it was. Thread-safe.

    Several drafts may have it, where the same object is given again, and has not changed since.
    """

    __slots__ = ("__weakref__", "_done", "_lock", "_lower", "name", "taken")

    def __init__(self, lower: Callable[[], Any], name: str, taken: object) -> None:
        self._lower: Callable[[], Any] | None = lower
        self._done: Any = None
        self._lock = threading.Lock()
        self.name = name
        """The parameter that it is a part of, for messages."""
        self.taken = taken
        """What it was made from, for whoever gives it again; None once it is lowered."""

    def lowered(self) -> Any:
        """The part as ``seal`` takes it; the copy goes."""
        with self._lock:
            if self._lower is not None:
                self._done = self._lower()
                self._lower = self.taken = None
            return self._done


class _LaterExt:
    """An extension around a part that is lowered later."""

    __slots__ = ("code", "inner")

    def __init__(self, code: int, inner: Any) -> None:
        self.code = code
        self.inner = inner


class Draft:
    """One value that is being taken down, or was; small ones leave it empty."""

    __slots__ = ("_holders", "_lowered", "_refuse", "_seal", "count", "name", "size")

    def __init__(self, refuse: Callable[[str, Any], NoReturn]) -> None:
        self._refuse = refuse
        """Raises the error for people, of the parameter in question and what lowering raised."""
        self._holders: set[int] | None = None
        """Ids of lists and dicts in the lowered value with a ``Later`` somewhere in them; all live until the end."""
        self._lowered: Any = None
        self._seal: _Seal | None = None
        self.count = 0
        """Parts that were put off."""
        self.name = ""
        """The parameter that is being lowered."""
        self.size = 0
        """Bytes that its copies hold, about."""

    def __repr__(self) -> str:
        return f"Draft({self.name!r}, {self.size} bytes)"

    # -- while the value is lowered --------------------------------------------------------------------

    def later(self, lower: Callable[[], Any], size: int, taken: object = None) -> Later:
        """Put a part off; ``lower`` must not depend on anything that may change."""
        self.size += size
        return self.again(Later(lower, self.name, taken))

    def again(self, later: Later) -> Later:
        """A part that another draft has put off, too."""
        self.count += 1
        return later

    def holds(self, lowered: Any) -> bool:
        """Whether a part of it was put off."""
        return self.count > 0 and (
            type(lowered) is Later or type(lowered) is _LaterExt or id(lowered) in (self._holders or ())
        )

    def note(self, container: Any, before: int) -> None:
        """Remember a list or dict in which parts were put off, ``before`` which there were so many."""
        if self.count > before:
            self._hold(container)

    def _hold(self, container: Any) -> None:
        if self._holders is None:
            self._holders = set()
        self._holders.add(id(container))

    def extension(self, code: int, inner: Any) -> Any:
        """An extension around what ``holds`` is true of."""
        return _LaterExt(code, inner)

    def kept(self, lowered: Any, seal: _Seal) -> bytes | Draft:
        """The value's bytes where nothing was put off; else this draft, with all else encoded now.

        Plain lists and dicts in what was lowered are still the caller's own.
        """
        if not self.count:
            return seal(lowered)
        if type(lowered) is dict:
            self._hold(lowered)
        self._lowered, self._seal = self._kept(lowered, seal), seal
        self._holders = None
        return self

    def _kept(self, lowered: Any, seal: _Seal) -> Any:
        if type(lowered) is Later:
            return lowered
        if type(lowered) is _LaterExt:
            return _LaterExt(lowered.code, self._kept(lowered.inner, seal))
        if id(lowered) not in (self._holders or ()):
            return msgspec.Raw(seal(lowered))
        if type(lowered) is dict:
            return {key: self._kept(item, seal) for key, item in lowered.items()}
        return [self._kept(item, seal) for item in lowered]

    # -- afterwards, on a thread -----------------------------------------------------------------------

    def finish(self) -> bytes:
        """The value's bytes. Raises SerializationError; errors of the blob store pass through."""
        assert self._seal is not None
        try:
            return self._seal(self._finished(self._lowered))
        except (Unserialisable, RecursionError) as trouble:
            self._refuse(self.name, trouble)

    def _finished(self, kept: Any) -> Any:
        assert self._seal is not None
        match kept:
            case Later():
                self.name = kept.name
                return kept.lowered()
            case _LaterExt():
                return Ext(kept.code, self._seal(self._finished(kept.inner)))
            case dict():
                return {key: self._finished(item) for key, item in kept.items()}
            case list():
                return [self._finished(item) for item in kept]
            case _:
                return kept


class at_once:  # noqa: N801 - used as a statement
    """Within it nothing is put off: what is encoded here is needed as bytes here."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = drafting.set(None)

    def __exit__(self, *_: object) -> None:
        drafting.reset(self._token)


#: The draft that this coroutine or thread is making; None: values are encoded at once.
drafting: ContextVar[Draft | None] = ContextVar("flyteish_drafting", default=None)


def are_small(values: Any, depth: int = 1) -> bool:
    """Whether these are small at a glance, so that there is nothing to put off; the arguments of most calls are."""
    for value in values:
        kind = type(value)
        if kind in NUMBERS:
            continue
        if kind in _TEXT:
            if len(value) > _SHORT:
                return False
            continue
        if kind is dict:
            value = value.values()
        elif kind is not list and kind is not tuple:
            return False
        if len(value) > _SHORT // 2 or not (
            NUMBERS.issuperset(map(type, value)) or (len(value) < _FEW and depth and are_small(value, depth - 1))
        ):
            return False
    return True


def weight(items: Any) -> int:
    """About how many bytes a list or the values of a dict, all of them plain, take; 0 for what is surely small."""
    count = len(items)
    if count > MANY:
        return max(9 * count, INLINE_LIMIT + 1)
    if NUMBERS.issuperset(map(type, items)):
        return 0
    size = sum(len(item) for item in items if type(item) in _TEXT)
    return size if size > INLINE_LIMIT else 0
