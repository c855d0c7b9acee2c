"""What outlives a session, as documents in the store's notes: what was learned of tasks, pools and the shape of runs.

Versioned; one that is corrupt or of a newer version is passed over with a warning. Must not know when it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from flyteish._core.model.settings import Settings
from flyteish._core.rules.experience import TaskSeen
from flyteish._learning.forecasts import Comparison, Forecast
from flyteish._learning.machine_lifetimes import PoolSeen
from flyteish.errors import StoreError
from flyteish.interfaces import Mailbox

_log = logging.getLogger(__name__)

LEARNED: Final = "learned"
FORECASTS: Final = "forecasts"
COMPARISONS: Final = "comparisons"
VERSION: Final = 1
TASKS_KEPT: Final = 1000
"""Names of tasks, those that ran lately."""
FORECASTS_KEPT: Final = 200
FORECASTS_OF_ONE: Final = 8
"""Of one task with the same settings."""
COMPARISONS_KEPT: Final = 500

T = TypeVar("T")


class Child(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that another one calls, and how often in one action."""

    task: str
    settings: Settings
    """Without environment variables: their values may be secrets."""
    count: int


class Shape(msgspec.Struct, omit_defaults=True):
    """A task that calls others, as its latest runs had it."""

    own: list[float] = []
    """Seconds in which it ran and waited for no child, oldest first."""
    children: tuple[Child, ...] = ()
    """Of the latest run."""
    in_turn: bool = False
    """Its children ran one after the other."""


class Learned(msgspec.Struct, omit_defaults=True):
    """All of it; the tasks in the order in which they were last seen."""

    tasks: dict[str, TaskSeen] = {}
    pools: dict[str, PoolSeen] = {}
    shapes: dict[str, Shape] = {}


class _Envelope(msgspec.Struct):
    version: int
    body: msgspec.Raw


def read(mailbox: Mailbox, name: str, kind: type[T]) -> T | None:
    """A document; None where there is none that can be read, which is said in the log and is no failure."""
    try:
        data = mailbox.get_note(name)
        if data is None:
            return None
        envelope = msgspec.msgpack.decode(data, type=_Envelope)
        if envelope.version > VERSION:
            _log.warning("%s of a newer flyteish (version %d) is not used", name, envelope.version)
            return None
        return msgspec.msgpack.decode(envelope.body, type=kind)
    except (StoreError, msgspec.MsgspecError) as error:
        _log.warning("what was kept as %r cannot be read and is not used: %s", name, error)
        return None


def keep(mailbox: Mailbox, name: str, body: object) -> None:
    """Write a document. Raises StoreError."""
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    mailbox.put_note(name, msgspec.msgpack.encode(_Envelope(VERSION, raw)))


def read_forecasts(mailbox: Mailbox) -> list[Forecast]:
    """All that are remembered, oldest first."""
    return read(mailbox, FORECASTS, list[Forecast]) or []


def read_comparisons(mailbox: Mailbox) -> list[Comparison]:
    """All that are remembered, oldest first."""
    return read(mailbox, COMPARISONS, list[Comparison]) or []


def add_forecast(mailbox: Mailbox, forecast: Forecast) -> list[Forecast]:
    """Remember a forecast beside those of others; returns them all. Raises StoreError."""
    every = merged(read_forecasts(mailbox), [forecast])
    keep(mailbox, FORECASTS, every)
    return every


def merged(some: Sequence[Forecast], others: Sequence[Forecast]) -> list[Forecast]:
    """Both, oldest first, each once; the oldest make room."""
    every = {(each.task, each.digest, each.made_at): each for each in (*some, *others)}
    counts: dict[tuple[str, str], int] = {}
    found: list[Forecast] = []
    for key in sorted(every, key=lambda key: -key[2]):
        counts[key[:2]] = counts.get(key[:2], 0) + 1
        if counts[key[:2]] <= FORECASTS_OF_ONE and len(found) < FORECASTS_KEPT:
            found.append(every[key])
    return found[::-1]
