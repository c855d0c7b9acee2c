"""Runs through a real session: the handle, calls between tasks, cancellation, and everything a task can raise."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import flyteish
from flyteish import Pool, Queue, Session, TaskEnvironment, Timeout, errors
from flyteish.config import load_config
from flyteish.testing import HandClock

env = TaskEnvironment(name="runs")


@pytest.fixture
def local() -> TaskEnvironment:
    """For the tasks that a test defines itself."""
    return TaskEnvironment(name="local")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(durability="memory") as opened:
        yield opened


@env.task
async def square(x: int) -> int:
    return x * x


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task
async def mixed(n: int) -> list[int]:
    squares = await asyncio.gather(*[square(i) for i in range(n)])
    return [double(value) for value in squares]


def test_a_def_task_called_in_an_async_task_returns_its_value(session: Session) -> None:
    """Without await, as the source documents show."""
    assert session.run(mixed, n=3).result(20) == [0, 2, 8]


def test_outputs_have_flytes_shape(session: Session) -> None:
    """``outputs()`` is a tuple, ``result()`` the value."""
    run = session.run(square, x=3)
    assert run.outputs() == (9,)
    assert run.wait().phase == "succeeded"
    assert run.done()


async def test_await_in_a_running_loop(local: TaskEnvironment) -> None:
    """The handle is awaitable, and async tasks run on the awaiting program's own loop."""
    loops = []

    @local.task
    async def where() -> int:
        loops.append(asyncio.get_running_loop())
        return 1

    async with Session(durability="memory"):
        assert await flyteish.run(where) == 1
    assert loops == [asyncio.get_running_loop()]


async def test_context_variables_of_the_caller_are_seen(local: TaskEnvironment) -> None:
    """A task sees what its caller's context variables hold, and its own changes stay its own."""
    import contextvars

    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
    seen = []

    @local.task
    async def look() -> None:
        seen.append(tenant.get())
        tenant.set("changed")

    async with Session(durability="memory"):
        tenant.set("acme")
        await flyteish.run(look)
    assert seen == ["acme"]
    assert tenant.get() == "acme"


async def test_a_loop_bound_client_of_the_caller_is_usable_inside_tasks(local: TaskEnvironment) -> None:
    """A lock that belongs to the caller's loop can be held across a task's await."""
    lock = asyncio.Lock()
    order = []

    @local.task
    async def work(n: int) -> None:
        async with lock:
            order.append(n)
            await asyncio.sleep(0)
            order.append(n)

    @local.task
    async def both() -> None:
        await asyncio.gather(work(1), work(2))

    async with Session(durability="memory"):
        await flyteish.run(both)
    assert order in ([1, 1, 2, 2], [2, 2, 1, 1])


async def test_two_sessions_side_by_side_do_not_mix() -> None:
    """Each session has its own queues; a queue of one is unknown to the other."""
    only_one = TaskEnvironment(name="only_one", queue="one")

    @only_one.task
    async def here() -> str:
        return flyteish.ctx().queue

    one = Session(queues=[Queue("one"), Queue("default")], durability="memory")
    two = Session(durability="memory")
    async with one, two:
        assert await one.run(here) == "one"
        with pytest.raises(errors.UnknownQueueError, match=r"'one'.*known queues: default"):
            await two.run(here)


def test_argument_errors_are_pythons_with_the_tasks_name(session: Session) -> None:
    """A missing argument is a TypeError of ``inspect.Signature.bind``, naming the task."""
    with pytest.raises(TypeError, match=r"runs\.square\(\).*missing a required argument: 'x'"):
        session.run(square)  # type: ignore[call-arg]
    with pytest.raises(errors.InputTypeError, match=r"parameter 'x' expects int, got str"):
        session.run(square, x="three")  # type: ignore[arg-type]


@env.task
async def failing(kind: str) -> None:
    cause = KeyError("the cause")
    error = ValueError("told", 7)
    error.add_note("a note")
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("a"), TypeError("b")])
    raise error from cause


