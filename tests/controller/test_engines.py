"""What engines can rely on: the pools they are given, the order of things, and what becomes of what they report."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from flyteish import Backoff, Image, Pool, Queue, Resources, RetryStrategy, Session, TaskEnvironment, errors
from flyteish._controller.facts import Asked
from flyteish._controller.tokens import digest_of
from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    AttemptRunning,
    Evidence,
    NoticeWithdrawn,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.records import End
from flyteish._core.model.values import ErrorDocument
from flyteish.interfaces import Outcome
from tests.controller.puppet import PATIENCE, Machines, PuppetEngine, returns

env = TaskEnvironment(name="engines")


@env.task
async def seven() -> int:
    return 7


@env.task(secrets="hidden-word")
async def whispers() -> int:
    return 1


@env.task(retries=RetryStrategy(count=1, backoff=Backoff(base=100.0, jitter=1.0)))
async def unlucky(x: int) -> int:
    return x


def session(engine: Any, *, home: Path | None = None, **pool: Any) -> Session:
    kept: dict[str, Any] = {"durability": "memory"} if home is None else {"home": home}
    return Session([Queue("default")], [Pool("p", engine="puppet", **pool)], engines={"puppet": engine}, **kept)


# -- which engines there are ----------------------------------------------------------------------------------------


def test_there_is_an_engine_for_each_kind_and_cluster(tmp_path: Path) -> None:
    """Each is opened with its pools, and attempts go to the one that has their pool."""
    machines = Machines()
    pools = [
        Pool("east-1", engine="puppet", cluster="east"),
        Pool("east-2", engine="puppet", cluster="east"),
        Pool("west", engine="puppet", cluster="west"),
        Pool("here"),
    ]
    queues = [Queue("default", pools=("west",)), Queue("local", pools=("here",))]
    made: list[PuppetEngine] = []

    def engine() -> PuppetEngine:
        made.append(PuppetEngine(machines))
        return made[-1]

    with Session(queues, pools, engines={"puppet": engine}, home=tmp_path) as opened:
        assert [sorted(opening.pools) for opening in machines.heard("open")] == [["east-1", "east-2"], ["west"]]
        run = opened.run(seven)
        (order,) = machines.started()
        assert order.pool == "west"
        made[1].end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        assert opened.with_runcontext(queue="local").run(seven).result(PATIENCE) == 7
    assert machines.heard("close") == [None, None]


def test_a_pool_may_only_name_engines_that_there_are() -> None:
    """The message says which there are, and how others get known."""
    with pytest.raises(errors.ConfigurationError, match=r"engine='puppt'.*'inline' or .* or 'puppet'.*engines="):
        Session(pools=[Pool("p", engine="puppt")], engines={"puppet": lambda: PuppetEngine(Machines())})


def test_configuration_from_files_may_name_the_programs_engines(tmp_path: Path) -> None:
    """`load_config(engines=...)` accepts their names; a session that does not bring them says so when it opens."""
    from flyteish.config import load_config

    (tmp_path / "flyteish.toml").write_text("[pools.p]\nengine = 'puppet'\n[queues.default]\npools = ['p']")
    config = load_config(cwd=tmp_path, environ={}, home=tmp_path / "home", engines=["puppet"])
    with pytest.raises(errors.ConfigurationError, match="engine='puppet' of a Pool is not among"):
        Session(config=config).open()


def test_the_command_line_reads_homes_of_programs_that_bring_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has none of them, and needs none to look; to run something there it says which name it does not know."""
    from flyteish.cli.app import carry_out

    (tmp_path / "flyteish.toml").write_text("[pools.p]\nengine = 'puppet'")
    monkeypatch.chdir(tmp_path)
    assert carry_out(["get", "pools"]) == 0
    assert "puppet" in capsys.readouterr().out


# -- reports ---------------------------------------------------------------------------------------------------------


