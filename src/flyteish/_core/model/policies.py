"""What a task's author may ask for: retries, back-off, time-outs, spot. Values that check themselves.

They say *what is wanted*; ``retries``, ``placement`` and ``lifecycle`` decide *what follows*. Must not know
about actions, queues or time.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Literal

import msgspec

from flyteish._core.wording import not_accepted

DEFAULT_SYSTEM_RETRIES = 3
DEADLINE_POLICIES = ("slack-budget", "uniform-progress", "off")
"""Names of the rules in ``deadline_policies.POLICIES``, which a test compares, and ``off``."""
DEFAULT_DEADLINE_POLICY = "slack-budget"
DEFAULT_PREEMPTIONS_WITHOUT_PROGRESS = 3


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """The wait before the next user attempt: ``min(cap, base * factor**n)`` for the n-th retry from 0.

    Args:
        base: seconds or timedelta before the first retry, >= 0. Default 1 s.
        factor: multiplier per retry, >= 1. Default 1 (constant, as in Flyte 2).
        cap: the longest wait, seconds or timedelta. Default None: one hour.
        jitter: the share of the wait, 0..1, that chance may take off. Default 0.

    Raises:
        ConfigurationError: a value is out of range; names it.
    """

    base: float | int | timedelta = 1.0
    factor: float | int = 1.0
    cap: float | int | timedelta | None = None
    jitter: float | int = 0.0

    def __post_init__(self) -> None:
        _seconds("Backoff.base", self.base)
        if self.cap is not None:
            _seconds("Backoff.cap", self.cap)
        _number("Backoff.factor", self.factor, 1.0, math.inf)
        _number("Backoff.jitter", self.jitter, 0.0, 1.0)

    def delay(self, n: int, chance: float) -> float:
        """Seconds before retry ``n`` (from 0); ``chance`` in [0, 1) is the random number."""
        cap = 3600.0 if self.cap is None else _seconds("Backoff.cap", self.cap)
        # 2**1024 overflows a float; far past any cap, so the exponent may stop growing there.
        growth = self.factor ** min(n, 512) if self.factor < 2 else self.factor ** min(n, 64)
        wait = min(cap, _seconds("Backoff.base", self.base) * min(growth, 1e18))
        return wait * (1.0 - self.jitter * chance)


class RetryStrategy(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """How often and how patiently a task is tried again when it fails itself.

    Args:
        count: user retries, >= 0; ``count=N`` means at most N+1 user attempts. Default 0.
        backoff: the wait between user attempts. Default None: at once.
        retry_on: exception types (or their qualified names) that are retried; others fail at once.
            Default None: every exception is, except ``NonRecoverableError``.
        system_retries: infrastructure failures forgiven per user attempt, >= 0. Default 3.

    Raises:
        ConfigurationError: a value is out of range; names it.
    """

    count: int = 0
    backoff: Backoff | None = None
    retry_on: Any = None
    system_retries: int = DEFAULT_SYSTEM_RETRIES

    def __post_init__(self) -> None:
        _whole("RetryStrategy.count", self.count)
        _whole("RetryStrategy.system_retries", self.system_retries)
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise not_accepted("RetryStrategy.backoff", self.backoff, "Backoff(...) or None")
        if self.retry_on is not None:
            # Types become names: a policy is stored and travels, and workers report types by name.
            names = tuple(_type_name(item) for item in self._retry_on_items())
            msgspec.structs.force_setattr(self, "retry_on", names)

    def _retry_on_items(self) -> tuple[object, ...]:
        given: object = self.retry_on
        return tuple(given) if isinstance(given, tuple | list) else (given,)


class Timeout(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Bounds in time; each in seconds or timedelta, and 0 or None means unlimited.

    Args:
        max_runtime: running time of one attempt; start-up does not count. Exceeding it pays from ``retries``.
        max_queued_time: waiting time of one attempt in its queue. Exceeding it pays from ``retries``.
        deadline: everything since the first submission: waiting, back-off, preemptions, all attempts.
            Exceeding it ends the action as timed out, whatever is left.

    Raises:
        ConfigurationError: a value is negative or not a time.
    """

    max_runtime: float | int | timedelta | None = None
    max_queued_time: float | int | timedelta | None = None
    deadline: float | int | timedelta | None = None

    def __post_init__(self) -> None:
        for field in ("max_runtime", "max_queued_time", "deadline"):
            value = getattr(self, field)
            # Normalised once here so that nobody downstream asks whether 0 or None means "none".
            seconds = None if value is None else _seconds(f"Timeout.{field}", value) or None
            msgspec.structs.force_setattr(self, field, seconds)