def test_an_exception_keeps_type_arguments_cause_notes_and_traceback(session: Session) -> None:
    """In process it is the very object, with the story of the attempts as one more note."""
    with pytest.raises(ValueError, match="told") as caught:
        session.run(failing, kind="plain").result(20)
    assert caught.value.args == ("told", 7)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "a note" in caught.value.__notes__
    assert any("attempt" in note for note in caught.value.__notes__)
    assert any(frame.name == "failing" for frame in caught.traceback)


def test_an_exception_group_comes_out_as_one(session: Session) -> None:
    """Its members keep their types."""
    with pytest.raises(ExceptionGroup) as caught:
        session.run(failing, kind="group").result(20)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, TypeError]


@env.task
async def fatal_async(kind: str) -> None:
    _raise(kind)


@env.task
def fatal_sync(kind: str) -> None:
    _raise(kind)


def _raise(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    raise {
        "interrupt": KeyboardInterrupt("x"),
        "stop": StopIteration(5),
        "cancelled": asyncio.CancelledError(),
        "generator": GeneratorExit(),
        "group": BaseExceptionGroup("g", [KeyboardInterrupt()]),
    }[kind]


@pytest.mark.parametrize("task", [fatal_async, fatal_sync], ids=["async", "sync"])
@pytest.mark.parametrize("kind", ["exit", "interrupt", "stop", "cancelled", "generator", "group"])
def test_nothing_that_a_task_raises_hangs_or_takes_the_host_down(session: Session, task, kind) -> None:
    """The run fails with an exception, and the session goes on."""
    run = session.run(task, kind=kind)
    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the subject of other tests
        run.result(20)
    assert run.phase == "failed"
    assert session.run(square, x=2).result(20) == 4


@env.task
async def parent_of_fatal(kind: str) -> str:
    try:
        await fatal_async(kind)
    except Exception as error:
        return type(error).__name__
    return "nothing"


@pytest.mark.parametrize("kind", ["exit", "interrupt", "stop", "cancelled"])
def test_a_parent_can_catch_what_its_child_raised(session: Session, kind: str) -> None:
    """As an ordinary exception, whatever it was in the child."""
    assert session.run(parent_of_fatal, kind=kind).result(20) != "nothing"


def test_retries_and_the_attempt_number(session: Session, local: TaskEnvironment) -> None:
    """``ctx().attempt`` counts from 1, and the last attempt knows that it is."""
    seen = []

    @local.task(retries=2)
    async def flaky() -> int:
        context = flyteish.ctx()
        seen.append((context.attempt, context.is_last_attempt, context.max_attempts))
        if not context.is_last_attempt:
            raise ConnectionError("again")
        return context.attempt

    assert session.run(flaky).result(20) == 3
    assert seen == [(1, False, 3), (2, False, 3), (3, True, 3)]


def test_non_recoverable_is_not_retried_by_the_parent_either(session: Session, local: TaskEnvironment) -> None:
    """It fails at once, travels up, and fails the parent at once."""
    calls = []

    @local.task(retries=5)
    async def child() -> None:
        calls.append("child")
        raise errors.NonRecoverableError("never")

    @local.task(retries=5)
    async def parent() -> None:
        calls.append("parent")
        await child()

    with pytest.raises(errors.NonRecoverableError, match="never"):
        session.run(parent).result(20)
    assert calls == ["parent", "child"]


def test_a_retried_parent_gets_the_results_its_children_had(session: Session, local: TaskEnvironment) -> None:
    """Finished children are not run again; a failed one is."""
    ran = []

    @local.task
    async def good(n: int) -> int:
        ran.append(f"good {n}")
        return n

    @local.task
    async def bad() -> int:
        ran.append("bad")
        if ran.count("bad") == 1:
            raise OSError("first time")
        return 1

    @local.task(retries=1)
    async def parent() -> int:
        return await good(1) + await good(1) + await bad()

    assert session.run(parent).result(20) == 3
    assert ran == ["good 1", "good 1", "bad", "bad"]


async def test_cancelling_an_awaited_call_cancels_its_action(local: TaskEnvironment) -> None:
    """And waits until the child has cleaned up."""
    happened = []

    @local.task
    async def slow() -> None:
        happened.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            happened.append("cleaned up")

    @local.task
    async def impatient() -> str:
        try:
            await asyncio.wait_for(slow(), 0.05)
        except TimeoutError:
            happened.append("timed out")
        return "done"

    async with Session(durability="memory"):
        run = flyteish.run(impatient)
        assert await run == "done"
        phases = {action.profile.task: action.phase for action in run.actions()}
    assert happened == ["began", "cleaned up", "timed out"]
    assert phases["local.slow"] == "aborted"


async def test_when_the_root_ends_its_unfinished_descendants_are_cancelled(local: TaskEnvironment) -> None:
    """A child that nobody awaited does not outlive the run."""
    ended = asyncio.Event()

    @local.task
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    @local.task
    async def root() -> str:
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(0.05)
        assert not task.done()
        return "left early"

    async with Session(durability="memory"):
        assert await flyteish.run(root) == "left early"
        await asyncio.wait_for(ended.wait(), 10)


def test_abort_ends_a_run(session: Session, local: TaskEnvironment) -> None:
    """Its attempts are stopped, and the handle raises ActionAbortedError with the reason."""
    started = threading.Event()

    @local.task
    async def endless() -> None:
        started.set()
        await asyncio.sleep(600)

    run = session.run(endless)
    assert started.wait(20)
    run.abort("had enough")
    with pytest.raises(errors.ActionAbortedError, match="had enough"):
        run.result(20)
    assert run.phase == "aborted"


def test_parent_and_children_in_a_queue_of_one_finish() -> None:
    """While it only waits, a parent does not count: also with nested parents and ``def`` tasks."""
    one = TaskEnvironment(name="one", queue="one")

    @one.task
    async def leaf(n: int) -> int:
        return n

    @one.task
    def sync_leaf(n: int) -> int:
        return n

    @one.task
    async def middle(n: int) -> int:
        return sum(await asyncio.gather(*[leaf(n + i) for i in range(3)])) + sync_leaf(n)

    @one.task
    async def top() -> int:
        return sum(await asyncio.gather(*[middle(n) for n in range(3)]))

    queues = [Queue("one", action_concurrency=1, depth=0)]
    with Session(queues=queues, durability="memory") as session:
        assert session.run(top).result(30) == sum(3 * n + 3 + n for n in range(3))


def test_def_tasks_that_call_each_other_never_exhaust_the_threads(local: TaskEnvironment) -> None:
    """A chain of waiting ``def`` parents deeper than the pool of threads still ends."""

    @local.task
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    with Session(config=load_config(max_threads=2, durability="memory")) as session:
        assert session.run(down, n=12).result(30) == 12


def test_an_async_child_of_a_thread_ends_while_its_grandparent_waits(session: Session, local: TaskEnvironment) -> None:
    """An async root waits in a plain call of a ``def`` child, which runs an async grandchild: nothing hangs."""

    @local.task
    async def grandchild() -> int:
        await asyncio.sleep(0)
        return 7

    @local.task
    def child() -> int:
        return asyncio.run(grandchild())

    @local.task
    async def root() -> int:
        return child()

    assert session.run(root).result(30) == 7


def test_max_runtime_ends_an_attempt_and_pays_from_retries(session: Session, local: TaskEnvironment) -> None:
    """The attempt is cancelled, tried again, and the error is a TaskTimeoutError."""
    tries = []

    @local.task(timeout=0.05, retries=1)
    async def slow() -> None:
        tries.append(1)
        await asyncio.sleep(60)

    with pytest.raises(errors.TaskTimeoutError, match="max_runtime="):
        session.run(slow).result(20)
    assert len(tries) == 2


def test_a_def_task_past_its_max_runtime_is_given_up(session: Session, local: TaskEnvironment) -> None:
    """Its thread can't be killed, but the run does not wait for it, and its late result is refused."""
    release = threading.Event()

    @local.task(timeout=0.05)
    def stuck() -> str:
        release.wait(20)
        return "too late"

    run = session.run(stuck)
    with pytest.raises(errors.TaskTimeoutError):
        run.result(20)
    release.set()
    assert run.phase == "failed"


def test_the_deadline_ends_everything(session: Session, local: TaskEnvironment) -> None:
    """Whatever is left of the retries: ActionTimedOutError, at the deadline."""

    @local.task(timeout=Timeout(deadline=0.1), retries=50)
    async def never() -> None:
        await asyncio.sleep(0.03)
        raise ValueError("again")

    began = time.monotonic()
    with pytest.raises(errors.ActionTimedOutError, match="deadline"):
        session.run(never).result(20)
    assert time.monotonic() - began < 10


def test_interruptible_attempts_say_their_medium(session: Session, local: TaskEnvironment) -> None:
    """``retries=2`` is spot, spot, on-demand."""
    media = []

    @local.task(interruptible=True, retries=2)
    async def work() -> None:
        media.append(flyteish.ctx().medium)
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        session.run(work).result(20)
    assert media == ["spot", "spot", "on-demand"]


async def test_ten_thousand_calls_in_a_gather(local: TaskEnvironment) -> None:
    """A wide fan-out ends, in order."""

    @local.task
    async def wide(n: int) -> int:
        values = await asyncio.gather(*[square(i) for i in range(n)])
        assert values == [i * i for i in range(n)]
        return len(values)

    async with Session(durability="memory"):
        assert await flyteish.run(wide, n=10_000) == 10_000


def test_map_and_group(session: Session, local: TaskEnvironment) -> None:
    """``map`` keeps the order and bounds what runs at once."""
    now, most = [0], [0]

    @local.task
    async def tracked(x: int) -> int:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.001)
        now[0] -= 1
        return x + 1

    @local.task
    async def root() -> list[int]:
        with flyteish.group("batch"):
            return [
                value async for value in flyteish.map.aio(tracked, range(20), concurrency=4, return_exceptions=False)
            ]

    run = session.run(root)
    assert run.result(20) == list(range(1, 21))
    assert most[0] <= 4
    assert {action.group for action in run.actions() if action.parent} == {"local.tracked_map"}


