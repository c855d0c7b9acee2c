"""Checkpoints: the chain over attempts, what restore passes over, when to save, and Flyte 1's words."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flyteish._authoring.attempt.context import AttemptContext
from flyteish._core.model.values import CheckpointRecord
from flyteish._core.rules.checkpoint_interval import FIRST_SAVE_SECONDS, interval
from flyteish.blobs.files import FileBlobStore
from flyteish.blobs.memory import BlockingMemoryBlobs
from flyteish.blobs.sweeping import sweep
from flyteish.blobs.threaded import ThreadedBlobs
from flyteish.errors import (
    BlobError,
    CheckpointError,
    ConfigurationError,
    InputTypeError,
    StaleAttemptError,
)
from flyteish.interfaces import Notice
from tests.authoring.attempt.attempt_parts import ORDER, ManualClock, RecordingLink, attempt


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobStore:
    return FileBlobStore(tmp_path / "store")


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def context(scratch: Path, link: RecordingLink, blobs: FileBlobStore) -> AttemptContext:
    return attempt(scratch, link, blobs, wall=lambda: 1_000.0)


@pytest.fixture
def next_attempt(scratch: Path, link: RecordingLink, blobs: FileBlobStore) -> Callable[[], AttemptContext]:
    """Start another attempt of the action, with the chain that was committed so far."""

    def start() -> AttemptContext:
        generation = 5 + len(link.committed)
        return attempt(
            scratch, link, blobs,
            key=ORDER.key._replace(generation=generation), checkpoints=tuple(link.committed),
        )  # fmt: skip

    return start


def damage(blobs: FileBlobStore, record: CheckpointRecord, how: str = "torn") -> None:
    digest = record.blob.partition(":")[2]
    space = Path(blobs.space(record.space).url.removeprefix("file://"))
    path = space / "blobs" / digest[:2] / digest[2:]
    if how == "missing":
        path.unlink()
    elif how == "torn":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
        path.mkdir()  # reading it fails, and not because it is not there


# -- saving and restoring ------------------------------------------------------------------------------


async def test_saved_bytes_are_committed(context: AttemptContext, link: RecordingLink) -> None:
    """``save`` returns once the record is committed, with the attempt's generation and the progress."""
    info = await context.checkpoint.save(b"state", progress=0.25)
    (record,) = link.committed
    assert (record.sequence, record.generation, record.kind, record.size) == (1, 4, "bytes", 5)
    assert (info.sequence, info.progress, info.size) == (1, 0.25, 5)
    assert info.saved_at == datetime(1970, 1, 1, 0, 16, 40, tzinfo=UTC)
    assert context.checkpoint.latest() == info
    assert repr(context.checkpoint) == "Checkpoint(#1 bytes, 5 bytes, progress 25%)"


async def test_the_next_attempt_gets_the_newest(
    context: AttemptContext, next_attempt: Callable[[], AttemptContext]
) -> None:
    """The chain goes over all attempts: the newest is restored, and the next save continues the numbers."""
    await context.checkpoint.save(b"one")
    await context.checkpoint.save(b"two")
    after = next_attempt()
    path = await after.checkpoint.load()
    assert path is not None
    assert path.read_bytes() == b"two"
    assert (await after.checkpoint.save(b"three")).sequence == 3
    assert await after.checkpoint.load_bytes() == b"three"


async def test_without_a_checkpoint_there_is_none(context: AttemptContext) -> None:
    """A first attempt finds nothing, in every way of asking."""
    checkpoint = context.checkpoint
    assert await checkpoint.load() is None
    assert await checkpoint.load_bytes() is None
    assert checkpoint.load_sync() is None
    assert checkpoint.read() is None
    assert checkpoint.restore() is None
    assert checkpoint.latest() is None
    assert repr(checkpoint) == "Checkpoint(none)"


@pytest.mark.parametrize("data", [b"", bytearray(b"abc"), memoryview(b"abc")], ids=["empty", "array", "view"])
async def test_any_bytes_are_a_checkpoint(context: AttemptContext, data: Any) -> None:
    """Empty bytes are a checkpoint, not none; other buffers are copied when ``save`` is called."""
    await context.checkpoint.save(data)
    assert await context.checkpoint.load_bytes() == bytes(data)


