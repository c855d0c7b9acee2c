"""Calling tasks: what a call is outside and inside a running attempt, how it fails, and how it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import signal
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

import cloudpickle
import pytest

import flyteish as flyte
from flyteish._authoring.attempt.context import CURRENT
from flyteish._authoring.tasks.calling import CLEANUP_SECONDS
from flyteish._authoring.values.errors import document
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, Opinions, Scope
from flyteish._core.model.values import ErrorDocument
from flyteish.errors import (
    ActionAbortedError,
    ActionTimedOutError,
    ConfigurationError,
    FlyteishError,
    InputTypeError,
    RemoteTaskError,
    ResourceExhaustedError,
    SerializationError,
    StaleAttemptError,
    UnknownQueueError,
)
from flyteish.interfaces import Limits, Outcome
from tests.authoring.attempt.fake_link import RUN, FakeLink, as_task, failed

env = flyte.TaskEnvironment("calls", queue="cpu", retries=2, interruptible=True)


@env.task
def add(x: int, y: int = 1) -> int:
    return x + y


@env.task
async def add_async(x: int, y: int = 1) -> int:
    await asyncio.sleep(0)
    return x + y


@env.task(queue="gpu", retries=5)
def nested(x: int) -> int:
    return add(x) + asyncio.run(add_async(x))


@env.task
def size(data: bytes) -> bytes:
    return data * 2


@env.task
async def size_async(data: bytes) -> bytes:
    return data * 2


@env.task
def fail(words: str) -> int:
    raise ValueError(words, 7)


@env.task
async def fail_async(words: str) -> int:
    raise ValueError(words, 7)


@env.task
def stop() -> int:
    raise StopIteration(3)


@env.task
def leave() -> int:
    raise SystemExit(4)


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def inside(link: FakeLink) -> Iterator[FakeLink]:
    """The test's code is the code of a running attempt."""
    with link.running():
        yield link


# -- outside an attempt ---------------------------------------------------------------------------------------------


async def test_outside_an_attempt_a_task_is_its_function() -> None:
    """A `def` task returns its value, an `async def` task its coroutine; the function's own body runs."""
    assert add(1) == 2
    assert add(x=1, y=2) == 3
    coroutine = add_async(1, y=2)
    assert inspect.iscoroutine(coroutine)
    assert await coroutine == 3


async def test_outside_an_attempt_aio_works_for_both_kinds() -> None:
    """`.aio` of a `def` task runs it beside the loop; of an `async def` task it is the call itself."""
    assert list(await asyncio.gather(add.aio(1), add_async.aio(2))) == [2, 3]
    with pytest.raises(ValueError, match="words"):
        await fail.aio("words")


@pytest.mark.parametrize("call", [add, add_async, add.aio])
def test_wrong_arguments_are_reported_with_the_tasks_name(call: Any) -> None:
    """Outside an attempt too, Python's own complaint names the task, on the line of the call."""
    with pytest.raises(TypeError, match=r"calls\.add.*'z'"):
        call(1, z=2)
    with pytest.raises(TypeError, match=r"calls\.add.*'x'"):
        call()


async def test_forward_is_always_the_function(inside: FakeLink) -> None:
    """`.forward` runs the body in place: no action, even inside an attempt."""
    assert add.forward(1) == 2
    assert await add_async.forward(1) == 2
    assert inside.calls == []


# -- inside an attempt -----------------------------------------------------------------------------------------------


def test_a_sync_call_is_an_action(inside: FakeLink) -> None:
    """Inside an attempt the call goes through the link, and its result comes back as a fresh value."""
    assert add(1) == 2
    [call] = inside.calls
    assert (call.profile.task, call.occurrence, call.group) == ("calls.add", 0, None)
    assert not call.profile.is_async
    assert (call.profile.reference.module, call.profile.reference.name) == (__name__, "add")


async def test_an_async_call_is_submitted_when_awaited(inside: FakeLink) -> None:
    """Making the coroutine checks the arguments; only awaiting it submits the action."""
    coroutine = add_async(1)
    assert inside.calls == []
    assert await coroutine == 2
    assert [call.profile.task for call in inside.calls] == ["calls.add_async"]
    assert inside.calls[0].profile.is_async


async def test_pythons_own_ways_to_wait_work(inside: FakeLink) -> None:
    """`gather`, task groups and `wait_for` take the coroutine as they take any other."""
    assert await asyncio.gather(*(add_async(number) for number in range(50))) == list(range(1, 51))
    async with asyncio.TaskGroup() as group:
        one, two = group.create_task(add_async(1)), group.create_task(add.aio(2))
    assert (one.result(), two.result()) == (2, 3)
    assert await asyncio.wait_for(add_async(3), 10) == 4


