"""The worker process: ``python -m flyteish._worker FD``, started by an engine at the other end of socket ``FD``.

Its token comes by standard input, where nobody else can see it. Must not know what a worker does.
"""

from __future__ import annotations

import os
import socket
import sys

from flyteish._worker.connection import Connection
from flyteish._worker.worker import Worker


def main(descriptor: int) -> None:
    """Serve the engine at the other end of this socket."""
    os.set_inheritable(descriptor, False)
    token = sys.stdin.readline()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    with socket.socket(fileno=descriptor) as sock:
        Worker(Connection(sock, token)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
