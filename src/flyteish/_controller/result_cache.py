"""The cache of results, asked before an action is submitted and fed when it succeeded.

A cache saves work, no more: what cannot be read is computed anew, what cannot be kept is a warning. Results that are
used count as written anew, so that only those that nobody uses grow old. Must not know who calls, nor how a result
comes about.
"""

from __future__ import annotations

import logging
from hashlib import blake2b

import msgspec

from flyteish._core.model.records import Action
from flyteish._core.model.values import Payload, Profile
from flyteish.errors import BlobError
from flyteish.interfaces import Clock, ReferenceStore

_log = logging.getLogger(__name__)


class ResultCache:
    """Results by task, version and inputs; one for each session."""

    def __init__(self, blobs: ReferenceStore, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock
        self.wanted: dict[tuple[str, str], bytes] = {}
        """By run and action: digests of the inputs under which results are kept, until they are delivered."""

    async def find(self, profile: Profile, digest: bytes) -> Payload | None:
        """A recorded result for these inputs."""
        name = _ref(profile, digest)
        try:
            found = await self._blobs.get_ref(name)
            while found is not None and found.is_stale(self._clock.now()):
                # Where it was removed meanwhile, what it refers to may be gone, too; another one is as good.
                if await self._blobs.replace_ref(name, found.data, found.version):
                    break
                found = await self._blobs.get_ref(name)
            return None if found is None else msgspec.msgpack.decode(found.data, type=Payload)
        except (BlobError, msgspec.MsgspecError) as error:
            _log.warning("the cached result of %s cannot be read, so it is computed anew: %s", profile.task, error)
            return None

    async def remember(self, action: Action, digest: bytes) -> None:
        """Keep a result for later calls, where the task's cache is on. Failing to is no failure of the action."""
        profile = action.profile
        if profile.cache_version is None or profile.settings.cache.behavior == "disable" or action.result is None:
            return
        try:
            await self._blobs.set_ref(_ref(profile, digest), msgspec.msgpack.encode(action.result))
        except BlobError as error:
            action.warnings += (f"the result could not be cached: {error}",)


def is_read(profile: Profile) -> bool:
    """Whether a recorded result of this task may be used."""
    return profile.cache_version is not None and profile.settings.cache.behavior == "auto"


def _ref(profile: Profile, digest: bytes) -> str:
    cache = profile.settings.cache
    text = f"{profile.task}\0{profile.cache_version}\0{cache.salt}\0".encode()
    return "cache/" + blake2b(text + digest, digest_size=16).hexdigest()
