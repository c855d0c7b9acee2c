"""From a command line to an exit code: parses, imports the command's module, tells what went wrong.

The one place where errors become words on the terminal and codes for the shell. Must not know what any command
does.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module

from flyteish.cli.exit_codes import ExitCode, LoadError, UsageError, code_for
from flyteish.cli.parser import build, parse


def carry_out(argv: Sequence[str] | None) -> int:
    """See ``flyteish.cli.main``."""
    given = list(sys.argv[1:] if argv is None else argv)
    trace = "--traceback" in given
    try:
        return _guarded(given)
    except UsageError as error:
        _tell(error, trace)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:
        code = code_for(error)
        _tell(error, trace or code is None)
        if code is None:
            print("this is a defect of flyteish, not of your program: please report it", file=sys.stderr)
        return ExitCode.STORE if code is None else code


def _guarded(given: list[str]) -> int:
    try:
        args = parse(build(), given)
        args.given = given
        code = int(_command(args)(args))
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has printed help or the version
        return int(stop.code or 0)
    except BrokenPipeError:
        # `flyteish get runs | head`: the interpreter would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.NOBODY_READS


def _command(args: Namespace) -> Callable[[Namespace], int]:
    module, _, name = args.does.partition(":")
    command: Callable[[Namespace], int] = getattr(import_module(f"flyteish.cli.{module}"), name)
    return command


def _tell(error: Exception, trace: bool) -> None:
    from flyteish.cli.formatting import error_text, user_traceback

    if isinstance(error, LoadError) and error.__cause__ is not None:
        print(user_traceback(error.__cause__), file=sys.stderr)
    if trace:
        import traceback

        traceback.print_exception(error)
    else:
        print(f"flyteish: {error_text(error)}", file=sys.stderr)
