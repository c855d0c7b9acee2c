"""The commands and their options, as argparse has them; each names the function that carries it out.

Decides how a command line is spelt, and suggests near names for what is misspelt. Imports no command: ``--help`` must
be quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from flyteish._core.wording import did_you_mean
from flyteish._version import __version__
from flyteish.cli import exit_codes
from flyteish.cli.exit_codes import UsageError

_FILE_HELP = "a Python file, or the name of a module that can be imported"
_TASK_HELP = "its task: the variable, the function, or environment.function"
_COST_BY = ("attempt", "action", "task", "queue", "pool", "run")
_RUN_HELP = "a run's name, its beginning where that says which, or `last`"


class Parser(argparse.ArgumentParser):
    """Argparse whose complaints are ``UsageError`` and come with near names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.known: list[str] = []
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def _add_action(self, action: Any) -> Any:
        self.known.extend(action.option_strings)
        return super()._add_action(action)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices) or f"; there are {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def refuse_extras(self, extras: Sequence[str]) -> NoReturn:
        """For what ``parse_known_args`` left over."""
        option = next((extra for extra in extras if extra.startswith("-")), extras[0])
        name = option.partition("=")[0]
        if not name.startswith("-"):
            self.error(f"unexpected argument {name!r}")
        self.error(f"unknown option {name}{did_you_mean(name, self.known)}")


def parse(parser: Parser, given: Sequence[str]) -> argparse.Namespace:
    """The arguments. Raises UsageError; SystemExit after ``--help`` and ``--version``."""
    args, extras = parser.parse_known_args(given)
    if extras:
        args.parser.refuse_extras(extras)
    return args


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"flyteish {__version__}")
        parser.exit()


