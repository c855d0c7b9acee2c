"""From an admitted attempt to the order that an engine gets; and, when one runs it, the values of its secrets.

Must not know how an engine runs the order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import Action, AttemptRecord
from flyteish._core.model.settings import Scope, Secret
from flyteish._learning.machine_lifetimes import Lifetimes
from flyteish.blobs import sweeping
from flyteish.errors import BlobError, SecretMissingError
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

    def order(self, action: Action, attempt: AttemptRecord, token: str) -> Order:
        """What the attempt's engine is given. ``token``: by which it will be known; empty where it needs none."""
        profile, settings = action.profile, action.profile.settings
        strategy = settings.retries
        return Order(
            key=AttemptKey(action.run, action.id, attempt.generation),
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
            traced=dict(action.traced) if action.traced else {},
            group=action.group,
            token=token,
        )

    def secrets(self, wanted: Sequence[Secret]) -> dict[str, str]:
        """Their values, by the environment variables that attempts see. Any thread.

        Raises:
            SecretMissingError: nobody has one of them; names the cure.
        """
        found: dict[str, str] = {}
        for secret in wanted:
            value = self._lookup(secret)
            if value is None:
                name = f"{secret.group}/{secret.key}" if secret.group else secret.key
                raise SecretMissingError(
                    f"secret {name!r} is missing: give it to Session(secrets=...) "
                    f"or set the environment variable {secret.env_name}"
                )
            found[secret.env_name] = value
        return found

    def forget_checkpoints(self, action: Action) -> None:
        """Free what a finished action saved, except what it published under a key. Blocks."""
        now = self._clock.now()
        for space in {record.space for record in action.checkpoints} - {""}:
            try:
                sweeping.sweep(self._blobs.blocking.space(space), lambda _: False, now)
            except BlobError as error:  # `flyteish gc` tries again
                _log.warning("the checkpoints of %s could not be removed: %s", action.key, error)
