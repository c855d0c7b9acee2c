"""Where that is now which older versions named: modules and names of flyteish in pickles, values and error documents.

Stored bytes name classes by module and name, so a module that moves takes its old name along in ``MODULES``, and a
name that changes, or goes to another module than the rest, in ``NAMES``. Entries are never removed. What is written
keeps the oldest name: equal calls then have equal bytes in every version, and find each other's results. Must not
import anything.
"""

from __future__ import annotations

from typing import Final

#: Old module: new module; of those whose classes or functions a value may hold.
MODULES: Final[dict[str, str]] = {
    "flyteish._authoring.blobspace": "flyteish._authoring.values.current_blobs",
    "flyteish._authoring.bridge": "flyteish._async.bridge",
    "flyteish._authoring.calling": "flyteish._authoring.tasks.calling",
    "flyteish._authoring.checkpoint": "flyteish._authoring.attempt.checkpoint",
    "flyteish._authoring.content": "flyteish.io.content",
    "flyteish._authoring.context": "flyteish._authoring.attempt.context",
    "flyteish._authoring.declarations": "flyteish._authoring.tasks.options",
    "flyteish._authoring.environment": "flyteish._authoring.tasks.environment",
    "flyteish._authoring.error_documents": "flyteish._authoring.values.errors",
    "flyteish._authoring.feed": "flyteish._async.feeds",
    "flyteish._authoring.forecast": "flyteish._learning.forecasts",
    "flyteish._authoring.foreign": "flyteish._authoring.values.third_party",
    "flyteish._authoring.frames": "flyteish._authoring.values.dataframes",
    "flyteish._authoring.grace": "flyteish._authoring.attempt.grace",
    "flyteish._authoring.grouping": "flyteish._authoring.tasks.groups",
    "flyteish._authoring.hints": "flyteish._authoring.values.annotations",
    "flyteish._authoring.image": "flyteish._core.model.images",
    "flyteish._authoring.interruption": "flyteish._authoring.attempt.interruption",
    "flyteish._authoring.local_copies": "flyteish.io.local_copies",
    "flyteish._authoring.loop_state": "flyteish._authoring.attempt.epoch_state",
    "flyteish._authoring.mapping": "flyteish._authoring.tasks.map",
    "flyteish._authoring.names": "flyteish._authoring.values.names",
    "flyteish._authoring.payloads": "flyteish._authoring.values.payloads",
    "flyteish._authoring.plain_data": "flyteish._authoring.values.plain_data",
    "flyteish._authoring.reference": "flyteish._authoring.values.task_reference",
    "flyteish._authoring.saved_data": "flyteish._authoring.attempt.checkpoint_data",
    "flyteish._authoring.signature": "flyteish._authoring.tasks.signature",
    "flyteish._authoring.task": "flyteish._authoring.tasks.task",
    "flyteish._authoring.tracing": "flyteish._authoring.tasks.trace",
    "flyteish._authoring.training": "flyteish._authoring.attempt.epochs",
    "flyteish._authoring.typecheck": "flyteish._authoring.values.typecheck",
    "flyteish._authoring.value_kinds": "flyteish._authoring.values.kinds",
    "flyteish._authoring.values": "flyteish._authoring.values.codec",
    "flyteish._controller.handles": "flyteish._controller.run_handle",
    "flyteish._controller.learned": "flyteish._learning.documents",
    "flyteish._core.actions": "flyteish._core.model.records",
    "flyteish._core.admission": "flyteish._core.scheduling.admission",
    "flyteish._core.attempts": "flyteish._core.transitions.attempts",
    "flyteish._core.bills": "flyteish._core.billing.bills",
    "flyteish._core.books": "flyteish._core.scheduling.queue_state",
    "flyteish._core.cadence": "flyteish._core.rules.checkpoint_interval",
    "flyteish._core.cost": "flyteish._core.billing.cost_summary",
    "flyteish._core.deadlines": "flyteish._core.rules.deadline_policies",
    "flyteish._core.effects": "flyteish._core.model.effects",
    "flyteish._core.endings": "flyteish._core.rules.attempt_ends",
    "flyteish._core.events": "flyteish._core.model.events",
    "flyteish._core.experience": "flyteish._core.rules.experience",
    "flyteish._core.families": "flyteish._core.transitions.parents_and_children",
    "flyteish._core.ids": "flyteish._core.model.ids",
    "flyteish._core.ledger": "flyteish._core.scheduling.capacity",
    "flyteish._core.limits": "flyteish._core.transitions.time_limits",
    "flyteish._core.lines": "flyteish._core.scheduling.waiting_lines",
    "flyteish._core.moves": "flyteish._core.transitions.phases",
    "flyteish._core.operations": "flyteish._core.transitions.operations",
    "flyteish._core.pacing": "flyteish._core.transitions.deadline_pacing",
    "flyteish._core.placement": "flyteish._core.rules.placement",
    "flyteish._core.planning": "flyteish._core.rules.plan",
    "flyteish._core.policies": "flyteish._core.model.policies",
    "flyteish._core.pool_memory": "flyteish._core.scheduling.pool_health",
    "flyteish._core.prices": "flyteish._core.billing.price_history",
    "flyteish._core.queues": "flyteish._core.model.queues",
    "flyteish._core.refusals": "flyteish._core.scheduling.submission_checks",
    "flyteish._core.relocations": "flyteish._core.transitions.relocations",
    "flyteish._core.resources": "flyteish._core.model.resources",
    "flyteish._core.retries": "flyteish._core.rules.retries",
    "flyteish._core.settings": "flyteish._core.model.settings",
    "flyteish._core.submissions": "flyteish._core.transitions.submissions",
    "flyteish._core.values": "flyteish._core.model.values",
    "flyteish._core.waits": "flyteish._core.transitions.waiting",
    "flyteish._markets.markets": "flyteish.markets.followed",
    "flyteish._markets.prices": "flyteish.markets.price_feed",
    "flyteish._markets.reclaimer": "flyteish.markets.reclaimer",
    "flyteish.home": "flyteish.config_values",
    "flyteish.io": "flyteish.io.files",
    "flyteish.simulation.market": "flyteish.markets.market",
    "flyteish.simulation.prices": "flyteish.markets.price_sources",
    "flyteish.simulation.traces": "flyteish.markets.traces",
}

