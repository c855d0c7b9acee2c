"""The picture of a report: well-formed, the same every time, within its frame, safe with whatever names there are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec

from flyteish import SpotPolicy
from flyteish.simulation import RandomMarket, Report, Scenario, ScriptedMarket, Workload, WorkModel
from flyteish.simulation.picture import WIDTH
from tests.simulation.worlds import pools, spot

SVG = "{http://www.w3.org/2000/svg}"


def report(**policies: SpotPolicy | bool | None) -> Report:
    workload = Workload(spot(), WorkModel(3600, checkpoint_every=300, save_seconds=200), count=20, every=100)
    named = policies or {"as-written": None, "on-demand": False}
    return Scenario(workload, pools(RandomMarket(median_lifetime=1200)), policies=named).simulate(seeds=2)


def test_it_is_one_well_formed_file_that_needs_nothing_else() -> None:
    """No script, no address but the namespace, colours for dark as well."""
    text = report().picture()
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        "svg", "style", "rect", "title", "text", "line", "path",
    }  # fmt: skip
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme:dark" in text


def test_the_same_report_gives_the_same_bytes() -> None:
    """Whenever it is drawn, and whoever simulated it."""
    assert report().picture() == report().picture()


def test_names_are_shown_and_not_obeyed() -> None:
    """A policy's name with markup in it is text, and a long one is cut."""
    name = "<script>&\"'"
    text = report(**{name: None, "x" * 80: False}).picture()
    words = [each.text or "" for each in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert name in words
    assert not any("x" * 30 in each for each in words)


def test_everything_is_within_the_frame() -> None:
    """No bar, line or curve reaches beyond the picture, and no bar has a length below nothing."""
    root = ElementTree.fromstring(msgspec.structs.replace(report(), optimum=1.0).picture())
    height = float(root.attrib["height"])
    for rect in root.iter(f"{SVG}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        wide, high = float(rect.attrib["width"]), float(rect.attrib["height"])
        assert 0 <= x <= x + wide <= WIDTH
        assert 0 <= y <= y + high <= height
    for path in root.iter(f"{SVG}path"):
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path.attrib["d"]):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= height


def test_costs_are_drawn_to_scale_beside_what_they_are_compared_with() -> None:
    """A bar is as much shorter as it is cheaper; on-demand and the optimum are marked."""
    drawn = msgspec.structs.replace(report(), optimum=1.0)
    root = ElementTree.fromstring(drawn.picture())
    lengths = {}
    for rect in root.iter(f"{SVG}rect"):
        title = rect.findtext(f"{SVG}title") or ""
        if "$" in title:
            lengths[title.partition(":")[0]] = float(rect.attrib["width"])
    share = drawn.of("as-written").dollars / drawn.of("on-demand").dollars
    assert abs(lengths["as-written"] / lengths["on-demand"] - share) < 0.001
    words = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert "offline optimum $1.00" in words
    assert any(each.startswith("on-demand $") for each in words)


def test_a_report_of_nothing_has_a_picture_too() -> None:
    """Nothing succeeded, nothing was paid."""
    market = ScriptedMarket(capacity=[(0, 0)])
    nothing = Scenario(Workload(spot(fallback="never"), WorkModel(10)), pools(market), horizon=1).simulate()
    assert nothing.of("as-written").unfinished == 1
    ElementTree.fromstring(nothing.picture())
