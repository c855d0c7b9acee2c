"""How classes and functions are named inside encoded values, and found again.

Names of a task's own module are relative to it (``:Config``), so a script that runs as ``__main__`` here and
under another name in a worker means the same class, and equal calls stay equal. Names of flyteish's own classes are
those that its first version recorded, wherever the classes lie now.

A name in bytes that somebody else wrote is a request, not an order. Finding asks no module's and no class's code: it
looks into their ``__dict__``, and what it gives is a class or a function. A module that this process has not imported
is imported only if whoever decodes may do so, because importing is running code. Must not know how names are encoded.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from flyteish._authoring.values.kind_checks import MISSING, is_class, is_one_of, namespace_of
from flyteish._authoring.values.renamed_modules import current, recorded

#: What these hold differs from process to process, so a name in them says nothing elsewhere.
_PRIVATE_MODULES = frozenset({"__main__", "__mp_main__"})


class Names:
    """One task's view of names: its own module first, then classes its annotations name, then imports."""

    __slots__ = ("_globals", "_known", "_module")

    def __init__(self, module: str = "", namespace: Mapping[str, Any] | None = None) -> None:
        self._module = module
        self._globals = {} if namespace is None else namespace
        self._known: dict[str, object] = {}

    @classmethod
    def around(cls, function: Any) -> Names:
        """The view from inside a function, decorated or not."""
        function = inspect.unwrap(function)
        return cls(getattr(function, "__module__", None) or "", getattr(function, "__globals__", None))

    def __repr__(self) -> str:
        return f"Names({self._module!r}, known={sorted(self._known)})"

    def learn(self, thing: type) -> None:
        """Make a class findable that is not at the top of a module: the task's annotations name it."""
        self._known.setdefault(self._spell(thing.__module__, thing.__qualname__), thing)

    def of(self, thing: Any) -> str | None:
        """The name under which ``find`` gives this very object, here and in a worker; None: there is none."""
        module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str):
            return None
        name = self._spell(module, qualname)
        if self._known.get(name) is thing:
            return name
        if name.startswith(":"):
            return name if look_up(self._globals, qualname) is thing else None
        if module in _PRIVATE_MODULES or module not in sys.modules:
            return None
        return name if look_up(vars(sys.modules[module]), qualname) is thing else None

    def find(self, name: str, *, may_import: bool = False) -> Any:
        """The class or function of that name. Raises LookupError.

        Args:
            name: as ``of`` gave it.
            may_import: whether a module that is not imported yet may be.
        """
        if name in self._known:
            return self._known[name]
        module, qualname = current(*name.split(":", 1)) if ":" in name else (name, "")
        found = look_up(_namespace(module, name, may_import) if module else self._globals, qualname)
        if found is MISSING:
            raise LookupError(f"{module or self._module} has no {qualname!r} (moved or renamed?)")
        if not is_class(found) and not is_one_of((FunctionType, BuiltinFunctionType), found):
            raise LookupError(f"{name!r} is neither a class nor a function")
        return found

    def _spell(self, module: str, qualname: str) -> str:
        return f":{qualname}" if module == self._module else ":".join(recorded(module, qualname))


def _namespace(module: str, name: str, may_import: bool) -> Mapping[str, Any]:
    loaded = sys.modules.get(module)
    if issubclass(type(loaded), ModuleType):
        # Not vars(): a module that loads itself when it is first asked for something is not asked.
        namespace: Mapping[str, Any] = object.__getattribute__(loaded, "__dict__")
        return namespace
    if not may_import:
        raise LookupError(
            f"{name!r} is in a module that is not imported here, and names in data import nothing where pickling is "
            f"refused: `import {module}` in the task's module, or name the class in an annotation"
        )
    try:
        return vars(importlib.import_module(module))
    except ImportError as error:
        raise LookupError(f"{name!r} cannot be imported ({error})") from error


def look_up(namespace: Mapping[str, Any], qualname: str) -> Any:
    """What a dotted name means in a namespace, by looking into classes only; ``MISSING``: nothing."""
    first, *rest = qualname.split(".")
    found = namespace.get(first, MISSING)
    for part in rest:
        found = namespace_of(found).get(part, MISSING) if is_class(found) else MISSING
        if type(found) is staticmethod:
            found = found.__func__
    return found
