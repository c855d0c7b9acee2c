"""A task's signature binds like Python, checks like its annotations, and gives equal calls equal bytes."""

from __future__ import annotations

import functools
import inspect
import os
import re
import subprocess
import sys
import threading
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
)

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flyteish._authoring.tasks.signature import TaskSignature
from flyteish._authoring.values.codec import PickleWarning
from flyteish._authoring.values.typecheck import label
from flyteish.errors import InputTypeError, OutputTypeError, SerializationError, TaskDefinitionError
from tests.authoring.values.value_strategies import VALUES, same

T = TypeVar("T")
Number = TypeVar("Number", int, float)
UserId = NewType("UserId", int)


class Mode(Enum):
    FAST = 1


class Level(IntEnum):
    LOW = 1


@dataclass
class Config:
    rate: float
    parent: Config | None = None


class Settings(pydantic.BaseModel):
    size: int = 1


class Row(TypedDict):
    name: str
    weight: NotRequired[float]
    next: NotRequired[Row]


class Pair(NamedTuple):
    left: int
    right: int


class Named(Protocol):
    name: str


@typing.runtime_checkable
class Closable(Protocol):
    def close(self) -> None: ...


class Box(Generic[T]):
    pass


def signature(function: Callable[..., Any], name: str = "train.fit") -> TaskSignature:
    return TaskSignature.of(function, name)


def declared(annotation: Any) -> TaskSignature:
    """The signature of a task with one parameter and a result of this type."""

    def fit(x):
        return x

    fit.__annotations__ = {"x": annotation, "return": annotation}
    return signature(fit)


def call(sig: TaskSignature, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return sig.decode_inputs(sig.encode_inputs(args, kwargs))


# -- binding ---------------------------------------------------------------------------------------


def every_kind(a, b=2, /, c=3, *rest, d, e=5, **more):
    return a, b, c, rest, d, e, more


def only_positions(a, b, /):
    return a, b


def only_keywords(*, a=1, b):
    return a, b


def nothing():
    return ()


FUNCTIONS = [every_kind, only_positions, only_keywords, nothing]
ARGS = st.lists(st.integers(), max_size=5).map(tuple)
KWARGS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(), max_size=5)


def refusal(function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int], python: TypeError) -> str:
    """What inspect says of it; it binds some calls that Python refuses in 3.13.0, and there what Python says."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return str(python).partition("() ")[2]


@given(st.sampled_from(FUNCTIONS), ARGS, KWARGS)
def test_calls_bind_as_python_binds_them(
    function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    """A call that Python takes gives the same arguments; another fails with Python's own words."""
    sig = signature(function)
    try:
        expected = function(*args, **kwargs)
    except TypeError as error:
        words = f"train.fit() {refusal(function, args, kwargs, error)}"
        with pytest.raises(InputTypeError, match=f"^{re.escape(words)}$"):
            sig.encode_inputs(args, kwargs)
        with pytest.raises(TypeError, match=f"^{re.escape(words)}$"):
            sig.bind(args, kwargs)
        return
    assert tuple(sig.bind(args, kwargs).arguments.values()) == expected
    back, named = sig.decode_inputs(sig.encode_inputs(args, kwargs))
    assert function(*back, **named) == expected


def test_a_missing_argument_is_named() -> None:
    """In Python's words, after the task's name."""

    async def fit(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"^train\.fit\(\) missing a required argument: 'x'$"):
        signature(fit).encode_inputs((), {})


@given(st.permutations(list("dexyz")), st.booleans(), st.booleans())
def test_equal_calls_have_equal_bytes(order: list[str], by_position: bool, with_defaults: bool) -> None:
    """Whether by position or name, in whatever order of keywords, with defaults written out or not."""
    sig = signature(every_kind)
    kwargs = {name: ord(name) for name in order if name != "e"}
    args: tuple[int, ...] = (1, 2)
    if with_defaults:
        kwargs["e"] = 5
    if by_position:
        args = (1, 2, 3)
    expected = sig.encode_inputs((1,), {name: ord(name) for name in "dxyz"})
    assert sig.encode_inputs(args, kwargs) == expected