def test_events_and_why(session: Session) -> None:
    """The journal tells the story while and after it happens."""
    run = session.run(square, x=2)
    run.wait(20)
    kinds = asyncio.run(_kinds(run))
    assert kinds == ["RunSubmitted", "TaskDeclared", "ActionSubmitted", "AttemptAdmitted", "AttemptEnded"]
    assert "on-demand" in run.why()
    assert run.cost().on_demand_seconds >= 0


async def _kinds(run) -> list[str]:
    return [event.kind async for event in run.events()]


def test_environment_variables_are_scoped_to_the_attempt(session: Session, local: TaskEnvironment) -> None:
    """The task sees them in ``os.environ``; the host process and other tasks never do."""
    import os

    @local.task(env_vars={"FLYTEISH_TEST_SCOPED": "inside"})
    async def inside() -> tuple[str | None, str | None]:
        before = os.environ.get("FLYTEISH_TEST_SCOPED")
        await asyncio.sleep(0)
        return before, os.getenv("FLYTEISH_TEST_SCOPED")

    assert session.run(inside).result(20) == ("inside", "inside")
    assert "FLYTEISH_TEST_SCOPED" not in os.environ
    assert type(os.environ).__name__ == "_Environ"


def test_secrets_are_looked_up_and_never_stored(tmp_path, local: TaskEnvironment) -> None:
    """The value reaches the attempt's environment and nothing on disk; a missing one names the cure."""
    import os

    @local.task(secrets="db-password")
    async def connect() -> int:
        return len(os.environ["DB_PASSWORD"])

    @local.task(secrets="absent-secret")
    async def absent() -> None: ...

    with Session(home=tmp_path, secrets={"db-password": "hunter2hunter2"}) as session:
        run = session.run(connect)
        assert run.result(20) == 14
        with pytest.raises(errors.NonRecoverableError, match=r"absent-secret.*ABSENT_SECRET"):
            session.run(absent).result(20)
        assert "hunter2" not in repr(run.actions()) + run.why()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in everything


