"""Spot markets as schedules, recorded and imagined, for local pools in real time and for simulated ones.

A market says when capacity comes and goes; it never reclaims anything itself. Must not know who drives it,
nor whether the seconds that it is asked about are real.
"""

from flyteish.simulation.market import Outages, RandomMarket, ScriptedMarket, TraceMarket
from flyteish.simulation.traces import Trace, load_trace

__all__ = ["Outages", "RandomMarket", "ScriptedMarket", "Trace", "TraceMarket", "load_trace"]
