"""What exceptions carry, as bytes: exactly the plain types of Python, and text for everything else.

Decoding builds only such types and runs nobody's code, so bytes from a worker are safe to read. Must not
know about exceptions. (Values of tasks have an encoding of their own, which may pickle; this one never
does.)
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

import msgspec
from msgspec.msgpack import Ext

_DEPTH = 20
_ITEMS = 10_000
_BYTES = 262_144
_TEXT = 4_096
_TUPLE, _SET, _FROZENSET, _DICT, _INT, _WILD_TEXT = 1, 2, 3, 4, 5, 11
_SCALARS: Final = frozenset({type(None), bool, float, bytes})
# Kinds that text says exactly; the text comes back through the same type.
_TEXTUAL: Final[dict[int, tuple[type, Callable[[Any], str], Callable[[str], Any]]]] = {
    _INT: (int, str, int),
    6: (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    7: (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    8: (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    9: (decimal.Decimal, str, decimal.Decimal),
    10: (uuid.UUID, str, uuid.UUID),
}
_COLLECTIONS: Final[dict[type, int]] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
_BY_TYPE: Final = {kind: (code, write) for code, (kind, write, _) in _TEXTUAL.items()}


class NotPlainError(Exception):
    """Internal: a value of another type, or too large a one."""


def encode(value: object) -> bytes | None:
    """The value, other types in it as their ``repr``; None where it is too large to keep."""
    try:
        data = msgspec.msgpack.encode(_Writer(strict=False).tagged(value, _DEPTH))
    except (msgspec.MsgspecError, UnicodeError, OverflowError, NotPlainError, TypeError, ValueError):
        return None
    return data if len(data) <= _BYTES else None


def decode(data: bytes | None) -> Any:
    """What was encoded; None for None and for bytes that nobody of ours wrote."""
    if data is None:
        return None
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ArithmeticError, TypeError, ValueError, RecursionError):
        return None


def is_plain(value: object) -> bool:
    """Whether the value arrives exactly as it is."""
    try:
        _Writer(strict=True).tagged(value, _DEPTH)
    except NotPlainError:
        return False
    return True


def shown(value: object) -> str:
    """``repr``, shortened, whatever the value's own code does."""
    try:
        text = str(repr(value))
    except BaseException:  # somebody's __repr__: it may raise anything
        return f"<{type.__getattribute__(type(value), '__name__')}>"
    return text if len(text) <= _TEXT else text[:_TEXT] + "..."


class _Writer:
    """One value on its way out, bounded in number; what lies too deep is text."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.left = _ITEMS

    def tagged(self, value: Any, depth: int) -> object:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is str:
            return value if value.isascii() else _text(value)
        if kind is int and -(2**63) <= value < 2**63:
            return value
        if kind in _BY_TYPE:
            code, write = _BY_TYPE[kind]
            return Ext(code, write(value).encode())
        self.left -= 1
        if self.left < 0:
            raise NotPlainError  # all of it: text for each of its parts would be no smaller
        if depth == 0:
            return self.untagged(value)
        if kind is list:
            return [self.tagged(item, depth - 1) for item in value]
        if kind is dict:
            return self.extended(_DICT, [item for pair in value.items() for item in pair], depth)
        code = _COLLECTIONS.get(kind, 0)
        return self.extended(code, value, depth) if code else self.untagged(value)

    def extended(self, code: int, items: Any, depth: int) -> Ext:
        return Ext(code, msgspec.msgpack.encode([self.tagged(item, depth - 1) for item in items]))

    def untagged(self, value: object) -> object:
        if self.strict:
            raise NotPlainError
        return _text(str(value) if isinstance(value, PurePath) else shown(value))


def _text(value: str) -> object:
    """Names of files may hold surrogates, which no encoder takes as text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(_WILD_TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _restored(code: int, data: memoryview) -> Any:
    if code in _TEXTUAL:
        return _TEXTUAL[code][2](bytes(data).decode())
    if code == _WILD_TEXT:
        return bytes(data).decode("utf-8", "surrogatepass")
    items = _decoder.decode(data)
    if code == _TUPLE:
        return tuple(items)
    if code == _SET:
        return set(items)
    if code == _FROZENSET:
        return frozenset(items)
    if code == _DICT:
        return dict(zip(items[::2], items[1::2], strict=True))
    raise ValueError(f"unknown kind {code}")


_decoder = msgspec.msgpack.Decoder(ext_hook=_restored)
