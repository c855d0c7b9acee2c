"""What the controller asks of the outside, and what an attempt asks of the controller.

Contracts only, eight methods at most each; every implementation passes the contract suite of its interface
in ``tests/contracts``. Must not know any implementation.

    Engine      runs attempts                      inline, processes, (kubernetes)
    Reports     what an engine tells the controller, from any thread
    Link        what a running attempt asks of the controller: child calls, checkpoints
    InlineReports, InlineLink
                what only who shares the controller's process may have: loops, objects, exceptions
    RunStore    the journal                        memory, sqlite
    Mailbox     commands and notes between processes that share a store
    BlobStore   values, checkpoints, files         memory, files
                three contracts in one: ContentStore, ReferenceStore, SweepableStore
    LogStore    what attempts say                  files, memory, nowhere
    Market      when a spot pool has capacity and when it takes it back
    PriceSource what a pool's machines cost, where that changes
    Clock       time and chance, so that tests can hold them
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyteish.interfaces.blobs import (
        BlobStore,
        BlockingBlobs,
        BlockingContent,
        ContentStore,
        Reference,
        ReferenceStore,
        Stored,
        SweepableStore,
    )
    from flyteish.interfaces.engines import (
        CallSite,
        Engine,
        EngineFactory,
        InlineLink,
        InlineReports,
        Link,
        Opening,
        Report,
        Reports,
        Unfinished,
    )
    from flyteish.interfaces.logs import LogStore, LogWriter
    from flyteish.interfaces.orders import Call, Limits, Notice, OnJournalled, OnOutcome, Order, Outcome, Runtime
    from flyteish.interfaces.stores import Batch, Command, Mailbox, RunRow, RunStore
    from flyteish.interfaces.world import Clock, Market, PriceSource

__all__ = [
    "Batch",
    "BlobStore",
    "BlockingBlobs",
    "BlockingContent",
    "Call",
    "CallSite",
    "Clock",
    "Command",
    "ContentStore",
    "Engine",
    "EngineFactory",
    "InlineLink",
    "InlineReports",
    "Limits",
    "Link",
    "LogStore",
    "LogWriter",
    "Mailbox",
    "Market",
    "Notice",
    "OnJournalled",
    "OnOutcome",
    "Opening",
    "Order",
    "Outcome",
    "PriceSource",
    "Reference",
    "ReferenceStore",
    "Report",
    "Reports",
    "RunRow",
    "RunStore",
    "Runtime",
    "Stored",
    "SweepableStore",
    "Unfinished",
]

_MODULES = ("orders", "blobs", "engines", "logs", "stores", "world")


def __getattr__(name: str) -> Any:
    # Loaded when asked for, the lightest first: a worker has no use for most contracts, whose classes take their time.
    for module in _MODULES if name in __all__ else ():
        value = getattr(import_module(f"{__name__}.{module}"), name, None)
        if value is not None:
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