async def test_a_buffer_may_be_reused_at_once(context: AttemptContext) -> None:
    """What the caller writes into its buffer after ``save`` began is not part of the checkpoint."""
    buffer = bytearray(b"before")
    saving = asyncio.create_task(context.checkpoint.save(buffer), name="saving")
    await asyncio.sleep(0)
    buffer[:] = b"after!"
    await saving
    assert await context.checkpoint.load_bytes() == b"before"


@pytest.mark.parametrize("as_str", [False, True])
async def test_files_and_directories_come_back_under_their_name(
    context: AttemptContext, tmp_path: Path, as_str: bool
) -> None:
    """A path, as Path or str, is saved as what it is, and loaded with its name and content."""
    model = tmp_path / "model"
    (model / "layers").mkdir(parents=True)
    (model / "layers" / "w.bin").write_bytes(b"weights")
    file = model / "layers" / "w.bin"
    info = await context.checkpoint.save(str(file) if as_str else file)
    loaded = await context.checkpoint.load()
    assert loaded is not None
    assert (info.kind, loaded.name, loaded.read_bytes()) == ("file", "w.bin", b"weights")
    info = await context.checkpoint.save(str(model) if as_str else model)
    loaded = await context.checkpoint.load()
    assert loaded is not None
    assert (info.kind, info.size, loaded.name) == ("dir", 7, "model")
    assert (loaded / "layers" / "w.bin").read_bytes() == b"weights"


async def test_a_loaded_copy_is_the_attempts_own(context: AttemptContext, scratch: Path) -> None:
    """Changing a copy changes neither the checkpoint nor the next copy; all copies go with the attempt."""
    await context.checkpoint.save(b"state")
    first = await context.checkpoint.load()
    assert first is not None
    first.write_bytes(b"changed")
    assert await context.checkpoint.load_bytes() == b"state"
    context.close()
    assert os.listdir(scratch) == []


