"""Copies of large objects that may change while they are on their way.

A copy packs to the same bytes as its original; what cannot change is its own copy. Must not know why one is wanted.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

from flyteish._authoring.values import dataframes
from flyteish._authoring.values.current_blobs import INLINE_LIMIT, current_blobs
from flyteish._authoring.values.drafts import SCALARS, weight

_PIECE: Final = 4 * 1024**2


class PrivateCopy(NamedTuple):
    """What an object was at a moment."""

    value: Any
    size: int
    """Bytes, about."""
    of: Any = None
    """The object itself, where ``is_still`` can tell whether it has changed."""
    store: object = None
    """Where large content went when it was taken."""

    def is_still(self, value: Any) -> bool:
        """Whether this is a copy of that very object as it is now, for the store at hand."""
        if self.of is not value or self.store is not current_blobs.get():
            return False
        return bool(value == self.value) if type(value) is bytearray else _are_equal(value, self.value)


def snapshot(value: Any, cls: type) -> PrivateCopy | None:
    """A copy of a large array, frame, collection or content by reference; None for all else, and for small ones."""
    if cls is bytearray:
        if len(value) <= INLINE_LIMIT:
            return None
        return PrivateCopy(bytearray(value), len(value), value, current_blobs.get())
    if cls is tuple or cls is set or cls is frozenset:
        return _collection(value)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and cls is numpy.ndarray:
        return _array(value)
    if dataframes.is_frame(cls):
        return _frame(value)
    take = getattr(cls, "__flyteish_snapshot__", None)
    return None if take is None else take(value)


def _collection(value: Any) -> PrivateCopy | None:
    size = weight(value) if SCALARS.issuperset(map(type, value)) else 0
    return PrivateCopy(value.copy() if type(value) is set else value, size) if size else None


def _array(array: Any) -> PrivateCopy | None:
    if array.nbytes <= INLINE_LIMIT or array.dtype.hasobject:
        return None
    # The file format tells the two orders apart.
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    copied = array.copy(order="F" if fortran else "C")
    contiguous = fortran or array.flags.c_contiguous
    return PrivateCopy(copied, array.nbytes, array if contiguous else None, current_blobs.get())


def _are_equal(array: Any, copied: Any) -> bool:
    """Byte by byte, a piece at a time: what is no number equals itself here."""
    if array.dtype != copied.dtype or array.shape != copied.shape or array.strides != copied.strides:
        return False
    numpy: Any = sys.modules["numpy"]
    one, other = (each.ravel(order="K").view("u1") for each in (array, copied))
    pieces = range(0, one.size, _PIECE)
    return all(numpy.array_equal(one[at : at + _PIECE], other[at : at + _PIECE]) for at in pieces)


def _frame(frame: Any) -> PrivateCopy | None:
    """A copy of a large frame, unless it holds objects that may change by themselves."""
    size = dataframes.size_of(frame)
    if size <= INLINE_LIMIT:
        return None
    copied = dataframes.copied(frame)
    return None if copied is None else PrivateCopy(copied, size)
