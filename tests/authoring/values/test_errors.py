"""Exceptions as data and back: the same class, arguments, cause and notes, and never an exception of its own."""

from __future__ import annotations

import asyncio
import builtins
import datetime
import decimal
import subprocess
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyteish import errors
from flyteish._authoring.values import plain_data
from flyteish._authoring.values.errors import REMOTE_TRACEBACK, document, rebuild
from flyteish._core.model.values import ErrorDocument
from flyteish.errors import NonRecoverableError, RemoteTaskError


class PickyError(ValueError):
    """Its __init__ has side effects and wants other arguments than its args."""

    made = 0

    def __init__(self, path: str, *, code: int) -> None:
        type(self).made += 1
        super().__init__(f"{path} failed")
        self.code = code
        self.path = path


class MixedError(errors.FlyteishError, OSError):
    pass


class HostileError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        raise SystemExit(3)

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def travelled(exc: BaseException) -> Any:
    """As it arrives in another process: through the wire format, too."""
    data = msgspec.msgpack.encode(document(exc))
    return rebuild(msgspec.msgpack.decode(data, type=ErrorDocument))


# -- the same again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("a", 1, 2.5, None, b"x"),
        KeyError(("a", "tuple")),
        ZeroDivisionError(),
        NonRecoverableError("stop"),
        errors.UnknownQueueError("no queue"),
        ArithmeticError(2**80, {1: {2}}, [frozenset({3})], datetime.datetime(2024, 1, 2, 3, 4)),
        LookupError(decimal.Decimal("1.10"), uuid.UUID(int=7), datetime.date(2024, 1, 2), "\udcff"),
    ],
)
def test_type_and_arguments_arrive_exactly(exc: Exception) -> None:
    """Plain arguments keep their types: tuples stay tuples, sets sets, large ints ints."""
    arrived = travelled(raised(exc))
    assert type(arrived) is type(exc)
    assert arrived.args == exc.args
    assert str(arrived) == str(exc)


def test_the_class_own_code_is_not_called() -> None:
    """An __init__ with another signature neither fails nor runs; attributes are put back."""
    exc = PickyError("a/b", code=7)
    before = PickyError.made
    arrived = travelled(raised(exc))
    assert type(arrived) is PickyError
    assert PickyError.made == before
    assert (arrived.args, arrived.code, arrived.path) == (("a/b failed",), 7, "a/b")


