"""The figures of some policies as one SVG picture: costs, finish times, what went wrong, and who ran where over time.

Self-contained: no script, no font or file from elsewhere, colours for light and for dark; the same figures give the
same bytes. Must not compute any figure that a report has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from flyteish._core.wording import span
from flyteish.simulation.figures import PolicyReport

WIDTH: Final = 960
_LEFT: Final = 190
"""Where bars and curves begin; names stand before it."""
_RIGHT: Final = 24
_ROW: Final = 26
_COLOURS: Final = ("#0b84c6", "#e0712a", "#2f9e6e", "#b65fb0", "#c9a008", "#d64545", "#6d78d6", "#7d8590")
"""Readable on white and on near black."""
_SPOT: Final = "#2f9e6e"
_ON_DEMAND: Final = "#b65fb0"
_DASHES: Final = ("", "7 3", "2 3", "8 3 2 3")
_STYLE: Final = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}"
    ".head{font-size:14px;font-weight:600}.soft{fill:#59636e}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".page{fill:#ffffff}.grid{stroke:#d1d9e0;stroke-width:1}.mark{stroke:#59636e;stroke-width:1.5;stroke-dasharray:4 3}"
    ".wait{fill:none;stroke:#59636e;stroke-width:1.2}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.page{fill:#0d1117}"
    ".grid{stroke:#3d444d}.mark,.wait{stroke:#9198a1}}"
)


def svg(policies: Sequence[PolicyReport], seeds: int, optimum: float | None) -> str:
    """The picture, as the text of an SVG file; `optimum`: dollars of the best schedule, where somebody knows them."""
    page = _Page()
    rounds = "" if seeds == 1 else f", {seeds} seeds"
    most = max((each.runs for each in policies), default=0)
    page.text(24, 30, f"Simulation: {most:,} runs under {len(policies)} policies{rounds}", "head")
    page.y = 48
    _costs(page, policies, references(policies, optimum))
    _finishes(page, policies)
    _troubles(page, policies)
    for each in policies:
        _timeline(page, each)
    return page.document(f"Simulated costs and finish times of {len(policies)} policies")


class _Page:
    """Shapes so far, and how far down they reach."""

    def __init__(self) -> None:
        self.y = 0.0
        self._shapes: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        named = f' class="{kind}"' if kind else ""
        self._shapes.append(f'<text x="{_n(x)}" y="{_n(y)}"{named}>{_escaped(words)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, colour: str, said: str) -> None:
        self._shapes.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" fill="{colour}">'
            f"<title>{_escaped(said)}</title></rect>"
        )

    def line(self, x: float, y: float, x2: float, y2: float, kind: str) -> None:
        self._shapes.append(f'<line x1="{_n(x)}" y1="{_n(y)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{kind}"/>')

    def path(self, points: Sequence[tuple[float, float]], look: str, closed: bool = False) -> None:
        if points:
            steps = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            self._shapes.append(f'<path d="M{steps}{"Z" if closed else ""}" {look}/>')

    def heading(self, words: str, note: str = "") -> None:
        self.y += 34
        self.text(24, self.y, words, "head")
        if note:
            self.text(WIDTH - _RIGHT, self.y, note, "soft end")
        self.y += 12

    def document(self, title: str) -> str:
        height = math.ceil(self.y + 24)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-label="{_escaped(title)}">'
        )
        page = f'<rect class="page" width="{WIDTH}" height="{height}"/>'
        return "\n".join([head, f"<style>{_STYLE}</style>", page, *self._shapes, "</svg>", ""])


def _escaped(words: str) -> str:
    """As text and within double quotes. Not by `xml.sax.saxutils`, which loads all of `urllib` and `http`."""
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        words = words.replace(mark, entity)
    return words


def _n(value: float) -> str:
    """Two decimals are finer than anybody sees."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _name(words: str) -> str:
    return words if len(words) <= 24 else words[:23] + "…"


# -- costs ---------------------------------------------------------------------------------------------------------