@as_task
async def test_a_sync_task_may_be_called_in_async_code_without_await(inside: FakeLink) -> None:
    """As the source documents show: it returns its value, and the loop goes on meanwhile."""
    assert add(1) == 2
    assert await add.aio(1) == 2
    assert len(inside.calls) == 2


def test_tasks_call_tasks(inside: FakeLink) -> None:
    """A `def` task calls both kinds, the async one with a loop of its own; all are actions."""
    assert nested(1) == 4
    assert [call.profile.task for call in inside.calls] == ["calls.nested", "calls.add", "calls.add_async"]


def test_an_unawaited_coroutine_is_named_after_its_task(inside: FakeLink) -> None:
    """Python's warning about a forgotten `await` names the task."""
    with pytest.warns(RuntimeWarning, match=r"coroutine 'calls\.add_async' was never awaited"):
        add_async(1)  # type: ignore[unused-coroutine]


@pytest.mark.parametrize("call", [add, add_async, add.aio])
def test_arguments_are_checked_at_the_call(inside: FakeLink, call: Any) -> None:
    """A wrong argument raises on the line of the call, not at the await, and nothing is submitted."""
    with pytest.raises(InputTypeError, match=r"calls\.add.*'x' expects int") as caught:
        call("one")
    assert isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match=r"calls\.add"):
        call()
    assert inside.calls == []


def test_equal_calls_are_counted(inside: FakeLink) -> None:
    """Equal calls have equal digests and count up, however they are written; others count by themselves."""
    add(1)
    add(2)
    add(x=1, y=1)
    add(1, 1)
    first, other, *again = inside.calls
    assert [call.occurrence for call in inside.calls] == [0, 0, 1, 2]
    assert {call.digest for call in again} == {first.digest}
    assert other.digest != first.digest


@as_task
async def test_large_inputs_and_results_go_through_the_blob_store(inside: FakeLink) -> None:
    """What is larger than the session's limit travels as an address, with its size; the value arrives all the same."""
    data = bytes(Limits().inline + 1)
    assert size(data) == data * 2
    assert await size_async(data) == data * 2
    assert size(b"ab") == b"abab"
    large, also_large, small = (call.inputs for call in inside.calls)
    assert large.data is None
    assert large.blob == also_large.blob is not None
    assert large.size > Limits().inline
    assert (small.blob, small.data is None) == (None, False)
    assert inside.calls[0].digest != inside.calls[2].digest


def test_a_call_by_an_attempt_that_is_over_is_refused(link: FakeLink) -> None:
    """Code that outlives its attempt cannot add to the run."""
    with link.running() as context:
        context.close()
        with pytest.raises(StaleAttemptError, match=r"calls\.add\(\) was called by attempt r0/a0#1"):
            add(1)


def test_an_argument_that_cannot_travel_is_an_error_of_the_call(inside: FakeLink) -> None:
    """The error names the task and the parameter."""
    with pytest.raises(SerializationError, match=r"calls\.anything.*'thing'"):
        anything(threading.Lock())


@env.task
def anything(thing: Any) -> None: ...


# -- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_resolved_once_per_template(inside: FakeLink) -> None:
    """Calls of one template share a profile, also when the same override is written in a loop."""
    for number in range(3):
        add(number)
        add.override(retries=0)(number)
        nested.override(retries=0)(number)
    plain, overridden = inside.calls[0].profile, inside.calls[1].profile
    profiles = {id(call.profile) for call in inside.calls if call.profile.task == "calls.add"}
    assert {id(plain), id(overridden)} <= profiles
    assert plain.key != overridden.key
    assert plain.key == add.profile(Scope(), inside.blobs.blocking).key
    assert [plain.settings.retries.count, overridden.settings.retries.count] == [2, 0]
    assert [plain.settings.source("retries"), overridden.settings.source("retries")] == [
        "TaskEnvironment",
        ".override()",
    ]


def test_the_run_and_the_session_have_their_say(link: FakeLink) -> None:
    """What the attempt's scope says stands between the task and the override, or below the environment."""
    scope = Scope(
        session=opinions(Level.SESSION, "test", {"timeout": 9, "queue": "session"}),
        run=opinions(Level.RUN, "test", {"interruptible": False}),
    )
    with link.running(scope=scope):
        add(1)
        add.override(interruptible=True)(1)
    first, second = (call.profile.settings for call in link.calls)
    assert (first.interruptible, first.queue, first.timeout.max_runtime) == (None, "cpu", 9.0)
    assert second.interruptible is not None


