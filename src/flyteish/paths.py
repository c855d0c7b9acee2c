"""What lies where in a home folder: the journal, values, logs, private files of attempts.

Folders are made when somebody first writes into them, readable by their owner only; nothing is written outside the
home. Must not know who chose the home, or what the files hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from flyteish.errors import ConfigurationError


class Paths(NamedTuple):
    """The places in a home folder. Naming one does not create it."""

    home: Path
    """Absolute."""

    @property
    def store(self) -> Path:
        """The journal: an SQLite file (and its companions, which SQLite names after it)."""
        return self.home / "flyteish.db"

    @property
    def blobs(self) -> Path:
        """The folder of values, checkpoints and files."""
        return self.home / "blobs"

    @property
    def logs(self) -> Path:
        """The folder of the attempts' output."""
        return self.home / "logs"

    @property
    def scratch(self) -> Path:
        """The folder of running attempts' private files: notices, restored checkpoints, downloads."""
        return self.home / "scratch"

    def make(self, folder: Path | None = None) -> Path:
        """Create a folder in the home (default: the home itself) where it is missing; returns it.

        What is created can be read by its owner only (mode 0700); a folder that exists keeps its mode.

        Raises:
            ConfigurationError: it cannot be created, or a file is in its place; names the path and the cure.
            ValueError: the folder is not in this home.
        """
        wanted = self.home if folder is None else folder
        if wanted != self.home and self.home not in wanted.parents:
            raise ValueError(f"{wanted} is not in the home {self.home}")
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            # One by one: ``mkdir(parents=True)`` would give only the last its mode.
            for path in reversed([wanted, *wanted.parents]):
                if path == self.home or self.home in path.parents:
                    path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"home={str(self.home)!r} cannot be used: {wanted} cannot be created ({error.strerror}); set "
                f"FLYTEISH_HOME, or `home` in flyteish.toml, to a folder that you may write to"
            ) from error
        return wanted

    def __repr__(self) -> str:
        return f"Paths({str(self.home)!r})"