def references(policies: Sequence[PolicyReport], optimum: float | None) -> dict[str, float]:
    """What costs are compared with: on-demand machines for the same work, and the offline optimum, where known."""
    found = {}
    priced = [each.on_demand_dollars for each in policies if each.on_demand_dollars]
    alone = next((each.dollars for each in policies if each.policy == "on-demand"), None)
    if alone or priced:
        found["on-demand"] = alone or max(priced)
    if optimum is not None:
        found["offline optimum"] = optimum
    return found


def _costs(page: _Page, policies: Sequence[PolicyReport], marks: dict[str, float]) -> None:
    page.heading("Cost", "of all runs; dashed: what it is compared with")
    most = max([*(each.dollars for each in policies), *marks.values(), 0.0]) or 1.0
    room = WIDTH - _LEFT - 180
    top = page.y + 14
    for index, each in enumerate(policies):
        y = top + index * _ROW
        page.text(_LEFT - 10, y + 14, _name(each.policy), "end")
        width = each.dollars / most * room
        said = f"{each.policy}: ${each.dollars:,.2f}"
        page.bar(_LEFT, y, width, 18, _colour(index), said)
        share = f", {each.dollars / marks['on-demand']:.1%}" if marks.get("on-demand") else ""
        page.text(_LEFT + width + 8, y + 14, f"${each.dollars:,.2f}{share}")
    bottom = top + len(policies) * _ROW
    for row, (name, dollars) in enumerate(marks.items()):
        x = _LEFT + dollars / most * room
        page.line(x, top - 4, x, bottom + 4 + 14 * row, "mark")
        page.text(x, bottom + 16 + 14 * row, f"{name} ${dollars:,.2f}", "soft mid")
    page.y = bottom + 8 + 14 * len(marks)


# -- finish times --------------------------------------------------------------------------------------------------