def test_falsy_overrides_are_opinions() -> None:
    """`retries=0`, `interruptible=False`, `{}` and `timeout=None` win over what is above; silence does not."""
    task = nested.override(retries=0, interruptible=False, env_vars={}, timeout=None)
    settings = task.settings()
    assert (settings.retries.count, settings.interruptible, settings.queue) == (0, None, "gpu")
    assert settings.source("env_vars") == settings.source("timeout") == ".override()"
    assert nested.override().overridden == Opinions()


def test_overrides_add_up() -> None:
    """A chained override keeps what the earlier ones said; the later wins, and the originals stay as they were."""
    first = add.override(retries=7, queue="a")
    second = first.override(queue="b", priority="max")
    assert (second.settings().retries.count, second.settings().queue, second.settings().priority) == (7, "b", 100)
    assert (first.settings().queue, add.settings().queue) == ("a", "cpu")
    assert type(second) is type(add)
    assert repr(add.override(queue="b")) == "<SyncTask calls.add.override(queue='b')>"
    assert inspect.signature(second) == inspect.signature(add)


def test_wrong_overrides_are_refused_where_they_are_written() -> None:
    """The error names the task, the parameter and what is accepted; a misspelt one is Python's TypeError."""
    with pytest.raises(ConfigurationError, match=r"retries=-1 in calls\.add\.override\(\)"):
        add.override(retries=-1)
    with pytest.raises(TypeError, match="interruptable"):
        add.override(interruptable=True)  # type: ignore[call-arg]


def test_a_plan_can_be_had_before_anything_runs() -> None:
    """`plan()` lists each user attempt with its medium and why."""
    rows = add.plan().attempts
    assert [(row.user_attempt, row.medium) for row in rows] == [(1, "spot"), (2, "spot"), (3, "on-demand")]
    assert add.override(retries=0).plan().warnings


def test_the_code_stands_in_cache_keys_where_results_are_kept() -> None:
    """No version without caching; the author's where given; else the function's source, which is stable."""
    cached = add.override(cache="auto")
    assert add.cache_version(add.settings().cache) is None
    version = cached.cache_version(cached.settings().cache)
    assert version == cached.cache_version(cached.settings().cache)
    assert version != nested.cache_version(cached.settings().cache)
    assert add.cache_version(flyte.Cache(version_override="v7")) == "v7"
    namespace: dict[str, Any] = {}
    exec("def one(): return 1\ndef two(): return 2", namespace)
    versions = [
        flyte.TaskEnvironment("e").task(namespace[name]).cache_version(flyte.Cache()) for name in ("one", "two")
    ]
    assert versions[0] != versions[1]


# -- failures --------------------------------------------------------------------------------------------------------


@as_task
async def test_the_exception_object_itself_arrives_in_the_same_process(inside: FakeLink) -> None:
    """Type, arguments and traceback are those of the exception that the task raised."""
    for call in (fail, fail_async, fail.aio):
        with pytest.raises(ValueError, match="words") as caught:
            await call("words")  # type: ignore[misc]
        assert caught.value.args == ("words", 7)
        assert caught.traceback[-1].name in ("fail", "fail_async")


def test_an_exception_from_elsewhere_is_rebuilt(inside: FakeLink) -> None:
    """Without the object its document is used: the same type and arguments."""
    inside.script["calls.add"] = (failed(1, document(KeyError("k", 2))), None)
    with pytest.raises(KeyError) as caught:
        add(1)
    assert caught.value.args == ("k", 2)


def test_the_story_of_the_attempts_is_told_once(inside: FakeLink) -> None:
    """However often the same error passes by, its note about the attempts is there once."""
    error = ValueError("no")
    inside.script["calls.add"] = (failed(1, document(error), "attempt 1 ...", "attempt 2 ..."), error)
    for _ in range(3):
        with pytest.raises(ValueError, match="no") as caught:
            add(1)
        assert caught.value is error
    assert error.__notes__ == ["attempts of calls.add (r0/a1):\n  attempt 1 ...\n  attempt 2 ..."]


class ReferableError(Exception):
    """Unlike the built-in ones it can be referred to weakly."""