def test_what_builtin_exceptions_keep_in_c_arrives() -> None:
    """errno and file names, the span of a decoding error, the name of a missing module."""
    missing = travelled(FileNotFoundError(2, "No such file", "a", None, "b"))
    assert (type(missing), missing.errno, missing.filename, missing.filename2) == (FileNotFoundError, 2, "a", "b")
    wrong = travelled(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"))
    assert (wrong.encoding, wrong.object, wrong.start, wrong.reason) == ("utf-8", b"\xff", 0, "bad")
    absent = travelled(ImportError("no", name="numpy", path="/x"))
    assert (absent.name, absent.path, absent.msg) == ("numpy", "/x", "no")
    assert travelled(MixedError(13, "denied", "f")).errno == 13
    failed = travelled(subprocess.CalledProcessError(3, ["ls"]))
    assert (failed.returncode, failed.cmd) == (3, ["ls"])


def test_causes_contexts_and_notes_arrive() -> None:
    """The chain is as it was, each link with its own notes."""
    first, second, third = KeyError("first"), ValueError("second"), TypeError("third")
    first.add_note("on the first")
    second.__cause__ = first
    third.__context__ = second
    arrived = travelled(third)
    assert isinstance(arrived.__context__, ValueError)
    assert isinstance(arrived.__context__.__cause__, KeyError)
    assert arrived.__context__.__cause__.__notes__[0] == "on the first"
    assert arrived.__context__.__suppress_context__


def test_groups_arrive_with_their_members() -> None:
    """An ExceptionGroup is one again, subgroups too."""
    group = ExceptionGroup("many", [ValueError(1), ExceptionGroup("inner", [KeyError("k")])])
    arrived = travelled(raised(group))
    assert arrived.message == "many"
    assert [type(member) for member in arrived.exceptions] == [ValueError, ExceptionGroup]
    assert arrived.exceptions[1].exceptions[0].args == ("k",)


def test_the_traceback_arrives_as_one_note_however_far_it_travels() -> None:
    """A second hop adds no second note."""
    twice = travelled(raised(travelled(raised(ValueError("x")))))
    notes = [note for note in twice.__notes__ if note.startswith(REMOTE_TRACEBACK)]
    assert len(notes) == 1
    assert "raise exc" in notes[0]


def test_bases_name_the_mro_as_retry_on_does() -> None:
    """Qualified names, the class's own first."""
    bases = document(MixedError(1, "x")).bases
    assert bases[0] == document(MixedError(1, "x")).type == f"{__name__}.MixedError"
    assert bases[1:] == (
        "flyteish.errors.FlyteishError",
        "builtins.OSError",
        "builtins.Exception",
        "builtins.BaseException",
    )


# -- what can't be the same ----------------------------------------------------------------------------------------


def test_arguments_that_are_not_plain_arrive_as_text_and_attributes_are_left_out() -> None:
    """Nothing is pickled."""
    exc = ValueError(1, Opaque())
    exc.extra, exc.kept = Opaque(), [1]  # type: ignore[attr-defined]
    arrived = travelled(exc)
    assert arrived.args == (1, "<opaque>")
    assert not hasattr(arrived, "extra")
    assert arrived.kept == [1]


def test_a_class_that_cannot_be_imported_arrives_as_remote_task_error() -> None:
    """A local class keeps its name, arguments and message."""

    class LocalError(ValueError):
        pass

    arrived = travelled(raised(LocalError("x", 2)))
    assert type(arrived) is RemoteTaskError
    assert arrived.args == ("x", 2)
    assert arrived.remote_type.endswith("LocalError")


@pytest.mark.parametrize("base", [ValueError, NonRecoverableError])
def test_a_stand_in_may_travel_on(base: type[Exception]) -> None:
    """Through a parent and the next: the original's name stays, and whether a retry can mend it."""
    local = type("LocalError", (base,), {"__module__": "no_such_module"})
    once = travelled(raised(local("x")))
    twice = travelled(raised(once))
    assert (type(twice), str(twice)) == (RemoteTaskError, "no_such_module.LocalError: x")
    assert document(twice).final is (base is NonRecoverableError)


@pytest.mark.parametrize(
    "name",
    ["no_such_module.XError", "os.path.join", "builtins.int", "json", "", "..", "a b.C", "builtins.__name__"],
)
def test_a_name_that_means_no_exception_is_no_exception_of_ours(name: str) -> None:
    """Whatever a document names, only exception classes are made."""
    arrived = rebuild(ErrorDocument(type=name, message="m"))
    assert isinstance(arrived, RemoteTaskError)


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("c"),
        StopIteration(5),
        StopAsyncIteration(),
    ],
)
def test_what_would_end_the_host_arrives_as_a_harmless_exception(exc: BaseException) -> None:
    """Control-flow exceptions become RemoteTaskError; the original is the cause."""
    arrived = travelled(raised(exc))
    assert type(arrived) is RemoteTaskError
    assert arrived.remote_type.endswith(type(exc).__name__)
    assert type(arrived.__cause__) is type(exc)
    assert arrived.__cause__.args == exc.args


def test_a_group_with_a_system_exit_can_be_raised() -> None:
    """Its dangerous members are made harmless, and so it is an Exception."""
    arrived = travelled(BaseExceptionGroup("g", [SystemExit(1), ValueError(2)]))
    assert isinstance(arrived, ExceptionGroup)
    assert [type(member) for member in arrived.exceptions] == [RemoteTaskError, ValueError]


# -- never raises ------------------------------------------------------------------------------------------------


