"""Queues and pools as values: the named lines that work waits in, the named capacities that run it.

Configured by whoever runs the system; a task's author only names a queue. They check themselves; *who goes
next* is decided in ``admission`` (spec: queues).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from flyteish._core.model.resources import NO_AMOUNTS, Amounts, Resources
from flyteish._core.model.setting_rules import PRIORITIES
from flyteish._core.wording import not_accepted
from flyteish.errors import ConfigurationError

Medium = Literal["spot", "on-demand"]
SPOT: Final[Medium] = "spot"
ON_DEMAND: Final[Medium] = "on-demand"
"""Seconds assumed for a node and an image, until a start was measured."""
LOCAL_STARTUP: Final = 1.0


class Queue(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """A named line that work waits in. Where a limit is a number, 0 means unlimited.

    Args:
        name: what tasks call it.
        pools: names of the pools it feeds, in order of preference. Default: every pool of the session.
        action_concurrency: most running attempts; a parent that only waits for children does not count.
        run_concurrency: most active runs whose root is in this queue.
        depth: most waiting + running actions; above it a submission is refused, or waits (``on_full``).
        on_full: ``"refuse"`` raises ``ResourceExhaustedError`` at once; ``"wait"`` holds the caller back.
        max_resources: most cpu, memory, gpu, summed over running attempts.
        priority: ``"min"``, ``"medium"``, ``"max"`` or 1..100; orders queues that compete for a pool.
        scheduling: ``"strict_fifo"``, or ``"greedy_capacity"``: smaller work may pass a head that does not fit.
        fairness: ``"round_robin"`` over runs, or ``"fifo"``.
        overlap: what a second run of the same task does: ``"allow"``, ``"queue"``, ``"skip"``, ``"replace"``.
        spot_share: the most of its capacity that may be spot, 0..1. Default 1.
        spend_limit: $ per hour over running attempts.
        state: ``"active"``, ``"held"`` (admits nothing), ``"draining"`` (refuses new work) or ``"drained"``.
        defaults: settings that tasks in this queue get when nobody more specific says otherwise.

    Raises:
        ConfigurationError: names the queue, the parameter, the value and what is accepted.
    """

    name: str
    pools: Sequence[str] = ()
    action_concurrency: int = 0
    run_concurrency: int = 0
    depth: int = 0
    on_full: Literal["refuse", "wait"] = "refuse"
    max_resources: Resources = Resources()
    priority: Any = 50
    scheduling: Literal["strict_fifo", "greedy_capacity"] = "strict_fifo"
    fairness: Literal["round_robin", "fifo"] = "round_robin"
    overlap: Literal["allow", "queue", "skip", "replace"] = "allow"
    spot_share: float = 1.0
    spend_limit: float = 0.0
    state: Literal["active", "held", "draining", "drained"] = "active"
    defaults: dict[str, Any] = {}

    def __post_init__(self) -> None:
        say = _Checker(f"Queue({self.name!r})")
        say.name("name", self.name)
        for field in ("action_concurrency", "run_concurrency", "depth"):
            say.whole(field, getattr(self, field))
        say.one_of("on_full", self.on_full, ("refuse", "wait"))
        say.one_of("scheduling", self.scheduling, ("strict_fifo", "greedy_capacity"))
        say.one_of("fairness", self.fairness, ("round_robin", "fifo"))
        say.one_of("overlap", self.overlap, ("allow", "queue", "skip", "replace"))
        say.one_of("state", self.state, ("active", "held", "draining", "drained"))
        say.number("spot_share", self.spot_share, most=1.0)
        say.number("spend_limit", self.spend_limit)
        say.kind("max_resources", self.max_resources, Resources)
        say.kind("defaults", self.defaults, dict)
        force = msgspec.structs.force_setattr
        force(self, "priority", say.priority("priority", self.priority))
        force(self, "pools", say.names("pools", self.pools))


class Pool(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """A named capacity of one medium in one engine (and cluster).

    Args:
        name: what queues call it.
        medium: ``"spot"`` or ``"on-demand"``.
        engine: ``"inline"`` (in this process), ``"processes"`` (warm worker processes), ``"kubernetes"``, or one that
            the program brings (``Session(engines=...)``).
        capacity: most attempts at once; 0 = unlimited.
        resources: most cpu, memory, gpu at once, summed over attempts; 0 = unlimited.
        price_per_hour: $ for one attempt's hour; used for costs, ``spend_limit`` and reports. A number, ``"market"``
            (the prices recorded with the pool's trace market), or a ``PriceSource``, whose price may change.
        cluster, context, namespace, preset: Kubernetes only.
        cooldown: seconds that the pool is left alone after it reported no capacity. Default 30.
        half_life: seconds after which a preemption or stock-out counts half when a queue chooses among its spot
            pools; 0 = it is never held against the pool. Default 3600.
        grace: seconds between an interruption notice and the kill. Default 120 (the EC2 notice).
        startup: seconds from an attempt's admission until its code begins, assumed until it was measured; the
            deadline rule and the simulator go by it. Default None: 180 on Kubernetes, 1 elsewhere.
        on_close: what becomes of attempts when the session closes: ``"stop"`` ends them, ``"detach"`` lets them go on,
            for a later session to take up; engines on this machine know ``"stop"`` only.
        market: who reclaims spot attempts of a local pool: a market object, or None for nobody.
        ahead: attempts beyond ``capacity`` that may be handed to the engine while they still wait for a machine, so
            that it need not ask for each; the session says it. Default 0: whoever is admitted has its machine.

    Raises:
        ConfigurationError: names the pool, the parameter, the value and what is accepted.
    """

    name: str
    medium: Medium = ON_DEMAND
    engine: str = "inline"
    capacity: int = 0
    resources: Resources = Resources()
    price_per_hour: Any = 0.0
    cluster: str | None = None
    context: str | None = None
    namespace: str | None = None
    preset: str | None = None
    cooldown: float = 30.0
    grace: float = 120.0
    market: Any = None
    startup: float | None = None
    half_life: float = 3600.0
    on_close: Literal["stop", "detach"] = "stop"
    ahead: int = 0

    def __post_init__(self) -> None:
        say = _Checker(f"Pool({self.name!r})")
        say.name("name", self.name)
        say.one_of("medium", self.medium, (SPOT, ON_DEMAND))
        say.name("engine", self.engine)
        say.one_of("on_close", self.on_close, ("stop", "detach"))
        say.whole("capacity", self.capacity)
        say.whole("ahead", self.ahead)
        say.kind("resources", self.resources, Resources)
        self._check_price(say)
        for field in ("cooldown", "grace"):
            say.number(field, getattr(self, field))
        say.seconds("half_life", self.half_life)
        if self.startup is not None:
            say.number("startup", self.startup)

    def _check_price(self, say: _Checker) -> None:
        price = self.price_per_hour
        if price == "market":
            if self.price_source is None:
                raise say.refuse("price_per_hour", price, f"a market with recorded prices; market={self.market!r}")
        elif isinstance(price, bool | str) or not isinstance(price, int | float):
            if not (callable(getattr(price, "price", None)) and callable(getattr(price, "next_change", None))):
                raise say.refuse("price_per_hour", price, "$ >= 0, 'market' or a PriceSource")
        elif not 0 <= price < math.inf:
            raise say.refuse("price_per_hour", price, "$ >= 0, 'market' or a PriceSource")

    @property
    def fixed_price(self) -> float | None:
        """$ per hour; None where a source says it."""
        return float(self.price_per_hour) if isinstance(self.price_per_hour, int | float) else None

    @property
    def price_source(self) -> Any:
        """The ``PriceSource``; None where the price is fixed."""
        if self.price_per_hour == "market":
            return getattr(self.market, "price_source", None)
        return None if isinstance(self.price_per_hour, int | float) else self.price_per_hour

    @property
    def assumed_startup(self) -> float:
        """Seconds until an attempt's code begins, as long as nobody has measured it."""
        return LOCAL_STARTUP if self.startup is None else self.startup

    @property
    def amounts(self) -> Amounts:
        return self.resources.amounts() if self.resources != _NONE else NO_AMOUNTS


_NONE = Resources()


class _Checker:
    """Refusals that all read the same: whose parameter, which value, what is accepted."""

    def __init__(self, whose: str) -> None:
        self.whose = whose

    def refuse(self, field: str, value: object, accepted: str) -> ConfigurationError:
        return not_accepted(f"{self.whose}: {field}", value, accepted)

    def name(self, field: str, value: object) -> None:
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(field, value, "a non-empty name")

    def names(self, field: str, value: object) -> tuple[str, ...]:
        items = (value,) if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
            raise self.refuse(field, value, "a list of names")
        return tuple(items)

    def whole(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refuse(field, value, "an int >= 0 (0 = unlimited)")

    def number(self, field: str, value: object, most: float = float("inf")) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise self.refuse(field, value, f"a number from 0 to {most:g}" if most < float("inf") else "a number >= 0")

    def seconds(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.refuse(field, value, "seconds >= 0")

    def one_of(self, field: str, value: object, accepted: tuple[str, ...]) -> None:
        if value not in accepted:
            raise self.refuse(field, value, " or ".join(map(repr, accepted)))

    def kind(self, field: str, value: object, kind: type) -> None:
        if not isinstance(value, kind):
            raise self.refuse(field, value, f"{kind.__name__}(...)")

    def priority(self, field: str, value: object) -> int:
        if isinstance(value, str) and value in PRIORITIES:
            return PRIORITIES[value]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
            raise self.refuse(field, value, "'min', 'medium', 'max' or an int from 1 to 100")
        return value
