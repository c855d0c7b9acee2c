"""For testing your own tasks: a session whose spot machines are taken away on cue, and a single attempt without one.

The markets are the ones that pools use in earnest, so a test sees what production sees: a notice, a grace period, the
end, and the next attempt. Nothing here decides anything; it only builds what tests need.
"""

from flyteish._controller.clock import HandClock
from flyteish.markets.market import RandomMarket, ScriptedMarket, TraceMarket
from flyteish.testing.remote_engine import RemoteEngine
from flyteish.testing.sessions import spot_session
from flyteish.testing.single_attempt import Attempt, attempt

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
