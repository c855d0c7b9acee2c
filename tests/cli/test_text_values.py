"""How each type is spelt on a command line, and what is said of a text that is none of its values."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import msgspec
import numpy as np
import pydantic
import pytest

from flyteish import io
from flyteish.cli.text_values import UnreadableText, value_of


class Colour(Enum):
    RED = "r"
    BLUE = 2


@dataclass
class Point:
    x: int
    y: float = 0.5


class Row(TypedDict):
    name: str
    count: int


class Pair(NamedTuple):
    left: int
    right: str


class Record(msgspec.Struct):
    at: datetime


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(gt=0)
    tags: list[str] = []


@dataclass
class Outer:
    model: Model
    path: Path
    points: list[Point]


class Thing:
    pass


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    "text, kind, value",
    [
        ("07", str, "07"),
        ("", str, ""),
        ("-3", int, -3),
        ("1e3", float, 1000.0),
        ("1+2j", complex, 1 + 2j),
        ("0.10", Decimal, Decimal("0.10")),
        ("1/3", Fraction, Fraction(1, 3)),
        ("ab", bytes, b"ab"),
        ("12345678-1234-5678-1234-567812345678", UUID, UUID("12345678-1234-5678-1234-567812345678")),
        ("2025-03-01", date, date(2025, 3, 1)),
        ("2025-03-01T12:00:00+00:00", datetime, datetime(2025, 3, 1, 12, tzinfo=UTC)),
        ("12:30:00", time, time(12, 30)),
        ("2h30m", timedelta, timedelta(hours=2.5)),
        ("a/b", Path, Path("a/b")),
        ("RED", Colour, Colour.RED),
        ("r", Colour, Colour.RED),
        ("2", Colour, Colour.BLUE),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("null", int | None, None),
        ("3", int | None, 3),
        ("3", int | str, 3),
        ("three", int | str, "three"),
        ("null", str | None, None),
        ("true", bool | None, True),
        ("7", UserId, 7),
        ("7", Annotated[int, "units"], 7),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("[1, 2]", set[int], {1, 2}),
        ('{"a": 1.5}', dict[str, float], {"a": 1.5}),
        ('{"x": 1}', Point, Point(1)),
        ('[{"x": 1, "y": 2}]', list[Point], [Point(1, 2.0)]),
        ('{"name": "n", "count": 1}', Row, {"name": "n", "count": 1}),
        ('[1, "r"]', Pair, Pair(1, "r")),
        ('{"at": "2025-03-01T12:00:00"}', Record, Record(datetime(2025, 3, 1, 12))),
        ('{"size": 2}', Model, Model(size=2)),
        (
            '{"model": {"size": 2}, "path": "p", "points": [{"x": 1}]}',
            Outer,
            Outer(Model(size=2), Path("p"), [Point(1)]),
        ),
        ('{"size": 2}', Model | None, Model(size=2)),
        ('{"x": 2}', Model | Point, Point(2)),
        ("[1]", Any, [1]),
        ("word", Any, "word"),
        ("1.5", inspect.Parameter.empty, 1.5),
        ('"7"', object, "7"),
    ],
)  # fmt: skip
def test_a_text_becomes_a_value_of_its_type(text: str, kind: Any, value: Any) -> None:
    """Plain text for what has a plain form, JSON for what has structure."""
    found = value_of(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("x", int, "expected a whole number"),
        ("1.5", int, "expected a whole number"),
        ("x", float, "expected a number"),
        ("yes", bool, "expected true or false"),
        ("soon", datetime, "expected a time such as 2025"),
        ("-1s", timedelta, "expected a time span such as"),
        ("GREEN", Colour, "expected RED or BLUE"),
        ("c", Literal["a", "b"], "expected a or b"),
        ("x", int | None, "expected a whole number; or expected null"),
        ("[1", list[int], r"expected JSON for list\[int\]"),
        ('[1, "a"]', list[int], r"Expected `int`, got `str` - at `\$\[1\]`"),
        ('{"y": 1}', Point, "missing required field `x`"),
        ('{"size": 0}', Model, "greater than 0"),
        ('[{"size": 0}]', list[Model], r"greater than 0.*at `\$\[0\]`"),
        ("[]", OrderedDict[str, int], "OrderedDict"),
        ("1", Thing, "Thing cannot be given on the command line"),
        ("1", Thing | Point, "cannot be given on the command line"),
    ],
)
def test_a_text_of_another_type_is_refused_with_what_is_accepted(text: str, kind: Any, words: str) -> None:
    """The reason names what would be accepted and, inside JSON, where."""
    with pytest.raises(UnreadableText, match=f"(?s){words}"):
        value_of(text, kind)


def test_at_takes_the_value_from_a_file(tmp_path: Path) -> None:
    """``@file`` for structure and for text, ``@@`` for a literal ``@``; of a path only the name counts."""
    file = tmp_path / "value"
    file.write_text(" [1, 2]\n")
    assert value_of(f"@{file}", list[int]) == [1, 2]
    assert value_of(f"@{file}", str) == " [1, 2]\n"
    assert value_of(f"@{file}", bytes) == b" [1, 2]\n"
    assert value_of("@@home", str) == "@home"
    assert value_of("@odd", Path) == Path("@odd")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, and one that is no text."""
    with pytest.raises(UnreadableText, match="missing cannot be read: No such file"):
        value_of(f"@{tmp_path}/missing", str)
    (tmp_path / "data").write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableText, match="not UTF-8"):
        value_of(f"@{tmp_path}/data", int)


def test_files_and_arrays(tmp_path: Path) -> None:
    """A File is given by its path or URL, an array as JSON."""
    (tmp_path / "f.txt").write_text("content")
    assert value_of(str(tmp_path / "f.txt"), io.File).name == "f.txt"
    assert value_of("s3://bucket/key.csv", io.File[str]).path == "s3://bucket/key.csv"
    with pytest.raises(UnreadableText, match="no such path"):
        value_of(str(tmp_path / "none"), io.File)
    assert value_of("[[1, 2]]", np.ndarray).shape == (1, 2)
