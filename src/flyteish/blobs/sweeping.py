"""What may go from a blob store: whatever is old and nobody wants. Works over any store, by listing and deleting.

What a reference mentions is wanted, and so is what is in a tree that is wanted. A store's spaces are swept along.
Blocks, for it takes long: callers on a loop use a thread. Must not know what content means; the caller says what it
wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flyteish.blobs import trees
from flyteish.blobs.addresses import is_tree, mentioned
from flyteish.errors import BlobCorruptError, BlobMissingError

if TYPE_CHECKING:
    from flyteish.interfaces import BlockingBlobs, Stored

Keep = Callable[[str], bool]


class Swept(NamedTuple):
    """What a sweep did."""

    contents: int
    """How many contents nobody wanted."""
    size: int
    """Bytes that were freed; of a dry run, that would be."""


def sweep(
    store: BlockingBlobs,
    keep: Keep,
    older_than: float,
    *,
    forget: Callable[[Stored], bool] = lambda _: False,
    dry_run: bool = False,
) -> Swept:
    """Remove content last written before ``older_than`` (epoch) that ``keep`` does not want.

    Args:
        store: what is swept, with its spaces: for their content ``keep`` is asked by the space's name, ``/`` and the
            address. References of ``store`` keep content of its spaces too.
        keep: whether content is wanted, by its address.
        older_than: what was put later stays, for whoever put it may not have said yet that he wants it.
        forget: which references of ``store`` go first, unless they are written meanwhile.
        dry_run: only say what content would go.
    """
    forgotten = {ref.name for ref in store.references() if forget(ref) and (dry_run or _removed(store, ref))}
    wanted = _mentioned(store, forgotten if dry_run else ())
    count, size = _sweep(store, list(store.contents()), wanted, keep, older_than, dry_run)
    for name in store.spaces():
        space, prefix = store.space(name), f"{name}/"
        more = _sweep(space, list(space.contents()), wanted, partial(_within, prefix, keep), older_than, dry_run)
        count, size = count + more.contents, size + more.size
        if not dry_run:
            size += _dissolve(space, older_than)
    if not dry_run:
        size += store.tidy(older_than)
    return Swept(count, size)


def supersede(store: BlockingBlobs, kept: Iterable[str], newest: str) -> int:
    """Remove all content of ``store`` that was written before ``newest``, but for what is ``kept`` or referred to.

    Goes by the store's own clock, and takes along what writers left unfinished. Returns the bytes freed.
    """
    contents = list(store.contents())
    written_at = next((each.written_at for each in contents if each.name == newest), 0.0)
    wanted = set(kept) | _mentioned(store)
    swept = _sweep(store, contents, wanted, lambda _: False, written_at, dry_run=False)
    return swept.size + store.tidy(written_at)


def _sweep(
    store: BlockingBlobs, contents: list[Stored], wanted: set[str], keep: Keep, older_than: float, dry_run: bool
) -> Swept:
    inside: set[str] = set()
    """What trees that stay are made of."""

    def stays(found: Stored) -> bool:
        name = found.name
        return found.written_at >= older_than or name in wanted or name in inside or keep(name)

    old: list[Stored] = []
    for each in contents:
        if is_tree(each.name):
            if stays(each):
                inside |= _members(store, each.name)
            else:
                old.append(each)
    old += [each for each in contents if not is_tree(each.name) and not stays(each)]
    size = sum(each.size for each in old) if dry_run else store.delete([each.name for each in old], older_than)
    return Swept(len(old), size)


def _within(prefix: str, keep: Keep, address: str) -> bool:
    return keep(prefix + address)


def _dissolve(space: BlockingBlobs, older_than: float) -> int:
    """A space without content needs no references."""
    if not any(True for _ in space.contents()):
        for ref in space.references():
            space.delete_ref(ref.name, older_than)
    return space.tidy(older_than)


def _removed(store: BlockingBlobs, ref: Stored) -> bool:
    return store.delete_ref(ref.name, math.nextafter(ref.written_at, math.inf))


def _mentioned(store: BlockingBlobs, forgotten: Container[str] = ()) -> set[str]:
    """What references mention."""
    found: set[str] = set()
    for ref in store.references():
        if ref.name in forgotten:
            continue
        try:
            reference = store.get_ref(ref.name)
        except BlobCorruptError:
            continue  # nobody can read it any more
        if reference is not None:  # nobody has removed it meanwhile
            found |= mentioned(reference.data)
    return found


def _members(store: BlockingBlobs, address: str) -> set[str]:
    try:
        return {entry.address for entry in trees.members(address, store.get(address))}
    except (BlobCorruptError, BlobMissingError):
        return set()  # nobody can unpack it any more, so it keeps nothing alive
