"""Reads logs along while they grow, whatever keeps them.

Must not know how they are kept: it is given a way to read, and one to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from flyteish._core.model.ids import AttemptKey

LOOK_SECONDS: Final = 0.25
"""How long what was said may take to be seen."""
PIECE: Final = 1 << 20
"""Bytes that are read at once."""


class _Readable(Protocol):
    def read(self, key: AttemptKey, offset: int = 0, most: int | None = None) -> bytes: ...


def followed(
    logs: _Readable,
    keys: Callable[[], Iterable[AttemptKey]],
    over: Callable[[], bool],
    wait: Callable[[], object],
) -> Iterator[tuple[AttemptKey, bytes]]:
    """What ``LogStore.follow`` gives; ``wait`` returns when there may be more."""
    offsets: dict[AttemptKey, int] = {}
    while True:
        last = over()  # before the look: what was said until then is seen
        for key in keys():
            while data := logs.read(key, offsets.get(key, 0), PIECE):
                offsets[key] = offsets.get(key, 0) + len(data)
                yield key, data
        if last:
            return
        wait()
