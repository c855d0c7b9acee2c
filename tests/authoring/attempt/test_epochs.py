"""Loops over epochs: what they restore, when they save, how they leave, and what they refuse."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import flyteish
from flyteish import ctx, testing
from flyteish._authoring.attempt.context import CURRENT, AttemptContext
from flyteish._authoring.attempt.signals import AttemptLeft
from flyteish.blobs.files import FileBlobStore
from flyteish.errors import CheckpointError, ConfigurationError, FlyteishError, InputTypeError, SerializationError
from flyteish.interfaces import Notice
from tests.authoring.attempt.attempt_parts import ORDER, ManualClock, RecordingLink, attempt

Walk = Callable[[Any], Iterable[int]]


class Net:
    """With attributes only."""

    def __init__(self) -> None:
        self.weights = np.zeros(3)
        self.epochs = 0


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


@dataclass
class Progress:
    losses: list[float]


class Config(msgspec.Struct):
    rate: float = 0.1


class Torchlike:
    """As torch's modules and optimizers have it."""

    def __init__(self) -> None:
        self.inner: dict[Any, Any] = {"w": np.zeros(2), 0: 1}

    def state_dict(self) -> dict[Any, Any]:
        return self.inner

    def load_state_dict(self, saved: dict[Any, Any]) -> None:
        self.inner = saved