def test_who_reports_learns_when_it_is_on_record(tmp_path: Path) -> None:
    """`done(None)` comes once the journal has it: whoever was told can look it up."""
    machines = Machines()
    engine = PuppetEngine(machines)
    told: list[Any] = []
    with session(lambda: engine, home=tmp_path) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
        answered = threading.Event()

        def done(why: str | None) -> None:
            told.append((why, [type(entry.event) for _, entry in run.journal()][-1]))
            answered.set()

        engine.end(order.key, returns(seven, 7), done)
        assert answered.wait(PATIENCE)
        assert run.result(PATIENCE) == 7
    assert told == [(None, AttemptEnded)]


def test_an_end_that_comes_after_the_session_is_not_on_record() -> None:
    """Who reported it is told why, and may keep it for a later controller."""
    machines = Machines()
    engine = PuppetEngine(machines)
    told: list[str | None] = []
    with session(lambda: engine) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
    engine.end(order.key, returns(seven, 7), told.append)
    assert ["session was closed" in str(why) for why in told] == [True]
    with pytest.raises(errors.SessionClosedError):
        run.result(PATIENCE)


def test_what_an_engine_tells_of_an_attempt_is_on_record(tmp_path: Path) -> None:
    """Why it has no machine yet, which one it got, that it runs, a notice, and that the notice is withdrawn."""
    machines = Machines()
    engine = PuppetEngine(machines)
    with session(lambda: engine, home=tmp_path) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
        key = order.key
        said = [
            AttemptPending(*key, "Unschedulable", "0 of 3 nodes fit"),
            AttemptPlaced(*key, node="n1", zone="eu-1", instance_type="c7.large", price_per_hour=0.25),
            AttemptRunning(*key),
            AttemptNoticed(*key, "terminate", 120.0, "node"),
            NoticeWithdrawn(*key, "node", "another node was taken"),
        ]
        for event in said:
            engine.report(event)  # type: ignore[arg-type]
        engine.end(key, Evidence(exit_code=3))
        with pytest.raises(errors.AttemptError):
            run.result(PATIENCE)
        events = [entry.event for _, entry in run.journal()]
    assert [event for event in events if type(event) in {type(each) for each in said}] == said
    (attempt,) = run.record().root_action.attempts
    assert attempt.engine_facts is not None
    assert (attempt.engine_facts.node, attempt.price_per_hour) == ("n1", 0.25)
    assert attempt.end is End.USER_ERROR, "the notice was withdrawn, so that nothing but the task is to blame"


def test_a_thousand_attempts_that_fail_together_do_not_retry_in_step(seed: int) -> None:
    """The controller draws the chance for the back-off of each, whatever engine reports them."""
    machines = Machines()
    clock = _Clock(seed)
    begun: dict[str, list[float]] = {}

    def on_start(engine: PuppetEngine, order: Any) -> None:
        begun.setdefault(order.key.run, []).append(clock.now())
        if order.user_attempt == 2:
            engine.end(order.key, returns(unlucky, 1))

    engine = PuppetEngine(machines, on_start=on_start)
    pools = [Pool("p", engine="puppet")]
    with Session([Queue("default")], pools, engines={"puppet": lambda: engine}, clock=clock, durability="memory") as it:
        runs = [it.run(unlucky, x) for x in range(1000)]
        for order in machines.started(1000):
            engine.end(order.key, Evidence(error=ErrorDocument("builtins.OSError", "the database is away")))
        while not all(run.done() for run in runs):
            clock.at = max(clock.at, _ask(it, lambda state, now: state.next_due()) or clock.at)
    again = [times[1] for times in begun.values()]
    assert len(again) == 1000
    assert len(set(again)) > 900
    assert max(again) - min(again) > 50.0


class _Clock:
    """Time that the test moves; chance that a seed decides."""

    def __init__(self, seed: int) -> None:
        self.at = 1000.0
        self._random = random.Random(seed)

    def now(self) -> float:
        return self.at

    def chance(self) -> float:
        return self._random.random()