@pytest.mark.parametrize("form", ["blocking", "awaited"])
@as_task
async def test_no_frame_keeps_its_error_alive(inside: FakeLink, form: str) -> None:
    """A failed call leaves no cycle behind that only the garbage collector could undo."""

    async def attempt() -> weakref.ref[Exception]:
        error = ReferableError("no")
        inside.script["calls.add"] = (failed(1, document(error)), error)
        reference: weakref.ref[Exception] = weakref.ref(error)
        del error
        with contextlib.suppress(ReferableError):
            add(1) if form == "blocking" else await add.aio(1)
        return reference

    gc.collect()
    gc.disable()
    try:
        reference = await attempt()
        inside.script.clear()
        await asyncio.sleep(0)  # the loop lets go of the future that woke us
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "phase, kind, expected",
    [
        ("aborted", "", ActionAbortedError),
        ("timed_out", "", ActionTimedOutError),
        ("aborted", "flyteish.errors.ActionAbortedError", ActionAbortedError),
        ("refused", "flyteish.errors.UnknownQueueError", UnknownQueueError),
        ("refused", "ResourceExhaustedError", ResourceExhaustedError),
        ("refused", "builtins.SystemExit", FlyteishError),
    ],
)
def test_other_ends_have_errors_of_their_own(inside: FakeLink, phase: str, kind: str, expected: type) -> None:
    """Aborted, timed out and refused calls raise the class that says so, with the words that came along."""
    error = ErrorDocument(type=kind, message="because") if kind else None
    inside.script["calls.add"] = (Outcome(RUN, "a1", phase, error=error), None)
    with pytest.raises(expected) as caught:
        add(1)
    assert type(caught.value) is expected
    assert ("because" if kind else "calls.add (r0/a1)") in str(caught.value)


@as_task
async def test_stop_iteration_comes_out_as_itself(inside: FakeLink) -> None:
    """From a blocking call it is the very exception; in a coroutine Python makes it a RuntimeError; nothing hangs."""
    with pytest.raises(StopIteration) as caught:
        stop()
    assert caught.value.value == 3
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stop.aio()


@as_task
async def test_a_tasks_exit_does_not_end_its_caller(inside: FakeLink) -> None:
    """`SystemExit` in a task is an error for whoever called it, with the original as its cause."""
    with pytest.raises(RemoteTaskError, match="SystemExit") as caught:
        leave()
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(RemoteTaskError, match="SystemExit"):
        await leave.aio()