class Machine:
    """One action on a store of its own; each ``start`` is another attempt of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = FileBlobStore(folder / "store")
        self.link = RecordingLink()
        self.clock = ManualClock(100.0)
        self.attempts = 0

    def start(self, **changes: Any) -> AttemptContext:
        self.attempts += 1
        key = ORDER.key._replace(generation=self.attempts)
        chain = tuple(self.link.committed)
        order = {"key": key, "checkpoints": chain, "pool_lifetime": 1e-6, **changes}  # due after every epoch
        return attempt(self.folder, self.link, self.blobs, self.clock, **order)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def walk(context: AttemptContext, epochs: Any, until: int = 1000) -> list[int]:
    """The epochs that a loop gets, up to ``until``, where its machine is lost."""
    seen = []
    for epoch in epochs:
        if epoch == until:
            break
        seen.append(epoch)
        context.clock.now += 1.0  # type: ignore[attr-defined]
    return seen


def test_the_next_attempt_goes_on_where_the_last_save_was(machine: Machine) -> None:
    """Each epoch once where each is saved; the progress is reported."""
    first = machine.start()
    assert walk(first, first.checkpoint.epochs(5), until=3) == [0, 1, 2]
    assert [record.progress for record in machine.link.committed] == [0.2, 0.4, 0.6]
    second = machine.start()
    epochs = second.checkpoint.epochs(5)
    assert walk(second, epochs) == [3, 4]
    assert (epochs.done, epochs.total, repr(epochs)) == (5, 5, "Epochs(5/5 done)")


def make(kind: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "list": list, "dict": dict, "set": set, "deque": deque, "bytearray": bytearray, "net": Net,
        "slots": Slotted, "dataclass": lambda: Progress([]), "struct": Config, "torch": Torchlike,
        "array": lambda: np.zeros((2, 2)),
    }  # fmt: skip
    return makers[kind]()


def change(state: Any, number: int) -> None:
    match state:
        case list() | deque() | bytearray():
            state.append(number)
        case dict():
            state[number] = {"at": number}
        case set():
            state.add(number)
        case np.ndarray():
            state += number
        case Net():
            state.weights, state.epochs = state.weights + number, number
        case Slotted():
            state.value += number
        case Progress():
            state.losses.append(number / 2)
        case Config():
            state.rate += number
        case Torchlike():
            state.inner["w"] += number


def seen(state: Any) -> Any:
    match state:
        case Net():
            return state.weights.tolist(), state.epochs
        case Slotted():
            return state.value
        case Config():
            return state.rate
        case Torchlike():
            return state.inner["w"].tolist(), state.inner[0]
        case np.ndarray():
            return state.tolist()
    return state


KINDS = ["list", "dict", "set", "deque", "bytearray", "net", "slots", "dataclass", "struct", "torch", "array"]


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_restored_in_place(machine: Machine, kind: str) -> None:
    """Whatever can change comes back as it was at the end of the last saved epoch, in the very object."""
    state, first = make(kind), machine.start()
    for epoch in first.checkpoint.epochs(9, state):
        if epoch == 3:
            break
        change(state, epoch + 1)
        machine.clock.now += 1
    expected = seen(state)
    state, second = make(kind), machine.start()
    assert next(iter(second.checkpoint.epochs(9, state))) == 3
    assert seen(state) == expected


@pytest.mark.parametrize("as_directory", [False, True])
def test_functions_keep_what_lies_elsewhere(machine: Machine, as_directory: bool) -> None:
    """``save=`` and ``load=`` get a path for a file or a directory, beside other state."""
    world = {"step": 0}

    def save(path: Path) -> None:
        if as_directory:
            path.mkdir()
        (path / "w" if as_directory else path).write_text(str(world["step"]))

    def load(path: Path) -> None:
        world["step"] = int((path / "w" if as_directory else path).read_text())

    context = machine.start()
    for epoch in context.checkpoint.epochs(5, save=save, load=load):
        if epoch == 2:
            break
        world["step"] += 10
        machine.clock.now += 1
    world["step"] = 0
    context = machine.start()
    assert walk(context, context.checkpoint.epochs(5, save=save, load=load)) == [2, 3, 4]
    assert world["step"] == 20


async def test_async_loops_do_the_same(machine: Machine) -> None:
    """``async for`` saves and restores beside the loop."""
    losses: list[int] = []
    async for epoch in machine.start().checkpoint.epochs(5, losses):
        if epoch == 3:
            break
        await asyncio.sleep(0)
        losses.append(epoch)
        machine.clock.now += 1
    again: list[int] = []
    assert [epoch async for epoch in machine.start().checkpoint.epochs(5, again)] == [3, 4]
    assert again == [0, 1, 2]


def test_saves_are_made_when_due(machine: Machine) -> None:
    """Where machines last, few are: the first one soon, so that the cost gets known."""
    context = machine.start(pool_lifetime=7200.0)
    walk(context, context.checkpoint.epochs(100))
    assert 1 <= len(machine.link.committed) < 100


@pytest.mark.parametrize("kind", ["terminate", "drain", "relocate", "shutdown"])
def test_after_a_notice_it_saves_and_leaves(machine: Machine, kind: str) -> None:
    """At the end of the epoch, though nothing would have been due; an ``except Exception`` does not hold it."""
    context, done = machine.start(pool_lifetime=1e9), []

    def train() -> None:
        try:
            for epoch in context.checkpoint.epochs(9):
                done.append(epoch)
                if epoch == 1:
                    context.interruption.notify(Notice(kind, 120.0))
                    machine.clock.now += 1
        except Exception:
            done.append(-1)

    with pytest.raises(AttemptLeft, match=rf"left after its {kind} notice, 119 s before the end: 2 of 9 epochs"):
        train()
    assert done == [0, 1]
    assert [record.progress for record in machine.link.committed] == [pytest.approx(2 / 9)]


@pytest.mark.parametrize("kind, leave_early", [("rebalance", True), ("terminate", False)])
def test_a_recommendation_is_saved_for_but_work_goes_on(machine: Machine, kind: str, leave_early: bool) -> None:
    """So it does where the author wants it to."""
    context = machine.start(pool_lifetime=1e9)
    epochs = context.checkpoint.epochs(4, leave_early=leave_early)
    for epoch in epochs:
        if epoch == 1:
            context.interruption.notify(Notice(kind, 1e9))
        machine.clock.now += 1
    assert (epochs.done, machine.link.committed[0].progress) == (4, 0.5)


def test_nobody_leaves_after_the_last_epoch(machine: Machine) -> None:
    """The result may still be returned in time."""
    context = machine.start(pool_lifetime=1e9)
    for _ in context.checkpoint.epochs(1):
        context.interruption.notify(Notice("terminate", 120.0))
        machine.clock.now += 1
    assert len(machine.link.committed) == 1


def test_with_a_key_the_end_is_published(machine: Machine) -> None:
    """Though it was not due; another action begins with it, and may do more epochs."""
    context = machine.start(pool_lifetime=1e9)
    walk(context, context.checkpoint.epochs(2, [], key="model"))
    other = machine.start(checkpoints=(), key=ORDER.key._replace(run="r2"))
    assert walk(other, other.checkpoint.epochs(4, [], key="model")) == [2, 3]


def test_fewer_epochs_than_are_done(machine: Machine) -> None:
    """There is nothing left to do."""
    context = machine.start()
    walk(context, context.checkpoint.epochs(5))
    again = machine.start()
    assert walk(again, again.checkpoint.epochs(3)) == []


@pytest.mark.parametrize("total", [0, -1, 2.5, True, "3"])
def test_the_number_of_epochs_is_checked(machine: Machine, total: Any) -> None:
    """The error names the value."""
    with pytest.raises(ConfigurationError, match=r"epochs\(total=.*expected an int >= 1"):
        machine.start().checkpoint.epochs(total)


@dataclass(frozen=True)
class Frozen:
    x: int


@pytest.mark.parametrize("state", [1, 1.5, "x", b"x", (1,), None, Net, print, Frozen(1), object(), frozenset()])
def test_what_cannot_change_is_no_state(machine: Machine, state: Any) -> None:
    """It could not be restored in place; the error says what to pass."""
    with pytest.raises(InputTypeError, match=r"state 2, .*restored in place: pass the list, dict or object"):
        machine.start().checkpoint.epochs(3, [], state)


def test_what_cannot_be_stored_is_named(machine: Machine, tmp_path: Path) -> None:
    """When it is saved, for before nobody knows what will be in it."""
    context, state = machine.start(), list[Any]()
    with (tmp_path / "open").open("w") as file:
        epochs = iter(context.checkpoint.epochs(3, state))
        next(epochs)
        state.append(file)
        machine.clock.now += 1
        with pytest.raises(SerializationError, match="state 1"):
            next(epochs)


async def coroutine(path: Path) -> None: ...


@pytest.mark.parametrize("functions", [{"save": print}, {"load": print}, {"save": coroutine, "load": print}])
def test_functions_come_in_pairs_and_are_plain(machine: Machine, functions: Any) -> None:
    """Refused at once."""
    with pytest.raises(ConfigurationError, match="save= and load= together"):
        machine.start().checkpoint.epochs(3, **functions)


def test_a_function_that_writes_nothing_is_found_out(machine: Machine) -> None:
    """Before its checkpoint counts."""
    context = machine.start()
    with pytest.raises(CheckpointError, match="wrote nothing"):
        walk(context, context.checkpoint.epochs(3, save=lambda path: None, load=print))
    assert machine.link.committed == []


def test_checkpoints_of_something_else_are_no_new_start(machine: Machine) -> None:
    """Neither bytes of the author's nor a loop's over other state."""
    machine.start().checkpoint.save_sync(b"mine")
    with pytest.raises(CheckpointError, match=r"not saved by checkpoint\.epochs"):
        list(machine.start().checkpoint.epochs(3))
    context = machine.start(checkpoints=())
    walk(context, context.checkpoint.epochs(3, [], np.zeros(2)), until=2)
    with pytest.raises(CheckpointError, match=r"holds list, array, and .* was given list: give it the same"):
        list(machine.start().checkpoint.epochs(3, []))
    with pytest.raises(CheckpointError, match=r"array of float64 \(2,\).*float64 \(3,\)"):
        list(machine.start().checkpoint.epochs(3, [], np.zeros(3)))


def test_epochs_are_walked_through_once(machine: Machine) -> None:
    """A second walk would not restore."""
    epochs = machine.start().checkpoint.epochs(2)
    list(epochs)
    with pytest.raises(ConfigurationError, match="walked through before"):
        list(epochs)


def test_only_who_got_a_notice_may_leave(machine: Machine) -> None:
    """Else it would be a way around ``retries``."""
    with pytest.raises(FlyteishError, match=r"leave\(\) is only for attempts that got a notice"):
        machine.start().interruption.leave()


def test_restoring_is_measured(machine: Machine) -> None:
    """The time it took is on the first checkpoint saved after it, and only there."""
    context = machine.start()
    walk(context, context.checkpoint.epochs(2), until=1)
    second = machine.start()

    def load(path: Path) -> None:
        machine.clock.now += 7.0

    with second.checkpoint.restoring():
        load(machine.folder)
    second.checkpoint.save_sync(b"1")
    second.checkpoint.save_sync(b"2")
    assert [record.restore_seconds for record in machine.link.committed] == [0.0, 7.0, 0.0]


# -- in a session ---------------------------------------------------------------------------------------------


async def test_a_training_survives_its_machines() -> None:
    """Every epoch once, in both kinds of task, over two reclaims: it left each machine by itself."""
    env = flyteish.TaskEnvironment("training", interruptible=True, retries=1)

    @env.task
    async def in_a_loop(total: int) -> list[int]:
        done: list[int] = []
        async for epoch in ctx().checkpoint.epochs(total, done):
            if ctx().generation < 3 and epoch == 2 * ctx().generation:
                await ctx().interruption.wait()
            done.append(epoch)
        return done

    @env.task
    def on_a_thread(total: int) -> list[int]:
        done: list[int] = []
        for epoch in ctx().checkpoint.epochs(total, done):
            if ctx().generation < 3 and epoch == 2 * ctx().generation:
                ctx().interruption.wait_sync()
            done.append(epoch)
        return done

    for task in (in_a_loop, on_a_thread):
        async with testing.spot_session([0.2, 0.2], notice_seconds=20) as session:
            run = session.run(task, total=8)
            assert await asyncio.wait_for(run, 15) == list(range(8))
            (action,) = run.actions()
            assert [attempt.end for attempt in action.attempts] == ["preempted", "preempted", "succeeded"]
            assert action.attempts[0].cause.endswith("3 of 8 epochs are saved")
    assert CURRENT.get(None) is None