def test_an_int_for_a_float_is_the_same_call() -> None:
    """What the task gets is the same, so its identity is too."""
    sig = declared(list[float])
    assert sig.encode_inputs(([1, 2.5],), {}) == sig.encode_inputs(([1.0, 2.5],), {})
    assert same(call(sig, [1, 2.5]), (([1.0, 2.5],), {}))


def test_the_order_of_a_dict_argument_is_kept() -> None:
    """It is part of the value, unlike the order of keywords."""
    sig = declared(dict[str, int])
    assert list(call(sig, {"b": 1, "a": 2})[0][0]) == ["b", "a"]


def test_a_call_recorded_before_the_parameters_changed_is_read_by_name() -> None:
    """New parameters get their defaults, order doesn't matter, and what can't be mended is an error."""

    def old(a, b): ...

    def reordered(b, a, c=7, *d, **e): ...

    def grown(a, b, c): ...

    def shrunk(a): ...

    data = signature(old).encode_inputs((1, 2), {})
    assert signature(reordered).decode_inputs(data) == ((2, 1, 7), {})
    with pytest.raises(SerializationError, match="no 'c', which is now required"):
        signature(grown).decode_inputs(data)
    with pytest.raises(SerializationError, match="has 'b', which the task no longer takes"):
        signature(shrunk).decode_inputs(data)


def test_parameters_are_listed_for_the_command_line() -> None:
    """Name, resolved annotation, default and kind, in the order of declaration."""

    def fit(data: Path, /, rate: Annotated[float, "per second"] = 0.1, *, mode: Mode, tags=()): ...

    assert [tuple(p)[:4] for p in signature(fit).parameters] == [
        ("data", Path, inspect.Parameter.empty, False),
        ("rate", Annotated[float, "per second"], 0.1, True),
        ("mode", Mode, inspect.Parameter.empty, False),
        ("tags", inspect.Parameter.empty, (), True),
    ]
    assert signature(fit).parameters[2].kind is inspect.Parameter.KEYWORD_ONLY


def numbered(cases: Sequence[tuple[Any, ...]]) -> list[str]:
    """Names of cases that are the same in every process, unlike the order of sets."""
    return [f"{place}-{label(case[0])}" for place, case in enumerate(cases)]


# -- types -----------------------------------------------------------------------------------------