# -- what can go wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["torn", "missing"])
async def test_damaged_checkpoints_are_passed_over(
    context: AttemptContext,
    link: RecordingLink,
    blobs: FileBlobStore,
    next_attempt: Callable[[], AttemptContext],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """Restore takes the newest valid checkpoint, with a warning for each torn or missing one after it."""
    await context.checkpoint.save(b"first state", key="kept")  # for the others supersede it
    for data in (b"second state", b"third state"):
        await context.checkpoint.save(data)
    damage(blobs, link.committed[1], how)
    damage(blobs, link.committed[2], how)
    after = next_attempt()
    assert await after.checkpoint.load_bytes() == b"first state"
    assert [(event.sequence, event.generation) for event in link.skipped] == [(3, 8), (2, 8)]
    assert all(event.why.startswith("Blob") for event in link.skipped)
    assert "checkpoint 3 of a0 is passed over" in caplog.text
    assert (await after.checkpoint.save(b"fourth")).sequence == 4


async def test_nothing_valid_is_no_checkpoint(
    context: AttemptContext, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """Where every checkpoint is damaged the task starts anew, having been warned."""
    await context.checkpoint.save(b"state")
    damage(blobs, link.committed[0])
    assert await context.checkpoint.load() is None
    assert len(link.skipped) == 1


async def test_reading_leaves_the_loop_free(context: AttemptContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a checkpoint are read on another thread, however many there are."""
    await context.checkpoint.save(b"state")
    readers: list[threading.Thread] = []
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        readers.append(threading.current_thread())
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert await context.checkpoint.load_bytes() == b"state"
    assert len(readers) == 1
    assert readers[0] is not threading.current_thread()


async def test_trouble_with_reading_is_an_error(
    context: AttemptContext, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """An I/O error is never taken for "no checkpoint", nor for a damaged one."""
    await context.checkpoint.save(b"one")
    await context.checkpoint.save(b"two")
    damage(blobs, link.committed[1], "unreadable")
    with pytest.raises(BlobError):
        await context.checkpoint.load()
    with pytest.raises(BlobError):
        context.checkpoint.read()
    assert link.skipped == []


async def test_a_stale_attempt_cannot_save(context: AttemptContext, link: RecordingLink) -> None:
    """A refused commit is a StaleAttemptError; neither in the chain nor published under its key."""
    link.refuse = "generation 5 has started"
    with pytest.raises(StaleAttemptError, match=r"refused: generation 5 has started.*r1/a0#4"):
        await context.checkpoint.save(b"zombie", key="model")
    assert context.checkpoint.latest() is None
    assert await context.blobs.get_ref("checkpoints/model") is None


async def test_an_attempt_that_is_over_cannot_save(context: AttemptContext, link: RecordingLink) -> None:
    """A thread that outlives its attempt gets an error without asking."""
    context.close()
    with pytest.raises(StaleAttemptError, match="is over"):
        await context.checkpoint.save(b"late")
    assert not link.asked.is_set()


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan, True, "half"])
async def test_progress_is_a_share(context: AttemptContext, progress: Any) -> None:
    """Progress outside 0..1 is refused before anything is stored."""
    with pytest.raises(ConfigurationError, match="expected a number from 0 to 1"):
        await context.checkpoint.save(b"", progress=progress)
    assert context.checkpoint.latest() is None


@pytest.mark.parametrize("data", [None, 3, {"a": 1}, [b"x"]])
def test_only_bytes_and_paths_can_be_saved(context: AttemptContext, data: Any) -> None:
    """Anything else is refused by name, with what is accepted."""
    with pytest.raises(InputTypeError, match="expected bytes, or the path of a file or directory"):
        context.checkpoint.save_sync(data)


def test_a_str_is_a_path(context: AttemptContext) -> None:
    """A str that names no file is an error that says how to save data; ``write`` takes bytes only."""
    with pytest.raises(FileNotFoundError, match=r"'epoch 3'.*pass data as bytes"):
        context.checkpoint.save_sync("epoch 3")
    with pytest.raises(InputTypeError, match="expected bytes"):
        context.checkpoint.write("epoch 3")  # type: ignore[arg-type]


async def test_saves_of_one_attempt_happen_one_after_the_other(context: AttemptContext, link: RecordingLink) -> None:
    """Two saves at once, on a loop and on a thread, get different numbers, in the order of their commits."""
    link.gate.clear()
    saving = [asyncio.create_task(context.checkpoint.save(b"%d" % n), name=f"save {n}") for n in range(3)]
    thread = threading.Thread(target=context.checkpoint.save_sync, args=(b"thread",))
    thread.start()
    await asyncio.to_thread(link.asked.wait, 30)
    assert link.committed == []
    link.gate.set()
    await asyncio.gather(*saving)
    await asyncio.to_thread(thread.join)
    assert [record.sequence for record in link.committed] == [1, 2, 3, 4]


async def test_a_cancelled_save_may_still_be_committed(context: AttemptContext, link: RecordingLink) -> None:
    """Cancelling the wait does not tear the save: it is committed by itself, and the next save follows it."""
    link.gate.clear()
    saving = asyncio.create_task(context.checkpoint.save(b"one"), name="saving")
    await asyncio.to_thread(link.asked.wait, 30)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    link.gate.set()
    assert (await context.checkpoint.save(b"two")).sequence == 2
    assert [record.sequence for record in link.committed] == [1, 2]


# -- across runs ------------------------------------------------------------------------------


async def test_a_key_carries_a_checkpoint_into_other_runs(
    context: AttemptContext, blobs: FileBlobStore, scratch: Path
) -> None:
    """Another run finds what was published under the key; its own chain comes first once it has one."""
    await context.checkpoint.save(b"published", key="team/model")
    await context.checkpoint.save(b"private")
    other = attempt(scratch, RecordingLink(), blobs, key=ORDER.key._replace(run="r2"))
    assert await other.checkpoint.load() is None
    assert await other.checkpoint.load_bytes(key="team/model") == b"published"
    assert (await other.checkpoint.save(b"own")).sequence == 1
    assert await other.checkpoint.load_bytes(key="team/model") == b"own"


async def test_published_checkpoints_survive_a_sweep(context: AttemptContext, blobs: FileBlobStore) -> None:
    """What a key refers to is kept though no run wants it any more."""
    await context.checkpoint.save(b"published", key="model")
    sweep(blobs.blocking, lambda _: False, older_than=4e9)
    assert await context.checkpoint.load_bytes(key="model") == b"published"


async def test_a_strange_reference_is_an_error(context: AttemptContext) -> None:
    """What stands under the key and is no checkpoint is an error, not a new start."""
    await context.blobs.set_ref("checkpoints/model", b"\xc1")
    with pytest.raises(CheckpointError, match="key 'model' can't be read"):
        await context.checkpoint.load(key="model")


@pytest.mark.parametrize("key", ["", "../x", "a b", 3])
async def test_bad_keys_are_refused(context: AttemptContext, link: RecordingLink, key: Any) -> None:
    """A key that can't be a reference's name is refused, and nothing is committed."""
    with pytest.raises(ConfigurationError, match="is not accepted"):
        await context.checkpoint.save(b"", key=key)
    with pytest.raises(ConfigurationError, match="is not accepted"):
        await context.checkpoint.load(key=key)
    assert link.committed == []


# -- when to save ------------------------------------------------------------------------------


class Costly(BlockingMemoryBlobs):
    """A store in which every write takes the given time on a clock."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def put(self, content: Any) -> str:
        self.clock.now += self.seconds
        return super().put(content)

    def space(self, name: str) -> BlockingMemoryBlobs:
        return self


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


def test_the_first_save_is_due_soon(tmp_path: Path, clock: ManualClock) -> None:
    """Until a save was measured, one is due after 30 s, or a hundredth of a short-lived pool's life."""
    checkpoint = attempt(tmp_path, clock=clock).checkpoint
    assert not checkpoint.due()
    assert not checkpoint.due(now=1000 + FIRST_SAVE_SECONDS - 0.1)
    assert checkpoint.due(now=1000 + FIRST_SAVE_SECONDS)
    assert attempt(tmp_path, clock=clock, pool_lifetime=100.0).checkpoint.interval == 1.0


def test_saves_are_due_by_young_and_daly(tmp_path: Path, clock: ManualClock) -> None:
    """A save of 4 s in a pool that lives 7,200 s is due after 237.3 s of work: Young's 240 s, refined by Daly."""
    checkpoint = attempt(tmp_path, blobs=ThreadedBlobs(Costly(clock, 4.0)), clock=clock).checkpoint
    checkpoint.save_sync(b"")
    assert checkpoint.interval == pytest.approx(237.34, abs=0.01)
    clock.now += 237.2
    assert not checkpoint.due()
    clock.now += 0.2
    assert checkpoint.due()
    checkpoint.save_sync(b"")
    assert not checkpoint.due()


def test_earlier_attempts_tell_the_cost(tmp_path: Path, clock: ManualClock) -> None:
    """The costs in the chain count from the start; only the last few do."""
    costs = [999.0, 1.0, 2.0, 3.0, 0.0, 4.0, 5.0]
    chain = tuple(
        CheckpointRecord(sequence=n, generation=1, blob="", kind="bytes", size=0, saved_at=0, save_seconds=cost)
        for n, cost in enumerate(costs, 1)
    )
    checkpoint = attempt(tmp_path, clock=clock, checkpoints=chain, pool_lifetime=600.0).checkpoint
    assert checkpoint.interval == interval(3.0, 600.0)


def test_a_save_that_costs_more_than_the_pool_lives(tmp_path: Path, clock: ManualClock) -> None:
    """The interval is never longer than the pool's life."""
    checkpoint = attempt(
        tmp_path, blobs=ThreadedBlobs(Costly(clock, 120.0)), clock=clock, pool_lifetime=60.0
    ).checkpoint
    checkpoint.save_sync(b"")
    assert checkpoint.interval == 60.0


def test_a_notice_makes_a_save_due(tmp_path: Path, clock: ManualClock) -> None:
    """At once when it comes; after that save, by the time that is left."""
    context = attempt(tmp_path, blobs=ThreadedBlobs(Costly(clock, 1.0)), clock=clock)
    context.checkpoint.save_sync(b"")
    assert not context.checkpoint.due()
    context.interruption.notify(Notice("terminate", 129.0))
    assert context.checkpoint.due()
    context.checkpoint.save_sync(b"")
    assert not context.checkpoint.due()
    assert context.checkpoint.interval == interval(1.0, 128.0)
    clock.now += 20.0
    assert context.checkpoint.due()
    clock.now += 200.0
    assert context.checkpoint.due()


def test_a_save_that_began_before_the_notice_does_not_answer_it(tmp_path: Path, clock: ManualClock) -> None:
    """Work done after the save began is not in it, so another save is due."""
    context = attempt(tmp_path, clock=clock)

    class NoticedMeanwhile(Costly):
        def put(self, content: Any) -> str:
            address = super().put(content)
            context.interruption.notify(Notice("terminate", 120.0))
            return address

    context = attempt(tmp_path, blobs=ThreadedBlobs(NoticedMeanwhile(clock, 1.0)), clock=clock)
    context.checkpoint.save_sync(b"")
    assert context.checkpoint.due()


# -- what is superseded ------------------------------------------------------------------------------


def stored(blobs: FileBlobStore) -> list[bytes]:
    """What lies in the action's space."""
    root = Path(blobs.space("r1/a0").url.removeprefix("file://"))
    return sorted(path.read_bytes() for path in (root / "blobs").rglob("*") if path.is_file())


async def test_only_the_two_newest_are_kept(
    context: AttemptContext, scratch: Path, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """A long training does not fill the disk; an older chain on record still finds the newest, without a warning."""
    context = attempt(scratch, link, blobs)
    for number in range(6):
        await context.checkpoint.save(b"%d" % number)
    assert stored(blobs) == [b"4", b"5"]
    after = attempt(scratch, link, blobs, checkpoints=tuple(link.committed))
    damage(blobs, link.committed[5])
    assert await after.checkpoint.load_bytes() == b"4"
    damage(blobs, link.committed[4])
    assert await after.checkpoint.load_bytes() is None
    assert {event.sequence for event in link.skipped} == {5, 6}


async def test_a_good_one_is_kept_beside_damaged_ones(scratch: Path, link: RecordingLink, blobs: FileBlobStore) -> None:
    """The two that are kept are good ones, as far as is known."""
    context = attempt(scratch, link, blobs)
    await context.checkpoint.save(b"good")
    await context.checkpoint.save(b"bad, and as long as that")
    damage(blobs, link.committed[1])
    after = attempt(scratch, link, blobs, checkpoints=tuple(link.committed))
    assert await after.checkpoint.load_bytes() == b"good"
    await after.checkpoint.save(b"new")
    assert stored(blobs) == [b"good", b"new"]


async def test_equal_content_outlives_its_first_checkpoint(
    scratch: Path, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """A newer checkpoint with the content of a superseded one keeps it; so do other actions and values."""
    context = attempt(scratch, link, blobs)
    other = attempt(scratch, RecordingLink(), blobs, key=ORDER.key._replace(action="other"))
    value = await blobs.put(b"same")
    await other.checkpoint.save(b"same")
    for data in (b"same", b"2", b"3", b"same", b"5"):
        await context.checkpoint.save(data)
    assert stored(blobs) == [b"5", b"same"]
    for data in (b"6", b"7"):
        await context.checkpoint.save(data)
    assert stored(blobs) == [b"6", b"7"]
    assert await other.checkpoint.load_bytes() == bytes(await blobs.get(value)) == b"same"


async def test_what_a_key_names_is_kept(scratch: Path, link: RecordingLink, blobs: FileBlobStore) -> None:
    """However many unpublished ones follow, and after the action is swept; the next under the key replaces it."""
    context = attempt(scratch, link, blobs)
    await context.checkpoint.save(b"best", key="best")
    for number in range(5):
        await context.checkpoint.save(b"%d" % number)
    assert stored(blobs) == [b"3", b"4", b"best"]
    sweep(blobs.blocking.space("r1/a0"), lambda _: False, 4e9)
    sweep(blobs.blocking, lambda _: False, 4e9)
    assert stored(blobs) == [b"best"]
    other = attempt(scratch, RecordingLink(), blobs, key=ORDER.key._replace(run="r2"))
    assert await other.checkpoint.load_bytes(key="best") == b"best"
    await other.checkpoint.save(b"better", key="best")
    sweep(blobs.blocking, lambda _: False, 4e9)
    assert not os.path.exists(blobs.space("r1/a0").url.removeprefix("file://"))  # noqa: ASYNC240


async def test_a_key_that_is_used_does_not_grow_old(scratch: Path, link: RecordingLink, blobs: FileBlobStore) -> None:
    """Loading by a key counts as writing it anew, at most once an hour; who swept it by its age finds it young."""
    now = time.time()
    saves = attempt(scratch, link, blobs)
    await saves.checkpoint.save(b"best", key="best")
    path = Path(blobs.url.removeprefix("file://")) / "refs" / "checkpoints" / "best~"
    loads = attempt(scratch, RecordingLink(), blobs, key=ORDER.key._replace(run="r2"), wall=lambda: now)
    for age, renewed in ((1800.0, False), (7200.0, True)):
        os.utime(path, (now - age, now - age))
        assert await loads.checkpoint.load_bytes(key="best") == b"best"
        found = await blobs.get_ref("checkpoints/best")
        assert found is not None
        assert (found.written_at >= now - 60) is renewed


async def test_what_a_killed_attempt_left_goes_with_the_next_save(
    scratch: Path, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """Content that was put and never committed, and one that was committed and never cleaned up after."""
    context = attempt(scratch, link, blobs)
    await context.checkpoint.save(b"1")
    await blobs.space("r1/a0").put(b"never committed")
    later = attempt(scratch, link, blobs, checkpoints=tuple(link.committed), wall=lambda: 4e9)
    await later.checkpoint.save(b"2")
    assert stored(blobs) == [b"1", b"2"]


async def test_a_zombies_clean_up_spares_the_new_attempts_save(
    scratch: Path, link: RecordingLink, blobs: FileBlobStore
) -> None:
    """What is put once its save is committed is left alone, however long ago its save began."""
    zombie, saving = attempt(scratch, link, blobs, wall=lambda: 4e9), link.gate
    saving.clear()
    save = asyncio.create_task(zombie.checkpoint.save(b"1"))
    assert await asyncio.to_thread(link.asked.wait, 30)
    await blobs.space("r1/a0").put(b"of the new attempt, about to be committed")
    saving.set()
    await save
    assert stored(blobs) == [b"1", b"of the new attempt, about to be committed"]


async def test_litter_is_no_failure(scratch: Path, link: RecordingLink, caplog: pytest.LogCaptureFixture) -> None:
    """A save whose predecessors can't be removed is committed all the same; a warning says so."""

    class Unswept(BlockingMemoryBlobs):
        def space(self, name: str) -> BlockingMemoryBlobs:
            return self

        def delete(self, *args: Any) -> int:
            raise BlobError("cannot remove it")

    context = attempt(scratch, link, ThreadedBlobs(Unswept()))
    assert (await context.checkpoint.save(b"1")).sequence == 1
    assert "superseded checkpoints could not be removed: cannot remove it" in caplog.text


# -- Flyte 1's words ------------------------------------------------------------------------------


def test_write_and_read(context: AttemptContext, next_attempt: Callable[[], AttemptContext]) -> None:
    """The documented loop: read what the last attempt wrote, go on from there."""
    assert context.checkpoint.read() is None
    for epoch in range(3):
        context.checkpoint.write(str(epoch + 1).encode())
    previous = next_attempt().checkpoint.read()
    assert previous is not None
    assert int(previous.decode()) == 3


def test_restore_fills_a_directory(context: AttemptContext, tmp_path: Path) -> None:
    """A file comes to lie in the directory, a saved directory's content too; what has other names stays."""
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "a").write_text("new")
    context.checkpoint.write(b"state")
    assert context.checkpoint.restore(target) == target
    assert (target / "checkpoint").read_bytes() == b"state"
    (target / "sub").mkdir()
    (target / "sub" / "a").write_text("old")
    context.checkpoint.save_sync(source)
    assert context.checkpoint.restore(str(target)) == target
    assert sorted(path.name for path in target.rglob("*")) == ["a", "checkpoint", "sub"]
    assert (target / "sub" / "a").read_text() == "new"


def test_restore_by_itself_finds_a_place(context: AttemptContext, tmp_path: Path) -> None:
    """Without a path the directory is the attempt's own."""
    context.checkpoint.write(b"state")
    folder = context.checkpoint.restore()
    assert folder is not None
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]


def test_restore_refuses_files(context: AttemptContext, tmp_path: Path) -> None:
    """The target must be a directory, whether or not there is a checkpoint."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="expected a directory"):
        context.checkpoint.restore(tmp_path / "file")
    with pytest.raises(InputTypeError, match="expected a path or None"):
        context.checkpoint.restore(3)  # type: ignore[arg-type]


def test_read_of_a_directory_needs_one_file(context: AttemptContext, tmp_path: Path) -> None:
    """A directory with one file reads as that file; with more, the error says what to use."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"only")
    context.checkpoint.save_sync(source)
    assert context.checkpoint.read() == b"only"
    (source / "b").touch()
    context.checkpoint.save_sync(source)
    with pytest.raises(CheckpointError, match=r"a, b.*use load\(\) or restore\(\)"):
        context.checkpoint.read()
