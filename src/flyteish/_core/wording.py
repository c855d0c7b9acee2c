"""How things are said to people, once: spans of time, sizes, money, counts, refused parameters, near names.

Every error, explanation, report and command says them by these functions, so that one thing reads the same wherever it
stands. Decides nothing. Must not know who says it, or where.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from flyteish.errors import ConfigurationError

_DAYS: Final = 86400.0


def span(seconds: float | timedelta | None) -> str:
    """A length of time in a sentence or a report: ``0.4 s``, ``12 s``, ``3.2 min``, ``58.7 h``, ``5.2 days``.

    Three figures, in the unit that people would use: an estimate is no better than that. Less than a millisecond is
    ``0 s``; ``-`` for none.
    """
    if seconds is None:
        return "-"
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds < 0:
        return f"-{span(-seconds)}"
    seconds = round(seconds, 3)
    for unit, size, limit in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 360000.0)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / _DAYS:.3g} days" if seconds < 1000 * _DAYS else f"{seconds / _DAYS:,.0f} days"


def short_span(seconds: float | None) -> str:
    """A length of time in a column or a line that moves: ``0.4s``, ``12s``, ``3m05s``, ``2h07m``, ``3d04h``.

    Without a blank, so that a line can be cut into fields, and without a jump in its width while it counts; ``-`` for
    none.
    """
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < _DAYS:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size(count: float) -> str:
    """A number of bytes, in the units in which limits are given: ``512 bytes``, ``256.0 KiB``, ``5.1 GiB``."""
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def money(dollars: float | None) -> str:
    """``$0.0312``, ``$12.40``, ``$1,506.92``, ``-`` for none; what is not nothing never reads as nothing."""
    if dollars is None:
        return "-"
    if dollars < 0:
        return f"-{money(-dollars)}"
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    return f"${dollars:.4f}" if 0 < dollars < 1 else f"${dollars:,.2f}"


def counted(number: int, what: str) -> str:
    """``1 attempt``, ``3 attempts``, ``1,025 attempts``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def not_accepted(name: str, value: object, accepted: str) -> ConfigurationError:
    """The error for a parameter: ``Pool('spot'): grace=-1 is not accepted: expected seconds >= 0``."""
    return ConfigurationError(f"{name}={value!r} is not accepted: expected {accepted}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean train or trail?`` for a misspelt name, behind the words of the error; else nothing."""
    import difflib  # here: it is for misspellings, and importing it takes longer than all of ours that tasks need

    near = difflib.get_close_matches(name, sorted(set(known)), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