ACCEPTED: list[tuple[Any, Any]] = [
    (int, 3),
    (int, 2**100),
    (float, float("inf")),
    (complex, 1j),
    (str, "\ud800"),
    (bytes, b"x"),
    (bytearray, bytearray(b"x")),
    (None, None),
    (Any, {1, (2, b"x")}),
    (object, (1,)),
    (list, [(1,)]),
    (dict, {(1, 2): {3}}),
    (tuple, (1, [2])),
    (list[int], [1, 2**70]),
    (list[Any], [(1,), {2}]),
    (dict[str, list[int]], {"a": [1], "b": []}),
    (dict[tuple[int, str], float], {(1, "a"): 1.5}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (set[str], {"a"}),
    (frozenset[int], frozenset({1})),
    (deque[int], deque([1], 3)),
    (OrderedDict[str, int], OrderedDict(a=1)),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (Counter[str], Counter("aab")),
    (typing.List, [1, "a"]),  # noqa: UP006
    (typing.Dict[str, int], {"a": 1}),  # noqa: UP006
    (Sequence[int], (1, 2)),
    (Sequence[str], "abc"),
    (Iterable[int], [1]),
    (Mapping[str, int], {"a": 1}),
    (Optional[int], None),  # noqa: UP045
    (int | str | None, "a"),
    (int | float, 1),
    (float | int, 1),
    (list[int] | list[str], ["a"]),
    (list[float] | list[int], [1]),
    (Literal["a", 1, None], 1),
    (Literal[Mode.FAST], Mode.FAST),
    (Mode, Mode.FAST),
    (Config, Config(1.0, Config(2.0))),
    (Settings, Settings(size=3)),
    (Row, {"name": "a", "next": {"name": "b", "weight": 1.0}}),
    (Pair, Pair(1, 2)),
    (date, datetime(2024, 1, 1)),
    (Path, Path("x")),
    (UserId, 3),
    (Number, 1.5),
    (T, {1}),
    (Annotated[list[int], {"unit": "s"}], [1]),
    (type[Config], Config),
    (Callable[[int], int], len),
    (Named, [1]),
    (np.ndarray, np.array([])),
]


@pytest.mark.parametrize("annotation, value", ACCEPTED, ids=numbered(ACCEPTED))
def test_a_value_of_the_declared_type_arrives_exactly(annotation: Any, value: Any) -> None:
    """As an argument and as a result."""
    sig = declared(annotation)
    args, _ = call(sig, value)
    result = sig.decode_result(sig.encode_result(value))
    if annotation is np.ndarray:
        assert isinstance(args[0], np.ndarray)
        return
    assert same(args[0], value)
    assert same(result, value)


CONVERTED: list[tuple[Any, Any, Any]] = [
    (float, 3, 3.0),
    (float, np.float64(1.5), 1.5),
    (float, np.float32(1.5), 1.5),
    (float, np.int64(3), 3.0),
    (int, np.int64(3), 3),
    (int, Level.LOW, 1),
    (bool, np.bool_(True), True),
    (str, np.str_("a"), "a"),
    (complex, 1, 1 + 0j),
    (float | None, np.float64(1.5), 1.5),
    (list[float], [1, np.float32(2)], [1.0, 2.0]),
    (dict[str, float], OrderedDict(a=1), OrderedDict(a=1.0)),
    (dict[float, int], {1: 1}, {1.0: 1}),
    (tuple[float, ...], (1,), (1.0,)),
    (tuple[float, int], (1, 1), (1.0, 1)),
    (set[float], {1}, {1.0}),
    (frozenset[float], frozenset({1}), frozenset({1.0})),
    (deque[float], deque([1], 3), deque([1.0], 3)),
    (Row, {"name": "a", "weight": 1}, {"name": "a", "weight": 1.0}),
]


@pytest.mark.parametrize("annotation, value, expected", CONVERTED, ids=numbered(CONVERTED))
def test_numbers_and_text_arrive_as_declared(annotation: Any, value: Any, expected: Any) -> None:
    """Without loss, and without changing the caller's own containers."""
    before = repr(value)
    assert same(call(declared(annotation), value)[0][0], expected)
    assert repr(value) == before


REFUSED: list[tuple[Any, Any, str]] = [
    (int, "ten", "expects int, got str ('ten')"),
    (int, True, "expects int, got bool (True)"),
    (int, 1.0, "expects int, got float (1.0)"),
    (bool, 1, "expects bool, got int (1)"),
    (float, "1", "expects float, got str ('1')"),
    (float, True, "expects float, got bool (True)"),
    (float, 2**53 + 1, "expects float, got int (9007199254740993), which no float holds exactly"),
    (float, 10**400, "which no float holds exactly"),
    (float, np.int64(2**53 + 1), "which no float holds exactly"),
    (str, b"x", "expects str, got bytes (b'x')"),
    (str, None, "expects str, got None"),
    (Path, "x", "expects Path, got str ('x')"),
    (list[int], (1, 2), "expects list[int], got tuple ((1, 2))"),
    (list[int], [1, "x"], "expects list[int], got str ('x') at x[1], where int is expected"),
    (dict[str, list[int]], {"a": [1, None]}, "got None at x['a'][1], where int is expected"),
    (dict[str, int], {1: 1}, "got int (1) at x.keys()[0], where str is expected"),
    (tuple[int, str], (1, 2), "got int (2) at x[1], where str is expected"),
    (tuple[int, str], (1,), "whose length is 1, not 2"),
    (set[int], {"a"}, "got str ('a') at x{...}, where int is expected"),
    (int | str | None, 1.5, "expects int | str | None, got float (1.5)"),
    (Optional[list[int]], ["a"], "expects list[int] | None, got str ('a') at x[0], where int is expected"),  # noqa: UP045
    (Literal["a", 1], True, "expects Literal['a', 1], got bool (True)"),
    (Mode, 1, "expects tests.authoring.tasks.test_signature.Mode, got int (1)"),
    (Config, {"rate": 1}, "expects tests.authoring.tasks.test_signature.Config, got dict"),
    (Settings, {"size": 1}, "expects tests.authoring.tasks.test_signature.Settings, got dict"),
    (Row, {"nam": "a"}, "which lacks 'name'"),
    (Row, {"name": "a", "colour": 1}, "which has 'colour' besides"),
    (Row, {"name": "a", "next": {"name": 1}}, "got int (1) at x['next']['name'], where str is expected"),
    (NDArray[np.float64], np.array([1]), "whose dtype is int64"),
    (Sequence[int], deque(["a"]), "got str ('a') at x[0]"),
    (Closable, 1, "expects tests.authoring.tasks.test_signature.Closable, got int (1)"),
    (Callable[[int], int], 1, "got int (1)"),
    (type[Config], 1, "got int (1)"),
    (Number, "a", "got str ('a')"),
]


@pytest.mark.parametrize("annotation, value, message", REFUSED, ids=numbered(REFUSED))
def test_a_wrong_type_is_named_with_its_place(annotation: Any, value: Any, message: str) -> None:
    """Task, parameter, what is declared, what came, and where inside it."""
    with pytest.raises(InputTypeError) as raised:
        declared(annotation).encode_inputs((value,), {})
    assert str(raised.value).startswith("train.fit(): parameter 'x' expects ")
    assert message in str(raised.value)


def test_a_wrong_result_says_what_was_declared() -> None:
    """In the words of the annotation."""
    sig = declared(dict[str, float])
    with pytest.raises(OutputTypeError) as raised:
        sig.encode_result([1, 2])
    assert str(raised.value) == "train.fit(): declared to return dict[str, float], returned list ([1, 2])"
    with pytest.raises(OutputTypeError, match=r"returned str \('x'\) at result\['a'\], where float is expected"):
        sig.encode_result({"a": "x"})


@given(VALUES)
def test_without_annotations_anything_goes_and_arrives_exactly(value: Any) -> None:
    """Also as a result of a task that is declared to return None."""

    def fit(x) -> None: ...

    sig = signature(fit)
    assert same(call(sig, value)[0][0], value)
    assert same(sig.decode_result(sig.encode_result(value)), value)


def test_starred_parameters_are_checked_one_by_one() -> None:
    """``*sizes: int`` means that each is an int."""

    def fit(*sizes: float, **rates: int): ...

    sig = signature(fit)
    assert same(call(sig, 1, 2.0, b=1, a=2), ((1.0, 2.0), {"a": 2, "b": 1}))
    with pytest.raises(InputTypeError, match=r"parameter '\*sizes' expects float, got str \('x'\) at sizes\[1\]"):
        sig.encode_inputs((1, "x"), {})
    with pytest.raises(InputTypeError, match=r"parameter '\*\*rates' expects int, got str \('x'\) at rates\['a'\]"):
        sig.encode_inputs((), {"b": 1, "a": "x"})


def test_a_default_need_not_be_of_the_declared_type_if_it_is_none() -> None:
    """``x: int = None`` means optional, as many write it; another wrong default is refused at first use."""

    def fit(x: int = None): ...  # type: ignore[assignment] # noqa: RUF013

    def wrong(x: int = "a"): ...  # type: ignore[assignment]

    assert call(signature(fit)) == ((None,), {})
    assert call(signature(fit), 3) == ((3,), {})
    with pytest.raises(TaskDefinitionError, match=r"'x' is declared int, but its default is str \('a'\)"):
        signature(wrong).encode_inputs((1,), {})


# -- annotations -----------------------------------------------------------------------------------


def test_annotations_may_name_what_is_defined_later() -> None:
    """They are resolved when the first value asks."""

    def fit(x: Later) -> list[Later]:
        return [x]

    sig = signature(fit)
    assert call(sig, Later(1)) == ((Later(1),), {})
    assert sig.decode_result(sig.encode_result([Later(2)])) == [Later(2)]


class Later(NamedTuple):
    value: int


def test_annotations_may_name_local_classes() -> None:
    """Those that the function uses, and those that are handed over; both travel without pickle."""

    @dataclass
    class Inner:
        x: int

    @dataclass
    class Outer:
        inner: Any

    def uses(x: Inner): ...

    def fit(x: Outer) -> Inner:
        return Inner(1)

    with pytest.raises(TaskDefinitionError, match=r"train\.fit\(\): the annotation of parameter 'x'.*'Outer'"):
        signature(fit).encode_inputs((1,), {})
    sig = TaskSignature.of(fit, "train.fit", {"Outer": Outer})
    assert sig.decode_result(sig.encode_result(Inner(1))) == Inner(1)
    assert call(sig, Outer(Inner(2))) == ((Outer(Inner(2)),), {})


def test_annotations_that_are_no_types_are_refused() -> None:
    """At first use, with the parameter's name."""

    def fit(x: 3): ...  # type: ignore[valid-type]

    with pytest.raises(TaskDefinitionError, match="annotation of parameter 'x' cannot be used: 3 is not a type"):
        _ = signature(fit).parameters


@pytest.mark.parametrize("what", [3, "fit", None])
def test_only_functions_become_tasks(what: Any) -> None:
    """Said at decoration."""
    with pytest.raises(TaskDefinitionError, match="made of a function"):
        signature(what)


def test_generators_are_refused_at_decoration() -> None:
    """A task returns; what yields could not be stored."""

    def fit() -> Iterator[int]:
        yield 1

    with pytest.raises(TaskDefinitionError, match="Return a list instead"):
        signature(fit)


def test_decorated_functions_keep_their_own_module() -> None:
    """Annotations and classes are looked up where the inner function was written."""

    def fit(x: Config) -> Config:
        return x

    @functools.wraps(fit)
    def logged(*args, **kwargs):
        return fit(*args, **kwargs)

    for function in (logged, functools.partial(fit), functools.partial(logged)):
        assert call(signature(function), Config(1.0)) == ((Config(1.0),), {})
        with pytest.raises(InputTypeError, match=r"expects tests\.authoring\.tasks\.test_signature\.Config"):
            signature(function).encode_inputs((1,), {})


def test_keywords_may_be_declared_by_a_typed_dict() -> None:
    """``**options: Unpack[Row]``: each keyword has its own type."""

    def fit(**options: Unpack[Row]): ...

    sig = signature(fit)
    assert call(sig, name="a", weight=1) == ((), {"name": "a", "weight": 1.0})
    with pytest.raises(InputTypeError, match=r"\['name'\], where str is expected"):
        sig.encode_inputs((), {"name": 1})


# -- what cannot travel ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement is new in Python 3.12")
def test_type_aliases_may_be_recursive_and_generic() -> None:
    """They are compiled when the first value asks."""
    names: dict[str, Any] = {}
    exec("type Json = int | list[Json]\ntype Pairs[K, V] = dict[V, K]", names)
    assert call(declared(names["Json"]), [1, [2, []]]) == (([1, [2, []]],), {})
    with pytest.raises(InputTypeError):
        declared(names["Json"]).encode_inputs(([1, ["a"]],), {})
    assert call(declared(names["Pairs"][float, str]), {"a": 1}) == (({"a": 1.0},), {})
    with pytest.raises(InputTypeError, match=r"got str \('x'\) at x\['a'\], where float is expected"):
        declared(names["Pairs"][float, str]).encode_inputs(({"a": "x"},), {})


def test_an_unserialisable_argument_or_result_is_named() -> None:
    """Task, parameter, the way to the culprit, its type and why."""
    sig = signature(every_kind)
    with pytest.raises(SerializationError) as raised:
        sig.encode_inputs(([1, {"lock": threading.Lock()}],), {"d": 1})
    assert str(raised.value) == (
        "train.fit(): parameter 'a' cannot be serialised: _thread.lock at a[1]['lock']: "
        "cannot pickle '_thread.lock' object; create it inside the task"
    )
    with pytest.raises(SerializationError, match=r"train\.fit\(\): the result cannot be serialised: generator"):
        sig.encode_result(n for n in "x")


def test_pickle_is_said_with_the_tasks_name() -> None:
    """Once for each task and type."""
    sig = declared(Box)
    with pytest.warns(PickleWarning, match=r"train\.fit\(\): .*Box travels by cloudpickle"):
        call(sig, Box[int]())
    call(sig, Box())  # warnings are errors here: no second one


def test_importing_the_signature_loads_no_other_library() -> None:
    """``import flyteish`` must stay light."""
    code = (
        "import flyteish._authoring.tasks.signature, sys;"
        "print([m for m in ('pydantic', 'numpy', 'cloudpickle', 'pandas', 'anyio') if m in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == "[]"