def test_cached_results_are_reused_for_equal_inputs(session: Session, local: TaskEnvironment) -> None:
    """``cache="auto"`` runs once per inputs; ``"override"`` runs again."""
    ran = []

    @local.task(cache="auto")
    async def slow_square(x: int) -> int:
        ran.append(x)
        return x * x

    assert [session.run(slow_square, x=x).result(20) for x in (3, 3, 4)] == [9, 9, 16]
    assert ran == [3, 4]
    assert session.run(slow_square.override(cache="override"), x=3).result(20) == 9
    assert ran == [3, 4, 3]


def test_runs_of_a_closed_session_say_so(local: TaskEnvironment) -> None:
    """Nothing hangs when the session goes away under a run; the error says how to go on."""

    @local.task
    async def endless() -> None:
        await asyncio.sleep(600)

    session = Session(durability="memory").open()
    run = session.run(endless)
    session.close()
    with pytest.raises(errors.SessionClosedError, match=f"flyteish resume {run.name}"):
        run.result(20)
    with pytest.raises(errors.SessionClosedError):
        session.run(endless)


def test_a_full_queue_refuses_or_waits(local: TaskEnvironment) -> None:
    """``depth`` bounds waiting plus running: ResourceExhaustedError, or back-pressure with ``on_full="wait"``."""
    pools = [Pool("on-demand")]
    queues = [
        Queue("refuse", depth=2, action_concurrency=1, pools=["on-demand"]),
        Queue("wait", depth=2, action_concurrency=1, on_full="wait", pools=["on-demand"]),
        Queue("default"),
    ]

    @local.task
    async def fan(queue: str, n: int) -> int:
        results = await asyncio.gather(*[square.override(queue=queue)(i) for i in range(n)], return_exceptions=True)
        return sum(isinstance(result, errors.ResourceExhaustedError) for result in results)

    with Session(queues=queues, pools=pools, durability="memory") as session:
        assert session.run(fan, queue="wait", n=20).result(30) == 0
        assert session.run(fan, queue="refuse", n=20).result(30) > 0


