"""For testing your own tasks: machines taken away on cue, one attempt without a session, controllers that die.

The markets are the ones that pools use in earnest, so a test sees what production sees: a notice, a grace period, the
end, and the next attempt. The engine is one as clusters have: its attempts go on when their controller is killed.
Nothing here decides anything; it only builds what tests need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyteish._controller.clock import HandClock
from flyteish.markets.market import RandomMarket, ScriptedMarket, TraceMarket
from flyteish.testing.sessions import spot_session
from flyteish.testing.single_attempt import Attempt, attempt

if TYPE_CHECKING:
    from flyteish.testing.remote_engine import RemoteEngine

__all__ = [
    "Attempt",
    "HandClock",
    "RandomMarket",
    "RemoteEngine",
    "ScriptedMarket",
    "TraceMarket",
    "attempt",
    "spot_session",
]


def __getattr__(name: str) -> Any:
    if name != "RemoteEngine":  # most tests do without, and it brings along all that speaks with workers
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flyteish.testing.remote_engine import RemoteEngine

    globals()[name] = RemoteEngine
    return RemoteEngine
