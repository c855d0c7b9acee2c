"""One value of every kind that tasks take and return, as a user's program has them; made anew by each call.

The golden home was written with these: a class here may gain nothing and lose nothing, and stays where it is.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import re
import uuid
import zoneinfo
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
from pydantic import BaseModel

from flyteish import Backoff, Cache, Notice, Pool, Queue, Resources, RetryStrategy, Secret, SpotPolicy, Timeout

LARGE = 300_000
"""Bytes: more than travels inline."""


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Layer:
    size: int
    rate: float = 0.5
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


class Measure(TypedDict, total=False):
    name: str
    value: float


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Track(msgspec.Struct):
    title: str
    seconds: float = 0.0


class Model(BaseModel):
    name: str
    layers: list[int] = []


class Portable:
    """Says itself how it travels."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __flyteish_pack__(self) -> str:
        return self.text

    @classmethod
    def __flyteish_unpack__(cls, packed: str) -> Portable:
        return cls(packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Portable) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]


class Opaque:
    """Nothing that flyteish has an encoding for: it travels by pickle, by its class's name."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.text == self.text

    def __reduce__(self) -> Any:
        return Opaque, (self.text,)

    __hash__ = None  # type: ignore[assignment]


def double(x: int) -> int:
    return 2 * x


def every_value() -> dict[str, Any]:
    """All of them, by name."""
    return {**_plain(), **_of_the_library(), **_of_classes(), **_of_libraries(), **_of_flyteish()}


def _plain() -> dict[str, Any]:
    return {
        "none": None, "true": True, "int": 7, "negative": -(2**40), "big int": 2**80, "float": 0.1,
        "inf": float("inf"), "minus inf": float("-inf"), "nan": float("nan"), "str": "grün 🌱", "wild str": "\udcff",
        "bytes": b"\x00\xff", "large bytes": b"x" * LARGE, "bytearray": bytearray(b"ab"), "complex": 1 - 2j,
        "list": [1, [2.5, None], "x"], "tuple": (1, ("a",)), "dict": {"a": 1, 2: {"b": [3]}},
        "dict of tuples": {(1, 2): "x", None: ()}, "set": {1, "a", (2,)}, "frozenset": frozenset({b"z"}),
        "range": range(2, 9, 3), "slice": slice(1, None, 2), "class": Layer, "function": double, "builtin": len,
    }  # fmt: skip


def _of_the_library() -> dict[str, Any]:
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    return {
        "datetime": dt.datetime(2024, 2, 29, 12, 30, 1, 5),
        "datetime in a zone": dt.datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=1),
        "datetime with offset": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "X")),
        "date": dt.date(2024, 2, 29), "time": dt.time(1, 2, 3, tzinfo=dt.UTC), "timedelta": dt.timedelta(-1, 5, 7),
        "timezone": dt.UTC, "zone": berlin, "decimal": decimal.Decimal("1.10"), "uuid": uuid.UUID(int=5),
        "fraction": fractions.Fraction(1, 3), "ordered dict": collections.OrderedDict(b=1, a=2),
        "deque": collections.deque([1, 2], maxlen=3), "defaultdict": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("aab"), "pattern": re.compile("a+", re.I),
        "path": pathlib.PurePosixPath("a/b"), "windows path": pathlib.PureWindowsPath("c:/x"),
    }  # fmt: skip


def _of_classes() -> dict[str, Any]:
    measure: Measure = {"name": "loss", "value": 0.25}
    return {
        "enum": Colour.BLUE, "flags": Access.READ | Access.WRITE, "dataclass": Layer(3, tags=["a"]),
        "slotted": Point(1, 2), "typed dict": measure, "named tuple": Pair(1), "struct": Track("t", 2.5),
        "model": Model(name="m", layers=[1, 2]), "portable": Portable("p"), "pickled": Opaque("o"),
        "nested": {"layers": [Layer(1), Layer(2)], "by colour": {Colour.RED: Pair(2, "x")}},
    }  # fmt: skip


def _of_libraries() -> dict[str, Any]:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    return {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "large array": np.zeros(9000),
        "object array": np.array([None, "a", 2], dtype=object),
        "numpy scalar": np.float64(0.5), "dtype": np.dtype("int16"),
        "pandas frame": frame, "pandas series": pd.Series([1.5, 2.5], name="s"),
        "polars frame": pl.DataFrame({"a": [1, 2]}), "arrow table": pa.table({"a": [1, 2]}),
        "arrow batch": pa.record_batch({"a": [3]}),
    }  # fmt: skip


def _of_flyteish() -> dict[str, Any]:
    """Its settings as values: their classes are recorded by name, wherever they lie."""
    return {
        "resources": Resources(cpu=2, memory="1Gi"),
        "pool": Pool("p", "spot", price_per_hour=0.5),
        "queue": Queue("q", pools=("p",), depth=3),
        "retries": RetryStrategy(2, backoff=Backoff(1.0)),
        "timeout": Timeout(max_runtime=5, deadline=dt.timedelta(hours=1)),
        "spot policy": SpotPolicy(work=10, max_spot_wait=5),
        "cache": Cache(salt="s"),
        "secret": Secret("KEY", group="g"),
        "notice": Notice("terminate", 30.0),
    }


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and content, NaN included."""
    if type(one) is not type(other):
        return False
    match one:
        case np.ndarray():
            return bool(one.dtype == other.dtype and one.shape == other.shape and (one == other).all())
        case pd.DataFrame() | pd.Series() | pl.DataFrame() | pa.Table() | pa.RecordBatch():
            return bool(one.equals(other))
        case float():
            return one == other or (one != one and other != other)
        case dict():
            return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        case _:
            return bool(one == other)
