"""From an admitted attempt to the order that an engine gets, with secrets looked up and a token of its own.

Must not know how an engine runs the order.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from flyteish._core.model.events import AttemptEnded, Evidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import Action, Attempt
from flyteish._core.model.settings import Scope, Secret
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish.blobs import sweeping
from flyteish.errors import BlobError
from flyteish.interfaces import BlobStore, Clock, Order

_log = logging.getLogger(__name__)

SecretLookup = Callable[[Secret], str | None]


class OrderFactory:
    """Makes orders; one per session."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        clock: Clock,
        scopes: Callable[[str], Scope],
        lifetimes: Lifetimes,
        lookup: SecretLookup,
    ) -> None:
        self._blobs = blobs
        self._clock = clock
        self._scopes = scopes
        self._lifetimes = lifetimes
        self._lookup = lookup

    def order(self, action: Action, attempt: Attempt, with_token: bool) -> Order | AttemptEnded:
        """The order; or, where a secret is missing, the attempt's end, which names the cure."""
        profile, settings = action.profile, action.profile.settings
        key = AttemptKey(action.run, action.id, attempt.generation)
        found: dict[str, str] = {}
        if settings.secrets:
            missing = self._find(settings.secrets, found)
            if missing:
                evidence = Evidence(unmendable=missing)
                return AttemptEnded(key.run, key.action, key.generation, evidence, self._clock.chance())
        strategy = settings.retries
        return Order(
            key=key,
            task=profile.task,
            reference=profile.reference,
            is_async=profile.is_async,
            inputs=action.inputs,
            settings=settings,
            scope=self._scopes(action.run),
            pool=attempt.pool,
            queue=settings.queue,
            medium=attempt.medium,
            user_attempt=attempt.user_attempt,
            max_attempts=strategy.count + 1,
            system_retries_left=strategy.system_retries - action.system_used,
            preemptions=action.preemptions,
            deadline=action.deadline_at,
            checkpoints=action.checkpoints,
            pool_lifetime=self._lifetimes.of(attempt.pool),
            traced=action.traced or {},
            group=action.group,
            token=secrets.token_urlsafe(16) if with_token else "",
            secrets=found,
        )

    def _find(self, wanted: tuple[Secret, ...], found: dict[str, str]) -> str:
        for secret in wanted:
            value = self._lookup(secret)
            if value is None:
                name = f"{secret.group}/{secret.key}" if secret.group else secret.key
                return (
                    f"secret {name!r} is missing: give it to Session(secrets=...) "
                    f"or set the environment variable {secret.env_name}"
                )
            found[secret.env_name] = value
        return ""

    def forget_checkpoints(self, action: Action) -> None:
        """Free what a finished action saved, except what it published under a key. Blocks."""
        now = self._clock.now()
        for space in {record.space for record in action.checkpoints} - {""}:
            try:
                sweeping.sweep(self._blobs.blocking.space(space), lambda _: False, now)
            except BlobError as error:  # `flyteish gc` tries again
                _log.warning("the checkpoints of %s could not be removed: %s", action.key, error)