class SpotPolicy(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """When an interruptible task may run on spot; ``interruptible=True`` means ``SpotPolicy()``.

    Args:
        fallback: ``"final"`` (default): the final user attempt and a fired trip-wire run on-demand.
            ``"first-preemption"``: after one preemption on-demand, not charged (the older Flyte 1 rule).
            ``"never"``: always spot; opts out of the final-attempt, trip-wire and stock-out rules; a deadline policy
            still sends it on-demand where the deadline needs it.
        preemptions_without_progress: preemptions in a row without a new checkpoint, within one user attempt,
            after which the rest of that user attempt runs on-demand; >= 1. Default 3.
        max_spot_wait: seconds or timedelta that an attempt waits while the spot pools report no capacity
            before it goes on-demand. Default None: waits.
        budget: ``"uncharged"`` (default): preemptions never pay from ``retries``. ``"single"``: they do, and
            the last one runs on-demand (the Flyte 1 document's rule).
        force: True runs it on spot although it is marked ``idempotent=False``. Default False.
        work: the author's estimate of the work on an undisturbed machine, seconds or timedelta; together with
            ``Timeout(deadline=...)`` it turns deadline-aware placement on. Default None: learned from earlier
            actions of the task; not known, no deadline-aware placement.
        deadline_policy: the rule by which placement follows a deadline: ``"slack-budget"`` (default),
            ``"uniform-progress"`` ("Can't Be Late", NSDI 2024), or ``"off"``.

    Raises:
        ConfigurationError: a value is not accepted; names it and what is.
    """

    fallback: Literal["final", "first-preemption", "never"] = "final"
    preemptions_without_progress: int = DEFAULT_PREEMPTIONS_WITHOUT_PROGRESS
    max_spot_wait: float | int | timedelta | None = None
    budget: Literal["uncharged", "single"] = "uncharged"
    force: bool = False
    work: float | int | timedelta | None = None
    deadline_policy: str = DEFAULT_DEADLINE_POLICY

    def __post_init__(self) -> None:
        _one_of("SpotPolicy.fallback", self.fallback, ("final", "first-preemption", "never"))
        if not isinstance(self.force, bool):
            raise not_accepted("SpotPolicy.force", self.force, "True or False")
        _one_of("SpotPolicy.budget", self.budget, ("uncharged", "single"))
        _one_of("SpotPolicy.deadline_policy", self.deadline_policy, DEADLINE_POLICIES)
        _whole("SpotPolicy.preemptions_without_progress", self.preemptions_without_progress, least=1)
        for field in ("max_spot_wait", "work"):
            value = getattr(self, field)
            if value is not None:
                msgspec.structs.force_setattr(self, field, _seconds(f"SpotPolicy.{field}", value))
        if self.work == 0:  # which would read as "not known"
            raise not_accepted("SpotPolicy.work", self.work, "seconds > 0, a timedelta > 0, or None to learn it")


def matches_retry_on(strategy: RetryStrategy, type_names: tuple[str, ...]) -> bool:
    """Whether an exception whose class and bases have ``type_names`` is one that ``retry_on`` retries."""
    return strategy.retry_on is None or any(name in strategy.retry_on for name in type_names)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise not_accepted(name, value, "seconds >= 0 or a timedelta >= 0")
    return float(value)


def _number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or math.isinf(value):
        raise not_accepted(name, value, f"a number from {least:g}" + ("" if math.isinf(most) else f" to {most:g}"))


def _whole(name: str, value: object, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise not_accepted(name, value, f"an int >= {least}")


def _one_of(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise not_accepted(name, value, " or ".join(repr(item) for item in accepted))


def _type_name(item: object) -> str:
    if isinstance(item, type) and issubclass(item, BaseException):
        return f"{item.__module__}.{item.__qualname__}"
    if isinstance(item, str) and item:
        return item if "." in item else f"builtins.{item}"
    raise not_accepted("RetryStrategy.retry_on", item, "exception types or their qualified names")


#: The wait between infrastructure failures (spec: attempts, "exponential back-off with jitter").
SYSTEM_BACKOFF = Backoff(base=1.0, factor=2.0, cap=60.0, jitter=0.5)
