"""One worker process as its engine sees it: started, spoken to, killed, and waited for.

Moves messages and signals; must not know what an attempt is. Lives on one event loop: every method is
called there, and ``heard`` and ``gone`` are called there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from flyteish._worker import messages as m

_READ = 1 << 18
#: Seconds that a worker which closed its connection gets to end by itself.
_EOF_SECONDS = 1.0
_TAIL = 4_096


class WorkerProcess:
    """A started process.

    Args:
        hello: its first message.
        heard: called with each message that it sends.
        gone: called once, with the exit code (negative: the signal), after its last message was heard.

    Raises:
        OSError: the operating system has no process or no file descriptor left.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hello: m.Hello,
        heard: Callable[[m.FromWorker], None],
        gone: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._heard = heard
        self._gone = gone
        self._inbox = m.FrameReader()
        self._outgoing = bytearray()
        self._writing = False
        self._exited = False
        self._deadline: asyncio.TimerHandle | None = None
        self.killed = False
        """Whether we sent it SIGKILL."""
        self._socket, theirs = socket.socketpair()
        # What it says before it has redirected its output: why it could not start.
        self._early: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            with theirs:
                self._process = self._spawn(theirs)
        except BaseException:
            self._socket.close()
            self._early.close()
            raise
        self._socket.setblocking(False)
        loop.add_reader(self._socket, self._readable)
        name = f"flyteish wait for worker {self.pid}"
        self._waiter = threading.Thread(target=self._wait, name=name, daemon=True)
        self._waiter.start()
        self._folder = None if hello.scratch is None else Path(hello.scratch, str(self.pid))
        self.send(hello)

    def __repr__(self) -> str:
        state = "exited" if self._exited else "killed" if self.killed else "alive"
        return f"WorkerProcess({self.pid}, {state})"

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        descriptor = theirs.fileno()
        return subprocess.Popen(
            # -P: a file in the working directory must not stand in for a module of the standard library.
            [sys.executable, "-P", "-m", "flyteish._worker", str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=self._early,
            stderr=self._early,
            pass_fds=(descriptor,),
            # A session of its own: Ctrl-C does not reach it, and one signal ends it with its children.
            start_new_session=True,
        )

    # -- speaking ------------------------------------------------------------------------------------------

    def send(self, message: m.ToWorker) -> None:
        """Send soon, in order. To a process that is gone: nothing, ``gone`` tells."""
        if self._exited or self._socket.fileno() < 0:
            return
        data = m.frame(message)
        if not self._writing:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)
        self._outgoing += data

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    # -- hearing -------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
            return
        self._loop.remove_reader(self._socket)
        # It ends, or user code closed the socket beneath it; then it is of no more use.
        self._deadline = self._loop.call_later(_EOF_SECONDS, self.kill)

    def _take(self, data: bytes) -> None:
        try:
            messages = [m.from_worker.decode(body) for body in self._inbox.feed(data)]
        except (m.ConnectionBrokenError, ValueError):  # msgspec's errors are ValueErrors
            self._loop.remove_reader(self._socket)
            self.kill()
            return
        for message in messages:
            self._heard(message)

    def drain(self) -> None:
        """Hear what it has said until now."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_READ)
            except OSError:
                return
            if not data:
                return
            self._take(data)

    # -- ending --------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Send SIGTERM to the process itself."""
        if not self._exited:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process and to what it started."""
        if self._exited:
            return
        self.killed = True
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended and only waits to be reaped

    def hang_up(self) -> None:
        """Close the connection: the process ends by itself, with what it started."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def last_words(self) -> str:
        """The last line that it wrote before it was ready; empty where there is none."""
        if self._early.closed:
            return ""
        self._early.seek(0, os.SEEK_END)
        self._early.seek(max(0, self._early.tell() - _TAIL))
        lines = self._early.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            # Left unreaped, so that its number is not given to another process while we may still signal it.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        # What tasks started and left behind ends with the process that they ran in.
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of the dead
            os.killpg(self.pid, signal.SIGKILL)
        try:
            self._loop.call_soon_threadsafe(self._exit)
        except RuntimeError:
            pass  # the loop is closed: nobody asks any more

    def _exit(self) -> None:
        self.drain()
        self._exited = True
        code = self._process.wait()
        if self._deadline is not None:
            self._deadline.cancel()
        self.hang_up()
        self._waiter.join()
        if self._folder is not None and self._folder.is_dir():  # killed, it could not remove its private files
            self._loop.run_in_executor(None, partial(shutil.rmtree, self._folder, ignore_errors=True))
        try:
            self._gone(code)
        finally:
            self._early.close()


def processors() -> int:
    """Those that this process may use, which in a container can be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
