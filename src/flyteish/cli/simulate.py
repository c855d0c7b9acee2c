"""``flyteish simulate``: scenarios, tasks or recorded runs under several policies, side by side.

Makes a scenario of what the command line says and shows its report. Must not know how a simulation works, nor decide
what a policy does.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from flyteish._core.model.queues import SPOT, Pool
from flyteish._core.model.records import RunRecord
from flyteish._core.model.settings import Settings
from flyteish._core.wording import did_you_mean
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.loading import module_of, task_in, tasks_in
from flyteish.cli.records import Records
from flyteish.cli.run import standard_output
from flyteish.config import Config
from flyteish.config_values import TIMES, blame, market_table, seconds
from flyteish.interfaces import Market
from flyteish.markets.market import MARKETS
from flyteish.simulation.recorded import recorded
from flyteish.simulation.report import Report
from flyteish.simulation.scenario import AS_WRITTEN, POLICIES, Scenario
from flyteish.simulation.workload import Exponential, LogNormal, Workload, WorkModel

_SIDE_BY_SIDE: Final = (AS_WRITTEN, "on-demand")
_OF_TASKS: Final = (
    "work", "checkpoint_every", "save_seconds", "startup", "failure_rate", "deadline", "count", "every",
)  # fmt: skip
_DISTRIBUTIONS: Final = "a time such as 90s, 10m or 48h, lognormal:MEDIAN,SIGMA or exponential:MEAN"


def simulate(args: Namespace) -> int:
    """``flyteish simulate [options] FILE [NAME]``, or ``flyteish simulate --run RUN``."""
    with standard_output(args) as out:
        if args.run:
            return _show(args, out, _adjusted(args, _from_runs(args)))
        if args.file is None:
            raise UsageError("give a FILE with scenarios or tasks, or --run RUN")
        if args.replay_failures:
            raise UsageError("--replay-failures goes with --run: only a recorded run has failures to replay")
        head, colon, tail = args.file.rpartition(":")
        if colon and tail.isidentifier() and args.name is None:
            args.file, args.name = head, tail
        with module_of(args.file) as module:
            return _show(args, out, _adjusted(args, _from_file(args, module)))


def _show(args: Namespace, out: Any, scenario: Scenario) -> int:
    _warn(scenario)
    report: Report = scenario.simulate(seeds=args.seeds)
    if args.picture is not None:
        try:
            Path(args.picture).write_text(report.picture(), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--picture: {args.picture} cannot be written: {error.strerror}") from error
    with redirect_stdout(out):
        print(report.json().decode() if args.json else report)
    print(report.speed, file=sys.stderr)
    return ExitCode.OK


def _warn(scenario: Scenario) -> None:
    """What makes a comparison say nothing."""
    if not any(pool.price_per_hour for pool in scenario.pools):
        print("no pool has a price, so nothing costs anything: give --price POOL=DOLLARS", file=sys.stderr)
    spot = [pool.name for pool in scenario.pools if pool.medium == SPOT]
    if spot and not any(name in scenario.markets for name in spot):
        print(f"nobody reclaims machines of {', '.join(spot)}: give --market {spot[0]}=MARKET", file=sys.stderr)


# -- what is simulated ---------------------------------------------------------------------------------------------


def _from_runs(args: Namespace) -> Scenario:
    if args.file is not None:
        raise UsageError(f"--run takes the place of FILE, so {args.file!r} is too much")
    _refuse_task_options(args, "a recorded run says itself what it did")
    records = Records(args)
    found = [records.record(records.run(name).run) for name in args.run]
    workloads = recorded(*found, replay_failures=args.replay_failures)
    return Scenario(workloads, _priced(records.config.pools, found), records.config.queues, policies=_SIDE_BY_SIDE)


def _priced(pools: Sequence[Pool], runs: Sequence[RunRecord]) -> list[Pool]:
    """Pools for which the configuration has no price cost what they cost the runs."""
    attempts = (attempt for run in runs for action in run.actions.values() for attempt in action.attempts)
    paid = {attempt.pool: attempt.price_per_hour for attempt in attempts if attempt.price_per_hour}
    return [
        msgspec.structs.replace(pool, price_per_hour=paid[pool.name])
        if pool.name in paid and not pool.price_per_hour
        else pool
        for pool in pools
    ]


def _from_file(args: Namespace, module: ModuleType) -> Scenario:
    scenarios = {name: thing for name, thing in vars(module).items() if isinstance(thing, Scenario)}
    if args.name is None and len(scenarios) > 1:
        raise UsageError(f"give a scenario of {args.file}: {', '.join(scenarios)}")
    name = args.name if args.name is not None else next(iter(scenarios), None)
    if name in scenarios:
        _refuse_task_options(args, f"{name} is a Scenario, and says itself what is worked")
        return scenarios[name]
    tasks = tasks_in(module)
    if name is None and len(tasks) == 1:
        name = next(iter(tasks))
    if scenarios and name not in tasks:
        known = [*scenarios, *tasks]
        raise UsageError(
            f"{args.file} has no scenario or task {name!r}{did_you_mean(str(name), known)}; it has {', '.join(known)}"
        )
    task = task_in(module, name, args.file)
    config = Records(args).config
    return _of_configuration(config, [_workload(args, task.name, task.settings(config.scope))])


def _of_configuration(config: Config, workloads: Sequence[Workload]) -> Scenario:
    return Scenario(workloads, config.pools, config.queues, policies=_SIDE_BY_SIDE)


def _refuse_task_options(args: Namespace, why: str) -> None:
    for option in _OF_TASKS:
        if getattr(args, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} is for a task of a FILE: {why}")


def _workload(args: Namespace, name: str, settings: Settings) -> Workload:
    if args.work is None:
        raise UsageError(f"give --work, such as --work 48h: a simulation does not run {name}, so it can't know")
    if args.deadline is not None:
        timeout = msgspec.structs.replace(settings.timeout, deadline=time_of("--deadline", args.deadline))
        settings = msgspec.structs.replace(settings, timeout=timeout)
    every = args.checkpoint_every
    model = WorkModel(
        work=times_of("--work", args.work),
        checkpoint_every=None if every is None else time_of("--checkpoint-every", every) or None,
        save_seconds=time_of("--save-seconds", args.save_seconds or "0"),
        startup=None if args.startup is None else time_of("--startup", args.startup),
        failure_rate=args.failure_rate or 0.0,
    )
    return Workload(settings, model, count=args.count or 1, every=times_of("--every", args.every or "0"), name=name)


def time_of(option: str, text: str) -> float:
    """Seconds. Raises UsageError, which names the option."""
    try:
        return seconds(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a time: expected {TIMES}") from None


def times_of(option: str, text: str) -> Any:
    """Seconds, or a distribution of them. Raises UsageError, which names the option."""
    kind, colon, rest = text.partition(":")
    parts = [part.strip() for part in rest.split(",")]
    try:
        if not colon:
            return seconds(text)
        if kind == "lognormal" and len(parts) <= 2:
            return LogNormal(seconds(parts[0]), *map(float, parts[1:]))
        if kind == "exponential" and len(parts) == 1:
            return Exponential(seconds(parts[0]))
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not accepted: expected {_DISTRIBUTIONS}") from None
    hint = did_you_mean(kind, ("lognormal", "exponential"))
    raise UsageError(f"{option}: {text!r} is not accepted{hint}: expected {_DISTRIBUTIONS}")


# -- pools, markets, policies --------------------------------------------------------------------------------------


def _adjusted(args: Namespace, scenario: Scenario) -> Scenario:
    """With the command line's prices, markets and policies in place of the scenario's own."""
    pools = {pool.name: pool for pool in scenario.pools}
    markets: dict[str, Market] = {}
    for name, text in _pairs("--market", args.market, pools, "MARKET"):
        markets[name] = _market(pools[name], text)
        pools[name] = msgspec.structs.replace(pools[name], market=markets[name])
    for name, text in _pairs("--price", args.price, pools, "DOLLARS"):
        with blame("flyteish simulate", f"--price {name}"):
            pools[name] = msgspec.structs.replace(pools[name], price_per_hour=_price(name, text))
    return scenario.changed(policies=_policies(args.policy, scenario), markets=markets, pools=tuple(pools.values()))


def _price(pool: str, text: str) -> Any:
    """A number, or ``market`` for the prices that its trace market has recorded."""
    try:
        return text if text == "market" else float(text)
    except ValueError:
        raise UsageError(
            f"--price {pool}={text!r} is not accepted: expected $ per hour, such as 0.35, or 'market'"
        ) from None


def _policies(names: Sequence[str], scenario: Scenario) -> Mapping[str, Any]:
    if not names:
        return scenario.policies
    known: dict[str, Any] = {**POLICIES, **scenario.policies}
    for name in names:
        if name not in known:
            raise UsageError(
                f"--policy: there is no policy {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    return {name: known[name] for name in names}


def _pairs(option: str, texts: Iterable[str], pools: Mapping[str, Pool], what: str) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        pool, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"{option} {text!r} is not accepted: expected POOL={what}")
        if pool not in pools:
            raise UsageError(
                f"{option}: there is no pool {pool!r}{did_you_mean(pool, pools)}; there are {', '.join(pools)}"
            )
        found.append((pool, value))
    return found


def _market(pool: Pool, text: str) -> Market:
    """``KIND:VALUE,NAME=VALUE,...`` as the table that a configuration file has for a market."""
    kind, _, rest = text.partition(":")
    if kind not in MARKETS:
        raise UsageError(
            f"--market: {kind!r} is no kind of market{did_you_mean(kind, MARKETS)}; there are {', '.join(MARKETS)}, "
            "such as --market spot=trace:zone.json"
        )
    table: dict[str, Any] = {"kind": kind}
    alone = []
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if equals:
            table[name] = _number(value)
        else:
            alone.append(part)
    if kind == "script":
        table["reclaims"] = alone
    elif kind == "trace":
        if len(alone) != 1:
            raise UsageError(f"--market {pool.name}={text} is not accepted: expected trace:PATH, then NAME=VALUE")
        table["file"] = alone[0]
    elif alone:
        raise UsageError(f"--market {pool.name}={text}: {alone[-1]!r} is not accepted: expected NAME=VALUE")
    return market_table("flyteish simulate", f"--market {pool.name}", table, Path.cwd()).build(pool.grace)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text  # a time such as 2h
