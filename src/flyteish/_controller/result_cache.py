"""The cache of results, asked before an action is submitted and fed when it succeeded.

A cache saves work, no more: what cannot be read is computed anew, what cannot be kept is a warning. Must not know who
calls, nor how a result comes about.
"""

from __future__ import annotations

import logging
from hashlib import blake2b

import msgspec

from flyteish._core.model.records import Action
from flyteish._core.model.values import Payload, Profile
from flyteish.errors import BlobError
from flyteish.interfaces import BlobStore

_log = logging.getLogger(__name__)


class ResultCache:
    """Results by task, version and inputs; one for each session."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.wanted: dict[tuple[str, str], bytes] = {}
        """By run and action: digests of the inputs under which results are kept, until they are delivered."""

    def find(self, profile: Profile, digest: bytes) -> Payload | None:
        """A recorded result for these inputs, where the task's cache may be read."""
        if profile.cache_version is None or profile.settings.cache.behavior != "auto":
            return None
        try:
            found = self._blobs.blocking.get_ref(_ref(profile, digest))
            return None if found is None else msgspec.msgpack.decode(found.data, type=Payload)
        except (BlobError, msgspec.MsgspecError) as error:
            _log.warning("the cached result of %s cannot be read, so it is computed anew: %s", profile.task, error)
            return None

    def remember(self, action: Action, digest: bytes) -> None:
        """Keep a result for later calls, where the task's cache is on. Failing to is no failure of the action."""
        profile = action.profile
        if profile.cache_version is None or profile.settings.cache.behavior == "disable" or action.result is None:
            return
        try:
            self._blobs.blocking.set_ref(_ref(profile, digest), msgspec.msgpack.encode(action.result))
        except BlobError as error:
            action.warnings += (f"the result could not be cached: {error}",)


def _ref(profile: Profile, digest: bytes) -> str:
    cache = profile.settings.cache
    text = f"{profile.task}\0{profile.cache_version}\0{cache.salt}\0".encode()
    return "cache/" + blake2b(text + digest, digest_size=16).hexdigest()
