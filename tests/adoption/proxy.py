"""A network that is not to be relied on: stands between workers and their controller, and cuts connections.

Bytes are passed on as they come; at seeded places a connection is reset in the middle of whatever passes. Where nobody
listens behind it, whoever connects is hung up on.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens from ``open`` to ``close``, on a port that stays.

    Args:
        behind: where the controller listens now; None while there is none.
        chance: decides after how many bytes a connection is cut.
        lasting: share of the connections that are left alone.
    """

    def __init__(self, behind: Callable[[], tuple[str, int] | None], chance: random.Random, lasting: float) -> None:
        self._behind = behind
        self._chance = chance
        self._lasting = lasting
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._over = False
        self.passed = 0
        """Pieces of data that went through, in both directions."""
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

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

    def _accept(self) -> None:
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            address = self._behind()
            print("ACC", __import__("time").time()%1000, worker.getpeername()[1], address, flush=True)
            try:
                if address is None or self._over:
                    raise ConnectionRefusedError
                controller = socket.create_connection(address, timeout=5)
            except OSError:
                print("REFUSED", __import__("time").time()%1000, flush=True)
                reset(worker)
                continue
            with self._lock:
                self._open |= {worker, controller}
                lasts = self._chance.random() < self._lasting
                print("CONN", __import__("time").time()%1000, flush=True)
                bytes_left = 2**62 if lasts else int(10 ** self._chance.uniform(0.5, 4))
            budget = [bytes_left]
            for source, target in ((worker, controller), (controller, worker)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, budget), name="proxied", daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, budget: list[int]) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    data, cut = data[: budget[0]], len(data) > budget[0]
                    budget[0] -= len(data)
                    self.passed += 1
                target.sendall(data)
                if cut:
                    with self._lock:
                        self.cuts += 1
                    break
        except OSError:
            pass
        print("END", __import__("time").time()%1000, budget, flush=True)
        reset(source)
        reset(target)
        with self._lock:
            self._open -= {source, target}


def reset(sock: socket.socket) -> None:
    """The other end gets an error, not an end in good order."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
