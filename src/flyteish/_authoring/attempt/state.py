"""What an attempt has and knows, apart from its face: its order, its connection, its stores, clocks and folder.

What user code sees (``context``) and whatever belongs to an attempt are built on it. One is made for every attempt,
trivial ones too, so everything that costs is made when first asked for. Must not know what is built on it, nor which
engine runs the attempt; it decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flyteish.errors import StaleAttemptError

if TYPE_CHECKING:
    import logging

    from flyteish._async.feeds import Feeds
    from flyteish._async.work_line import WorkLine
    from flyteish.interfaces import BlobStore, InlineLink, Limits, Order


class AttemptState:
    """A running attempt, for the project's own modules. Thread-safe; ``close`` ends it."""

    __slots__ = (
        "_lock",
        "_logger",
        "_occurrences",
        "_packing",
        "_scratch",
        "_scratch_parent",
        "active",
        "blobs",
        "clock",
        "feeds",
        "limits",
        "link",
        "order",
        "profiles",
        "started",
        "wall",
    )  # fmt: skip

    def __init__(
        self,
        order: Order,
        link: InlineLink,
        blobs: BlobStore,
        feeds: Feeds,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        scratch: Path | None = None,
    ) -> None:
        self.order: Final = order
        self.link: Final = link
        self.blobs: Final = blobs
        self.feeds: Final = feeds
        self.limits: Final = limits
        self.clock: Final = clock
        self.wall: Final = wall
        self.started: Final = clock()
        self.profiles: Final[dict[Any, Any]] = {}
        self.active = True
        self._lock = threading.Lock()
        self._occurrences: dict[tuple[str, bytes], int] = {}
        self._packing: WorkLine | None = None
        self._scratch_parent = scratch
        self._scratch: Path | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger ``flyteish.task.<task>``, with ``run``, ``action`` and ``attempt`` as extra."""
        if self._logger is None:
            import logging

            extra = {"run": self.order.key.run, "action": self.order.key.action, "attempt": self.order.user_attempt}
            self._logger = logging.LoggerAdapter(logging.getLogger(f"flyteish.task.{self.order.task}"), extra)
        return self._logger

    def packing(self) -> WorkLine:
        """Where the large inputs of its calls are packed, in the order of the calls."""
        with self._lock:
            if self._packing is None:
                from flyteish._async.work_line import WorkLine

                self._packing = WorkLine("flyteish: packing values")
            return self._packing

    def is_packing(self) -> bool:
        """Whether large inputs may be on that line."""
        return self._packing is not None

    def occurrence(self, task: str, digest: bytes) -> int:
        """How many equal calls this attempt made before: 0, 1, 2, ..."""
        key = (task, digest)
        with self._lock:
            count = self._occurrences.get(key, 0)
            self._occurrences[key] = count + 1
        return count

    def scratch(self) -> Path:
        """The attempt's private folder, made when first asked for, removed by ``close``."""
        with self._lock:
            if not self.active:
                raise StaleAttemptError(f"attempt {self.order.key} is over; its private folder is gone")
            if self._scratch is None:
                from tempfile import mkdtemp

                if self._scratch_parent is not None:
                    self._scratch_parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._scratch = Path(mkdtemp(prefix="flyteish-", dir=self._scratch_parent))
            return self._scratch

    def close(self) -> None:
        """The attempt is over: remove its private folder. May be repeated."""
        with self._lock:
            self.active = False
            scratch, self._scratch = self._scratch, None
        if scratch is not None:
            from shutil import rmtree

            try:
                rmtree(scratch)
            except OSError as error:  # the attempt's outcome is what counts, not its litter
                self.logger.warning("cannot remove %s: %s", scratch, error)
