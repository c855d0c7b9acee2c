"""Where attempts find the controller of the moment: a loopback address, written into a file that every controller renews.

Must not know attempts: who may come in is asked.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from flyteish._worker.messages import Hello, Rejected
from flyteish.engines.workers.door import Admit, Door
from flyteish.engines.workers.stream import SocketStream
from flyteish.errors import ConfigurationError

HOST: Final = "127.0.0.1"


class RemoteDoor:
    """Open from when it is made until ``close``; lives on one event loop.

    Args:
        folder: in which the file ``address`` is.
        admit: takes over the stream of whoever has said hello, or says why not.

    Raises:
        ConfigurationError: another engine that lives uses the folder.
        OSError: the folder can't be used, or there is no port left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, admit: Admit) -> None:
        self._loop = loop
        self._admit = admit
        self._doors: set[Door] = set()
        self._owner = os.open(folder / "owner", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._listener = socket.create_server((HOST, 0), backlog=256)
            self._listener.setblocking(False)
            renew(folder / "address", f"{HOST}:{self._listener.getsockname()[1]}")
        except BlockingIOError:
            os.close(self._owner)
            raise ConfigurationError(
                f"RemoteEngine(folder={str(folder)!r}) is not accepted: another engine that lives uses it; "
                "give each session one of its own"
            ) from None
        except BaseException:
            os.close(self._owner)
            raise
        loop.add_reader(self._listener, self._accept)

    def __repr__(self) -> str:
        return f"RemoteDoor({self._listener.getsockname()}, {len(self._doors)} not known yet)"

    def close(self) -> None:
        """Nobody comes in any more; those who have are not disturbed."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for door in list(self._doors):
            door.close()
        os.close(self._owner)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # whoever it was has gone again, or there is no file descriptor left: it will try again
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._doors.add(Door(self._loop, sock, self._admit_it, self._left))

    def _admit_it(self, hello: Hello, stream: SocketStream) -> Rejected | None:
        rejected = self._admit(hello, stream)
        if rejected is None:  # the stream is theirs now
            self._doors = {door for door in self._doors if door.stream is not stream}
        return rejected

    def _left(self, door: Door, why: str) -> None:
        self._doors.discard(door)


def renew(path: Path, text: str) -> None:
    """Replace a small file whole."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text, encoding="ascii")
    draft.replace(path)
