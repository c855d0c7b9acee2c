"""The only place where flyteish reads a pickle: of values, and of functions that travel by value.

Reading one runs whatever code it names, so whoever calls this has asked first whether that is allowed. Must not know
where the bytes come from.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flyteish._authoring.values.renamed_modules import current
from flyteish._authoring.values.task_reference import SCRIPT_MODULE

if TYPE_CHECKING:
    from typing_extensions import Buffer


def unpickle(data: Buffer) -> Any:
    """What was pickled, also by a version whose modules had other names."""
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return _module
        # A worker knows the program's script by that name; here, in the program, it is the main module.
        absent = module == SCRIPT_MODULE and module not in sys.modules
        return super().find_class(*current("__main__" if absent else module, name))


def _module(name: str) -> ModuleType:
    """A module that a pickled function uses."""
    return importlib.import_module(current(name, "")[0])