def _finishes(page: _Page, policies: Sequence[PolicyReport]) -> None:
    page.heading("Finish times", "share of runs that were done so long after they were submitted")
    least = min((each.finishes[0] for each in policies if each.finishes), default=0.0)
    most = max((each.finishes[-1] for each in policies if each.finishes), default=0.0)
    left, room, height = _LEFT, WIDTH - _LEFT - 180.0, 170.0
    top = page.y + 6
    low, high = _range(least, most)
    across: Callable[[float], float] = lambda seconds: left + (seconds - low) / (high - low) * room  # noqa: E731
    for share in (0, 0.25, 0.5, 0.75, 1.0):
        y = top + height * (1 - share)
        page.line(left, y, left + room, y, "grid")
        page.text(left - 10, y + 4, f"{share:.0%}", "soft end")
    for tick in range(5):
        seconds = low + (high - low) * tick / 4
        page.text(across(seconds), top + height + 16, span(seconds), "soft mid")
    for index, each in enumerate(policies):
        look = f'fill="none" stroke="{_colour(index)}" stroke-width="2"'
        dash = _DASHES[index // len(_COLOURS) % len(_DASHES)] or (_DASHES[index % 3] if index else "")
        if dash:
            look += f' stroke-dasharray="{dash}"'
        page.path(_cumulative(each, across, top, height, left + room), look)
        y = top + 8 + index * 18
        page.line(left + room + 16, y, left + room + 40, y, "grid")
        page.path([(left + room + 16, y), (left + room + 40, y)], look)
        page.text(left + room + 46, y + 4, _name(each.policy))
    page.y = top + max(height + 22, len(policies) * 18)


def _range(least: float, most: float) -> tuple[float, float]:
    """A little air on both sides, and never of no width."""
    air = (most - least) * 0.05 or max(1.0, most * 0.05)
    return max(0.0, least - air), most + air


def _cumulative(
    report: PolicyReport, across: Callable[[float], float], top: float, height: float, end: float
) -> list[tuple[float, float]]:
    """Steps; what never succeeded keeps the curve below 100 %."""
    if not report.finishes:
        return []
    reached = report.succeeded / report.runs if report.runs else 0.0
    points = [(across(report.finishes[0]), top + height)]
    for number, seconds in enumerate(report.finishes, start=1):
        points.append((across(seconds), points[-1][1]))
        points.append((across(seconds), top + height * (1 - reached * number / len(report.finishes))))
    return [*points, (end, points[-1][1])]


# -- what went wrong -----------------------------------------------------------------------------------------------


def _troubles(page: _Page, policies: Sequence[PolicyReport]) -> None:
    page.heading("Missed deadlines, preemptions, lost work")
    panels: list[tuple[str, Callable[[PolicyReport], float], Callable[[float], str]]] = [
        ("missed deadlines", lambda each: float(each.missed), lambda value: f"{value:,.0f}"),
        ("preemptions", lambda each: float(each.preemptions), lambda value: f"{value:,.0f}"),
        ("lost work", lambda each: each.lost_seconds, span),
    ]
    gap = (WIDTH - _LEFT - _RIGHT) / len(panels)
    top = page.y + 24
    for index, each in enumerate(policies):
        page.text(_LEFT - 10, top + index * _ROW + 14, _name(each.policy), "end")
    for place, (title, figure, words) in enumerate(panels):
        x = _LEFT + place * gap
        page.text(x, top - 8, title, "soft")
        most = max((figure(each) for each in policies), default=0.0) or 1.0
        for index, each in enumerate(policies):
            value, y = figure(each), top + index * _ROW
            width = value / most * (gap - 90)
            page.bar(x, y, width, 18, _colour(index), f"{each.policy}: {title} {words(value)}")
            page.text(x + width + 6, y + 14, words(value))
    page.y = top + len(policies) * _ROW


# -- timeline ------------------------------------------------------------------------------------------------------


def _timeline(page: _Page, report: PolicyReport) -> None:
    page.heading(f"Over time: {_name(report.policy)}", "attempts on spot and on-demand; line: actions that wait")
    if len(report.timeline) < 2:
        page.text(_LEFT, page.y + 16, "nothing ran", "soft")
        page.y += 20
        return
    height, room, top = 84.0, float(WIDTH - _LEFT - _RIGHT), page.y + 4
    end = report.timeline[-1][0] or 1.0
    most = max(max(spot + on_demand, waiting) for _, spot, on_demand, waiting in report.timeline) or 1
    x: Callable[[float], float] = lambda at: _LEFT + at / end * room  # noqa: E731
    y: Callable[[float], float] = lambda count: top + height * (1 - count / most)  # noqa: E731
    page.line(_LEFT, top + height, _LEFT + room, top + height, "grid")
    page.text(_LEFT - 10, top + 10, f"{most:,}", "soft end")
    page.text(_LEFT - 10, top + height, "0", "soft end")
    times = [at for at, *_ in report.timeline]
    nothing = [0] * len(times)
    spots = [spot for _, spot, _, _ in report.timeline]
    both = [spot + on_demand for _, spot, on_demand, _ in report.timeline]
    for low, high, colour in ((nothing, spots, _SPOT), (spots, both, _ON_DEMAND)):
        if low != high:
            edge = [*_steps(times, high, x, y), *reversed(_steps(times, low, x, y))]
            page.path(edge, f'fill="{colour}" fill-opacity="0.75"', closed=True)
    page.path(_steps(times, [waiting for *_, waiting in report.timeline], x, y), 'class="wait"')
    for tick in range(5):
        page.text(x(end * tick / 4), top + height + 16, span(end * tick / 4), f"soft {'end' if tick == 4 else 'mid'}")
    for place, (words, colour) in enumerate((("spot", _SPOT), ("on-demand", _ON_DEMAND))):
        page.bar(24, top + 24 + 20 * place, 12, 12, colour, words)
        page.text(42, top + 34 + 20 * place, words)
    page.y = top + height + 20


def _steps(
    times: Sequence[float], counts: Sequence[int], x: Callable[[float], float], y: Callable[[float], float]
) -> list[tuple[float, float]]:
    """A count stays as it is until the next time."""
    points: list[tuple[float, float]] = []
    for at, count in zip(times, counts, strict=True):
        if points:
            points.append((x(at), points[-1][1]))
        points.append((x(at), y(count)))
    return points
