"""A network that is not to be relied on: stands between workers and their controller, and cuts connections.

Bytes are passed on as they come; at seeded places a connection is reset in the middle of whatever passes. Where nobody
listens behind it, whoever connects is hung up on, or kept waiting for a while.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)
_WAIT_SECONDS = 5.0
LASTING = 0.7
"""Share of the connections that are left alone."""
WAITING = 0.7
"""Share of the connections that wait for a controller, where there is none."""


class Proxy:
    """Listens from when it is made until ``close``, on a port that stays.

    Args:
        behind: where the controller listens now; None while there is none.
        chance: decides after how many bytes a connection is cut.
    """

    def __init__(self, behind: Callable[[], tuple[str, int] | None], chance: random.Random) -> None:
        self._behind = behind
        self._chance = chance
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._over = False
        self.passed = 0
        """Pieces of data that went through, in both directions."""
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def __repr__(self) -> str:
        return f"<Proxy at {self.port}: {self.passed} pieces passed, {self.cuts} connections cut>"

    def cut_all(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            found = list(self._open)
            self.cuts += len(found) // 2
        for sock in found:
            reset(sock)

    def close(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    @staticmethod
    def _start(work: Callable[..., None], *args: object) -> None:
        threading.Thread(target=work, args=args, name=f"proxy {work.__name__}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            lasts, waits = self._chance.random() < LASTING, self._chance.random() < WAITING
            budget = 2**62 if lasts else int(10 ** self._chance.uniform(1.5, 4.5))
            self._start(self._serve, worker, budget, waits)

    def _serve(self, worker: socket.socket, budget: int, waits: bool) -> None:
        controller = self._connected(time.monotonic() + (_WAIT_SECONDS if waits else 0.0))
        if controller is None:
            reset(worker)
            return
        left = [budget]
        with self._lock:
            self._open |= {worker, controller}
        self._start(self._pass_on, controller, worker, left)
        self._pass_on(worker, controller, left)

    def _connected(self, until: float) -> socket.socket | None:
        """The way to the controller, as soon as there is one."""
        while not self._over:
            address = self._behind()
            if address is not None:
                with contextlib.suppress(OSError):
                    found = socket.create_connection(address, timeout=5)
                    found.settimeout(None)
                    return found
            if time.monotonic() >= until:
                return None
            time.sleep(0.005)
        return None

    def _pass_on(self, source: socket.socket, target: socket.socket, left: list[int]) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    data, cut = data[: left[0]], len(data) > left[0]
                    left[0] -= len(data)
                    self.passed += 1
                    self.cuts += cut
                target.sendall(data)
                if cut:
                    break
        except OSError:
            pass
        with self._lock:
            self._open -= {source, target}
        reset(source)
        reset(target)


def reset(sock: socket.socket) -> None:
    """Neither end has said good-bye. Wakes whoever reads from it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
