"""``flyteish why``, ``plan`` and ``logs``: what was decided, what would be, and what tasks printed.

Puts recorded facts and the live controller's reasons side by side; the words are the core's. Must not decide or change
anything.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from flyteish._core.model.records import TERMINAL, Action
from flyteish._core.scheduling.queue_state import Reason
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import jsonable, print_json
from flyteish.cli.records import Records

_FOLLOW_SECONDS: Final = 0.25


def why(args: Namespace) -> int:
    """``flyteish why RUN [ACTION]``."""
    from flyteish._core.story import why as story
    from flyteish.cli.forecasts import forecast_line

    records = Records(args)
    record, action = records.action(args.run, args.action)
    row = records.run(record.id)
    reason = _live_reason(records, action)
    lines = list(story(action, time.time(), reason))
    if action.parent is None and (said := forecast_line(records, record)):
        lines.append(said)
    if action.phase not in TERMINAL and records.phase(row) == "interrupted":
        lines.append(f"no controller works on it: flyteish resume {record.id}")
    if args.json:
        print_json(
            {
                "run": record.id,
                "action": action.id,
                "task": action.profile.task,
                "phase": action.shown_phase.value,
                "reason": None if reason is None else reason[0].value,
                "place": None if reason is None else reason[1],
                "lines": lines,
                "settings": {name: jsonable(getattr(action.profile.settings, name)) for name in _SETTINGS},
                "sources": action.profile.settings.sources,
            }
        )
    else:
        print("\n".join(lines))
    return ExitCode.OK


_SETTINGS: Final = ("queue", "interruptible", "retries", "timeout", "priority", "resources", "cache")


def _live_reason(records: Records, action: Action) -> tuple[Reason, int] | None:
    if action.phase in TERMINAL:
        return None
    picture = records.picture()
    found = picture.reasons.get(f"{action.run}/{action.id}") if picture is not None else None
    return None if found is None else (Reason(found[0]), found[1])


def plan(args: Namespace) -> int:
    """``flyteish plan [options] FILE TASK``."""
    import msgspec

    from flyteish._core.model.queues import SPOT
    from flyteish._core.model.settings import Level, opinions
    from flyteish.cli.forecasts import forecast_of, learned_of
    from flyteish.cli.loading import module_of, task_in
    from flyteish.cli.run import file_and_task, run_options

    file, name, rest = file_and_task(args)
    records = Records(args)
    if rest:
        raise UsageError(f"`flyteish plan` runs nothing, so it takes no {rest[0]}")
    said = run_options(args)
    if said.pop("overwrite_cache") or said["disable_run_cache"]:
        said["cache"] = "disable" if said["disable_run_cache"] else "override"
    del said["disable_run_cache"]
    scope = msgspec.structs.replace(records.config.scope, run=opinions(Level.RUN, "flyteish plan", said))
    with module_of(file) as module:
        task = task_in(module, name, file)
        settings = task.settings(scope)
    queue = next(each for each in records.config.queues if each.name == records.queue_name(settings.queue))
    work, changeover = learned_of(records, task.name, queue)
    found = task.plan(scope, work=work, changeover=changeover)
    warnings = list(found.warnings)
    fed = {pool.medium for pool in records.config.pools if pool.name in queue.pools}
    if SPOT not in fed and any(row.medium == SPOT for row in found.attempts):
        warnings.append(f"queue {queue.name!r} feeds no spot pool: every attempt runs on-demand there")
    attempts = [row._asdict() for row in found.attempts]
    sources = {name: settings.source(name) for name in _SETTINGS}
    forecast = forecast_of(args, records, task.name, settings)
    if args.json:
        print_json(
            {
                "task": task.name,
                "queue": queue.name,
                "attempts": attempts,
                "expects": list(found.expects),
                "warnings": warnings,
                "sources": sources,
                **({} if forecast is None else {"forecast": forecast}),
            }
        )
        return ExitCode.OK
    print(f"{task.name} in queue {queue.name} ({sources['queue']})")
    for row in found.attempts:
        print(f"user attempt {row.user_attempt}: {row.medium}: {row.why}")
    for text in found.expects:
        print(text)
    for warning in warnings:
        print(f"warning: {warning}")
    if forecast is not None:
        print(forecast)
    return ExitCode.OK


# -- logs ------------------------------------------------------------------------------------------------------------


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
