"""Spot markets and prices: schedules, recordings, and those who follow them for a session or a simulation.

The same for real and virtual time; must not know which shell asks.
"""

from flyteish.markets.market import Outages, RandomMarket, ScriptedMarket, TraceMarket
from flyteish.markets.price_sources import ScriptedPrices, TracePrices
from flyteish.markets.traces import Trace, load_trace

__all__ = [
    "Outages",
    "RandomMarket",
    "ScriptedMarket",
    "ScriptedPrices",
    "Trace",
    "TraceMarket",
    "TracePrices",
    "load_trace",
]