def test_ignored_inputs_do_not_count_in_the_caches_key(session: Session, local: TaskEnvironment) -> None:
    """Calls that differ only in them share a result; calls that differ in others do not."""
    ran = []

    @local.task(cache=flyteish.Cache(ignored_inputs=("verbose",)))
    async def measured(x: int, verbose: bool) -> int:
        ran.append((x, verbose))
        return x

    calls = [(1, True), (1, False), (2, False)]
    assert [session.run(measured, x=x, verbose=verbose).result(20) for x, verbose in calls] == [1, 1, 2]
    assert ran == [(1, True), (2, False)]


def test_the_output_of_inline_attempts_is_kept(tmp_path, local: TaskEnvironment, capsys: pytest.CaptureFixture) -> None:
    """What ``ctx().logger`` says goes into the attempt's log, and prints where the session asks for it."""

    @local.task
    async def talks(n: int) -> None:
        print("printed", n)
        flyteish.ctx().logger.warning("logged %d", n)

    @local.task
    def silent() -> None: ...

    @local.task
    async def root() -> None:
        await asyncio.gather(talks(1), talks(2))
        silent()

    with Session(home=tmp_path, print_to_log=True) as session:
        before = sys.stdout
        run = session.run(root)
        run.result(20)
    logs = sorted(path.read_text() for path in (tmp_path / "logs" / run.name).iterdir())
    assert len(logs) == 2
    for n, log in enumerate(logs, start=1):
        assert log.startswith(f"printed {n}\n")
        assert f"WARNING logged {n}\n" in log
    assert "printed 1\n" in capsys.readouterr().out
    assert sys.stdout is not before


