"""What a worker may say about itself, checked before anything of it is used.

That a message has the right types is seen when it is decoded, whether it comes at the right moment by ``Peer``; here
its values are looked at, one message at a time: numbers that are none, lengths, depths, and things that are not the
attempt's own. Must not know the state of anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Final

import msgspec

from flyteish._authoring.attempt.checkpoint_data import space_of
from flyteish._core.model.events import CheckpointSkipped, WorkerEvidence
from flyteish._core.model.ids import AttemptKey, inputs_digest
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile
from flyteish._worker.channel import NonsenseError
from flyteish.blobs.addresses import is_address
from flyteish.interfaces import Call, Notice

_WORDS: Final = 4_096
"""Characters of a name or a reason at most."""
_TEXT: Final = 40_000
"""Characters of one message, note or traceback of an error: more than ``errors.document`` ever writes."""
_DEPTH: Final = 16
_DOCUMENTS: Final = 300
_BASES: Final = 1_000
_LARGE: Final = 2**53
_DIGEST: Final = len(inputs_digest(b""))
_KEY: Final = re.compile("[0-9a-f]{16}")
_KINDS: Final = frozenset(("bytes", "file", "dir"))
_NOTICES: Final = frozenset(("rebalance", "relocate", "drain", "shutdown", "terminate"))


def seconds(name: str, value: float) -> None:
    """A span or a moment of time."""
    if not (isfinite(value) and 0 <= value < _LARGE):
        raise NonsenseError(f"{name} is {value!r}; expected seconds from 0")


def words(name: str, value: str, most: int = _WORDS) -> None:
    """Text for people, or a name."""
    if len(value) > most:
        raise NonsenseError(f"{name} has {len(value)} characters; at most {most} are accepted")


def payload(name: str, value: Payload, inline: int) -> None:
    """Inputs or a result: data, or an address, and the size of it.

    Args:
        inline: bytes of data at most; beyond it belongs to the blob store.
    """
    data = value.data
    if data is not None:
        if value.blob is not None or value.size != len(data):
            raise NonsenseError(
                f"{name} has data of {len(data)} bytes, size {value.size} and address {value.blob!r:.80}"
            )
        if len(data) > inline:
            raise NonsenseError(f"{name} has data of {len(data)} bytes; more than {inline} go through the blob store")
    elif value.blob is None or not is_address(value.blob):
        raise NonsenseError(f"{name} has neither data nor the address of any: {value.blob!r:.80}")
    elif not 0 <= value.size < _LARGE:
        raise NonsenseError(f"{name} has the size {value.size}")


def evidence(said: WorkerEvidence, inline: int) -> None:
    """How an attempt ended."""
    if said.result is not None:
        payload("the result", said.result, inline)
        if said.error is None:
            return
    if said.error is not None:
        _error(said.error)
    for name, value in (("left", said.left), ("store_failed", said.store_failed)):
        if value is not None:
            words(name, value, _TEXT)
    if said.error is None and said.left is None and not said.stopped and not said.store_failed:
        raise NonsenseError("an attempt ended with nothing to show for it: no result, no error, no reason")
    if said.result is not None and said.error is not None:
        raise NonsenseError("an attempt ended with a result and an error")


def _error(top: ErrorDocument) -> None:
    count, left = 0, [(top, 0)]
    while left:
        document, depth = left.pop()
        count += 1
        if depth > _DEPTH or count > _DOCUMENTS:
            raise NonsenseError(
                f"an error has causes and members {depth} deep, {count} and more of them; "
                f"at most {_DEPTH} and {_DOCUMENTS} are accepted"
            )
        words("an error's type", document.type)
        words("an error's message", document.message, _TEXT)
        words("an error's traceback", document.traceback, _TEXT)
        if len(document.bases) > _BASES or len(document.notes) > _BASES:
            raise NonsenseError(f"an error has {len(document.bases)} bases and {len(document.notes)} notes")
        for base in document.bases:
            words("an error's base", base)
        for note in document.notes:
            words("an error's note", note, _TEXT)
        left += [(more, depth + 1) for more in (document.cause, document.context, *document.group) if more is not None]


def checkpoint(record: CheckpointRecord, key: AttemptKey) -> None:
    """A link of the attempt's own chain."""
    if record.generation != key.generation:
        raise NonsenseError(f"{key} saved a checkpoint in the name of generation {record.generation}")
    if record.space != space_of(key.run, key.action):
        raise NonsenseError(f"{key} saved a checkpoint in {record.space!r:.80}, which is not its own space")
    if not 1 <= record.sequence < _LARGE or not 0 <= record.size < _LARGE:
        raise NonsenseError(f"a checkpoint has the number {record.sequence} and the size {record.size}")
    if record.kind not in _KINDS or not is_address(record.blob):
        raise NonsenseError(f"a checkpoint is a {record.kind!r:.80} at {record.blob!r:.80}")
    if record.progress is not None and not isfinite(record.progress):
        raise NonsenseError(f"a checkpoint has the progress {record.progress}")
    words("a checkpoint's name", record.name)
    if "/" in record.name or "\0" in record.name or record.name in (".", ".."):
        raise NonsenseError(f"a checkpoint has the name {record.name!r:.80}; expected that of a file")
    seconds("saved_at", record.saved_at)
    seconds("save_seconds", record.save_seconds)
    seconds("restore_seconds", record.restore_seconds)


def skipped(event: CheckpointSkipped, key: AttemptKey) -> None:
    """A torn checkpoint of the attempt's own chain."""
    if (event.run, event.action, event.generation) != key:
        raise NonsenseError(f"{key} spoke for {event.run}/{event.action}#{event.generation}")
    if not 1 <= event.sequence < _LARGE:
        raise NonsenseError(f"a checkpoint has the number {event.sequence}")
    words("why a checkpoint was skipped", event.why, _TEXT)


def notice(said: Notice) -> None:
    """What a signal is taken for."""
    if said.kind not in _NOTICES:
        raise NonsenseError(f"a notice has the kind {said.kind!r:.80}")
    seconds("a notice's seconds", said.seconds)
    if said.source != "sigterm":
        raise NonsenseError(f"a worker spoke of a notice by {said.source!r:.80}; it hears of signals only")


def call(made: Call, known: dict[str, Profile], inline: int) -> None:
    """A child: its inputs, and what stands for them and for its task.

    Args:
        known: profiles of this attempt that were checked before, by key; a new one is added.
    """
    payload("a call's inputs", made.inputs, inline)
    if made.inputs.data is not None and made.digest != inputs_digest(made.inputs.data):
        raise NonsenseError("a call's digest is not that of its inputs")
    if len(made.digest) != _DIGEST or (made.cache_digest is not None and len(made.cache_digest) != _DIGEST):
        raise NonsenseError(f"a digest has {len(made.digest)} bytes; expected {_DIGEST}")
    if not 0 <= made.occurrence < _LARGE:
        raise NonsenseError(f"a call has the occurrence {made.occurrence}")
    if made.group is not None:
        words("a call's group", made.group)
    profile = made.profile
    if known.get(profile.key) != profile:
        _profile(profile)
        known[profile.key] = profile


def _profile(profile: Profile) -> None:
    words("a task's name", profile.task)
    if not _KEY.fullmatch(profile.key):
        raise NonsenseError(f"the profile of {profile.task!r:.80} has the key {profile.key!r:.80}")
    for value in _numbers(msgspec.to_builtins(profile.settings)):
        if not isfinite(value):
            raise NonsenseError(f"a setting of {profile.task!r:.80} is {value}")


def _numbers(value: object) -> Iterator[float]:
    """Every number in plain data."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
