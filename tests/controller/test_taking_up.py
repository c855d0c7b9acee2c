"""Sessions that take up what earlier ones left: which runs, which attempts live on, and when that is not known yet."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flyteish import Pool, Queue, Run, Session, TaskEnvironment, errors
from flyteish._controller.tokens import digest_of
from flyteish._core.model.events import CheckpointCommitted, Entry, RunRecovered
from flyteish._core.model.ids import inputs_digest
from flyteish._core.model.records import End
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Call, RunStore
from flyteish.markets import ScriptedMarket
from tests.controller.puppet import PATIENCE, Machines, PuppetEngine, returns

env = TaskEnvironment(name="taking_up")


def call_of(task: Any, opened: Session) -> Call:
    assert opened._machinery is not None
    data = task.signature.encode_inputs((), {})
    profile = task.profile(opened.config.scope, opened._machinery.blobs.blocking)
    return Call(profile, Payload(data, None, len(data)), inputs_digest(data))


@env.task
async def seven() -> int:
    return 7


@env.task
async def eight() -> int:
    return 8


def session(home: Path, engine: PuppetEngine, market: ScriptedMarket | None = None, **more: Any) -> Session:
    pools = [Pool("p", engine="puppet", on_close="detach", market=market), Pool("here")]
    queues = [Queue("default", pools=("p",)), Queue("inline", pools=("here",))]
    return Session(queues, pools, engines={"puppet": lambda: engine}, home=home, **more)


def outliving(machines: Machines) -> PuppetEngine:
    return PuppetEngine(machines, outlives=True)


def left(home: Path, machines: Machines, task: Any = seven) -> Any:
    """The order of a run's root attempt that goes on though its session is closed."""
    before = len(machines.heard("start"))
    with session(home, outliving(machines)) as opened:
        opened.run(task)
        return machines.started(before + 1)[before]


# -- the living ------------------------------------------------------------------------------------------------------


def test_the_market_of_the_next_session_may_take_the_machine_of_one_that_lives(tmp_path: Path) -> None:
    """As that of any other attempt in the pool."""
    machines = Machines()
    order = left(tmp_path, machines)
    with session(tmp_path, outliving(machines), ScriptedMarket(reclaims=[0.05])) as opened:
        opened.resume(order.key.run)
        assert machines.until(lambda: machines.heard("reclaim")) == [order.key]


def test_an_attempt_that_lives_goes_on_in_the_next_session(tmp_path: Path) -> None:
    """Same generation, no second start; its end is the run's, and the handle has the result."""
    machines = Machines()
    order = left(tmp_path, machines)
    assert order.key in machines.running
    engine = outliving(machines)
    with session(tmp_path, engine) as opened:
        run: Run[Any] = opened.resume(order.key.run)
        ((unfinished,),) = machines.until(lambda: machines.heard("adopt"))
        assert unfinished.order.key == order.key
        assert (unfinished.order.inputs, unfinished.order.token) == (order.inputs, "")
        assert unfinished.token_digest == digest_of(order.token)
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        recovered = [entry.event for _, entry in run.journal() if isinstance(entry.event, RunRecovered)]
        record = run.record()
    assert [each.living for each in recovered] == [(("a0", 1),)]
    assert [(each.generation, each.end) for each in record.root_action.attempts] == [(1, End.SUCCEEDED)]
    assert machines.heard("start") == [order]


