"""Copies of large objects that may change while they are on their way.

A copy packs to the same bytes as its original; what cannot change is its own copy. Must not know why one is wanted.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from flyteish._authoring.values import dataframes
from flyteish._authoring.values.current_blobs import INLINE_LIMIT
from flyteish._authoring.values.drafts import SCALARS, weight


class PrivateCopy(NamedTuple):
    """What an object was at a moment."""

    value: Any
    size: int
    """Bytes, about."""


def snapshot(value: Any, cls: type) -> PrivateCopy | None:
    """A copy of a large array, frame, collection or content by reference; None for all else, and for small ones."""
    if cls is bytearray:
        return PrivateCopy(bytearray(value), len(value)) if len(value) > INLINE_LIMIT else None
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
    return PrivateCopy(array.copy(order="F" if fortran else "C"), array.nbytes)


def _frame(frame: Any) -> PrivateCopy | None:
    """A copy of a large frame, unless it holds objects that may change by themselves."""
    size = dataframes.size_of(frame)
    if size <= INLINE_LIMIT:
        return None
    copied = dataframes.copied(frame)
    return None if copied is None else PrivateCopy(copied, size)
