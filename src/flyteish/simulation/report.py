"""The report of a simulation: the figures of its policies side by side, as a table, as JSON and as a picture.

Works out no figure of its own. Must not know how it was simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from flyteish._core.wording import money, span
from flyteish.simulation.figures import PolicyReport
from flyteish.simulation.picture import svg


class Report(msgspec.Struct, frozen=True):
    """All policies, in the order in which they were named. ``print(report)`` shows the table."""

    policies: tuple[PolicyReport, ...]
    seeds: tuple[int, ...]
    optimum: float | None = None
    """Dollars that the best schedule costs, made by somebody who knows the markets beforehand, over all seeds; None
    where nobody worked it out."""
    peak_megabytes: float = 0.0
    """The most memory that the simulating process has had."""

    def of(self, policy: str) -> PolicyReport:
        """The report of one policy. Raises KeyError: it was not simulated."""
        for report in self.policies:
            if report.policy == policy:
                return report
        raise KeyError(policy)

    def json(self) -> bytes:
        """The whole report as one JSON document."""
        return msgspec.json.format(msgspec.json.encode(self))

    def picture(self) -> str:
        """The whole report as one SVG picture, which a browser shows in light and in dark."""
        return svg(self.policies, len(self.seeds), self.optimum)

    @property
    def speed(self) -> str:
        """How fast it was simulated, and the memory that it took: what differs from one time to the next."""
        attempts = sum(report.attempts for report in self.policies)
        seconds = sum(report.wall_seconds for report in self.policies)
        rate = attempts / seconds if seconds else 0.0
        return f"{attempts:,} attempts in {span(seconds)}: {rate:,.0f}/s; peak memory {self.peak_megabytes:,.0f} MB"

    def __str__(self) -> str:
        columns = [name for name, (shown, _) in _COLUMNS.items() if any(shown(report) for report in self.policies)]
        rows = [("policy", *columns)]
        rows += [(report.policy, *(_COLUMNS[name][1](report) for name in columns)) for report in self.policies]
        if self.optimum is not None:
            rows.append(("offline optimum", *(money(self.optimum) if name == "cost" else "" for name in columns)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(_line(row, widths).rstrip() for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others])


def _finish(share: str) -> Callable[[PolicyReport], str]:
    return lambda report: span(report.finish.percentiles[share]) if report.finish else "-"


def _share(report: PolicyReport) -> str:
    return f"{report.dollars / report.on_demand_dollars:.1%}" if report.on_demand_dollars else "-"


def _spread(report: PolicyReport) -> str:
    if report.cost is None:
        return "-"
    low, high = (money(report.cost.percentiles[share]) for share in ("0.05", "0.95"))
    return f"{low}..{high}"


def _spot(report: PolicyReport) -> str:
    billed = report.spot_seconds + report.on_demand_seconds
    return f"{report.spot_seconds / billed:.0%}" if billed else "-"


def _always(report: PolicyReport) -> bool:
    return True


_COLUMNS: Final[dict[str, tuple[Callable[[PolicyReport], bool], Callable[[PolicyReport], str]]]] = {
    "cost": (_always, lambda report: money(report.dollars)),
    "of on-demand": (_always, _share),
    "by run p5..p95": (lambda report: report.cost is not None and report.runs > 1, _spread),
    "finish p50": (_always, _finish("0.5")),
    "p95": (_always, _finish("0.95")),
    "p99": (lambda report: report.runs >= 100, _finish("0.99")),
    "failed": (lambda report: report.failed > report.missed, lambda report: f"{report.failed}"),
    "unfinished": (lambda report: report.unfinished > 0, lambda report: f"{report.unfinished}"),
    "refused": (lambda report: report.refused > 0, lambda report: f"{report.refused}"),
    "missed": (_always, lambda report: f"{report.missed}"),
    "preempted": (_always, lambda report: f"{report.preemptions}"),
    "moved": (lambda report: report.moves > 0, lambda report: f"{report.moves}"),
    "lost": (_always, lambda report: span(report.lost_seconds)),
    "spot": (_always, _spot),
}
"""By heading: whether somebody has something to say there, and what."""
