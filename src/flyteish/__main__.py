"""``python -m flyteish``: the same as the ``flyteish`` command, for where that is not on the PATH.

Runs only when it is the program. Must not know any command.
"""

from flyteish.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
