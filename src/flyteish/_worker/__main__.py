"""The worker process, started in one of two ways.

``python -m flyteish._worker FD``: by an engine at the other end of socket ``FD``, for whatever it is given. Its token
comes by standard input, where nobody else can see it.

``python -m flyteish._worker --connect tcp://HOST:PORT --attempt RUN ACTION GENERATION``: anywhere, for that attempt;
``--connect file:///PATH``, where the address may change: the file says it.
Its token is in the variable FLYTEISH_WORKER_TOKEN, which is removed at once, or in a file.

Must not know what a worker does.
"""

from __future__ import annotations

import os
import socket
import sys

from flyteish._worker.connection import Connection
from flyteish._worker.worker import Worker


def inherited(descriptor: int) -> None:
    """Serve the engine at the other end of this socket."""
    os.set_inheritable(descriptor, False)
    token = sys.stdin.readline()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    with socket.socket(fileno=descriptor) as sock:
        Worker(Connection(sock, token)).serve()


def connecting(arguments: list[str]) -> None:
    """Serve the engine that listens there with one attempt."""
    # Here, since a worker of a pool has to be there fast.
    import argparse
    from pathlib import Path

    from flyteish._core.model.ids import AttemptKey
    from flyteish._worker.reconnect import NetworkConnection, address_given
    from flyteish._worker.variables import TOKEN_VARIABLE, taken_out

    parser = argparse.ArgumentParser(prog="python -m flyteish._worker", description="Runs one attempt.")
    parser.add_argument("--connect", required=True, metavar="URL", type=address_given)
    parser.add_argument("--attempt", required=True, nargs=3, metavar=("RUN", "ACTION", "GENERATION"))
    parser.add_argument("--token-file", type=Path, help=f"default: the variable {TOKEN_VARIABLE}")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that connecting is tried at first")
    given = parser.parse_args(arguments)
    variable = taken_out(TOKEN_VARIABLE)
    token = variable if given.token_file is None else given.token_file.read_text().strip()
    if not token:
        parser.error(f"a token is needed: in {TOKEN_VARIABLE}, or in a file that --token-file names")
    run, action, generation = given.attempt
    key = AttemptKey(run, action, int(generation))
    Worker(NetworkConnection(given.connect, token, key, given.patience), only=key).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the attempt is over, whatever threads it has left


if __name__ == "__main__":
    inherited(int(sys.argv[1])) if sys.argv[1].isdecimal() else connecting(sys.argv[1:])
