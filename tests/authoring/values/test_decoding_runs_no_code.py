"""Whatever bytes say, decoding calls nothing that is not of the kind it stands for: each kind, with canaries.

The canaries are classes whose every hook records that it was used, instances of them, functions that would do
harm, and modules that nobody has imported. Under ``allow_pickle = false`` not even a module is imported.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from msgspec.msgpack import Ext

from flyteish._authoring.attempt.epoch_state import part_of
from flyteish._authoring.values import kinds, plain_data, third_party
from flyteish._authoring.values.codec import Codec, pickling
from flyteish._authoring.values.errors import document, rebuild
from flyteish._authoring.values.names import Names
from flyteish._core.model.values import ErrorDocument
from flyteish.errors import CheckpointError, RemoteTaskError, SerializationError
from flyteish.io import DataFrame, File

FIRED: list[str] = []
KINDS = {**kinds.KINDS, **third_party.KINDS}
REFERENCE, PICKLE = kinds.REFERENCE.code, kinds.PICKLE.code
write = msgspec.msgpack.encode


def _hook(name: str) -> Any:
    def fired(*args: Any, **kwargs: Any) -> Any:
        FIRED.append(name)
        raise RuntimeError(f"canary: {name} ran")

    return fired


def explode(*args: Any, **kwargs: Any) -> None:
    """A function that nobody has asked for."""
    FIRED.append("explode")


HOOKS = (
    "__call__", "__iter__", "__next__", "__len__", "__getitem__", "__setitem__", "__contains__", "__index__", "__int__",
    "__float__", "__complex__", "__str__", "__repr__", "__bytes__", "__bool__", "__eq__", "__lt__", "__format__",
    "__add__", "__mul__", "__fspath__", "__reversed__", "__length_hint__", "__array__", "__getattr__", "__get__",
    "__setstate__", "__reduce__", "__reduce_ex__", "__init__", "__setattr__", "__delattr__", "__enter__", "__iadd__",
    "keys", "items", "decode", "encode", "replace", "read", "utcoffset", "__flyteish_pack__", "__flyteish_unpack__",
)  # fmt: skip
SEEN = ("dtype", "shape", "_fields", "_field_defaults", "__class__", "model_fields", "numerator", "real", "size")


class TrapMeta(type):
    """Every question to the class goes off."""

    def __getattribute__(cls, name: str) -> Any:
        FIRED.append(f"metaclass: {name}")
        return super().__getattribute__(name)

    __call__ = __getitem__ = __iter__ = __instancecheck__ = __subclasscheck__ = _hook("metaclass hook")


class Trap(metaclass=TrapMeta):
    """A class of no kind that travels."""


def _loud() -> type:
    namespace: dict[str, Any] = {"__annotations__": {"x": int}, "x": 0, "__module__": __name__}
    # With these it would be no dataclass that travels.
    left_out = ("__reduce__", "__reduce_ex__", "__flyteish_pack__", "__flyteish_unpack__")
    namespace.update((name, _hook(f"Loud.{name}")) for name in HOOKS if name not in left_out)
    namespace.update((name, property(_hook(f"Loud.{name}"))) for name in SEEN)
    return dataclasses.dataclass(init=False, repr=False, eq=False)(type("Loud", (), namespace))


Loud = _loud()
"""A dataclass by its looks, whose instances' every method goes off."""


class Hungry:
    """Each way to make one goes off."""

    __new__ = __init__ = __init_subclass__ = __class_getitem__ = __reduce__ = __setstate__ = _hook("Hungry")


class Colour(enum.Enum):
    RED = 1


class Packet(msgspec.Struct):
    body: Any


class Point(NamedTuple):
    x: Any


class Model(pydantic.BaseModel):
    x: int

    def __setstate__(self, state: Any) -> None:
        FIRED.append("Model.__setstate__")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        FIRED.append("Model.__new__")
        return super().__new__(cls)

    def __init__(self, **given: Any) -> None:
        FIRED.append("Model.__init__")
        super().__init__(**given)

    @property
    def trap(self) -> int:
        return 1

    @trap.setter
    def trap(self, value: Any) -> None:
        FIRED.append("Model.trap")


class _Descriptor:
    __set__ = __get__ = __delete__ = _hook("descriptor")


