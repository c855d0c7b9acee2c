"""The folder of a remote engine: what the engine of the next session has to know of this one.

In it are the files of its attempts' processes, their private files, and in ``address`` where the engine of the moment
listens. One engine at a time has it, as the kernel knows for certain: a lock that ends with whoever holds it. Must not
know what is in the files of the processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from flyteish.errors import ConfigurationError


class RemoteFolder:
    """Ours from when it is made until ``close``.

    Raises:
        ConfigurationError: another engine that lives has it, or it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.attempts = path / "attempts"
        self.scratch = path / "scratch"
        try:
            for each in (path, self.attempts, self.scratch):
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

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self._path)!r})"

    @property
    def address(self) -> Path:
        """The file that says where the engine of the moment listens: ``tcp://HOST:PORT``."""
        return self._path / "address"

    @property
    def port(self) -> int:
        """Where the last engine listened; 0: there was none."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.address.read_text(encoding="ascii").rpartition(":")[2])
        return 0

    def listens_at(self, url: str) -> None:
        """Say so, whole or not at all."""
        draft = self.address.with_suffix(".new")
        draft.write_text(url, encoding="ascii")
        draft.replace(self.address)

    def close(self) -> None:
        """Somebody else may have it."""
        os.close(self._lock)
