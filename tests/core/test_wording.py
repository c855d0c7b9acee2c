"""How things are said: one form for each thing, whoever says it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from flyteish._core.wording import counted, did_you_mean, money, not_accepted, short_span, size, span
from tests.house.sources import modules

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    "seconds,said",
    [
        (0, "0 s"), (0.0003, "0 s"), (0.4, "0.4 s"), (12, "12 s"), (90, "90 s"), (119.96, "120 s"), (185, "3.08 min"),
        (HOUR, "60 min"), (2 * HOUR, "2 h"), (58.654 * HOUR, "58.7 h"), (72 * HOUR, "72 h"), (100 * HOUR, "4.17 days"),
        (365 * DAY, "365 days"), (4000 * DAY, "4,000 days"), (-90, "-90 s"),
        (timedelta(minutes=3), "3 min"), (None, "-"),
    ],
)  # fmt: skip
def test_a_span_of_time_has_three_figures_and_the_unit_that_people_use(
    seconds: float | timedelta | None, said: str
) -> None:
    """In errors, explanations, plans, forecasts and reports alike."""
    assert span(seconds) == said


@pytest.mark.parametrize(
    "seconds,said",
    [
        (None, "-"), (0.44, "0.4s"), (9.96, "9s"), (12.9, "12s"), (185, "3m05s"), (2 * HOUR + 420, "2h07m"),
        (3 * DAY + 4 * HOUR, "3d04h"),
    ],
)  # fmt: skip
def test_a_span_of_time_in_a_column_has_no_blank(seconds: float | None, said: str) -> None:
    """So that `awk` finds as many fields in every line."""
    assert short_span(seconds) == said


@pytest.mark.parametrize(
    "count,said",
    [(0, "0 bytes"), (512, "512 bytes"), (256 * 1024, "256.0 KiB"), (5 * 1024**3, "5.0 GiB"), (3e15, "2728.5 TiB")],
)
def test_a_size_is_said_in_the_units_of_limits(count: float, said: str) -> None:
    """KiB as in `max_value_size = "256 KiB"`, so that what is too large can be compared with what is accepted."""
    assert size(count) == said


@pytest.mark.parametrize(
    "dollars,said",
    [
        (None, "-"), (0, "$0.00"), (1e-9, "<$0.0001"), (0.0312, "$0.0312"), (0.36, "$0.3600"), (12.4, "$12.40"),
        (1506.92, "$1,506.92"), (-12.4, "-$12.40"),
    ],
)  # fmt: skip
def test_money_that_is_something_never_reads_as_nothing(dollars: float | None, said: str) -> None:
    """Four decimals below a dollar, two above."""
    assert money(dollars) == said


def test_counts_agree_with_their_noun() -> None:
    """One attempt, two attempts."""
    assert [counted(number, "attempt") for number in (0, 1, 2, 1025)] == [
        "0 attempts", "1 attempt", "2 attempts", "1,025 attempts",
    ]  # fmt: skip


def test_a_refused_parameter_is_named_with_its_value_and_what_is_accepted() -> None:
    """So that nobody has to look anything up."""
    error = not_accepted("Pool('spot'): grace", -1, "seconds >= 0")
    assert str(error) == "Pool('spot'): grace=-1 is not accepted: expected seconds >= 0"


def test_a_misspelt_name_gets_the_near_ones_and_a_strange_one_none() -> None:
    """At most three, whatever order and how often they come."""
    assert did_you_mean("trian", ["eval", "train", "train"]) == "; did you mean train?"
    assert did_you_mean("runs", iter(["run", "runt"])) == "; did you mean run or runt?"
    assert did_you_mean("xyz", ["eval", "train"]) == ""


def test_nobody_else_words_these_things() -> None:
    """Near names, and units of time and size made from numbers, have one home."""
    ways = re.compile(r'did you mean|\} (min|h|KiB|MiB|GB|kB)["\' ]|\}m\{')
    allowed = {"src/flyteish/_core/wording.py"}
    assert {source.name: found[0] for source in modules() if (found := ways.search(source.text))}.keys() == allowed
