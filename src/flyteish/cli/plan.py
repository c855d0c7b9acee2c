"""``flyteish plan``: where a task would run, attempt by attempt, and when it would be done.

Prints what the core's rules say of the task's settings; runs nothing of it. Must not decide or change anything.
"""

from __future__ import annotations

from argparse import Namespace

from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import print_json
from flyteish.cli.records import Records


def plan(args: Namespace) -> int:
    """``flyteish plan [options] FILE TASK``."""
    import msgspec

    from flyteish._core.model.queues import SPOT
    from flyteish._core.model.setting_rules import opinions
    from flyteish._core.model.settings import Level
    from flyteish._core.story import SHOWN
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
    sources = {name: settings.source(name) for name in SHOWN}
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
