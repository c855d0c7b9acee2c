"""One worker process as its engine sees it: started, killed, and waited for.

Whoever ``admit`` hands its stream to speaks with it; here are only its signals and its end. Must not know what an
attempt is. Lives on one event loop: every method is called there, and ``admit`` and ``gone`` are.
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
from hmac import compare_digest
from pathlib import Path
from secrets import token_urlsafe
from typing import IO

from flyteish._worker import messages as m
from flyteish.engines.workers.door import Admit, Door
from flyteish.engines.workers.stream import SocketStream

#: Seconds that a worker may need to start.
_START_SECONDS = 60.0
#: Seconds that a worker which closed its connection gets to end by itself.
_EOF_SECONDS = 1.0
_TAIL = 4_096


class WorkerProcess:
    """A started process.

    Args:
        admit: asked when it has said hello.
        gone: called once, with the exit code (negative: the signal), after its last message was heard.
        scratch: the folder below which it has one for private files.

    Raises:
        OSError: the operating system has no process or no file descriptor left.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admit: Admit,
        gone: Callable[[int], None],
        scratch: str | None,
    ) -> None:
        self._loop = loop
        self._admit = admit
        self._gone = gone
        self._token = token_urlsafe(16).encode()
        """What it shows; nobody else knows it."""
        self._sent_away_for = ""
        self._exited = False
        self._deadline: asyncio.TimerHandle | None = None
        self.killed = False
        """Whether we sent it SIGKILL."""
        ours, theirs = socket.socketpair()
        # What it says before it has redirected its output: why it could not start.
        self._early: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            with theirs:
                self._process = self._spawned(theirs)
        except BaseException:
            ours.close()
            self._early.close()
            raise
        self._door = Door(loop, ours, self._hello, self._met, _START_SECONDS)
        name = f"flyteish wait for worker {self.pid}"
        self._waiter = threading.Thread(target=self._wait, name=name, daemon=True)
        self._waiter.start()
        self._folder = None if scratch is None else Path(scratch, str(self.pid))

    def __repr__(self) -> str:
        state = "exited" if self._exited else "killed" if self.killed else "alive"
        return f"WorkerProcess({self.pid}, {state})"

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def _spawned(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        descriptor = theirs.fileno()
        process = subprocess.Popen(
            # -P: a file in the working directory must not stand in for a module of the standard library.
            [sys.executable, "-P", "-m", "flyteish._worker", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=self._early,
            stderr=self._early,
            pass_fds=(descriptor,),
            # A session of its own: Ctrl-C does not reach it, and one signal ends it with its children.
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:  # by no argument and no variable, which others can see
            stdin.write(self._token)
        return process

    # -- hearing -------------------------------------------------------------------------------------------

    def _eof(self) -> None:
        # It ends, or user code closed the socket beneath it; then it is of no more use.
        self._deadline = self._loop.call_later(_EOF_SECONDS, self.kill)

    def _hello(self, hello: m.Hello, stream: SocketStream) -> m.Rejected | None:
        if not compare_digest(hello.token.encode(), self._token):
            return m.Rejected("this is not the worker that was started")
        stream.ended = self._eof
        return self._admit(hello, stream)

    def _met(self, door: Door, why: str | None) -> None:
        if why == "":
            self._eof()
        elif why is not None:
            self._sent_away_for = why
            self.kill()

    def drain(self) -> None:
        """Hear what it has said until now."""
        self._door.stream.drain()

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
        self._door.close()

    def last_words(self) -> str:
        """Why it was sent away, or the last line that it wrote before it was ready; empty where there is none."""
        if self._sent_away_for or self._early.closed:
            return self._sent_away_for
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
