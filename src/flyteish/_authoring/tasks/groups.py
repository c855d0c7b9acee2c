"""``group``: a label for the actions that are created inside a block.

A label belongs to the attempt that set it: a task called inside has none, although an async task runs with a copy
of its caller's context variables. It is for people; must not know how actions are submitted.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Self

from flyteish._authoring.attempt.context import CURRENT, AttemptContext

_Label = tuple[AttemptContext | None, str]
_label: ContextVar[_Label | None] = ContextVar("flyteish_group", default=None)


def label_in(context: AttemptContext) -> str | None:
    """The label in force for actions that this attempt creates now."""
    label = _label.get()
    return label[1] if label is not None and label[0] is context else None


class group:  # noqa: N801 - reads as a statement: `with flyteish.group("fold 3"):`
    """Label the actions created inside the block, for people who look at the run; ``async with`` works as well.

    Of nested groups the innermost counts. Outside a running attempt it does nothing.

    Raises:
        ValueError: the name is empty or not a str.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"group: name={name!r} is not accepted: expected a non-empty str")
        self.name = name
        self._tokens: list[Token[_Label | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_label.set((CURRENT.get(None), self.name)))
        return self

    def __exit__(self, *failure: object) -> None:
        _label.reset(self._tokens.pop())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *failure: object) -> None:
        self.__exit__()

    def __repr__(self) -> str:
        return f"group({self.name!r})"
