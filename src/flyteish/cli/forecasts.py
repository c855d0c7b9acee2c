"""``flyteish plan --forecast`` and ``flyteish forecasts``: what is to be expected of a task, and how that came out.

Goes by what the sessions of this home have learned, beside whoever writes it. Must not compute: forecasts are made by
``flyteish.forecasting``, and compared by the controller.
"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any, Final

from flyteish._core.rules.experience import Experience
from flyteish._core.wording import money, short_span
from flyteish._learning.documents import LEARNED, Learned, add_forecast, read, read_comparisons, read_forecasts
from flyteish._learning.forecasts import Calibration, compared
from flyteish._learning.recorder import forecast_of as forecast_of_run
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import Column, dash, print_json, print_table, stamp
from flyteish.cli.records import Records

if TYPE_CHECKING:
    from flyteish._core.model.queues import Queue
    from flyteish._core.model.records import RunRecord
    from flyteish._core.model.settings import Settings
    from flyteish._learning.forecasts import Comparison, Forecast, ForecastOptions

_OPTIONS: Final = ("work", "checkpoint_every", "count", "rounds")


def forecast_of(args: Namespace, records: Records, task: str, settings: Settings) -> Forecast | None:
    """The forecast that ``plan --forecast`` asks for, remembered; None where none is asked for."""
    from flyteish.forecasting.forecaster import Basis, forecast

    options = _options(args)
    if options is None:
        return None
    config, picture = records.config, records.picture()
    ahead = {} if picture is None else {queue.name: queue.running + queue.waiting for queue in picture.queues}
    learned = read(records.store, LEARNED, Learned) or Learned()
    basis = Basis(config.queues, config.pools, learned, ahead, config.max_workers, time.time())
    found = forecast(task, settings, basis, options)
    if config.durability != "memory" and config.paths.store.exists():
        add_forecast(records.store, found)
    return found


def learned_of(records: Records, task: str, queue: Queue) -> tuple[float | None, float]:
    """A task's work, where it was learned, and its change-over in a queue's pools, measured or assumed; in seconds."""
    learned = read(records.store, LEARNED, Learned) or Learned()
    experience = Experience(learned.tasks)
    named = set(queue.pools) or {pool.name for pool in records.config.pools}
    pools = [(pool.name, pool.assumed_startup) for pool in records.config.pools if pool.name in named]
    return experience.work(task), experience.changeover(task, pools)


def _options(args: Namespace) -> ForecastOptions | None:
    from flyteish.cli.simulate import time_of, times_of

    given: Any = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    if not args.forecast:
        if given:
            raise UsageError(f"--{next(iter(given)).replace('_', '-')} goes with --forecast")
        return None
    if "work" in given:
        given["work"] = times_of("--work", given["work"])
    if "checkpoint_every" in given:
        given["checkpoint_every"] = time_of("--checkpoint-every", given["checkpoint_every"])
    options: ForecastOptions = given
    return options


def forecast_line(records: Records, record: RunRecord) -> str:
    """The forecast of a run, and how it came out, for ``why``; empty where there is none."""
    forecast = forecast_of_run(record, read_forecasts(records.store))
    if forecast is None:
        return ""
    found = (each for each in read_comparisons(records.store) if each.run == record.id)
    return compared(forecast, next(found, None))


def forecasts(args: Namespace) -> int:
    """``flyteish forecasts [--task TASK]``."""
    records = Records(args)
    every = [each for each in read_comparisons(records.store) if args.task in (None, each.task)]
    calibration = Calibration.of(every)
    rows = [_row(each) for each in every[: -args.limit - 1 : -1]]
    if args.json:
        print_json({"runs": rows, "calibration": calibration})
        return ExitCode.OK
    print_table(_COLUMNS, rows, "no run has been compared with a forecast yet: flyteish plan --forecast makes one")
    if rows:
        print(calibration)
    return ExitCode.OK


def _share(rank: float | None) -> str:
    return "-" if rank is None else f"{rank:.0%}"


_COLUMNS: Final = (
    Column("run", "RUN"),
    Column("task", "TASK"),
    Column("submitted_at", "SUBMITTED", stamp),
    Column("phase", "PHASE"),
    Column("p50", "P50", short_span),
    Column("p90", "P90", short_span),
    Column("seconds", "TOOK", short_span),
    Column("rank", "RANK", _share),
    Column("dollars_p50", "COST P50", money),
    Column("cost", "COST", money),
    Column("note", "NOTE", dash),
)


def _row(each: Comparison) -> dict[str, Any]:
    finish, cost = each.finish, each.dollars
    return {
        "run": each.run,
        "task": each.task,
        "submitted_at": each.submitted_at,
        "forecast_at": each.made_at,
        "phase": each.phase,
        "p5": None if finish is None else finish.p5,
        "p50": None if finish is None else finish.p50,
        "p90": None if finish is None else finish.p90,
        "p95": None if finish is None else finish.p95,
        "seconds": each.seconds,
        "rank": each.rank,
        "within": each.within,
        "dollars_p50": None if cost is None else cost.p50,
        "cost": None if cost is None else each.cost,
        "cost_rank": each.cost_rank,
        "preemptions": each.preemptions,
        "preemptions_expected": each.preemptions_expected,
        "missed": each.missed,
        "misses_expected": each.misses,
        "interrupted": each.interrupted,
        "note": "its controller died on the way" if each.interrupted else None,
    }
