"""Values of every kind for the tests of encoding, and what "exactly the same" means."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

ZONES = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu"]).map(ZoneInfo),
)

TEXT = st.text(st.characters())  # every code point, lone surrogates too
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=True, allow_infinity=True),
    st.complex_numbers(),
    st.decimals(allow_nan=False),  # signalling ones cannot be hashed
    st.fractions(),
)
TIMES = st.one_of(
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=st.none() | st.just(dt.UTC)),
    st.timedeltas(),
    st.datetimes().map(lambda moment: moment.replace(fold=1)),
)
HASHABLE = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.binary(), TIMES, st.uuids())
KEYS = HASHABLE | st.tuples(HASHABLE, HASHABLE) | st.frozensets(st.integers())
LEAVES = HASHABLE | st.decimals() | st.binary().map(bytearray) | st.builds(range, st.integers(), st.integers())


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(KEYS, inner),
        st.dictionaries(TEXT, inner).map(OrderedDict),
        st.dictionaries(st.integers(), inner).map(lambda pairs: defaultdict(list, pairs)),
        st.sets(KEYS),
        st.frozensets(KEYS),
        st.builds(deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 9)),
        st.lists(st.text()).map(Counter),
    )


VALUES = st.recursive(LEAVES, _containers, max_leaves=12)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal in type and content at every depth; NaN is NaN, and 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    match left:
        case float():
            return (math.isnan(left) and math.isnan(right)) or (
                left == right and math.copysign(1, left) == math.copysign(1, right)
            )
        case complex():
            return same(left.real, right.real) and same(left.imag, right.imag)
        case set() | frozenset():
            return _shown(left) == _shown(right)
        case dict():
            return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
        case list() | tuple() | deque():
            return len(left) == len(right) and all(map(same, left, right))
        case dt.datetime() | dt.time():
            return _shown(left) == _shown(right) and left.fold == right.fold
        case np.ndarray():
            return left.dtype == right.dtype and left.shape == right.shape and same(left.tolist(), right.tolist())
        case _:
            return _shown(left) == _shown(right)


def _shown(value: object) -> str:
    """As text, with the members of sets in an order that does not depend on how they were filled."""
    match value:
        case set() | frozenset():
            return f"{type(value).__name__} {sorted(map(_shown, value))}"
        case tuple():
            return f"tuple {[_shown(item) for item in value]}"
        case _:
            return f"{type(value).__name__} {value!r}"
