"""Recorded spot markets: what a file must hold, what is said of a wrong one, and the numbers drawn from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyteish.errors import ConfigurationError
from flyteish.markets.market import TraceMarket
from flyteish.markets.traces import Trace, load_trace


def write(folder: Path, content: object) -> Path:
    file = folder / "zone.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_trace_is_read_with_its_prices(tmp_path: Path) -> None:
    """The file's ticks, gap and prices come out as they were recorded; other keys are left alone."""
    content = {
        "metadata": {"gap_seconds": 30, "zone": "a"},
        "data": [1, 0, 2],
        "prices": [1, 0.5, 0.25],
        "x": 1,
    }
    trace = load_trace(write(tmp_path, content))
    assert trace == Trace(name="zone.json", gap_seconds=30.0, data=(1, 0, 2), prices=(1.0, 0.5, 0.25))
    assert repr(trace) == "Trace(zone.json: 3 ticks of 30 s, 0..2, with prices)"


def test_prices_are_optional(tmp_path: Path) -> None:
    """A recording without prices has none, rather than zeros."""
    trace = load_trace(str(write(tmp_path, {"metadata": {"gap_seconds": 0.5}, "data": [0]})))
    assert (trace.prices, trace.seconds) == (None, 0.5)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "it holds a list, not an object"),
        ({"data": [1]}, "metadata.gap_seconds is missing"),
        ({"metadata": {"gap_seconds": 0}, "data": [1]}, "metadata.gap_seconds=0, expected seconds > 0"),
        ({"metadata": {"gap_seconds": "5"}, "data": [1]}, "metadata.gap_seconds='5'"),
        ({"metadata": {"gap_seconds": 5}}, "data is missing"),
        ({"metadata": {"gap_seconds": 5}, "data": 3}, "data is not a list"),
        ({"metadata": {"gap_seconds": 5}, "data": []}, "data is empty"),
        ({"metadata": {"gap_seconds": 5}, "data": [1, -1]}, r"data\[1\]=-1, expected an int >= 0"),
        ({"metadata": {"gap_seconds": 5}, "data": [0.5]}, r"data\[0\]=0.5, expected an int >= 0"),
        ({"metadata": {"gap_seconds": 5}, "data": [True]}, r"data\[0\]=True"),
        (
            {"metadata": {"gap_seconds": 5}, "data": [1], "prices": ["a"]},
            r"prices\[0\]='a', expected \$ per hour",
        ),
        ({"metadata": {"gap_seconds": 5}, "data": [1], "prices": [1, 2]}, "data has 1 ticks and prices 2"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: object, complaint: str) -> None:
    """The error names the file and the first thing in it that is not as it should be."""
    file = write(tmp_path, content)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_trace(file)
    assert str(file) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Neither a missing file nor a directory is a trace, and the reason of the system is passed on."""
    with pytest.raises(ConfigurationError, match=r"none\.json' cannot be read: No such file"):
        load_trace(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_trace(tmp_path)


def test_the_statistics_of_a_recording() -> None:
    """Up-runs, availability and drops, for one machine and for two."""
    trace = Trace(name="t", gap_seconds=10.0, data=(1, 1, 0, 2, 2, 2, 1, 0))
    assert trace.up_runs() == [20.0, 40.0]
    one = trace.statistics()
    assert (one.seconds, one.availability, one.up_runs, one.median_up_run) == (80.0, 0.75, 2, 30.0)
    assert (one.mean_up_run, one.drops, one.peak) == (30.0, 3, 2)
    two = trace.statistics(at_least=2)
    assert (two.availability, two.up_runs, two.median_up_run) == (0.375, 1, 30.0)


def test_the_statistics_of_a_drought() -> None:
    """A recording in which nothing could be had has no up-runs, and no division by nothing."""
    dry = Trace(name="dry", gap_seconds=10.0, data=(0, 0)).statistics()
    assert (dry.availability, dry.up_runs, dry.median_up_run, dry.mean_up_run) == (0.0, 0, 0.0, 0.0)


# -- real recordings, where they lie beside the checkout ----------------------------------------------------

RECORDED = Path(__file__).resolve().parents[2] / "../shared/spot-traces"


def test_recorded_markets_can_be_read_and_followed() -> None:
    """Real recordings load; each change of a market made of one is a change of the recording, at its own tick."""
    files = sorted(RECORDED.rglob("*.json"))
    if not files:
        pytest.skip("no recorded traces beside the checkout")
    for file in files:
        trace = load_trace(file)
        market = TraceMarket(trace)
        ticks = [i for i in range(1, len(trace.data)) if trace.data[i] != trace.data[i - 1]]
        at, seen = 0.0, []
        while (change := market.next_change(at)) is not None and change < trace.seconds:
            seen.append((round(change / trace.gap_seconds), market.capacity(change)))
            at = change
        assert seen == [(i, trace.data[i]) for i in ticks]


def test_recorded_gpu_zones_are_as_patient_as_published() -> None:
    """Single V100 machines stay for 0.3 to 1.4 hours in the median of each zone's up-runs."""
    files = sorted(RECORDED.rglob("1-node/*/*v100_1.json"))
    if not files:
        pytest.skip("no recorded traces beside the checkout")
    medians = [load_trace(file).statistics().median_up_run / 3600 for file in files]
    assert 0.25 <= min(medians) <= max(medians) <= 1.45
