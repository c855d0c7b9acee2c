"""``flyteish cost``: what runs cost, told apart as asked for, with a total.

Ended runs have their costs beside their journal, so that a listing of many reads none; what is still running, and
what is asked for attempt by attempt, is read from the journals. Must not compute: the sums are the core's.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from flyteish._core.wording import money, short_span
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import Column, dash, print_json, print_table, stamp
from flyteish.cli.records import Records, split
from flyteish.config_values import TIMES, seconds

if TYPE_CHECKING:
    from flyteish._core.billing.bills import Billed, CostRow
    from flyteish._core.billing.cost_summary import CostSummary
    from flyteish.interfaces import RunRow

_ALL: Final = 1 << 31
_IN_JOURNALS: Final = ("attempt", "action")
_HEADINGS: Final = {
    "run": "RUN", "action": "ACTION", "attempt": "ATTEMPT", "task": "TASK", "queue": "QUEUE", "pool": "POOL",
    "medium": "MEDIUM",
}  # fmt: skip


def cost(args: Namespace) -> int:
    """``flyteish cost [RUN[/ACTION]] [--by WHAT] [--since TIME]``."""
    from flyteish._core.billing.bills import BY, rows, total

    records = Records(args)
    now = time.time()
    if args.run is None:
        by = args.by or "run"
        runs = _since(records, args.since, now)
        lines = [line for row in runs for line in _of_run(records, row, by, now)]
        about = {row.run: row for row in runs}
    else:
        if args.since is not None:
            raise UsageError("--since chooses among all runs: it does not go with RUN")
        by, lines = _of_one(records, args, now)
        about = {}
    found = rows(lines, by)
    whole = total(lines)
    keys = [key for key in BY[by] if key != "run" or args.run is None]
    if args.json:
        print_json({"by": by, "rows": [_row(row, about) for row in found], "total": _figures(whole)})
        return ExitCode.OK
    columns = [Column(key, _HEADINGS[key], dash) for key in keys]
    if by == "run":
        columns += [Column("task", "TASK", dash), Column("submitted_at", "SUBMITTED", stamp)]
    columns += _COLUMNS
    table = [_row(row, about) for row in found]
    if found:
        end = {column.key: None for column in columns} | {columns[0].key: "total"}
        table.append({**end, "attempts": sum(row.attempts for row in found), **_figures(whole)})
    print_table(columns, table, f"nothing has run in {records.config.paths.home}")
    return ExitCode.OK


_COLUMNS: Final = [
    Column("attempts", "ATTEMPTS"),
    Column("spot_seconds", "SPOT", short_span),
    Column("on_demand_seconds", "ON-DEMAND", short_span),
    Column("lost_seconds", "LOST", short_span),
    Column("dollars", "COST", money),
    Column("on_demand_dollars", "ON-DEMAND-COST", money),
    Column("saved", "SAVED", money),
]


def _row(row: CostRow, about: dict[str, RunRow]) -> dict[str, Any]:
    run = about.get(str(row.of.get("run")))
    told = {} if run is None else {"task": run.task, "queue": run.queue, "submitted_at": run.submitted_at}
    return {**told, **row.of, "attempts": row.attempts, **_figures(row.cost)}


def _figures(found: CostSummary) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


# -- which -----------------------------------------------------------------------------------------------------------


def _since(records: Records, text: str | None, now: float) -> list[RunRow]:
    runs = records.store.runs(limit=_ALL)
    if text is None:
        return runs
    try:
        oldest = now - seconds(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is not accepted: expected {TIMES}") from None
    return [row for row in runs if row.submitted_at >= oldest]


def _of_run(records: Records, row: RunRow, by: str, now: float) -> Iterator[Billed]:
    from flyteish._controller.outcomes import costs_in
    from flyteish._core.billing.bills import Billed

    known = None if by in _IN_JOURNALS else costs_in(row)
    if known is not None:
        for line in known:
            yield Billed(row.run, "", 0, line)
    else:
        yield from _in_journal(records, row, None, now)


def _of_one(records: Records, args: Namespace, now: float) -> tuple[str, list[Billed]]:
    run, action = split(args.run, None)
    row = records.run(run)
    if action is None:
        by = args.by or "task"
        return by, list(_of_run(records, row, by, now))
    by = args.by or "attempt"
    return by, list(_in_journal(records, row, action, now))


def _in_journal(records: Records, row: RunRow, action: str | None, now: float) -> Iterator[Billed]:
    """From the journal: a line for each attempt, of an action and all below it, or of all."""
    from flyteish._core.billing.bills import billed, with_descendants
    from flyteish._core.billing.cost_summary import on_demand_price
    from flyteish._core.replay import find_action, record_of

    latest = row.submitted_at
    entries = []
    for _, entry in records.store.read(row.run):
        entries.append(entry)
        latest = entry.at
    record = record_of(row.run, entries)
    if record is None or not record.root:
        return
    # What nobody works on is billed up to the last that was heard of it.
    until = now if records.phase(row) == "active" else latest
    actions = record.actions.values() if action is None else with_descendants(record, find_action(record, action))
    yield from billed(actions, until, on_demand_price(records.config.pools))
