"""Words and figures for people and their shells: times, tables, errors, JSON.

Decides how things look, in colour on a terminal and plain in a pipe. Must not know where they come from.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

#: Colours by word, on a terminal: the media, and how things ended.
COLOURS: Final[dict[str, str]] = {
    "spot": "cyan",
    "on-demand": "magenta",
    "succeeded": "green",
    "active": "bold",
    "failed": "red",
    "aborted": "yellow",
    "timed_out": "red",
    "interrupted": "yellow",
    "preempted": "yellow",
    "held": "yellow",
    "draining": "yellow",
}
_OURS: Final = str(Path(__file__).resolve().parents[1])


class Column(NamedTuple):
    """One column of a table: the row's key, the heading, and how a value is shown."""

    key: str
    heading: str
    show: Callable[[Any], str] = str


def stamp(at: float | None) -> str:
    """A time, here: ``2025-03-01 12:00:00``; ``-`` for none."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def clock(at: float) -> str:
    """A time of day, here."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def dash(value: object) -> str:
    """``-`` for None and the empty text, so that every line has the same number of fields."""
    return "-" if value is None or value == "" else str(value)


# -- output ----------------------------------------------------------------------------------------------------------


def print_json(value: object) -> None:
    """One JSON document, indented on a terminal; what JSON has no form for is given by its ``repr``."""
    data = msgspec.json.encode(jsonable(value))
    print((msgspec.json.format(data, indent=2) if sys.stdout.isatty() else data).decode())


def jsonable(value: Any) -> Any:
    """A value as JSON has it: models, arrays and the like by their own idea of it."""
    try:
        return msgspec.to_builtins(value, enc_hook=_foreign, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _foreign(value: Any) -> Any:
    for name, arguments in (("model_dump", {"mode": "json"}), ("tolist", {}), ("_facts", {})):
        method = getattr(value, name, None)
        if callable(method):
            return method(**arguments)
    return str(value) if isinstance(value, Path | complex) else repr(value)


def print_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], nothing: str) -> None:
    """Colours and fitting columns on a terminal; in a pipe a line for each row, fields two or more blanks apart."""
    if not rows:
        print(nothing, file=sys.stderr)
        return
    cells = [[column.show(row[column.key]) for column in columns] for row in rows]
    headings = [column.heading for column in columns]
    if sys.stdout.isatty():
        _print_rich(headings, cells)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in [headings, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_rich(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for line in cells:
        table.add_row(*[Text(cell, style=COLOURS.get(cell, "")) for cell in line])
    Console().print(table)


# -- errors ----------------------------------------------------------------------------------------------------------


def error_text(error: BaseException) -> str:
    """``ConfigurationError: what is wrong``, with its notes; the command line's own complaints without the type."""
    from flyteish.cli.exit_codes import UsageError

    text = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
    return "\n  ".join([text, *getattr(error, "__notes__", ())])


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames that run the task: what its author wrote, and the notes."""
    described = traceback.TracebackException.from_exception(error, compact=True)
    seen: list[traceback.TracebackException] = []
    pending: list[traceback.TracebackException | None] = [described]
    while pending:
        each = pending.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if not _is_ours(frame.filename)])
        pending += [each.__cause__, each.__context__, *(each.exceptions or ())]
    return "".join(described.format()).rstrip("\n")


def _is_ours(file: str) -> bool:
    return file.startswith((_OURS, "<frozen importlib"))
