"""``flyteish why``: what was decided of an action, and why it is where it is.

Puts recorded facts and the live controller's reasons side by side; the words are the core's. Must not decide or change
anything.
"""

from __future__ import annotations

import time
from argparse import Namespace

from flyteish._core.model.records import TERMINAL, Action
from flyteish._core.scheduling.queue_state import Reason
from flyteish.cli.exit_codes import ExitCode
from flyteish.cli.formatting import jsonable, print_json
from flyteish.cli.records import Records


def why(args: Namespace) -> int:
    """``flyteish why RUN [ACTION]``."""
    from flyteish._core.story import SHOWN
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
                "settings": {name: jsonable(getattr(action.profile.settings, name)) for name in SHOWN},
                "sources": action.profile.settings.sources,
            }
        )
    else:
        print("\n".join(lines))
    return ExitCode.OK


def _live_reason(records: Records, action: Action) -> tuple[Reason, int] | None:
    if action.phase in TERMINAL:
        return None
    picture = records.picture()
    found = picture.reasons.get(f"{action.run}/{action.id}") if picture is not None else None
    return None if found is None else (Reason(found[0]), found[1])