@dataclasses.dataclass
class Record:
    x: Any = None

    def __init__(self, x: Any = None) -> None:
        FIRED.append("Record.__init__")

    def __post_init__(self) -> None:
        FIRED.append("Record.__post_init__")

    def __setattr__(self, name: str, value: Any) -> None:
        FIRED.append("Record.__setattr__")

    trap = _Descriptor()

    @property
    def computed(self) -> int:
        return 0

    @computed.setter
    def computed(self, value: Any) -> None:
        FIRED.append("Record.computed")


class OddError(Exception):
    """An exception whose every hook goes off."""

    __new__ = __init__ = __setattr__ = __setstate__ = add_note = with_traceback = _hook("OddError")
    __str__ = __repr__ = __reduce__ = _hook("OddError")
    args = property(_hook("OddError.args"))
    __notes__ = property(_hook("OddError.__notes__"))

    @property
    def code(self) -> int:
        return 0

    @code.setter
    def code(self, value: Any) -> None:
        FIRED.append("OddError.code")


class Outsider(BaseException):
    __class__ = property(_hook("Outsider.__class__"))
    __getattribute__ = _hook("Outsider.__getattribute__")


class PosingError(Exception):
    __module__ = "builtins"
    __new__ = __init__ = _hook("PosingError")


def _refer(name: str) -> Ext:
    return Ext(REFERENCE, write(name))


