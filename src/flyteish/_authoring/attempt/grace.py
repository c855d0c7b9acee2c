"""The grace period as a deadline: a block of code that has to be over when the machine goes away.

Follows the attempt's notice, which may come late and get sooner. Must not know where notices come from.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from flyteish.errors import ConfigurationError

if TYPE_CHECKING:
    from flyteish.interfaces import Notice


class Notices(Protocol):
    """What a block needs to know of the attempt's notice."""

    @property
    def seconds_left(self) -> float | None:
        """Until the end; None without a notice."""

    def on_change(self, callback: Callable[[Notice], None]) -> object:
        """Call it for each notice that says more, and now if one has come."""


def within_grace(interruption: Notices, spare: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
    """The context manager behind ``interruption.grace``."""
    if isinstance(spare, bool) or not isinstance(spare, int | float) or not 0 <= spare < math.inf:
        raise ConfigurationError(f"grace(spare={spare!r}) is not accepted: expected a number of seconds >= 0")
    return _limited(interruption, float(spare))


@asynccontextmanager
async def _limited(interruption: Notices, spare: float) -> AsyncIterator[asyncio.Timeout]:
    loop = asyncio.get_running_loop()
    inside = True
    async with asyncio.timeout(None) as timeout:

        def follow(notice: Notice) -> None:
            left = interruption.seconds_left
            if inside and left is not None and math.isfinite(left) and not timeout.expired():
                timeout.reschedule(loop.time() + left - spare)

        interruption.on_change(follow)
        try:
            yield timeout
        finally:
            inside = False
