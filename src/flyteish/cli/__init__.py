"""The command line, ``flyteish ...`` or ``python -m flyteish ...``. This module is its door and nothing else.

What a command does is in the module that the parser names for it, imported only when that command is given. Must not
know any command.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code (the table is in ``exit_codes``).

    Args:
        argv: the arguments after the program's name. Default: those of this process.
    """
    from flyteish.cli.app import carry_out

    return carry_out(argv)