def _ask(opened: Session, question: Any) -> Any:
    from flyteish._controller.state_queries import ask

    assert opened._machinery is not None
    return ask(opened._machinery.controller, question)


# -- tokens and secrets ----------------------------------------------------------------------------------------------


def test_attempts_that_may_outlive_the_controller_are_on_record_before_they_are_ordered(tmp_path: Path) -> None:
    """With the digest of their token; the token itself is nowhere in the journal."""
    machines = Machines()

    def on_start(engine: PuppetEngine, order: Any) -> None:
        engine.machines.tell("seen", (order, [entry.event for _, entry in run_of(order).journal()]))

    engine = PuppetEngine(machines, outlives=True, on_start=on_start)
    with session(lambda: engine, home=tmp_path) as opened:

        def run_of(order: Any) -> Any:
            return opened._runs._handles[order.key.run]

        run = opened.run(seven)
        ((order, events),) = machines.until(lambda: machines.heard("seen"))
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
        journal = repr(list(run.journal()))
    key = order.key
    assert AttemptOrdered(key.run, key.action, key.generation, digest_of(order.token)) in events
    assert len(order.token) >= 20
    assert order.token not in journal


def test_nothing_is_recorded_of_tokens_that_do_not_outlive_the_controller(tmp_path: Path) -> None:
    """They get one, for they connect; but nobody will ask for it again."""
    machines = Machines()
    engine = PuppetEngine(machines, on_start=lambda engine, order: engine.end(order.key, returns(seven, 7)))
    with session(lambda: engine, home=tmp_path) as opened:
        run = opened.run(seven)
        run.wait(PATIENCE)
        assert not [entry for _, entry in run.journal() if isinstance(entry.event, AttemptOrdered)]
    assert machines.started()[0].token


def test_an_attempt_that_is_cancelled_before_it_is_ordered_never_begins(tmp_path: Path) -> None:
    """Its engine never hears of it, and the run ends all the same."""
    machines = Machines()
    engine = PuppetEngine(machines, outlives=True)
    with session(lambda: engine) as opened:
        opened.open()
        assert opened._machinery is not None
        held, go = threading.Event(), threading.Event()

        def hold(state: Any, now: float) -> None:
            held.set()
            go.wait(PATIENCE)

        opened._machinery.controller.post(Asked(hold, lambda answer, error: None))
        assert held.wait(PATIENCE)
        run = opened.run(seven)
        run.abort("at once")
        go.set()
        with pytest.raises(errors.ActionAbortedError, match="at once"):
            run.result(PATIENCE)
    assert machines.heard("start") == []


def test_orders_name_secrets_and_never_have_their_values(tmp_path: Path) -> None:
    """Who runs an attempt asks for the values; neither order nor journal shows them."""
    machines = Machines()
    engine = PuppetEngine(machines)
    pools = [Pool("p", engine="puppet")]
    given = {"hidden-word": "open sesame"}
    with Session([Queue("default")], pools, engines={"puppet": lambda: engine}, home=tmp_path, secrets=given) as opened:
        run = opened.run(whispers)
        (order,) = machines.started()
        assert [secret.key for secret in order.secrets] == ["hidden-word"]
        assert dict(engine.opening.reports.secrets(order.secrets)) == {"HIDDEN_WORD": "open sesame"}
        engine.end(order.key, returns(whispers, 1))
        run.wait(PATIENCE)
        shown = repr(order) + repr(list(run.journal()))
    import msgspec

    assert "open sesame" not in shown + msgspec.msgpack.encode(order).decode("latin-1")


def test_a_secret_that_is_missing_when_it_is_asked_for_is_an_error_with_its_cure() -> None:
    """Its name, and the two places where it is looked up."""
    engine = PuppetEngine(Machines())
    with session(lambda: engine) as opened:
        opened.open()
        from flyteish import Secret

        with pytest.raises(errors.SecretMissingError, match=r"'g/none' is missing.*secrets=.*NONE"):
            engine.opening.reports.secrets([Secret("none", group="g")])


