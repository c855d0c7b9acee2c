"""``flyteish gc``: removes runs that ended long ago, their logs, and values that nobody refers to any more.

Runs that have not ended are never removed, nor are their checkpoints: they can be resumed. Of runs that ended, only
checkpoints that were published under a key are of use to anybody. Beside a live controller only what is a day old or
older goes, for what it has just stored may not be in the journal yet. Must not know how a store keeps what.
"""

from __future__ import annotations

import math
import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flyteish._core.model.events import CheckpointCommitted, Entry
from flyteish._core.wording import size, span
from flyteish.blobs import open_blobs
from flyteish.blobs.addresses import is_tree, mentioned
from flyteish.blobs.sweeping import Swept, sweep
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import print_json
from flyteish.cli.records import Records
from flyteish.config_values import TIMES, seconds
from flyteish.errors import BlobCorruptError, BlobMissingError, StoreLockedError
from flyteish.interfaces import BlockingBlobs, RunRow, Stored

_SAFE_SECONDS: Final = 86400.0
_ALL: Final = 1 << 31
_CLAIMS: Final = "claims/"
"""How references begin under which attempts have claimed their results."""


class _Found(NamedTuple):
    runs: list[RunRow]
    logs: list[Path]


def gc(args: Namespace) -> int:
    """``flyteish gc [--older-than TIME] [--forget-unused TIME] [--dry-run]``."""
    records = Records(args)
    age = _age("--older-than", args.older_than, records.config.keep_days * 86400.0)
    unused = _age("--forget-unused", args.forget_unused, math.inf)
    owner = records.owner
    if owner is not None and age < _SAFE_SECONDS:
        raise StoreLockedError(
            f"process {owner} is using {records.config.paths.store}: while it does, only what is older than a day is "
            f"removed; give --older-than 1d or more, or wait for its end"
        )
    cutoff = time.time() - age
    if owner is None and not args.dry_run and records.config.paths.store.exists():
        records.store.open()  # so that no controller starts in the middle of it
    try:
        return _collect(args, records, cutoff, age, unused)
    finally:
        records.store.close()


def _age(option: str, said: str | None, default: float) -> float:
    if said is None:
        return default
    try:
        return seconds(said)
    except ValueError:
        raise UsageError(f"{option} {said!r} is not accepted: expected {TIMES}") from None


def _collect(args: Namespace, records: Records, cutoff: float, age: float, unused: float) -> int:
    found = _found(records, cutoff)
    log_bytes = sum(_bytes_below(folder) for folder in found.logs)
    dry = args.dry_run
    if not dry:
        for row in found.runs:
            records.store.delete(row.run)
        for folder in found.logs:
            shutil.rmtree(folder, ignore_errors=True)
    gone = {row.run for row in found.runs}
    kept = [row.run for row in records.store.runs(limit=_ALL) if row.run not in gone]
    active = {row.run for row in records.store.runs(limit=_ALL, active_only=True)}
    blob_count, blob_bytes = _sweep(records, kept, active, cutoff, max(0.0, time.time() - unused), dry)
    document = {
        "dry_run": dry,
        "older_than_seconds": age,
        "runs": [row.run for row in found.runs],
        "log_bytes": log_bytes,
        "blobs": blob_count,
        "blob_bytes": blob_bytes,
    }
    if args.json:
        print_json(document)
        return ExitCode.OK
    verb = "would remove" if dry else "removed"
    print(f"{verb} {len(found.runs)} runs that ended more than {span(age)} ago")
    print(f"{verb} logs: {size(log_bytes)}")
    print(f"{verb} values: {blob_count}, {size(blob_bytes)}")
    return ExitCode.OK


def _found(records: Records, cutoff: float) -> _Found:
    rows = records.store.runs(limit=_ALL)
    old = [row for row in rows if row.ended_at is not None and row.ended_at < cutoff]
    gone, known = {row.run for row in old}, {row.run for row in rows}
    folder = records.config.paths.logs
    folders = [each for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []
    # A folder of a run that is not on record is a leftover, if it is old enough not to belong to one just starting.
    leftovers = [each for each in folders if each.name not in known and each.stat().st_mtime < cutoff]
    return _Found(old, sorted([*(each for each in folders if each.name in gone), *leftovers]))


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# -- values ----------------------------------------------------------------------------------------------------------


def _sweep(records: Records, kept: list[str], active: set[str], cutoff: float, unused_since: float, dry: bool) -> Swept:
    """How many values nobody refers to, and the bytes that went with them."""
    folder = records.config.paths.blobs
    if not folder.is_dir():
        return Swept(0, 0)
    blobs = open_blobs(folder.as_uri()).blocking

    def forget(ref: Stored) -> bool:
        return _is_forgotten(ref, active, cutoff, unused_since)

    wanted = _wanted(records, kept, blobs, _claimed(blobs, forget))
    spaces = _spaces(records, active)
    return sweep(
        blobs,
        lambda address: address in wanted or address.rpartition("/")[0] in spaces,
        cutoff,
        forget=forget,
        dry_run=dry,
    )


def _is_forgotten(ref: Stored, active: set[str], cutoff: float, unused_since: float) -> bool:
    """Whether a reference goes: by its age where people asked for that, the claim of a result once its run is over."""
    kind, _, rest = ref.name.partition("/")
    if f"{kind}/" != _CLAIMS:
        return ref.written_at < unused_since
    run, _, named = rest.partition("/")
    is_over = run not in active if named else not active  # names that are too long do not say of which run they are
    return is_over and ref.written_at < cutoff


def _spaces(records: Records, active: set[str]) -> set[str]:
    """Where the checkpoints of runs that may go on are. Which of them are superseded, their attempts know."""
    events = (entry.event for run in active for _, entry in records.store.read(run))
    return {event.record.space for event in events if isinstance(event, CheckpointCommitted)} - {""}


def _wanted(records: Records, kept: list[str], blobs: BlockingBlobs, claimed: set[str]) -> set[str]:
    """Every address that a kept run's journal mentions, and those that values there, or the ``claimed``, mention."""
    wanted: set[str] = set()
    encode = msgspec.msgpack.Encoder().encode
    values = claimed
    for run in kept:
        for _, entry in records.store.read(run):
            found = mentioned(encode(entry))
            wanted |= found
            values |= found & _payloads(entry)
    pending = [address for address in values if not is_tree(address)]
    while pending:
        try:
            inside = mentioned(blobs.get(pending.pop()))
        except (BlobMissingError, BlobCorruptError):
            continue  # nobody can read it any more, so it keeps nothing alive
        pending += [address for address in inside - wanted if not is_tree(address)]
        wanted |= inside
    return wanted


def _claimed(blobs: BlockingBlobs, forget: Callable[[Stored], bool]) -> set[str]:
    """Addresses of results that attempts have claimed, and that no journal may have yet."""
    found: set[str] = set()
    for ref in blobs.references():
        if ref.name.startswith(_CLAIMS) and not forget(ref):
            try:
                claim = blobs.get_ref(ref.name)
            except BlobCorruptError:
                continue
            if claim is not None:
                found |= mentioned(claim.data)
    return found


def _payloads(entry: Entry) -> set[str]:
    """Addresses of values, which may mention others; checkpoints and functions do not."""
    event = entry.event
    evidence = getattr(event, "evidence", None)
    values = [getattr(event, "inputs", None), getattr(event, "cached", None), getattr(event, "result", None)]
    values.append(getattr(evidence, "result", None))
    return {value.blob for value in values if value is not None and value.blob is not None}
