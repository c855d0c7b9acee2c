"""Forecasts: when a task will finish and what it will cost, before it runs, by simulating it with the core that will
run it.

Goes by what was learned of the task, its pools and their markets, and says what it goes by. Must not know sessions:
what there is is given to it.
"""

from flyteish._learning.forecasts import Calibration, Comparison, Forecast, Percentiles
from flyteish.forecasting.forecaster import forecast

__all__ = ["Calibration", "Comparison", "Forecast", "Percentiles", "forecast"]