def test_orders_say_what_an_attempt_has_to_find_where_it_runs() -> None:
    """Image, code, variables and resources; shown without the variables' values."""
    image = Image.from_base("python:3.12-slim").with_pip_packages("numpy")
    elsewhere = TaskEnvironment(name="elsewhere", image=image, resources=Resources(cpu=2), env_vars={"KEY": "hush"})

    @elsewhere.task
    async def far_away() -> int:
        return 1

    machines = Machines()
    engine = PuppetEngine(machines)
    with session(lambda: engine) as opened:
        run = opened.run(far_away)
        (order,) = machines.started()
        engine.end(order.key, returns(far_away, 1))
        run.wait(PATIENCE)
    runtime = order.runtime
    assert (runtime.image, runtime.code, runtime.env_vars) == (image, None, {"KEY": "hush"})
    assert runtime.resources == Resources(cpu=2)
    assert "hush" not in repr(runtime) + repr(order)


# -- links -----------------------------------------------------------------------------------------------------------


def test_an_engine_speaks_for_its_attempts(tmp_path: Path) -> None:
    """A child called through the link is answered, once, with its outcome."""
    machines = Machines()
    engine = PuppetEngine(machines)
    with session(lambda: engine, home=tmp_path) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
        answers: list[Outcome] = []
        answered = threading.Event()

        def done(outcome: Outcome) -> None:
            answers.append(outcome)
            answered.set()

        engine.link(order.key).call(_call(opened), done)
        child = machines.started(2)[1]
        engine.end(child.key, returns(seven, 7))
        assert answered.wait(PATIENCE)
        engine.end(order.key, returns(seven, 7))
        run.wait(PATIENCE)
    assert [(each.action, each.phase) for each in answers] == [(child.key.action, "succeeded")]


def _call(opened: Session) -> Any:
    from flyteish._core.model.ids import inputs_digest
    from flyteish._core.model.values import Payload
    from flyteish.interfaces import Call

    assert opened._machinery is not None
    data = seven.signature.encode_inputs((), {})
    profile = seven.profile(opened.config.scope, opened._machinery.blobs.blocking)
    return Call(profile, Payload(data, None, len(data)), inputs_digest(data))


def test_keys_are_of_runs_actions_and_generations() -> None:
    """A link through which nobody's attempt speaks is refused."""
    engine = PuppetEngine(Machines())
    with session(lambda: engine) as opened:
        opened.open()
        answers: list[Outcome] = []
        answered = threading.Event()

        def done(outcome: Outcome) -> None:
            answers.append(outcome)
            answered.set()

        engine.link(AttemptKey("r-none", "a0", 1)).call(_call(opened), done)
        assert answered.wait(PATIENCE)
    assert answers[0].phase == "refused"


def test_a_session_that_closes_waits_for_its_engines() -> None:
    """Also where it is asynchronous."""

    async def main() -> None:
        machines = Machines()
        async with session(lambda: PuppetEngine(machines)) as opened:
            opened.run(seven)
            await asyncio.to_thread(machines.started)
        assert machines.heard("close") == [None]

    asyncio.run(main())


def test_a_run_that_was_sent_ahead_is_queued_until_it_has_its_machine(tmp_path: Path) -> None:
    """Also in the list of runs, which other processes see."""
    machines = Machines()
    engine = PuppetEngine(machines)
    with session(lambda: engine, home=tmp_path, capacity=1, ahead=3) as opened:
        run = opened.run(seven)
        (order,) = machines.started()
        assert run.phase == "queued"
        placed = threading.Event()
        engine.report(AttemptPlaced(*order.key), lambda why: placed.set())
        assert placed.wait(PATIENCE)
        assert run.phase == "running"
        assert opened._machinery is not None
        assert [row.phase for row in opened._machinery.store.runs()] == ["running"]
        engine.end(order.key, returns(seven, 7))
        assert run.result(PATIENCE) == 7
