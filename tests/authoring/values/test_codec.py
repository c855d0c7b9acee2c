"""Values survive encoding exactly, equal values give equal bytes, and what cannot travel says so."""

from __future__ import annotations

import enum
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyteish._authoring.values.codec import (
    Codec,
    PicklePolicy,
    PickleWarning,
    current_pickle_policy,
)
from flyteish._authoring.values.current_blobs import INLINE_LIMIT, current_blobs
from flyteish._authoring.values.names import Names
from flyteish.blobs.addresses import mentioned
from flyteish.blobs.memory import BlockingMemoryBlobs
from flyteish.errors import SerializationError
from tests.authoring.values.value_strategies import KEYS, PLAIN, VALUES, same


@pytest.fixture
def blobs() -> Iterator[BlockingMemoryBlobs]:
    store = BlockingMemoryBlobs()
    token = current_blobs.set(store)
    yield store
    current_blobs.reset(token)


@pytest.fixture
def no_pickle() -> Iterator[None]:
    token = current_pickle_policy.set(PicklePolicy(allow_pickle=False))
    yield
    current_pickle_policy.reset(token)


def trip(value: Any, codec: Codec | None = None) -> Any:
    codec = Codec("shop.fill()", Names.around(trip)) if codec is None else codec
    return codec.decode(codec.encode(value))


class Colour(enum.Enum):
    RED = "red"
    BLUE = (1, 2)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: Any = None


class Packet(msgspec.Struct):
    kind: str
    body: Any = None


@dataclass
class Leaf:
    name: str
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Frozen:
    leaf: Leaf
    when: datetime


@dataclass
class Doubling:
    amount: int
    note: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.amount *= 2
        self.seen = [self.amount]

    @cached_property
    def lock(self) -> object:
        return threading.Lock()


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    size: int
    leaf: Leaf | None = None
    _secret: list[int] = pydantic.PrivateAttr(default_factory=list)

    @pydantic.field_validator("size")
    @classmethod
    def grow(cls, size: int) -> int:
        return size + 1


class Rational:
    """Says how it travels."""

    def __init__(self, top: int, bottom: int) -> None:
        self.top, self.bottom = top, bottom

    def __flyteish_pack__(self) -> object:
        return self.top, self.bottom

    @classmethod
    def __flyteish_unpack__(cls, packed: tuple[int, int]) -> Rational:
        return cls(*packed)


class Opaque:
    """Nothing but pickle carries it."""

    def __init__(self, content: Any) -> None:
        self.content = content


# -- exactness -------------------------------------------------------------------------------------


@given(VALUES)
def test_any_value_arrives_exactly_as_it_was(value: Any) -> None:
    """Types at every depth, NaN, -0.0, big integers, lone surrogates, zones and folds are kept."""
    assert same(trip(value), value)


@given(PLAIN)
def test_plain_values_are_written_as_msgpack_reads_them(value: Any) -> None:
    """Whoever reads the journal without flyteish sees plain lists, dicts, numbers and text."""
    try:
        expected = msgspec.msgpack.encode(value)
    except OverflowError:  # integers beyond 64 bits are the exception
        return
    assert Codec().encode(value) == expected


@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)))
def test_numpy_arrays_arrive_exactly(array: np.ndarray) -> None:
    """Any dtype that numpy can describe, any shape, byte order kept, and writable."""
    arrived = trip([array])[0]
    assert arrived.dtype == array.dtype
    assert arrived.shape == array.shape
    assert arrived.tobytes() == array.tobytes()
    assert arrived.flags.writeable


@given(hnp.arrays(hnp.scalar_dtypes(), 1))
def test_numpy_scalars_arrive_exactly(array: np.ndarray) -> None:
    """A float32 stays a float32, a datetime64 keeps its unit."""
    scalar = array[0]
    arrived = trip(scalar)
    assert (type(arrived), arrived.dtype, arrived.tobytes()) == (type(scalar), scalar.dtype, scalar.tobytes())


def test_arrays_of_objects_and_dtypes_arrive() -> None:
    """Object arrays carry values of any kind, nested sequences included; dtypes are values too."""
    array = np.empty((2, 1), dtype=object)
    array[0, 0], array[1, 0] = [1, (2,)], {"a": {3}}
    assert same(trip(array), array)
    for dtype in (np.dtype("<f4"), np.dtype([("a", ">i2"), ("b", "S3", (2,))])):
        assert trip(dtype) == dtype


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Colour.BLUE,
        Access.READ | Access.WRITE,
        Access(0),
        Level.LOW,
        Point(1, (2, {3})),
        Packet("a", (1, b"x")),
        Frozen(Leaf("oak", {"tall"}), datetime(2024, 1, 1, tzinfo=UTC)),
        Model(size=1, leaf=Leaf("elm"), extra={1: (2,)}),
        slice(1, None, -2),
        Path("/tmp/x"),
        pathlib.PureWindowsPath("c:/x"),
        re.compile("a+", re.IGNORECASE),
        timezone(timedelta(hours=1), "CET"),
        Point,
        int,
        same,
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_of_classes_arrive_as_their_class(value: Any) -> None:
    """Enums, tuples with names, structs, dataclasses, models, and classes and functions themselves."""
    arrived = trip({"nested": [value]})["nested"][0]
    assert type(arrived) is type(value)
    assert arrived == value


