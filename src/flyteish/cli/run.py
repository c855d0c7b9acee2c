"""``flyteish run`` and ``flyteish resume``: start or go on with a run, watch it, say how it ended.

Ctrl-C (or SIGTERM) stops the run so that it can be resumed, within a bounded time; a second one leaves at once. Must
not know how tasks are loaded, nor how progress looks.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from flyteish._core.wording import counted, money, span
from flyteish.cli.displays import Display, display_for
from flyteish.cli.exit_codes import OF_PHASE, ExitCode, UsageError, code_for
from flyteish.cli.formatting import error_text, jsonable, print_json, user_traceback
from flyteish.cli.loading import findable, module_of, task_in, tasks_in
from flyteish.cli.progress import News, Progress
from flyteish.cli.records import Records
from flyteish.cli.task_options import arguments
from flyteish.errors import ConfigurationError, FlyteishError

if TYPE_CHECKING:
    from types import FrameType

    from flyteish.session import Run, Session

STOP_SECONDS: Final = 30.0
"""How long a stop may take before the process leaves without it."""
_LOOK_SECONDS: Final = 0.1
_STALL_SECONDS: Final = 2.0
"""With nothing running for so long, it is said what is waited for."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as when the machine goes away."""


def run(args: Namespace) -> int:
    """``flyteish run [options] FILE TASK [options of the task]``."""
    file, name, rest = file_and_task(args)
    with standard_output(args) as out, module_of(file) as module:
        if name is None and {"-h", "--help"} & set(rest):
            print(f"tasks of {file}: {', '.join(tasks_in(module)) or 'none'}", file=out)
            return ExitCode.OK
        task = task_in(module, name, file)
        call = arguments(task, rest, file)
        said = run_options(args)
        with _session(args) as session, _sigterm():
            runner = session.with_runcontext(name=args.name, command=_command(args), **said)
            if args.forecast:
                _forecast(runner, task)
            return _conduct(args, session, out, lambda: runner.run(task, *call.args, **call.kwargs))


def _forecast(runner: Any, task: Any) -> None:
    """On standard error, as all that is no result; the first run of a task has none."""
    try:
        print(runner.forecast(task), file=sys.stderr)
    except ConfigurationError as error:
        print(f"no forecast: {error}", file=sys.stderr)


def resume(args: Namespace) -> int:
    """``flyteish resume RUN``."""
    records = Records(args)
    row = records.run(args.run)
    reference = records.record(row.run).root_action.profile.reference
    known = sum(1 for _ in records.store.read(row.run))
    with (
        standard_output(args) as out,
        findable(reference.module, reference.file, row.entry),
        _session(args) as session,
        _sigterm(),
    ):
        return _conduct(args, session, out, lambda: session.resume(row.run), known)


def file_and_task(args: Namespace) -> tuple[str, str | None, Sequence[str]]:
    """FILE, TASK and the task's options; ``FILE:TASK`` is one way to give the first two."""
    file, name, rest = args.file, args.task, args.rest
    head, colon, tail = file.rpartition(":")
    if colon and tail.isidentifier():
        return head, tail, [*([] if name is None else [name]), *rest]
    if name is not None and name.startswith("-"):
        return file, None, [name, *rest]
    return file, name, rest


def run_options(args: Namespace) -> dict[str, Any]:
    """What the options before FILE say, as ``with_runcontext`` takes it."""
    variables: dict[str, str] = {}
    for text in args.env:
        variable, equals, value = text.partition("=")
        if not equals or not variable:
            raise UsageError(f"--env {text!r} is not accepted: expected NAME=VALUE")
        variables[variable] = value
    priority: Any = UNSET if args.priority is None else args.priority
    if isinstance(priority, str) and priority.lstrip("-").isdecimal():
        priority = int(priority)
    return {
        "queue": UNSET if args.queue is None else args.queue,
        "interruptible": UNSET if args.interruptible is None else args.interruptible,
        "priority": priority,
        "env_vars": variables or UNSET,
        "overwrite_cache": args.overwrite_cache,
        "disable_run_cache": args.no_cache,
    }


def _command(args: Namespace) -> str:
    """For people, so values of environment variables are not in it."""
    words = ["flyteish", *args.given]
    for text in args.env:
        masked = f"{text.partition('=')[0]}=***"
        words = [masked if word == text else word.replace(f"--env={text}", f"--env={masked}") for word in words]
    return shlex.join(words)


@contextlib.contextmanager
def standard_output(args: Namespace) -> Iterator[Any]:
    """Where the result goes. With --json nothing else does: what tasks print goes to standard error."""
    out = sys.stdout
    if not args.json:
        yield out
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield out


@contextlib.contextmanager
def _session(args: Namespace) -> Iterator[Session]:
    from flyteish.config import load_config
    from flyteish.session import Session

    config = load_config(home=UNSET if args.home is None else args.home, file=args.config)
    with Session(config=config, print_to_log=True, recover="none") as session:
        yield session


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Within it SIGTERM is an exception of the main thread's, as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- watching --------------------------------------------------------------------------------------------------------


