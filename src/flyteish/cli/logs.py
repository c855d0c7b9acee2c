"""``flyteish logs``: what tasks printed, attempt by attempt, also while they go on.

Must not know who writes the logs, nor change anything.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import print_json
from flyteish.cli.records import Records

_FOLLOW_SECONDS: Final = 0.25


class _Log(NamedTuple):
    action: str
    attempt: int
    task: str
    path: Path

    @property
    def heading(self) -> str:
        return f"==> {self.action} {self.task} attempt {self.attempt} <=="


def logs(args: Namespace) -> int:
    """``flyteish logs RUN [ACTION]``."""
    if args.follow and args.json:
        raise UsageError("--follow and --json do not go together: JSON is printed when all is there")
    records = Records(args)
    found = _logs_of(records, args)
    if args.json:
        print_json([{**log._asdict(), "path": str(log.path), "text": _text(log)} for log in found])
        return ExitCode.OK
    if args.follow:
        return _follow(records, args)
    for log in found:
        if len(found) > 1:
            print(log.heading)
        sys.stdout.write(_text(log))
    if not found:
        kept = "" if records.config.keep_logs else " (keep_logs is false, so nothing is kept)"
        print(f"nothing was printed by {args.run}{kept}", file=sys.stderr)
    return ExitCode.OK


def _logs_of(records: Records, args: Namespace) -> list[_Log]:
    """The logs that there are, in the order in which the attempts began."""
    record, chosen = records.action(args.run, args.action)
    alone = args.action is not None or "/" in args.run or args.attempt is not None
    actions = [chosen] if alone else list(record.actions.values())
    pairs = [(action, attempt) for action in actions for attempt in action.attempts]
    if args.attempt is not None:
        pairs = [(action, attempt) for action, attempt in pairs if attempt.generation == args.attempt]
        if not pairs:
            raise UsageError(f"{chosen.key} has no attempt {args.attempt}; it had {len(chosen.attempts)}")
    pairs.sort(key=lambda pair: pair[1].admitted_at)
    folder = records.config.paths.logs / record.id
    logs = [_Log(a.id, n.generation, a.profile.task, folder / f"{a.id}.{n.generation}.log") for a, n in pairs]
    return [log for log in logs if log.path.is_file()]


def _text(log: _Log) -> str:
    return log.path.read_text(encoding="utf-8", errors="replace")


def _follow(records: Records, args: Namespace) -> int:
    """Print what comes, from whichever attempt, until the run is over or nobody works on it any more."""
    opened: dict[Path, BinaryIO] = {}
    shown: list[Any] = [None]
    run = records.run(args.run.partition("/")[0]).run
    try:
        while True:
            row = records.run(run)
            over = row.ended_at is not None or records.store.owner() is None
            for log in _logs_of(records, args):
                file = opened.get(log.path)
                if file is None:
                    file = opened[log.path] = open(log.path, "rb")  # noqa: SIM115 - closed below
                _print_more(log, file, shown)
            if over:
                return ExitCode.OK
            time.sleep(_FOLLOW_SECONDS)
    finally:
        for file in opened.values():
            file.close()


def _print_more(log: _Log, file: BinaryIO, shown: list[Any]) -> None:
    data = file.read()
    if not data:
        return
    if shown[0] != log.path:
        shown[0] = log.path
        print(log.heading)
    sys.stdout.write(data.decode("utf-8", errors="replace"))
    sys.stdout.flush()