def test_objects_are_restored_not_made_anew() -> None:
    """``__post_init__`` and validators don't run again; what they set is kept, cached properties are not."""
    doubled = Doubling(3)
    assert doubled.lock
    arrived = trip(doubled)
    assert (arrived.amount, arrived.seen, arrived.note) == (6, [6], "")
    model = Model(size=1)
    model._secret.append(7)
    arrived = trip(model)
    assert (arrived.size, arrived._secret, arrived.model_fields_set) == (2, [7], {"size"})


def test_a_class_may_say_how_it_travels() -> None:
    """``__flyteish_pack__`` gives a value that can travel; ``__flyteish_unpack__`` makes the object of it."""
    arrived = trip([Rational(1, 2)])[0]
    assert (type(arrived), arrived.top, arrived.bottom) == (Rational, 1, 2)


def test_a_value_is_fresh_each_time() -> None:
    """Two readers of one record do not share what they can change."""
    codec = Codec()
    data = codec.encode([[1], {"a": bytearray(b"x")}])
    first, second = codec.decode(data), codec.decode(data)
    first[0].append(2)
    first[1]["a"].append(0)
    assert second == [[1], {"a": bytearray(b"x")}]


def test_fields_that_a_class_gained_since_get_their_defaults() -> None:
    """A record outlives an added field with a default; without one, the error names the field."""
    names = Names.around(trip)
    data = Codec("a()", names).encode([Leaf("oak"), Model(size=1)])
    grown = Codec("a()", _Renamed({":Leaf": Grown, ":Model": GrownModel}))
    leaf, model = grown.decode(data)
    assert (leaf.name, leaf.rings, model.size, model.colour) == ("oak", [], 2, "green")
    with pytest.raises(SerializationError, match="no field 'height'"):
        Codec("a()", _Renamed({":Leaf": Demanding})).decode(Codec("a()", names).encode(Leaf("oak")))


@dataclass
class Grown:
    name: str
    tags: set[str]
    rings: list[int] = field(default_factory=list)


class GrownModel(pydantic.BaseModel):
    size: int
    leaf: Leaf | None = None
    colour: str = "green"


@dataclass
class Demanding:
    name: str
    tags: set[str]
    height: int


class _Renamed(Names):
    def __init__(self, classes: dict[str, type]) -> None:
        super().__init__()
        self._known.update(classes)


# -- identity --------------------------------------------------------------------------------------


@given(st.lists(KEYS, unique=True), st.randoms())
def test_equal_sets_give_equal_bytes(items: list[Any], random: Any) -> None:
    """In whatever order a set was filled."""
    shuffled = random.sample(items, len(items))
    assert Codec().encode(set(items)) == Codec().encode(set(shuffled))


