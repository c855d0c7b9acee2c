"""``flyteish logs``: what tasks said, attempt by attempt, also while they go on.

Must not know how logs are kept, nor change anything.
"""

from __future__ import annotations

import codecs
import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import NamedTuple

from flyteish._core.model.ids import AttemptKey
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import print_json
from flyteish.cli.records import Records
from flyteish.interfaces import LogStore
from flyteish.logs.files import FileLogs


class _Log(NamedTuple):
    key: AttemptKey
    task: str

    @property
    def heading(self) -> str:
        return f"==> {self.key.action} {self.task} attempt {self.key.generation} <=="


def logs(args: Namespace) -> int:
    """``flyteish logs RUN [ACTION]``."""
    if args.follow and args.json:
        raise UsageError("--follow and --json do not go together: JSON is printed when all is there")
    records = Records(args)
    store = FileLogs(records.config.paths.logs)
    if args.follow:
        return _follow(records, store, args)
    found = _logs_of(records, store, args)
    if args.json:
        print_json([_document(log, store) for log in found])
        return ExitCode.OK
    printer = _Printer(headings=len(found) > 1)
    for key, data in store.follow(lambda: [log.key for log in found], lambda: True):
        printer.print(key, data, found)
    if not found:
        kept = "" if records.config.keep_logs else " (keep_logs is false, so nothing is kept)"
        print(f"nothing was printed by {args.run}{kept}", file=sys.stderr)
    return ExitCode.OK


def _document(log: _Log, store: LogStore) -> dict[str, object]:
    return {
        "action": log.key.action,
        "attempt": log.key.generation,
        "task": log.task,
        "path": store.where(log.key),
        "text": store.read(log.key).decode("utf-8", errors="replace"),
    }


def _logs_of(records: Records, store: LogStore, args: Namespace) -> list[_Log]:
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
    said = set(store.said(record.id))
    logs = [_Log(AttemptKey(record.id, a.id, n.generation), a.profile.task) for a, n in pairs]
    return [log for log in logs if log.key in said]


def _follow(records: Records, store: LogStore, args: Namespace) -> int:
    """Print what comes, from whichever attempt, until the run is over or nobody works on it any more."""
    run = records.run(args.run.partition("/")[0]).run
    printer = _Printer(headings=True)
    found: list[_Log] = []

    def keys() -> Iterable[AttemptKey]:
        found[:] = _logs_of(records, store, args)
        return [log.key for log in found]

    def over() -> bool:
        return records.run(run).ended_at is not None or records.store.owner() is None

    for key, data in store.follow(keys, over):
        printer.print(key, data, found)
    return ExitCode.OK


class _Printer:
    """Prints pieces of several logs, with a heading wherever another one goes on."""

    def __init__(self, headings: bool) -> None:
        self._headings = headings
        self._speaks: AttemptKey | None = None
        self._decoders: dict[AttemptKey, codecs.IncrementalDecoder] = {}
        """A character may be cut in two by the end of a piece."""

    def print(self, key: AttemptKey, data: bytes, logs: Iterable[_Log]) -> None:
        if key != self._speaks and self._headings:
            print(next(log.heading for log in logs if log.key == key))
        self._speaks = key
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")(errors="replace")
        sys.stdout.write(self._decoders[key].decode(data))
        sys.stdout.flush()
