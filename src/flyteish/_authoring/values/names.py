"""How classes and functions are named inside encoded values, and found again.

Names of a task's own module are relative to it (``:Config``), so a script that runs as ``__main__`` here and
under another name in a worker means the same class, and equal calls stay equal. Must not know how names are
encoded.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

_MISSING: Any = object()
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
            return name if _walk(self._globals, qualname) is thing else None
        if module in _PRIVATE_MODULES or module not in sys.modules:
            return None
        return name if _walk(vars(sys.modules[module]), qualname) is thing else None

    def find(self, name: str) -> Any:
        """The class or function of that name. Raises LookupError."""
        if name in self._known:
            return self._known[name]
        module, _, qualname = name.partition(":")
        try:
            namespace = vars(importlib.import_module(module)) if module else self._globals
        except ImportError as error:
            raise LookupError(f"{name!r} cannot be imported ({error})") from error
        found = _walk(namespace, qualname)
        if found is _MISSING:
            raise LookupError(f"{module or self._module} has no {qualname!r} (moved or renamed?)")
        return found

    def _spell(self, module: str, qualname: str) -> str:
        return f":{qualname}" if module == self._module else f"{module}:{qualname}"


def _walk(namespace: Mapping[str, Any], qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = namespace.get(first, _MISSING)
    for part in rest:
        found = getattr(found, part, _MISSING)
    return found