def test_a_plain_function_is_not_a_task(session: Session) -> None:
    """``run`` says what it expects."""

    def plain() -> None: ...

    with pytest.raises(errors.TaskDefinitionError, match="expected a task"):
        session.run(plain)  # type: ignore[arg-type]


def test_a_plain_call_in_an_asyncio_task_of_its_own_is_refused(session: Session, local: TaskEnvironment) -> None:
    """It would block the loop, and might wait for ever for what the loop holds; the error names the awaitable form."""

    @local.task
    def plain(x: int) -> int:
        return x

    async def helper(awaitable: bool) -> int:
        return await plain.aio(1) if awaitable else plain(2)

    @local.task
    async def root(awaitable: bool) -> list[int]:
        return [await helper(awaitable=False), *await asyncio.gather(helper(awaitable))]

    assert session.run(root, awaitable=True).result(20) == [2, 1]
    with pytest.raises(RuntimeError, match=r"write `await plain\.aio\(\.\.\.\)`"):
        session.run(root, awaitable=False).result(20)


def test_a_sync_map_in_an_async_task_lets_the_loop_go_on(session: Session, local: TaskEnvironment) -> None:
    """Results in order, early exit cancels, and other work of the loop is not held up."""

    @local.task
    async def echo(x: int) -> int:
        await asyncio.sleep(60 if x == 9 else 0)
        return x

    @local.task
    async def root() -> list[int]:
        ticks = [0]

        async def tick() -> None:
            while True:
                ticks[0] += 1
                await asyncio.sleep(0)

        ticker = asyncio.ensure_future(tick())
        found = []
        results = flyteish.map(echo, [1, 2, 3, 9], return_exceptions=False)
        for value in results:
            found.append(value)
            if value == 3:
                break
        results.close()
        ticker.cancel()
        return [*found, min(ticks[0], 3)]

    run = session.run(root)
    assert run.result(20) == [1, 2, 3, 3]
    assert sorted(action.phase for action in run.actions()) == ["aborted", *["succeeded"] * 4]


def test_a_refused_run_says_so_when_asked(session: Session) -> None:
    """Nothing of it is on record; whoever looks is told why."""
    run = session.run(square.override(queue="nowhere"), x=1)
    with pytest.raises(errors.UnknownQueueError):
        run.result(20)
    assert run.phase == "refused"
    with pytest.raises(errors.RunNotFoundError, match=r"was refused.*unknown queue 'nowhere'"):
        run.why()


def test_work_left_behind_by_an_attempt_ends_quietly(session: Session, local: TaskEnvironment) -> None:
    """An asyncio task that still awaits a child when its attempt returns is cancelled, without a complaint."""

    @local.task
    async def slow() -> None:
        await asyncio.sleep(60)

    left = []

    @local.task
    async def root() -> int:
        left.append(asyncio.ensure_future(slow()))
        await asyncio.sleep(0.05)
        return 1

    run = session.run(root)
    assert run.result(20) == 1
    assert session.run(square, x=2).result(20) == 4
    deadline = time.monotonic() + 20
    while not left[0].done() and time.monotonic() < deadline:
        session.run(square, x=3).result(20)
    assert left[0].cancelled()


def test_runs_of_one_moment_have_names_of_their_own() -> None:
    """Thousands of them, where names drawn by chance would meet."""
    clock = HandClock(1_000_000.0)
    with Session(queues=[Queue("default", state="held")], durability="memory", clock=clock) as held:
        assert len({held.run(square, x=x).name for x in range(4000)}) == 4000
