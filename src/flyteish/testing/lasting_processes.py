"""Processes that go on when whoever started them is gone, and that the next one finds again. POSIX only.

**How a process is known again.** Each has a file, which it holds locked for as long as it lives: the lock is taken
before the process is started and inherited by it, so that there is no moment at which it is not locked, and the kernel
lets go of it whatever the end was. A locked file means a living process, and a number that was given to another
process since is never mistaken for it. In the file stands its process id, which it writes itself before it becomes what
it is to be, for whoever started it may be dead by then. It leads a session of its own, so that one signal ends it with
all that it started.

Must not know what the processes are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

#: Writes the process's id into its file, then becomes the program.
_START: Final = 'echo $$ >"$0" && exec "$@"'
#: Seconds that a process may take from its birth until its id is in its file.
_ID_SECONDS: Final = 5.0
_TAIL: Final = 4_096


class LastingProcess:
    """One of them, alive or not; its files lie beside each other and go with ``forget``."""

    def __init__(self, path: Path, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self._path = path
        self.pid = pid
        self._child = child
        self._over = False

    def __repr__(self) -> str:
        return f"LastingProcess({self.pid}{', gone' if self._over else ''})"

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet. Whoever finds that it has ends what it left behind, and reaps it."""
        if not self._over and not self._lives():
            self._over = True
            self._end_the_rest()
        return not self._over

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: the signal); None where only whoever started it could know, or if it lives."""
        if self._child is None or self.alive:
            return None
        return self._child.wait()

    def terminate(self) -> None:
        """Send SIGTERM to the process itself."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process and to what it started."""
        if self.alive:
            # macOS says PermissionError of a group of the dead.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """It goes on without us; all that we still do is to reap it, should we be there at its end."""
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            threading.Thread(target=child.wait, name=f"flyteish wait for {self.pid}", daemon=True).start()

    def last_words(self) -> str:
        """The last line that it wrote to its standard output or error; empty where there is none."""
        with contextlib.suppress(OSError), open(output_of(self._path), "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def forget(self) -> None:
        """Remove its files."""
        for path in (self._path, output_of(self._path)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _lives(self) -> bool:
        if self._child is not None:
            if not hasattr(os, "waitid"):  # not everywhere before Python 3.13
                return self._child.poll() is None
            # Left unreaped, so that its number is not given to another process while we may still signal its group.
            with contextlib.suppress(ChildProcessError):  # the program lets nobody wait for its children
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            return False
        try:
            # It is locked, too, while a process lives that was forked from it.
            return is_locked(self._path) and os.getsid(self.pid) == self.pid
        except ProcessLookupError:
            return False

    def _end_the_rest(self) -> None:
        """What it started and left behind ends with it."""
        if self._child is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 0)
                return  # it was reaped by somebody else, and its number may be another's now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._child is not None:
            self._child.wait()


class LastingProcesses:
    """Those whose files are in one folder.

    Raises:
        OSError: the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"LastingProcesses({str(self._folder)!r})"

    def start(self, name: str, command: Sequence[str], told: str = "") -> LastingProcess:
        """Start a program under a name that no living one has.

        Args:
            told: what it reads from its standard input, a few hundred bytes: nobody else sees it.

        Raises:
            OSError: the operating system has no process or no file descriptor left.
        """
        path = self._folder / name
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        hear, say = os.pipe()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(say, told.encode())  # it is there before the process is, whatever becomes of us
            with open(output_of(path), "wb") as output:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _START, str(path), *command],
                    stdin=hear,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            for descriptor in (lock, hear, say):
                os.close(descriptor)
        return LastingProcess(path, child.pid, child)

    def find(self, name: str) -> LastingProcess | None:
        """The process that was started under this name, by whomever: alive, or not any more; None: there was none."""
        path = self._folder / name
        deadline = time.monotonic() + _ID_SECONDS
        while True:
            try:
                text = path.read_text(encoding="ascii")
            except FileNotFoundError:
                return None
            if text.endswith("\n"):
                return LastingProcess(path, int(text))
            if not is_locked(path):
                path.unlink(missing_ok=True)
                output_of(path).unlink(missing_ok=True)
                return None  # whoever was about to start it died first
            if time.monotonic() > deadline:
                raise OSError(f"the process that holds {path} does not say who it is")
            time.sleep(0.001)

    def names(self) -> Iterator[str]:
        """Under which processes were started and not forgotten."""
        return (path.name for path in sorted(self._folder.iterdir()) if path.suffix != ".output")


async def all_gone(processes: Sequence[LastingProcess], seconds: float) -> None:
    """Wait until they have ended, but no longer than this."""
    loop = asyncio.get_running_loop()
    patience = loop.time() + seconds
    while any(process.alive for process in processes) and loop.time() < patience:  # noqa: ASYNC110 - nothing tells us
        await asyncio.sleep(0.01)


def is_locked(path: Path) -> bool:
    """Whether some process holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def output_of(path: Path) -> Path:
    """Where a process says what it has to say before it knows a better place."""
    return path.with_name(f"{path.name}.output")
