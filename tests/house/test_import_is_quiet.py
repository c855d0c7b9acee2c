"""`import flyteish` does nothing that can be noticed: a fresh interpreter imports it and looks around."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# Loaded where they are first needed, never by the import.
LAZY = (
    "_hashlib", "aiobotocore", "aiohttp", "anyio", "botocore", "IPython", "kubernetes", "kubernetes_asyncio", "numpy",
    "pandas", "pydantic", "rich", "sqlite3",
)  # fmt: skip

LOOK_AROUND = """
import json, logging, os, signal, sys, threading, warnings
def state():
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": [repr(handler) for handler in logging.root.handlers],
        "loggers": sorted(
            name for name, log in logging.Logger.manager.loggerDict.items() if getattr(log, "handlers", None)
        ),
        "signals": {int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "folder": sorted(os.listdir()),
        "hooks": [repr(sys.excepthook), repr(threading.excepthook)],
    }
before = state()
import flyteish
print(json.dumps({"before": before, "after": state(), "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The interpreter's state before and after the import, in an empty folder, warnings being errors."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK_AROUND],
        cwd=tmp_path_factory.mktemp("empty"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def test_importing_changes_nothing(observed: dict[str, Any]) -> None:
    """The import starts no thread, installs no handler or hook, sets no variable and writes no file."""
    assert observed["after"] == observed["before"]


def test_importing_loads_only_what_is_needed(observed: dict[str, Any]) -> None:
    """The import loads no library that only some programs use."""
    assert sorted(set(LAZY) & set(observed["modules"])) == []
