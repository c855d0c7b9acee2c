"""Spot markets as schedules, recorded and imagined, and the simulator that runs workloads on them in virtual time.

A market says when capacity comes and goes; it never reclaims anything itself. The simulator drives the same core as a
real session. Must not know who drives a market, nor whether the seconds that it is asked about are real.
"""

from flyteish.markets.market import Outages, RandomMarket, ScriptedMarket, TraceMarket
from flyteish.markets.traces import Trace, load_trace
from flyteish.simulation.figures import PolicyReport, Spread
from flyteish.simulation.recorded import recorded
from flyteish.simulation.report import Report
from flyteish.simulation.scenario import POLICIES, Scenario
from flyteish.simulation.workload import Calls, Exponential, LogNormal, Observed, Workload, WorkModel

__all__ = [
    "POLICIES",
    "Calls",
    "Exponential",
    "LogNormal",
    "Observed",
    "Outages",
    "PolicyReport",
    "RandomMarket",
    "Report",
    "Scenario",
    "ScriptedMarket",
    "Spread",
    "Trace",
    "TraceMarket",
    "WorkModel",
    "Workload",
    "load_trace",
    "recorded",
]