def test_an_attempt_that_is_gone_is_abandoned_and_nobody_pays(tmp_path: Path) -> None:
    """It ended at the last moment on record; the root starts again."""
    machines = Machines()
    order = left(tmp_path, machines)
    machines.running.clear()
    engine = outliving(machines)
    with session(tmp_path, engine) as opened:
        run: Run[Any] = opened.resume(order.key.run)
        again = machines.started(2)[1]
        assert again.key.generation == 2
        engine.end(again.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        first, second = run.record().root_action.attempts
        entries = [entry for _, entry in run.journal()]
    (number,) = [number for number, entry in enumerate(entries) if isinstance(entry.event, RunRecovered)]
    last_at = max(entry.at for entry in entries[:number])
    assert (first.end, first.charged, first.ended_at) == (End.ABANDONED, "", last_at)
    assert second.end is End.SUCCEEDED


def test_what_is_said_of_a_run_on_its_way_in_is_heard_once_it_is_in(tmp_path: Path) -> None:
    """An attempt that finds the way back before its engine has answered is not taken for a stranger."""
    machines = Machines()
    order = left(tmp_path, machines)
    engine = outliving(machines)
    engine.adopting = asyncio.Event()
    with session(tmp_path, engine) as opened:
        run: Run[Any] = opened.resume(order.key.run)
        machines.until(lambda: machines.heard("adopt"))
        record = CheckpointRecord(1, 1, "sha256:00", "bytes", 3, 0.0)
        committed, answers = threading.Event(), list[str | None]()

        def done(why: str | None) -> None:
            answers.append(why)
            committed.set()

        engine.link(order.key).commit_checkpoint(record, done)
        engine.end(order.key, returns(seven, 7))
        assert not run.done()
        assert opened._machinery is not None
        assert opened._machinery._portal is not None
        opened._machinery._portal.call(engine.adopting.set)
        assert run.result(PATIENCE) == 7
        assert committed.wait(PATIENCE)
        assert answers == [None]
        kinds = [type(entry.event) for _, entry in run.journal()]
    assert kinds.index(RunRecovered) < kinds.index(CheckpointCommitted)


def test_a_run_on_its_way_in_can_be_aborted(tmp_path: Path) -> None:
    """The living attempt is told to stop, as soon as it is known that it lives."""
    machines = Machines()
    order = left(tmp_path, machines)
    engine = outliving(machines)
    engine.adopting = asyncio.Event()
    with session(tmp_path, engine) as opened:
        run: Run[Any] = opened.resume(order.key.run)
        run.abort("never mind")
        machines.until(lambda: machines.heard("adopt"))
        assert opened._machinery is not None
        assert opened._machinery._portal is not None
        opened._machinery._portal.call(engine.adopting.set)
        with pytest.raises(errors.ActionAbortedError, match="never mind"):
            run.result(PATIENCE)
    assert order.key in machines.heard("stop")


def test_a_session_that_closes_while_a_run_is_on_its_way_in_answers_everybody(tmp_path: Path) -> None:
    """What was said of the run meanwhile is not on record; the run can be resumed again."""
    machines = Machines()
    order = left(tmp_path, machines)
    engine = outliving(machines)
    engine.adopting = asyncio.Event()
    told: list[str | None] = []
    with session(tmp_path, engine) as opened:
        run: Run[Any] = opened.resume(order.key.run)
        machines.until(lambda: machines.heard("adopt"))
        engine.end(order.key, returns(seven, 7), told.append)
    assert ["session was closed" in str(why) for why in told] == [True]
    with pytest.raises(errors.SessionClosedError, match="flyteish resume"):
        run.result(PATIENCE)


def test_an_engine_that_cannot_say_what_lives_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing starts meanwhile: it might run twice. A warning says why it takes so long."""
    from flyteish._controller import taking_up

    monkeypatch.setattr(taking_up, "AGAIN_SECONDS", (0.0,))
    machines = Machines()
    order = left(tmp_path, machines)
    engine = outliving(machines)
    engine.fails_to_adopt = 3
    with session(tmp_path, engine) as opened, caplog.at_level(logging.WARNING):
        run: Run[Any] = opened.resume(order.key.run)
        machines.until(lambda: len(machines.heard("adopt")) == 4)
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
    assert machines.heard("start") == [order]
    assert caplog.text.count("the cluster does not answer") == 3


def test_attempts_that_go_on_have_no_files_that_a_session_clears(tmp_path: Path) -> None:
    """Its scratch folder is emptied when it opens and closes; engines whose attempts outlive it get none."""
    lasting, local = Machines(), Machines()
    for machines, outlives in ((lasting, True), (local, False)):
        with session(tmp_path, PuppetEngine(machines, outlives=outlives)) as opened:
            opened.open()
    assert [opening.scratch is None for opening in lasting.heard("open") + local.heard("open")] == [True, False]


def test_local_engines_are_not_asked(tmp_path: Path) -> None:
    """What ran in a process that is gone is gone; such a run is taken up at once."""
    machines = Machines()
    with session(tmp_path, PuppetEngine(machines)) as opened:
        run = opened.run(seven)
        machines.started()
    machines.running.clear()
    engine = PuppetEngine(machines)
    with session(tmp_path, engine) as opened:
        again: Run[Any] = opened.resume(run.name)
        order = machines.started(2)[1]
        engine.end(order.key, returns(seven, 7))
        assert again.result(PATIENCE) == 7
    assert machines.heard("adopt") == []


def test_what_an_ended_root_had_called_is_told_to_stop_again(tmp_path: Path) -> None:
    """The run's outcome is known, but a child's machine is still running: it must not be forgotten."""
    machines = Machines()
    engine = outliving(machines)
    engine.stop = lambda key, reason, grace: machines.tell("stop", key)  # type: ignore[method-assign] # takes its time
    with session(tmp_path, engine) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
        engine.link(order.key).call(call_of(eight, opened), lambda outcome: None)
        child = machines.started(2)[1]
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        machines.until(lambda: machines.heard("stop"))
    engine = outliving(machines)
    with session(tmp_path, engine, recover="all") as opened:
        machines.until(lambda: machines.heard("stop") == [child.key] * 2)
        assert child.key not in machines.running
        assert opened.resume(run.name).result(PATIENCE) == 7
        deadline = time.monotonic() + 20.0
        while not opened.resume(run.name).record().ended_at:  # the end is told, but not on record yet
            assert time.monotonic() < deadline
            time.sleep(0.005)
    with session(tmp_path, outliving(machines), recover="all") as opened:
        assert opened._machinery is not None
    assert len(machines.heard("adopt")) == 1


# -- which runs ------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_up_unless_somebody_says_so(tmp_path: Path) -> None:
    """The default of an embedded session: runs wait for `resume`."""
    machines = Machines()
    order = left(tmp_path, machines)
    with session(tmp_path, outliving(machines)) as opened:
        opened.open()
        assert opened._runs._handles == {}
    assert machines.heard("adopt") == []
    assert order.key in machines.running


def test_a_session_may_take_up_everything(tmp_path: Path) -> None:
    """Without a caller; `resume` gives the handle of a run that is already going on."""
    machines = Machines()
    first, second = left(tmp_path, machines), left(tmp_path, machines, eight)
    engine = outliving(machines)
    with session(tmp_path, engine, recover="all") as opened:
        machines.until(lambda: len(machines.heard("adopt")) == 2)
        assert [unfinished.order.key for (unfinished,) in machines.heard("adopt")] == [first.key, second.key]
        engine.end(first.key, returns(seven, 7))
        engine.end(second.key, returns(eight, 8))
        assert opened.resume(first.key.run).result(PATIENCE) == 7
        assert opened.resume(second.key.run).result(PATIENCE) == 8
    with session(tmp_path, engine, recover="all") as opened:
        assert opened._runs._handles == {}, "what has ended is not taken up"


class SlowOnce:
    """A store in which the first read of a journal takes until the gate opens."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.reading, self.gate = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, run: str, after: int = 0) -> Iterator[tuple[int, Entry]]:
        found = list(self._store.read(run, after))
        if not self.reading.is_set():
            self.reading.set()
            assert self.gate.wait(PATIENCE)
        return iter(found)


def test_a_run_that_ended_while_somebody_looked_it_up_is_not_taken_up_again(tmp_path: Path) -> None:
    """Two threads resume it: whoever is slow gets its result, and nothing runs twice."""
    machines = Machines()
    order = left(tmp_path, machines)
    engine = outliving(machines)
    with session(tmp_path, engine) as opened, ThreadPoolExecutor(1) as slow:
        assert opened._machinery is not None
        opened._machinery.store = store = SlowOnce(opened._machinery.store)
        late: Future[Run[Any]] = slow.submit(lambda: opened.resume(order.key.run))
        assert store.reading.wait(PATIENCE)
        run: Run[Any] = opened.resume(order.key.run)
        machines.until(lambda: machines.heard("adopt"))
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        store.gate.set()
        assert late.result(PATIENCE).result(PATIENCE) == 7
        recovered = [entry for _, entry in run.journal() if isinstance(entry.event, RunRecovered)]
    assert len(recovered) == 1
    assert machines.heard("start") == [order]


def test_runs_that_cannot_be_taken_up_are_left_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It names run and reason; the others go on."""
    lost = TaskEnvironment(name="lost")

    @lost.task
    async def in_a_function() -> int:
        return 1

    machines = Machines()
    gone, order = left(tmp_path, machines, in_a_function), left(tmp_path, machines)
    engine = outliving(machines)
    with caplog.at_level(logging.WARNING), session(tmp_path, engine, recover="all") as opened:
        machines.until(lambda: machines.heard("adopt"))
        engine.end(order.key, returns(seven, 7))
        assert opened.resume(order.key.run).result(PATIENCE) == 7
        assert opened._machinery is not None
        assert [row.run for row in opened._machinery.store.runs(active_only=True)] == [gone.key.run]
    assert f"run {gone.key.run} is left as it is" in caplog.text
    assert "in_a_function" in caplog.text


def test_what_inline_runs_left_goes_on_without_a_caller(tmp_path: Path) -> None:
    """On event loops of the session's own, since nobody calls."""
    reached, open_gate = threading.Event(), threading.Event()
    gates.update(reached=reached, open=open_gate)
    with session(tmp_path, outliving(Machines())) as opened:
        run = opened.with_runcontext(queue="inline").run(gated)
        assert reached.wait(PATIENCE)
    open_gate.set()
    with session(tmp_path, outliving(Machines()), recover="all") as opened:
        assert opened.resume(run.name).result(PATIENCE) == 2


gates: dict[str, threading.Event] = {}


@env.task
async def gated() -> int:
    gates["reached"].set()
    while not gates["open"].is_set():  # noqa: ASYNC110 - opened by another thread
        await asyncio.sleep(0.002)
    return 2


@pytest.mark.parametrize("bad", ["some", True, None])
def test_other_words_are_refused(bad: Any) -> None:
    """The message says what is accepted."""
    with pytest.raises(errors.ConfigurationError, match=r"recover=.* is not accepted: expected 'none' or 'all'"):
        Session(recover=bad, durability="memory")


def test_the_configuration_may_say_it(tmp_path: Path) -> None:
    """In a file or the environment; what the program says goes first."""
    from flyteish.config import load_config

    (tmp_path / "flyteish.toml").write_text('recover = "all"')
    assert load_config(cwd=tmp_path, environ={}).recover == "all"
    assert load_config(cwd=tmp_path, environ={"FLYTEISH_RECOVER": "none"}).recover == "none"
    with pytest.raises(errors.ConfigurationError, match="recover='most' is not accepted: expected 'none' or 'all'"):
        load_config(cwd=tmp_path, environ={"FLYTEISH_RECOVER": "most"})
    config = load_config(cwd=tmp_path, environ={}, home=tmp_path / "home")
    assert Session(config=config)._recover == "all"
    assert Session(config=config, recover="none")._recover == "none"
