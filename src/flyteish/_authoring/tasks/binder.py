"""Python's own binding of arguments to parameters, at its own speed. Must not know what the arguments are for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

#: How parameters that take the rest are written.
STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
#: Kinds of parameters that can be given by position.
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def binder(signature: inspect.Signature) -> Callable[..., tuple[Any, ...]]:
    """A function with this very signature that returns its arguments: Python's own binding, at its speed."""
    pieces: list[str] = []
    previous: Any = None
    starred = False
    for name, parameter in signature.parameters.items():
        kind = parameter.kind
        if previous is inspect.Parameter.POSITIONAL_ONLY and kind is not inspect.Parameter.POSITIONAL_ONLY:
            pieces.append("/")
        if kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            pieces.append("*")
        starred = starred or kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
        required = parameter.default is inspect.Parameter.empty
        pieces.append(f"{STARS.get(kind, '')}{name}" if required else f"{name}=None")
        previous = kind
    if previous is inspect.Parameter.POSITIONAL_ONLY:
        pieces.append("/")
    returned = "".join(f"{name}, " for name in signature.parameters)
    # The names are a function's own parameters, so they are identifiers; no value gets into the text.
    bound: Any = eval(f"lambda {', '.join(pieces)}: ({returned})", {})
    defaults = {name: p.default for name, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
    by_position = [n for n in defaults if signature.parameters[n].kind in POSITIONAL]
    bound.__defaults__ = tuple(defaults.pop(name) for name in by_position)
    bound.__kwdefaults__ = defaults
    return bound  # type: ignore[no-any-return]