def test_hostile_exceptions_get_a_document() -> None:
    """An exception whose every method raises is described by its type."""
    described = document(raised(HostileError("x")))
    assert described.type == f"{__name__}.HostileError"
    assert f"{__name__}.HostileError" in described.bases
    assert isinstance(rebuild(described), Exception)


def test_cycles_and_long_chains_end() -> None:
    """A cause that leads back to itself, and a chain of thousands."""
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert travelled(first).__cause__.__cause__ is None
    chain = ValueError(0)
    for number in range(5000):
        link = ValueError(number)
        link.__cause__ = chain
        chain = link
    assert travelled(chain).args == (4999,)


def test_wide_and_deep_values_are_bounded() -> None:
    """An argument that holds itself many times, groups of groups, and a huge message."""
    wide: list[Any] = []
    wide.extend([wide] * 100)
    assert document(ValueError(wide)).type == "builtins.ValueError"
    group: Exception = ValueError(1)
    for _ in range(6):
        group = ExceptionGroup("g", [group] * 20)
    assert len(msgspec.msgpack.encode(document(group))) < 2_000_000
    long = document(ValueError("x" * 10_000_000))
    assert len(long.message) < 40_000
    assert long.args is None


def test_text_that_is_no_unicode_survives() -> None:
    """Lone surrogates in messages and notes do not break the encoding."""
    exc = ValueError("\udcff")
    exc.add_note("\ud800")
    assert travelled(exc).args == ("\udcff",)


@given(st.binary(max_size=200), st.text(max_size=50))
def test_documents_that_nobody_of_ours_wrote_are_rebuilt_to_something(data: bytes, name: str) -> None:
    """Any bytes for arguments and attributes, any name: an Exception results."""
    for kind in (
        name,
        f"builtins.{name}",
        "builtins.OSError",
        "builtins.ExceptionGroup",
        "builtins.UnicodeDecodeError",
    ):
        assert isinstance(rebuild(ErrorDocument(type=kind, args=data, attributes=data, message=name)), Exception)


ODD_ARGUMENTS: dict[type, tuple[Any, ...]] = {
    BaseExceptionGroup: ("g", [ValueError()]),
    ExceptionGroup: ("g", [ValueError()]),
    UnicodeDecodeError: ("utf-8", b"a", 0, 1, "r"),
    UnicodeEncodeError: ("utf-8", "a", 0, 1, "r"),
    UnicodeTranslateError: ("a", 0, 1, "r"),
}


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)],
)
def test_every_builtin_exception_arrives(kind: type[BaseException]) -> None:
    """With odd arguments, too: as itself, or as RemoteTaskError with it as the cause."""
    exc = kind(*ODD_ARGUMENTS.get(kind, ("x", ("a", 1, 2, "b") if issubclass(kind, SyntaxError) else 2)))
    arrived = travelled(exc)
    own = arrived.__cause__ if type(arrived) is RemoteTaskError else arrived
    expected = ExceptionGroup if kind is BaseExceptionGroup else kind
    assert type(own) is expected


# -- plain data --------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC)).map(lambda at: at.replace(fold=0))
    | st.decimals(allow_nan=False) | st.uuids(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(PLAIN)
def test_plain_values_arrive_exactly(value: object) -> None:
    """Type and value are the same after encoding and decoding."""
    assert plain_data.is_plain(value)
    arrived = plain_data.decode(plain_data.encode(value))
    assert arrived == value
    assert repr(arrived) == repr(value)


@pytest.mark.parametrize("flag", [False, True])
def test_final_is_by_type_and_by_member(flag: bool) -> None:
    """Errors that no retry can mend are final, and so is a group that holds one."""
    bad = errors.InputTypeError("x") if flag else ValueError("x")
    assert document(bad).final is flag
    assert document(ExceptionGroup("g", [ExceptionGroup("h", [KeyError(), bad])])).final is flag
    assert sys.exc_info() == (None, None, None)