# -- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancelling_an_await_cancels_the_action_and_waits_for_its_end(inside: FakeLink) -> None:
    """The action is cancelled with a reason; the cancellation goes on once its outcome is there."""
    inside.hold, inside.end_cancelled = True, False
    waiting = asyncio.create_task(add_async(1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert inside.cancelled == [(1, "the awaiting call was cancelled")]
    assert not waiting.done()
    inside.end(1, Outcome(RUN, "a1", "aborted"))
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_second_cancellation_does_not_wait_for_the_end(inside: FakeLink) -> None:
    """Whoever insists is let go at once; the late outcome harms nobody."""
    inside.hold, inside.end_cancelled = True, False
    waiting = asyncio.create_task(add_async(1))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    inside.end(1, Outcome(RUN, "a1", "aborted"))
    await asyncio.sleep(0)
    assert len(inside.cancelled) == 1


async def test_a_time_limit_cancels_the_action(inside: FakeLink) -> None:
    """`asyncio.timeout` around a call ends its action and raises as always."""
    inside.hold = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await add.aio(1)
    assert len(inside.cancelled) == len(inside.calls)


async def test_a_failure_in_a_task_group_cancels_the_others(inside: FakeLink) -> None:
    """Structured concurrency works: the siblings of a failed call are cancelled before the group raises."""
    inside.hold = True

    async def calls() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(add_async(number))
            await asyncio.sleep(0)
            inside.end(2, failed(2, document(ValueError("no"))), ValueError("no"))

    with pytest.raises(ExceptionGroup) as caught:
        await calls()
    assert caught.group_contains(ValueError, match="no")
    assert sorted(number for number, _ in inside.cancelled) == [1, 3]


async def test_an_outcome_that_came_first_is_not_cancelled(inside: FakeLink) -> None:
    """A cancellation between the outcome and the wake-up goes on without asking for anything."""
    inside.hold = True
    waiting = asyncio.create_task(add_async(1))
    await asyncio.sleep(0)
    inside.release(1)
    await asyncio.sleep(0)  # the outcome is on the loop now; the awaiting task has not been woken yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inside.cancelled == []


async def test_an_outcome_that_meets_a_cancellation_is_not_waited_for_again(inside: FakeLink) -> None:
    """An outcome that arrives while the cancellation is under way ends the wait; nothing is asked for."""
    inside.hold = True
    waiting = asyncio.create_task(add_async(1))
    await asyncio.sleep(0)
    inside.release(1)  # on its way to the loop
    waiting.cancel()  # takes effect after it
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(CLEANUP_SECONDS / 2):
            await waiting
    assert inside.cancelled == []


def test_a_closed_loop_cancels_what_it_waited_for(inside: FakeLink) -> None:
    """A coroutine that is thrown away while it waits cancels its action."""
    inside.hold = True

    async def main() -> Any:
        coroutine = add_async(1)
        coroutine.send(None)  # submitted, waiting
        return coroutine

    asyncio.run(main()).close()
    assert inside.cancelled == [(1, "the awaiting call was cancelled")]


def test_ctrl_c_cancels_the_call_that_blocks(inside: FakeLink) -> None:
    """An interrupt while a blocking call waits cancels its action and goes on to the caller."""
    inside.hold = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not threading.Event.wait.__code__:
            frame = frame.f_back
        if frame is not None:  # it waits; until then the alarm rings again
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        with pytest.raises(KeyboardInterrupt):
            add(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert inside.cancelled == [(1, "the call that waited for it was broken off")]


# -- the documents' programs ---------------------------------------------------------------------------------------


my_env = flyte.TaskEnvironment(name="my_env", interruptible=True, queue="default-pool")


@my_env.task
def preprocess(data: list) -> list:
    return [x * 2 for x in data]


@my_env.task(interruptible=True, retries=3, queue="gpu-pool")
def train_model(data: list) -> dict:
    return {"accuracy": 0.95}


@my_env.task(interruptible=False)
def save_results(results: dict) -> str:
    return "saved"


@my_env.task
async def main(data: list) -> str:
    processed = preprocess(data=data)
    # Run this specific invocation as non-interruptible
    return save_results.override(interruptible=False)(results={"data": processed})


async def test_a_program_of_the_source_documents_runs(link: FakeLink) -> None:
    """As written, outside an attempt and inside one; the more specific level wins, and the plan tells the media."""
    assert await main([1, 2]) == "saved"
    with link.running():
        assert await main([1, 2]) == "saved"
    calls = {call.profile.task: call.profile.settings for call in link.calls}
    assert list(calls) == ["my_env.main", "my_env.preprocess", "my_env.save_results"]
    assert calls["my_env.preprocess"].interruptible is not None
    assert calls["my_env.save_results"].interruptible is None
    assert calls["my_env.save_results"].source("interruptible") == ".override()"
    assert train_model.settings().queue == "gpu-pool"
    media = [row.medium for row in train_model.plan().attempts]
    assert media == ["spot", "spot", "spot", "on-demand"]


# -- travelling ------------------------------------------------------------------------------------------------------


def test_a_task_of_a_module_travels_by_name() -> None:
    """Pickled, it is the module's own object again; an override takes what it says along."""
    assert pickle.loads(pickle.dumps(add)) is add
    overridden = pickle.loads(pickle.dumps(functools.partial(add.override, queue="a")()))
    assert overridden.settings().queue == "a"
    assert overridden.function is add.function
    assert overridden.base is add


def test_a_local_task_travels_by_value() -> None:
    """A task made inside a function arrives with its function and its settings, and can be called."""
    local = flyte.TaskEnvironment("local", retries=4)
    offset = 10

    @local.task
    def shift(x: int) -> int:
        return x + offset

    assert shift(1) == 11
    arrived = pickle.loads(cloudpickle.dumps(shift))
    assert arrived is not shift
    assert arrived(2) == 12
    assert arrived.settings().retries.count == 4


def test_a_local_function_that_cannot_be_carried_still_runs_here(inside: FakeLink) -> None:
    """What it closes over cannot be pickled, but this process has it: only its reference is by name."""
    lock = threading.Lock()
    local = flyte.TaskEnvironment("local")

    @local.task
    def locked() -> bool:
        return lock.acquire()

    @local.task
    def free() -> int:
        return 1

    assert locked()
    assert free() == 1
    first, second = (call.profile.reference for call in inside.calls)
    assert first.by_value is None
    assert second.by_value is not None


def test_nothing_is_left_of_an_attempt(link: FakeLink) -> None:
    """After an attempt, calls are plain again."""
    with link.running():
        add(1)
    assert CURRENT.get(None) is None
    assert add(1) == 2
    assert len(link.calls) == 1