def test_bytes_do_not_depend_on_the_process() -> None:
    """Another interpreter with other string hashes encodes the same sets and dicts to the same bytes."""
    code = (
        "from flyteish._authoring.values.codec import Codec;"
        "print(Codec().encode([{'a', 'b', 'c', 'd'}, frozenset({('x', 1), 'y'}), {'k': {'m', 'n'}}]).hex())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


def test_the_order_of_a_dict_is_part_of_the_value() -> None:
    """Two dicts that are filled in another order are two values: tasks can see the difference."""
    assert Codec().encode({"a": 1, "b": 2}) != Codec().encode({"b": 2, "a": 1})


# -- names -----------------------------------------------------------------------------------------


def test_a_script_and_its_import_name_classes_alike() -> None:
    """A value of a class in ``__main__`` can be read in a worker that imported the script under a name."""
    here = Names("__main__", {"Leaf": Leaf})
    there = Names("shop", {"Leaf": Grown})
    assert (here._spell("__main__", "Leaf"), there._spell("shop", "Leaf")) == (":Leaf", ":Leaf")
    assert there.find(":Leaf") is Grown


def test_local_classes_travel_by_name_when_learned_and_by_pickle_otherwise() -> None:
    """The class in an annotation needs no pickle, wherever it was defined."""

    @dataclass
    class Local:
        x: int

    names = Names.around(trip)
    names.learn(Local)
    assert trip(Local(1), Codec("a()", names)) == Local(1)
    with pytest.warns(PickleWarning, match="Local travels by cloudpickle"):
        assert trip(Local(1)) == Local(1)


def test_a_name_that_is_gone_says_so() -> None:
    """A class that was moved or renamed since is named in the error."""
    data = Codec("a()", Names("m", {"Leaf": Leaf, **globals()})).encode(1)
    assert Codec().decode(data) == 1
    data = Codec("a()", Names.around(trip)).encode(Leaf("x"))
    with pytest.raises(SerializationError, match=r"b\(\): .*has no 'Leaf' \(moved or renamed\?\)"):
        Codec("b()", Names("elsewhere", {})).decode(data)


# -- pickle ----------------------------------------------------------------------------------------


def test_pickle_is_said_once_for_each_type() -> None:
    """The notice names owner and type, and does not come again."""
    said: list[str] = []
    token = current_pickle_policy.set(PicklePolicy(notice=said.append))
    codec = Codec("shop.fill()", Names.around(trip))
    for content in (1, 2, 3):
        assert trip(Opaque(content), codec).content == content
    current_pickle_policy.reset(token)
    assert len(said) == 1
    assert said[0].startswith("shop.fill(): ")
    assert "Opaque travels by cloudpickle" in said[0]


@pytest.mark.usefixtures("no_pickle")
def test_pickle_can_be_refused() -> None:
    """Refused, it names the place, the type and the cure; and pickles that exist already aren't read."""
    with pytest.raises(SerializationError, match=r"Opaque at value\['a'\]\[0\].*refused by configuration.*dataclass"):
        Codec("a()").encode({"a": [Opaque(1)]})
    token = current_pickle_policy.set(PicklePolicy(notice=lambda _: None))
    data = Codec("a()").encode(Opaque(1))
    current_pickle_policy.reset(token)
    with pytest.raises(SerializationError, match="refused by configuration"):
        Codec("a()").decode(data)


def test_what_pickle_cannot_carry_is_an_honest_error() -> None:
    """The path leads to the culprit, and common mistakes come with their cure."""
    holder = Opaque(threading.Lock())
    with pytest.raises(
        SerializationError, match=r"a\(\): the value cannot be serialised: _thread.lock at value\[1\]\[0\]"
    ):
        Codec("a()").encode([0, (threading.Lock(),)])
    with pytest.raises(SerializationError, match=r"Opaque at value\['h'\]: cannot pickle '_thread.lock'"):
        Codec("a()").encode({"h": holder})
    with pytest.raises(SerializationError, match=r"at value.name: .*make a list of it"):
        Codec("a()").encode(Leaf(name=(n for n in "x")))  # type: ignore[arg-type]

    async def forgotten() -> None: ...

    coroutine = forgotten()
    with pytest.raises(SerializationError, match="await it before passing it on"):
        Codec("a()").encode(coroutine)
    coroutine.close()


def test_values_that_contain_themselves_are_refused() -> None:
    """Instead of a crash or a hang."""
    loop: list[Any] = []
    loop.append(loop)
    knot: dict[str, Any] = {}
    knot["me"] = (knot,)
    for value in (loop, knot):
        with pytest.raises(SerializationError, match="contains itself, or is nested too deeply"):
            Codec().encode(value)


@pytest.mark.parametrize("data", [b"", b"\x81", b"\xc1", b"\xc7\x01\x7d\x00", b"\xc7\x03\x0e\xa2xx"])
def test_damaged_records_are_errors_of_ours(data: bytes) -> None:
    """Truncated bytes, kinds of a newer version, contents that make no sense."""
    with pytest.raises(SerializationError):
        Codec().decode(data)


# -- blobs -----------------------------------------------------------------------------------------


def test_large_content_is_shared_by_address(blobs: BlockingMemoryBlobs) -> None:
    """A big array is stored once, however many values hold it, and its address can be listed."""
    big = np.arange(INLINE_LIMIT)
    codec = Codec()
    values = [codec.encode({"index": i, "data": big}) for i in range(3)]
    assert len(list(blobs.contents())) == 1
    assert all(len(data) < 200 for data in values)
    assert [mentioned(data) for data in values] == [{each.name for each in blobs.contents()}] * 3
    assert (codec.decode(values[1])["data"] == big).all()
    assert mentioned(codec.encode([1, {2}, Leaf("x")])) == set()


def test_large_content_needs_the_store_to_be_read(blobs: BlockingMemoryBlobs) -> None:
    """Without it the error says which content and what to do."""
    data = Codec().encode(np.zeros(INLINE_LIMIT))
    token = current_blobs.set(None)
    with pytest.raises(SerializationError, match=r"sha256:.*no store is open here"):
        Codec().decode(data)
    current_blobs.reset(token)


def test_errors_of_the_store_pass_through(blobs: BlockingMemoryBlobs) -> None:
    """A full disk is an infrastructure failure, not an unserialisable value."""

    def full(data: bytes) -> str:
        raise OSError(28, "No space left on device")

    blobs.put = full  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="No space left"):
        Codec().encode(np.zeros(INLINE_LIMIT))


def test_codecs_are_safe_on_several_threads() -> None:
    """Many threads share a task's codec."""
    codec = Codec("a()", Names.around(trip))
    value = [Leaf("x", {"a", "b"}), {1: (math.inf,)}, np.arange(3.0).tolist()]
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.extend(same(trip(value, codec)[1:], value[1:]) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 200
