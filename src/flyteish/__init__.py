"""flyteish: workflows in plain Python that survive reclaims and crashes. Importing it does nothing.

The public face: names only, nothing is decided here. What is needed to declare tasks is imported; what is
needed to run them is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyteish import errors
from flyteish._authoring.attempt.context import ctx
from flyteish._authoring.tasks.environment import TaskEnvironment
from flyteish._authoring.tasks.groups import group
from flyteish._authoring.tasks.task import AsyncTask, SyncTask
from flyteish._core.model.images import Image
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Cache, Secret
from flyteish._version import __version__

if TYPE_CHECKING:
    from flyteish import current, io, testing
    from flyteish._authoring.tasks.map import map
    from flyteish._authoring.tasks.trace import trace
    from flyteish._learning.forecasts import Calibration, Comparison, Forecast
    from flyteish.default_session import forecasts, init, run, with_runcontext
    from flyteish.interfaces import Notice
    from flyteish.session import Run, Session

__all__ = [
    "AsyncTask",
    "Backoff",
    "Cache",
    "Calibration",
    "Comparison",
    "Forecast",
    "Image",
    "Notice",
    "Pool",
    "Queue",
    "Resources",
    "RetryStrategy",
    "Run",
    "Secret",
    "Session",
    "SpotPolicy",
    "SyncTask",
    "TaskEnvironment",
    "Timeout",
    "__version__",
    "ctx",
    "current",
    "errors",
    "forecasts",
    "group",
    "init",
    "io",
    "map",
    "run",
    "testing",
    "trace",
    "with_runcontext",
]

_LAZY = {
    "Calibration": "flyteish._learning.forecasts",
    "Comparison": "flyteish._learning.forecasts",
    "Forecast": "flyteish._learning.forecasts",
    "forecasts": "flyteish.default_session",
    "Notice": "flyteish.interfaces",
    "Run": "flyteish.session",
    "Session": "flyteish.session",
    "init": "flyteish.default_session",
    "map": "flyteish._authoring.tasks.map",
    "run": "flyteish.default_session",
    "trace": "flyteish._authoring.tasks.trace",
    "with_runcontext": "flyteish.default_session",
}
_LAZY_MODULES = ("current", "io", "testing")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in _LAZY_MODULES:
        value = import_module(f"flyteish.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