HERE = __name__
LOUD = Ext(kinds._INSTANCE.code, write([_refer(f"{HERE}:Loud"), {"x": 1}]))
REFERENCES = [
    "os:system", "os:popen", "subprocess:Popen", "subprocess:call", "builtins:exec", "builtins:eval", "builtins:open",
    "builtins:type", "builtins:object", "builtins:dict", "builtins:Exception", "enum:Enum", "enum:EnumType",
    "msgspec:Struct", "pydantic:BaseModel", "collections:namedtuple",
    f"{HERE}:explode", f"{HERE}:Trap", f"{HERE}:TrapMeta", f"{HERE}:Hungry", f"{HERE}:Loud", f"{HERE}:Colour",
    f"{HERE}:Packet", f"{HERE}:Point", f"{HERE}:Model", f"{HERE}:Record", f"{HERE}:OddError", f"{HERE}:_Descriptor",
    "flyteish.io:File", "flyteish.io:DataFrame", "a_canary_module:Thing", "antigravity:fly", "os:path.join",
]  # fmt: skip
PIECES: list[Any] = [
    *map(_refer, REFERENCES), LOUD, None, True, -1, 2**63, 1.5, "", "x", "os", "system", "O", "|O", "<f8", "M8[s]",
    "PosixPath", "pandas", "polars", "pyarrow", "DataFrame", "Table", "UTC", "2024-01-01", b"", b"x", [], ["x"], {},
    {"x": 1}, {"computed": 1}, {"trap": 1}, {"__class__": _refer(f"{HERE}:Hungry")}, {"__dict__": {}}, [[1, 2]], [LOUD],
    Ext(kinds.TUPLE.code, write([LOUD])), Ext(kinds.BLOB_ADDRESS.code, write("sha256:00")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_fires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test: no canary sang, and the module that nobody has imported still is not."""
    (tmp_path / "a_canary_module.py").write_text(f"import {HERE} as t\nt.FIRED.append('import')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, name in ((os, "system"), (os, "popen"), (subprocess, "call"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, _hook(name))
    monkeypatch.setattr(subprocess, "Popen", type("Popen", (), {"__init__": _hook("Popen")}))
    FIRED.clear()
    with pickling(False):
        yield
    assert FIRED == []
    assert "a_canary_module" not in sys.modules
    assert "antigravity" not in sys.modules


def _decode(data: bytes) -> Any:
    """The value, or None where it is refused, which is by an error of ours."""
    try:
        return Codec("canaries", Names()).decode(data)
    except SerializationError:
        return None


@pytest.mark.parametrize("code", sorted(set(KINDS) - {REFERENCE}))
def test_no_kind_calls_what_its_bytes_name(code: int, seed: int) -> None:
    """Every state of up to two pieces, and many of up to five: references to harm, loud objects, plain values."""
    states: list[Any] = [*PIECES, *([piece] for piece in PIECES)]
    states += [list(pair) for pair in itertools.product(PIECES, repeat=2)]
    draw = random.Random(f"{seed}/{code}")
    states += [[draw.choice(PIECES) for _ in range(draw.randint(3, 5))] for _ in range(3000)]
    for state in states:
        value = _decode(write(Ext(code, write(state))))
        assert FIRED == [], (code, state)
        del value


@pytest.mark.parametrize("cls", ["os:system", "subprocess:Popen", f"{HERE}:explode", f"{HERE}:Trap", f"{HERE}:Hungry"])
@pytest.mark.parametrize("code", sorted(set(KINDS) - {4, 8, 9, 13}))  # these may hold a class as an item
def test_no_class_stands_in_for_another_kind(code: int, cls: str) -> None:
    """The layouts that are right but for the class that they name."""
    layouts: list[Any] = [
        ["x"], [None, "x"], [{"x": 1}], [{}], [{}, {}], [{"x": 1}, None, ["x"], None], [{}, {"__setstate__": 1}],
    ]  # fmt: skip
    for layout in layouts:
        data = write(Ext(code, write([_refer(cls), *layout])))
        with pytest.raises(SerializationError):
            Codec("canaries", Names()).decode(data)
        assert FIRED == [], layout


def test_attributes_that_nobody_declared_pass_by_properties_and_descriptors() -> None:
    """They go where they came from, the instance's ``__dict__``."""
    data = write(Ext(kinds._INSTANCE.code, write([_refer(f"{HERE}:Record"), {"x": 1, "computed": 2, "trap": 3}])))
    record = _decode(data)
    assert vars(record) == {"x": 1, "computed": 2, "trap": 3}
    data = write(Ext(kinds._INSTANCE.code, write([_refer(f"{HERE}:Record"), {"__class__": _refer(f"{HERE}:Hungry")}])))
    assert type(_decode(data)) is Record
    model = [_refer(f"{HERE}:Model"), {"x": 1, "trap": 2}, None, ["x"], None]
    assert _decode(write(Ext(third_party._MODEL.code, write(model)))).x == 1


def test_values_of_the_right_kind_still_arrive() -> None:
    """The canaries' own classes travel, where they are what they say."""
    codec = Codec("canaries", Names())
    for value in (Colour.RED, Packet([1]), Point(2)):
        assert codec.decode(codec.encode(value)) == value


def test_a_pickle_is_not_read_where_pickling_is_refused() -> None:
    """Neither as a value of its own, nor in an array, a scalar or a frame."""

    class Bomb:
        def __reduce__(self) -> Any:
            return explode, ()

    bomb = pickle.dumps(Bomb())
    arrays = [np.lib.format.magic(1, 0) + b"\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"]
    arrays[0] = arrays[0].ljust(127) + b"\n" + bomb
    for data in (bomb, *arrays):
        for code in KINDS:
            for state in (data, ["pandas", "DataFrame", [None, None], data], ["|O", data], [data, data]):
                _decode(write(Ext(code, write(state))))


@pytest.mark.parametrize("allowed", [True, False])
def test_content_that_claims_to_be_large_takes_no_memory(allowed: bool) -> None:
    """Headers and lengths are believed only as far as there are bytes."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    array = np.lib.format.magic(1, 0) + len(header.ljust(117) + b"\n").to_bytes(2, "little") + header.ljust(117) + b"\n"
    claims = [
        Ext(third_party._ARRAY.code, write(array)),
        Ext(third_party._ARRAY.code, write([[-1, 4], [1, 2]])),
        Ext(third_party._SCALAR.code, write(["<U100000000", b""])),
        Ext(10, write(10**12)),  # bytearray(10**12)
    ]
    with pickling(allowed):
        for claim in claims:
            with pytest.raises(SerializationError):
                Codec("canaries").decode(write(claim))
        for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
            with pytest.raises(SerializationError):
                Codec("canaries").decode(head + b"\xff\xff\xff\xff\x05")


def test_depth_without_end_is_an_error_of_ours() -> None:
    """Lists in lists, and extensions in extensions."""
    data = write(1)
    for _ in range(3000):
        data = write(Ext(kinds.TUPLE.code, b"\x91" + data))
    for deep in (data, b"\x91" * 200_000 + b"\x01"):
        with pytest.raises(SerializationError):
            Codec("canaries").decode(deep)


@pytest.mark.parametrize("code", [3, 8, 9, 23, 25, 26])
def test_what_cannot_be_a_key_is_an_error_of_ours(code: int) -> None:
    """Lists as keys and as items of sets."""
    state = [[[1], 2]] if code != 25 else [None, [[[1], 2]]]
    with pytest.raises(SerializationError, match="unhashable"):
        Codec("canaries").decode(write(Ext(code, write(state))))


@pytest.mark.parametrize("packed", [{"path": LOUD}, {"x": 1}, {"path": 1}, LOUD, [], {"uri": LOUD, "packed": LOUD}])
@pytest.mark.parametrize("cls", [File, DataFrame])
def test_references_to_content_hold_nothing_but_facts(cls: type, packed: Any) -> None:
    """A path is text, a size a number."""
    data = write(Ext(kinds._PORTABLE.code, write([_refer(f"flyteish.io:{cls.__name__}"), {}, packed])))
    with pytest.raises(SerializationError):
        Codec("canaries").decode(data)


def test_frames_are_read_by_their_readers_only() -> None:
    """Another function of the library is none of them."""
    for library, name in (("pandas", "read_pickle"), ("os", "system"), ("polars", "DataFrame"), ("pandas", "eval")):
        state = [library, name, [None, None], pickle.dumps(pd.DataFrame({"x": [1]}))]
        with pytest.raises(SerializationError):
            Codec("canaries").decode(write(Ext(third_party._FRAME.code, write(state))))


# -- checkpoints ---


@pytest.mark.parametrize("state", [[1], {"a": 1}, {1}, bytearray(b"x"), np.zeros(2)])
@pytest.mark.parametrize("saved", [LOUD, "text", 1, _refer(f"{HERE}:explode"), None])
def test_a_checkpoint_restores_only_what_is_of_its_kind(state: Any, saved: Any, tmp_path: Path) -> None:
    """And leaves the state alone otherwise."""
    (tmp_path / "saved").write_bytes(write(saved))
    before = repr(state)
    with pytest.raises(CheckpointError, match="where a"):
        part_of(state, "the state").read(tmp_path / "saved")
    assert repr(state) == before


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "os.system", "subprocess.Popen", "a_canary_module.Thing", "antigravity.fly", "builtins.exec", "os.path.join",
        f"{HERE}.explode", f"{HERE}.Trap", f"{HERE}.Hungry", f"{HERE}.Loud", f"{HERE}.Record.trap", f"{HERE}.Trap.x",
    ],
)  # fmt: skip
def test_an_error_document_imports_nothing_and_calls_nothing(name: str, allowed: bool) -> None:
    """What it names is no exception class of this process, so its text arrives as a RemoteTaskError."""
    with pickling(allowed):
        rebuilt = rebuild(ErrorDocument(type=name, message="said", args=plain_data.encode(("rm -rf /",))))
    assert type(rebuilt) is RemoteTaskError


def test_an_exception_with_traps_is_rebuilt_past_all_of_them() -> None:
    """Its class is right, so it arrives as that; nothing of it runs until somebody uses it."""
    attributes = plain_data.encode({"code": 3, "args": 1, "__class__": 2, "free": 4})
    cause = document(ValueError("cause"))
    given = ErrorDocument(
        type=f"{HERE}.OddError", message="m", args=plain_data.encode(("a",)), attributes=attributes, notes=("note",),
        traceback="t", cause=cause, context=cause,
    )  # fmt: skip
    rebuilt = rebuild(given)
    assert type(rebuilt) is OddError
    assert BaseException.__dict__["args"].__get__(rebuilt) == ("a",)
    assert object.__getattribute__(rebuilt, "__dict__")["free"] == 4
    assert BaseException.__dict__["__cause__"].__get__(rebuilt).args == ("cause",)


@pytest.mark.parametrize("name", ["Outsider", "PosingError"])
def test_an_exception_that_poses_as_another_is_not_believed(name: str) -> None:
    """Neither one that says it is built in, nor one that lies about its class."""
    rebuilt = rebuild(ErrorDocument(type=f"{HERE}.{name}", message="m", args=plain_data.encode(("a",))))
    assert issubclass(type(rebuilt), Exception)


def test_an_exception_of_a_module_that_is_not_imported_is_a_stand_in(tmp_path: Path) -> None:
    """The text and the type's name are kept; the module stays where it is."""
    rebuilt: Any = rebuild(ErrorDocument(type="a_canary_module.Thing", message="lost"))
    assert (type(rebuilt), rebuilt.remote_type, str(rebuilt)) == (
        RemoteTaskError,
        "a_canary_module.Thing",
        "a_canary_module.Thing: lost",
    )