def build() -> Parser:
    """The whole tree."""
    parser = Parser(
        prog="flyteish",
        description="Run tasks, look at runs, resume and abort them, simulate them.",
        epilog=f"exit codes:\n{exit_codes.table()}",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_running(commands)
    _add_simulating(commands)
    _add_looking(commands)
    _add_operating(commands)
    return parser


def _add(commands: Any, name: str, does: str, text: str, epilog: str = "") -> Parser:
    parser: Parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog)
    parser.set_defaults(does=does, parser=parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument(
        "--home", metavar="DIR", help="where runs are kept; default: FLYTEISH_HOME or the configuration"
    )
    parser.add_argument("--config", metavar="FILE", help="one more configuration file")
    parser.add_argument("--traceback", action="store_true", help="show where flyteish's own errors come from")
    return parser


def _add_running(commands: Any) -> None:
    run = _add(
        commands,
        "run",
        "run:run",
        "run a task and print its result",
        "Options of `flyteish run` stand before FILE, those of the task after TASK;\n"
        "`flyteish run FILE TASK --help` shows the task's. Progress goes to standard error.\n"
        f"\nexit codes:\n{exit_codes.table()}",
    )
    _add_run_options(run)
    run.add_argument("--name", help="the run's name; default: one that sorts by time")
    run.add_argument("--quiet", action="store_true", help="show no progress")
    run.add_argument("--forecast", action="store_true", help="say first when it will finish and what it will cost")
    _add_file_and_task(run)

    resume = _add(commands, "resume", "run:resume", "go on with a run that was stopped or whose controller died")
    resume.add_argument("--quiet", action="store_true", help="show no progress")
    resume.add_argument("run", metavar="RUN", help=_RUN_HELP)

    plan = _add(commands, "plan", "plan:plan", "say which attempts of a task would run on which machines, and why")
    _add_run_options(plan)
    plan.add_argument("--forecast", action="store_true", help="say, too, when it would finish and what it would cost")
    plan.add_argument(
        "--work", metavar="TIMES", help="with --forecast: a time or distribution; default: as in past runs"
    )
    plan.add_argument("--checkpoint-every", metavar="TIME", help="with --forecast: default: as seen in past runs")
    plan.add_argument("--count", type=_count, metavar="N", help="with --forecast: runs started at once; default: 1")
    plan.add_argument("--rounds", type=_count, metavar="N", help="with --forecast: simulated runs; default: 200")
    _add_file_and_task(plan, its_options=False)


def _add_file_and_task(parser: Parser, its_options: bool = True) -> None:
    parser.add_argument("file", metavar="FILE", help=_FILE_HELP)
    parser.add_argument("task", metavar="TASK", nargs="?", help=_TASK_HELP)
    if its_options:
        parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the task")
    else:
        parser.set_defaults(rest=())


def _add_run_options(parser: Parser) -> None:
    parser.add_argument("--queue", help="the queue that the run waits in")
    parser.add_argument("--interruptible", action=argparse.BooleanOptionalAction, help="may it run on spot machines")
    parser.add_argument("--priority", metavar="P", help="min, medium, max or 1 to 100")
    parser.add_argument(
        "--env", action="append", metavar="NAME=VALUE", default=[], help="an environment variable of its tasks"
    )
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--overwrite-cache", action="store_true", help="compute results anew and keep them")
    cache.add_argument("--no-cache", action="store_true", help="neither use nor keep results")


def _add_simulating(commands: Any) -> None:
    simulate = _add(
        commands, "simulate", "simulate:simulate", "try tasks, scenarios or recorded runs on spot markets",
        "FILE holds scenarios (flyteish.simulation.Scenario), or tasks; then --work says what a task does, and queues\n"
        "and pools are those of the configuration. Times are written as 90s, 10m, 48h; a distribution of times as\n"
        "lognormal:MEDIAN,SIGMA or exponential:MEAN. A MARKET is one of\n\n"
        "  trace:PATH[,speed=N][,start=TIME][,nodes=N]\n"
        "  random:[median_lifetime=TIME][,seed=N][,shape=X][,floor=TIME]\n"
        "  script:TIME[,TIME or never]...\n\n"
        "each with [,notice_seconds=TIME]. The table goes to standard output, speed and memory to standard error.",
    )  # fmt: skip
    add = simulate.add_argument
    add("file", metavar="FILE", nargs="?", help=_FILE_HELP)
    add("name", metavar="NAME", nargs="?", help="its scenario or task; default: the only one")
    add("--run", action="append", default=[], metavar="RUN", help="what this run did, in place of FILE; repeatable")
    add("--replay-failures", action="store_true", help="with --run: what failed then fails again")
    add("--work", metavar="TIMES", help="what one action works, undisturbed: a time or a distribution")
    add("--checkpoint-every", metavar="TIME", help="it saves a checkpoint after so much work; default: none")
    add("--save-seconds", metavar="TIME", help="how long a save takes; default: 0")
    add("--startup", metavar="TIME", help="from admission until its code begins; default: what the pool says")
    add("--failure-rate", type=_share, metavar="X", help="the share of attempts that raise, 0 to 1; default: 0")
    add("--deadline", metavar="TIME", help="the task's deadline, in place of its own")
    add("--count", type=_count, metavar="N", help="how many actions come; default: 1")
    add("--every", metavar="TIMES", help="between two of them: a time or a distribution; default: all at once")
    add("--policy", action="append", default=[], metavar="NAME", help="as-written, on-demand, default, ...; repeatable")
    add("--market", action="append", default=[], metavar="POOL=MARKET", help="who reclaims a pool's machines")
    add(
        "--price",
        action="append",
        default=[],
        metavar="POOL=DOLLARS",
        help="of an attempt's hour; or market, its prices",
    )
    add("--seeds", type=_count, default=1, metavar="N", help="rounds, each with other markets, work and failures")
    add("--picture", metavar="FILE", help="write the report as an SVG picture, too")


def _add_looking(commands: Any) -> None:
    get = commands.add_parser("get", help="list runs, actions, attempts, queues or pools")
    get.set_defaults(parser=get)
    kinds = get.add_subparsers(dest="kind", required=True, metavar="WHAT", parser_class=Parser)
    runs = _add(kinds, "runs", "get:runs", "runs, newest first")
    runs.add_argument("--active", action="store_true", help="only those that have not ended")
    runs.add_argument("--limit", type=_count, default=50, help="how many at most; default: 50")
    actions = _add(kinds, "actions", "get:actions", "the actions of a run, as they were called")
    actions.add_argument("run", metavar="RUN", help=_RUN_HELP)
    attempts = _add(kinds, "attempts", "get:attempts", "the attempts of a run, or of one of its actions")
    _add_run_and_action(attempts)
    _add(kinds, "queues", "get:queues", "queues and what is in them")
    _add(kinds, "pools", "get:pools", "pools and what runs in them")

    logs = _add(commands, "logs", "logs:logs", "print what attempts printed")
    _add_run_and_action(logs)
    logs.add_argument("--attempt", type=_count, metavar="N", help="only this attempt of the action")
    logs.add_argument("--follow", "-f", action="store_true", help="go on printing until the run is over")
    cost = _add(commands, "cost", "cost:cost", "say what runs cost, what was lost, and what on-demand would have cost")
    cost.add_argument(
        "run", metavar="RUN[/ACTION]", nargs="?", help=f"{_RUN_HELP}; an action counts with all below it; default: all"
    )
    cost.add_argument("--by", choices=_COST_BY, help="default: run for all, task for a run, attempt for an action")
    cost.add_argument("--since", metavar="TIME", help="only runs submitted within this time, such as 7d or 12h")
    forecasts = _add(commands, "forecasts", "forecasts:forecasts", "list runs beside their forecasts, newest first")
    forecasts.add_argument("--task", metavar="TASK", help="only runs of this one, environment.function")
    forecasts.add_argument("--limit", type=_count, default=50, help="how many at most; default: 50")
    why = _add(commands, "why", "why:why", "say what was decided about an action, and why")
    _add_run_and_action(why)


def _add_run_and_action(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help=f"{_RUN_HELP}; RUN/ACTION works too")
    parser.add_argument("action", metavar="ACTION", nargs="?", help="an action's id, its beginning, or its task")


def _add_operating(commands: Any) -> None:
    abort = _add(commands, "abort", "abort_and_queue:abort", "end a run, or one action of it")
    abort.add_argument("run", metavar="RUN[/ACTION]", help=_RUN_HELP)
    abort.add_argument("--reason", default="", help="why; it is kept with the run")
    abort.add_argument("--wait", type=_seconds, default=10.0, metavar="S", help="seconds to wait for it; default: 10")
    queue = commands.add_parser("queue", help="hold, drain or activate a queue")
    queue.set_defaults(parser=queue)
    verbs = queue.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for verb, text in (
        ("hold", "keep a queue from starting work"),
        ("drain", "let a queue refuse new work and finish what it has"),
        ("activate", "undo hold and drain"),
    ):
        each = _add(verbs, verb, "abort_and_queue:queue", text)
        each.add_argument("queue", metavar="NAME", help="the queue")
    config = commands.add_parser("config", help="show the configuration")
    config.set_defaults(parser=config)
    shows = config.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    _add(shows, "show", "get:config", "every value of the configuration and where it came from")
    gc = _add(commands, "gc", "gc:gc", "remove old runs, their logs and values that nobody needs any more")
    gc.add_argument("--older-than", metavar="TIME", help="such as 7d or 12h; default: keep_days of the configuration")
    gc.add_argument(
        "--forget-unused", metavar="TIME",
        help="also remove checkpoint keys and cached results that nobody used for so long; default: they are kept",
    )  # fmt: skip
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
