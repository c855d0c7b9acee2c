"""What older versions called their modules and classes is still found, and still written: names are kept for ever."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import Resources, testing
from flyteish._authoring.values.codec import Codec
from flyteish._authoring.values.errors import find_class
from flyteish._authoring.values.names import Names
from flyteish._authoring.values.renamed_modules import MODULES, NAMES, current, recorded
from flyteish._authoring.values.unpickling import unpickle
from flyteish.io import File

FIRST_NAMES = {
    "flyteish": {
        "_authoring.context": ["ctx"], "_authoring.environment": ["TaskEnvironment"],
        "_authoring.forecast": ["Calibration", "Comparison", "Forecast"], "_authoring.grouping": ["group"],
        "_authoring.image": ["Image"], "_authoring.task": ["AsyncTask", "SyncTask"], "_authoring.tracing": ["trace"],
        "_controller.handles": ["Run"], "_core.policies": ["Backoff", "RetryStrategy", "SpotPolicy", "Timeout"],
        "_core.queues": ["Pool", "Queue"], "_core.resources": ["Resources"], "_core.settings": ["Cache", "Secret"],
        "default_session": ["forecasts", "init", "run", "with_runcontext"], "interfaces": ["Notice"],
        "session": ["Session"],
    },
    "flyteish.forecasting": {"_authoring.forecast": ["Percentiles"], "forecasting.forecaster": ["forecast"]},
    "flyteish.io": {"io": ["DataFrame", "Dir", "File"]},
    "flyteish.simulation": {
        "simulation.market": ["Outages", "RandomMarket", "ScriptedMarket", "TraceMarket"],
        "simulation.report": ["PolicyReport", "Report", "Spread"], "simulation.scenario": ["Scenario"],
        "simulation.traces": ["Trace", "load_trace"], "simulation.recorded": ["recorded"],
        "simulation.workload": ["Calls", "Exponential", "LogNormal", "Observed", "WorkModel", "Workload"],
    },
    "flyteish.testing": {"_controller.clock": ["HandClock"]},
    "flyteish.compat.flytekit": {
        "compat.flytekit.resources": ["Resources"], "compat.flytekit.context": ["current_context"],
        "compat.flytekit.mapping": ["map_task"], "compat.flytekit.tasks": ["workflow"],
    },
}  # fmt: skip
"""Where the first version had what it offered, by the public module and the one that pickles named."""

FIRST_ERRORS = [
    "_authoring.context.AttemptLeft", "_authoring.context.OutsideTaskError", "_authoring.hints.UnusableAnnotationError",
    "_authoring.plain_data.NotPlainError", "_authoring.typecheck.Mismatch", "_authoring.value_kinds.NoEncoding",
    "_authoring.values.PickleWarning", "_authoring.values.Unserialisable", "_worker.runner.AttemptStopped",
]  # fmt: skip
"""Exceptions of the first version that error documents may name, beside the public ones."""


@pytest.mark.parametrize(
    "public, old, name",
    [(public, old, name) for public, olds in FIRST_NAMES.items() for old, names in olds.items() for name in names],
)
def test_what_the_first_version_offered_is_found_by_its_first_name(public: str, old: str, name: str) -> None:
    """In pickles; and what is written now names it as then, if it is a class or a function that values may name."""
    thing = getattr(importlib.import_module(public), name)
    module = f"flyteish.{old}"
    pickled = f"c{module}\n{name}\n.".encode()
    assert unpickle(pickled) is thing
    assert recorded(thing.__module__, thing.__qualname__) == (module, name)


def test_a_pickled_function_keeps_its_way_to_the_notice() -> None:
    """`flyteish.current` was an object, which functions that were pickled by value took along."""
    old = unpickle(b"\x80\x04cflyteish._authoring.context\n_Current\n)\x81.")
    with pytest.raises(AttributeError, match=r"current.spot_termination_notice is only available inside a running"):
        _ = old.spot_termination_notice
    with testing.attempt() as attempt:
        assert old.spot_termination_notice == flyteish.current.spot_termination_notice
        attempt.notice()
        assert Path(old.spot_termination_notice).exists()


@pytest.mark.parametrize("name", FIRST_ERRORS)
def test_error_documents_of_the_first_version_name_classes_that_are_found(name: str) -> None:
    """By their old modules, without importing anything."""
    module, _, qualname = name.rpartition(".")
    importlib.import_module(current(f"flyteish.{module}", qualname)[0])
    found = find_class(f"flyteish.{name}")
    assert found is not None
    assert found.__name__ == qualname


def test_every_entry_leads_somewhere_and_hides_nothing() -> None:
    """New names exist; an old module that exists once more is a package without classes of its own."""
    for old, new in MODULES.items():
        assert importlib.util.find_spec(new) is not None, f"{new} has moved: renamed_modules.py has to follow"
        if _exists(old):
            module = importlib.import_module(old)
            assert [x for x in vars(module).values() if getattr(x, "__module__", "") == old] == [], old
    for old, new in NAMES.items():
        module_name, _, name = new.partition(":")
        assert hasattr(importlib.import_module(module_name), name), f"{new} has moved: renamed_modules.py has to follow"
        assert recorded(*new.split(":")) == tuple(old.split(":"))
    assert len(set(MODULES.values())) == len(MODULES)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_a_pickled_function_may_use_a_module_that_has_moved() -> None:
    """cloudpickle names modules as text."""
    pickled = b"ccloudpickle.cloudpickle\nsubimport\n(Vflyteish._core.settings\ntR."
    assert unpickle(pickled) is importlib.import_module("flyteish._core.model.settings")


@pytest.mark.parametrize(
    "value, name",
    [(Resources(cpu=1), b"flyteish._core.resources:Resources"), (File("/x"), b"flyteish.io:File"),
     (flyteish.Cache, b"flyteish._core.settings:Cache")],
)  # fmt: skip
def test_values_are_written_with_first_names(value: Any, name: bytes) -> None:
    """So that equal calls have equal bytes in all versions, and find each other's results."""
    codec = Codec("shop.fill()", Names("shop"))
    data = codec.encode(value)
    assert name in data
    assert codec.decode(data) == value


def test_a_name_that_was_never_changed_stays() -> None:
    """Programs' own modules are not looked up, whatever they are called."""
    assert current("shop", "Order") == recorded("shop", "Order") == ("shop", "Order")
    assert pickle.loads(pickle.dumps(Resources)) is Resources