def _conduct(args: Namespace, session: Session, out: Any, start: Callable[[], Run[Any]], known: int = 0) -> int:
    """Start, watch, report. ``known``: entries of the journal that are no news."""
    handle: Run[Any] | None = None
    display: Display | None = None
    try:
        handle = start()
        display = display_for(handle.name, handle.task_name, args.quiet)
        progress = _watch(handle, display, known)
        display.close()
        return _report(args, handle, progress, out)
    except KeyboardInterrupt as stop:
        if display is not None:
            display.close()
        return _stopped(args, session, handle, stop)


def _watch(handle: Run[Any], display: Display, known: int) -> Progress:
    progress = Progress(handle.name)
    progress.take(islice(handle.journal(), known))
    quiet_since = time.monotonic()
    while True:
        over = handle.done()
        news = progress.take(handle.journal(progress.seen))
        if news:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > _STALL_SECONDS and (action := progress.stalled()) is not None:
            quiet_since = math.inf  # said once
            news = [News(time.time(), action, handle.task_name, handle.why(action).splitlines()[-1], "", True)]
        display.show(news, progress)
        if over:
            progress.recount()
            return progress
        with contextlib.suppress(TimeoutError):
            handle.wait(_LOOK_SECONDS)


def _report(args: Namespace, handle: Run[Any], progress: Progress, out: Any) -> int:
    """The result on standard output; how it went, and the error, on standard error."""
    result, error = None, None
    try:
        result = handle.result()
    except Exception as raised:
        error = raised
    phase = handle.phase
    code = OF_PHASE.get(phase, ExitCode.FAILED)
    if phase == "refused" and error is not None:
        code = code_for(error) or code
    if error is not None:
        own = isinstance(error, FlyteishError)
        print(f"flyteish: {error_text(error)}" if own else user_traceback(error), file=sys.stderr)
    if not args.quiet and phase != "refused":
        print(_summary(handle, phase, progress), file=sys.stderr)
    with contextlib.redirect_stdout(out):
        if args.json:
            print_json(_document(handle, phase, result, error, code))
        elif error is None and result is not None:
            print(_readable(result))
    return code


def _summary(handle: Run[Any], phase: str, progress: Progress) -> str:
    record = handle.record()
    parts = [f"run {handle.name} {phase.replace('_', ' ')}"]
    if record.ended_at:
        parts[0] += f" after {span(record.ended_at - record.submitted_at)}"
    begun = ", ".join(f"{count} on {medium}" for medium, count in sorted(progress.attempts.items(), reverse=True))
    parts.append(counted(progress.actions, "action"))
    parts.append(f"attempts: {begun or 'none'}")
    if progress.preemptions:
        parts.append(f"{progress.preemptions} preempted")
    cost = handle.cost()
    if cost.dollars:
        saved = f" ({money(cost.saved)} less than on-demand)" if cost.saved and cost.saved > 0 else ""
        parts.append(f"{money(cost.dollars)}{saved}")
    return "; ".join(parts)


def _document(handle: Run[Any], phase: str, result: Any, error: Exception | None, code: ExitCode) -> dict[str, Any]:
    document: dict[str, Any] = {"run": handle.name, "task": handle.task_name, "phase": phase, "exit_code": int(code)}
    if error is None:
        document["result"] = jsonable(result)
    else:
        notes = list(getattr(error, "__notes__", ()))
        document["error"] = {"type": type(error).__qualname__, "message": str(error), "notes": notes}
    if phase != "refused":
        document["cost"] = handle.cost()
    return document


def _readable(result: Any) -> str:
    if isinstance(result, str):
        return result
    from pprint import pformat

    return pformat(result, width=100, sort_dicts=False)


# -- stopping --------------------------------------------------------------------------------------------------------


def _stopped(args: Namespace, session: Session, handle: Run[Any] | None, stop: KeyboardInterrupt) -> int:
    code = ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
    try:
        print("stopping; Ctrl-C again leaves at once", file=sys.stderr, flush=True)
        in_time = _closed_within(session, STOP_SECONDS)
    except KeyboardInterrupt:
        in_time = False
    if handle is None:
        print("stopped; nothing was started", file=sys.stderr, flush=True)
    elif session.config.durability == "memory":
        print(f"run {handle.name} stopped; durability='memory' has kept nothing of it", file=sys.stderr, flush=True)
    else:
        home = f" --home {shlex.quote(args.home)}" if args.home is not None else ""
        config = f" --config {shlex.quote(args.config)}" if args.config is not None else ""
        how = f"flyteish resume{home}{config} {handle.name}"
        print(f"run {handle.name} stopped; resume with: {how}", file=sys.stderr, flush=True)
    if not in_time or _others_live():
        # What the tasks have left running must not keep the terminal; the journal needs nothing more from us.
        sys.stdout.flush()
        os._exit(code)
    return code


def _closed_within(session: Session, seconds: float) -> bool:
    """On a thread of its own: what hangs in a task must not keep the answer from the person who waits."""
    failures: list[Exception] = []

    def close() -> None:
        try:
            session.close()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=close, name="flyteish-stop", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in failures:
        print(f"flyteish: {error_text(error)}", file=sys.stderr)
    return not thread.is_alive()


def _others_live() -> bool:
    """Threads, made by tasks, that the interpreter would wait for at its end."""
    return any(not each.daemon and each is not threading.main_thread() for each in threading.enumerate())