#: ``old module:name``: ``new module:name``, where ``MODULES`` alone does not lead there.
NAMES: Final[dict[str, str]] = {
    "flyteish._core.actions:Attempt": "flyteish._core.model.records:AttemptRecord",
    "flyteish._authoring.context:AttemptLeft": "flyteish._authoring.attempt.signals:AttemptLeft",
    "flyteish._authoring.context:OutsideTaskError": "flyteish._authoring.attempt.signals:OutsideTaskError",
    "flyteish._authoring.values:Unserialisable": "flyteish._authoring.values.unserialisable:Unserialisable",
    "flyteish._authoring.context:_Current": "flyteish.current:_Current",
    "flyteish.interfaces:Notice": "flyteish.interfaces.orders:Notice",
    "flyteish.simulation.report:PolicyReport": "flyteish.simulation.figures:PolicyReport",
    "flyteish.simulation.report:Spread": "flyteish.simulation.figures:Spread",
}

_MODULES_BEFORE: Final = {new: old for old, new in MODULES.items()}
_NAMES_BEFORE: Final = {new: old for old, new in NAMES.items()}


def current(module: str, name: str) -> tuple[str, str]:
    """Module and name of today for those that are recorded, which may be of today, too."""
    if not module.startswith("flyteish"):
        return module, name
    found = NAMES.get(f"{module}:{name}")
    if found is not None:
        moved, _, renamed = found.partition(":")
        return moved, renamed
    return MODULES.get(module, module), name


def recorded(module: str, name: str) -> tuple[str, str]:
    """The oldest module and name of what has these today."""
    if not module.startswith("flyteish"):
        return module, name
    found = _NAMES_BEFORE.get(f"{module}:{name}")
    if found is not None:
        first, _, named = found.partition(":")
        return first, named
    return _MODULES_BEFORE.get(module, module), name
