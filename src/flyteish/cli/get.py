"""``flyteish get ...`` and ``flyteish config show``: tables of what is there.

Reads records and lays them out in rows; every row's keys are those of ``--json``. Must not change anything.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flyteish._core.wording import short_span
from flyteish.cli.exit_codes import ExitCode
from flyteish.cli.formatting import Column, dash, print_json, print_table, stamp
from flyteish.cli.records import Records

if TYPE_CHECKING:
    from flyteish._core.model.records import Action, AttemptRecord

Row = dict[str, Any]


def runs(args: Namespace) -> int:
    """``flyteish get runs``."""
    records = Records(args)
    rows: list[Row] = [
        {
            "run": row.run,
            "task": row.task,
            "queue": row.queue,
            "phase": records.phase(row),
            "actions": row.actions,
            "submitted_at": row.submitted_at,
            "ended_at": row.ended_at,
            "seconds": None if row.ended_at is None else row.ended_at - row.submitted_at,
            "command": row.command,
            "entry": row.entry,
        }
        for row in records.store.runs(limit=args.limit, active_only=args.active)
    ]
    columns = [
        Column("run", "RUN"),
        Column("phase", "PHASE"),
        Column("task", "TASK"),
        Column("queue", "QUEUE"),
        Column("submitted_at", "SUBMITTED", stamp),
        Column("seconds", "TOOK", short_span),
    ]
    return _out(args, columns, rows, f"no runs in {records.config.paths.home}")


def actions(args: Namespace) -> int:
    """``flyteish get actions RUN``."""
    records = Records(args)
    row = records.run(args.run)
    live = records.phase(row) == "active"
    rows = [_action(action, live) for action in records.record(row.run).actions.values()]
    columns = [
        Column("action", "ACTION"),
        Column("phase", "PHASE"),
        Column("task", "TASK"),
        Column("user_attempt", "TRY"),
        Column("attempts", "ATTEMPTS"),
        Column("medium", "MEDIUM", dash),
        Column("preemptions", "PREEMPTED"),
        Column("submitted_at", "CALLED", stamp),
        Column("seconds", "TOOK", short_span),
    ]
    if any(row["short_name"] for row in rows):
        columns.insert(3, Column("short_name", "NAME", dash))
    return _out(args, columns, rows, "no actions")


def _action(action: Action, live: bool) -> Row:
    over = bool(action.ended_at)
    return {
        "action": action.id,
        "parent": action.parent,
        "task": action.profile.task,
        "short_name": action.profile.settings.short_name,
        "links": list(action.profile.settings.links),
        "docs": action.profile.settings.docs,
        "phase": action.shown_phase.value if over or live else "interrupted",
        "cached": action.cached,
        "group": action.group,
        "user_attempt": f"{action.user_attempt}/{action.max_attempts}",
        "attempts": len(action.attempts),
        "medium": action.attempts[-1].medium if action.attempts else None,
        "preemptions": action.preemptions,
        "checkpoints": len(action.checkpoints),
        "submitted_at": action.submitted_at,
        "ended_at": action.ended_at or None,
        "seconds": action.ended_at - action.submitted_at if over else None,
        "error": None if action.error is None else f"{action.error.type}: {action.error.message}",
    }


def attempts(args: Namespace) -> int:
    """``flyteish get attempts RUN [ACTION]``."""
    records = Records(args)
    record, chosen = records.action(args.run, args.action)
    several = list(record.actions.values()) if args.action is None and "/" not in args.run else [chosen]
    live = records.owner is not None
    rows = [_attempt(action, attempt, live) for action in several for attempt in action.attempts]
    columns = [
        Column("action", "ACTION"),
        Column("attempt", "ATTEMPT"),
        Column("task", "TASK"),
        Column("user_attempt", "TRY"),
        Column("medium", "MEDIUM"),
        Column("pool", "POOL", dash),
        Column("started_at", "STARTED", stamp),
        Column("seconds", "TOOK", short_span),
        Column("end", "END"),
        Column("charged", "CHARGED", dash),
        Column("why", "WHY THERE"),
    ]
    return _out(args, columns, sorted(rows, key=lambda row: row["started_at"] or row["queued_at"]), "no attempts yet")


def _attempt(action: Action, attempt: AttemptRecord, live: bool) -> Row:
    facts = attempt.engine_facts
    return {
        "action": action.id,
        "task": action.profile.task,
        "attempt": attempt.generation,
        "user_attempt": f"{attempt.user_attempt}/{action.max_attempts}",
        "medium": attempt.medium,
        "pool": attempt.pool,
        "rule": attempt.rule,
        "why": attempt.why,
        "queued_at": attempt.queued_at,
        "started_at": attempt.placed_at or None,
        "running_at": attempt.running_at or None,
        "ended_at": attempt.ended_at or None,
        "seconds": _took(attempt, live),
        "end": attempt.end.value if attempt.end is not None else _under_way(attempt) if live else "interrupted",
        "cause": attempt.cause,
        "charged": attempt.charged,
        "notice": attempt.notice,
        "price_per_hour": attempt.price_per_hour,
        **{name: facts and (getattr(facts, name) or None) for name in _OF_THE_ENGINE},
    }


_OF_THE_ENGINE = ("node", "zone", "instance_type", "pending")


def _took(attempt: AttemptRecord, live: bool) -> float | None:
    if not attempt.placed_at:
        return 0.0 if attempt.ended_at else None
    if attempt.ended_at:
        return attempt.ended_at - attempt.placed_at
    return time.time() - attempt.placed_at if live else None


def _under_way(attempt: AttemptRecord) -> str:
    return "running" if attempt.placed_at else "queued"


def queues(args: Namespace) -> int:
    """``flyteish get queues``: of the live controller, else of the configuration."""
    records = Records(args)
    picture = records.picture()
    rows: list[Row]
    if picture is not None:
        rows = [
            {
                "queue": queue.name,
                "state": queue.state,
                "running": queue.running,
                "waiting": queue.waiting,
                "entering": queue.entering,
                "active_runs": queue.active_runs,
                "pools": list(queue.pools),
            }
            for queue in picture.queues
        ]
    else:
        kept = records.queue_states()
        rows = [
            {
                "queue": queue.name,
                "state": kept.get(queue.name, queue.state),
                "running": 0,
                "waiting": 0,
                "entering": 0,
                "active_runs": 0,
                "pools": list(queue.pools),
            }
            for queue in records.config.queues
        ]
    columns = [
        Column("queue", "QUEUE"),
        Column("state", "STATE"),
        Column("running", "RUNNING"),
        Column("waiting", "WAITING"),
        Column("entering", "AT-THE-DOOR"),
        Column("active_runs", "RUNS"),
        Column("pools", "POOLS", ",".join),
    ]
    return _out(args, columns, rows, "no queues")


def pools(args: Namespace) -> int:
    """``flyteish get pools``: of the live controller, else of the configuration."""
    records = Records(args)
    picture = records.picture()
    rows: list[Row]
    if picture is not None:
        rows = [
            {
                "pool": pool.name,
                "medium": pool.medium,
                "engine": pool.engine,
                "running": pool.running,
                "capacity": pool.capacity,
                "available": pool.available,
                "cooling": pool.cooling,
                "price_per_hour": pool.price_per_hour,
                "preemptions": pool.preemptions,
                "stock_outs": pool.stock_outs,
                "score": pool.score,
                "churn_per_hour": pool.churn_per_hour,
                "mean_up": pool.mean_up,
                "mean_down": pool.mean_down,
            }
            for pool in picture.pools
        ]
    else:
        rows = [
            {
                "pool": pool.name,
                "medium": pool.medium,
                "engine": pool.engine,
                "running": 0,
                "capacity": pool.capacity,
                "available": None,
                "cooling": False,
                "price_per_hour": pool.fixed_price,
                "preemptions": 0,
                "stock_outs": 0,
                "score": 0.0,
                "churn_per_hour": 0.0,
                "mean_up": 0.0,
                "mean_down": 0.0,
            }
            for pool in records.config.pools
        ]
    columns = [
        Column("pool", "POOL"),
        Column("medium", "MEDIUM"),
        Column("engine", "ENGINE"),
        Column("running", "RUNNING"),
        Column("capacity", "CAPACITY", lambda count: str(count) if count else "unlimited"),
        Column("available", "AVAILABLE", dash),
        Column("cooling", "COOLING", lambda cooling: "yes" if cooling else "no"),
        Column("price_per_hour", "$/HOUR", lambda price: "-" if price is None else f"{price:g}"),
        Column("preemptions", "PREEMPTED"),
        Column("stock_outs", "STOCK-OUTS"),
        Column("score", "LOSS", lambda score: f"{score:.0%}"),
    ]
    return _out(args, columns, rows, "no pools")


def config(args: Namespace) -> int:
    """``flyteish config show``."""
    origins = Records(args).config.provenance()
    rows: list[Row] = [{"key": each.key, "value": each.value, "source": each.source} for each in origins]
    columns = [Column("key", "KEY"), Column("value", "VALUE", dash), Column("source", "FROM")]
    return _out(args, columns, rows, "nothing is configured")


def _out(args: Namespace, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], nothing: str) -> int:
    if args.json:
        print_json(rows)
    else:
        print_table(columns, rows, nothing)
    return ExitCode.OK
