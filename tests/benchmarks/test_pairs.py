"""The comparison of two trees: what counts as a loss, and that it measures the tree that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.pairs import HERE, Ratios, main, measure


def test_a_loss_is_more_than_three_per_cent_and_more_than_noise() -> None:
    """Each pair is a ratio of its own, so a machine that slows down in the middle changes nothing."""
    steady = [1.0, 1.0, 1.0, 1.0, 1.0]
    assert Ratios.of([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]) == Ratios(0.5, 0.5, 0.5)
    assert Ratios.of(steady, [1.05, 1.06, 1.04, 1.05, 1.07]).is_loss
    assert not Ratios.of(steady, [1.02, 1.02, 1.01, 1.02, 1.02]).is_loss, "less than three per cent"
    assert not Ratios.of(steady, [1.05, 1.30, 0.80, 0.90, 1.06]).is_loss, "as often better as worse"


def test_a_figure_is_of_the_tree_that_was_named() -> None:
    """The path decides, whatever is installed."""
    found = measure(HERE, "import")
    assert set(found) == {"wall", "cpu", "memory"}
    assert all(value > 0 for value in found.values())


def test_what_is_no_tree_or_no_figure_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured."""
    for arguments, said in (
        (["--old", str(tmp_path)], "is no checkout of flyteish"),
        (["--old", str(HERE), "fan-in"], "there is no figure fan-in"),
        (["--old", str(HERE), "--pairs", "0"], "--pairs is at least 1"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert said in capsys.readouterr().err
