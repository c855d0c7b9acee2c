"""The folder of a remote engine: what the engine of the next session has to know of this one.

In it are the files of its attempts' processes, their private files, and in ``address`` where the engine of the moment
listens. One engine at a time has it, as the kernel knows for certain: a lock that ends with whoever holds it. Must not
know what is in the files of the processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from flyteish._core.model.ids import AttemptKey
from flyteish._worker.reconnect import address
from flyteish.engines.workers.listener import Admit, Digest, WorkerListener
from flyteish.errors import ConfigurationError
from flyteish.testing.lasting_processes import LastingProcess, LastingProcesses, is_locked


class RemoteFolder:
    """Ours from when it is made until ``close``.

    Raises:
        ConfigurationError: another engine that lives has it, or it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._attempts = path / "attempts"
        self.scratch = path / "scratch"
        """For the private files of attempts."""
        try:
            for each in (path, self._attempts, self.scratch):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "owner", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"RemoteEngine(folder={str(path)!r}) cannot be used: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(
                f"RemoteEngine(folder={str(path)!r}) is not accepted: another engine that lives has it; give each "
                "session a folder of its own"
            ) from None
        self._processes = LastingProcesses(self._attempts)

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self._path)!r})"

    @property
    def address(self) -> Path:
        """The file that says where the engine of the moment listens: ``tcp://HOST:PORT``."""
        return self._path / "address"

    def listen(self, digest: Digest, admit: Admit) -> WorkerListener:
        """Open a listener where the last engine had one, or elsewhere, if somebody has that port now.

        Attempts of runs that nobody has taken up yet are told to come again. Raises OSError.
        """
        for port in (self._last_port(), 0):
            listener = WorkerListener(digest, admit, self.lives, port=port)
            try:
                listener.open()
            except OSError:
                if not port:
                    raise
            else:
                break
        draft = self.address.with_suffix(".new")
        draft.write_text(listener.url, encoding="ascii")
        draft.replace(self.address)
        return listener

    def _last_port(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self.address.read_text(encoding="ascii").rpartition(":")[2])
        return 0

    def command(self, via: str | None, patience: float) -> list[str]:
        """What starts the process of an attempt, but for the attempt's key; connects for so many seconds."""
        # -P: a file in the working directory must not stand in for a module of the standard library.
        return [
            sys.executable, "-P", "-m", "flyteish._worker", "--token-file", "/dev/stdin",
            "--connect", via or self.address.as_uri(), "--patience", str(patience), "--attempt",
        ]  # fmt: skip

    def start(self, key: AttemptKey, command: Sequence[str], told: str) -> LastingProcess:
        """The process of an attempt, whose key is the command's last arguments. Raises OSError."""
        return self._processes.start(_name(key), [*command, *map(str, key)], told)

    def find(self, keys: Iterable[AttemptKey]) -> dict[AttemptKey, LastingProcess]:
        """The processes of these attempts, alive or not; those that never began have none. Blocks."""
        return {key: process for key in keys if (process := self._processes.find(_name(key))) is not None}

    def others(self, keys: Iterable[AttemptKey]) -> dict[AttemptKey, LastingProcess]:
        """What is there of the same runs besides these attempts. Blocks."""
        wanted = set(keys)
        runs = {key.run for key in wanted}
        return self.find(
            key for key in map(_key, list(self._processes.names())) if key.run in runs and key not in wanted
        )

    def lives(self, key: AttemptKey) -> bool:
        """Whether the attempt, which anybody may have named, has a process."""
        name = _name(key)
        return name in self._processes.names() and is_locked(self._attempts / name)

    def close(self) -> None:
        """Somebody else may have it."""
        os.close(self._lock)


def _name(key: AttemptKey) -> str:
    return f"{key.run}.{key.action}.{key.generation}"


def _key(name: str) -> AttemptKey:
    run, action, generation = name.rsplit(".", 2)
    return AttemptKey(run, action, int(generation))


def check_options(via: str | None, reconnect_seconds: float) -> None:
    """Raises ConfigurationError where an engine cannot be told this."""
    if via is not None:
        try:
            address(via)
        except (ValueError, OSError):
            expected = "expected 'tcp://HOST:PORT' or None"
            raise ConfigurationError(f"RemoteEngine(via={via!r}) is not accepted: {expected}") from None
    if not isinstance(reconnect_seconds, int | float) or not 0 < reconnect_seconds < math.inf:
        raise ConfigurationError(
            f"RemoteEngine(reconnect_seconds={reconnect_seconds!r}) is not accepted: expected seconds > 0"
        )
