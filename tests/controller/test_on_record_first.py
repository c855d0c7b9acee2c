"""Nothing that a task or an engine is told can be unhappened by a crash: all of it is on record before it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flyteish import Pool, Queue, Session, TaskEnvironment, _assembly
from flyteish._controller.state_queries import ask
from flyteish._core.model.ids import inputs_digest
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Batch, Call
from flyteish.stores.memory import MemoryStore
from tests.controller.puppet import PATIENCE, Machines, PuppetEngine, returns

env = TaskEnvironment(name="on_record")


@env.task
async def parent() -> int:
    return 1


@env.task
async def child() -> int:
    return 2


class SlowStore(MemoryStore):
    """Keeps what it is to commit until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = False
        self._kept: list[tuple[Batch, Callable[[BaseException | None], None]]] = []

    def append(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        if self.holds:
            self._kept.append((batch, done))
        else:
            super().append(batch, done)

    def let_go(self) -> None:
        """As a writer's thread does it."""
        self.holds = False
        kept, self._kept = self._kept, []
        for batch, done in kept:
            super().append(batch, done)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    made = SlowStore()
    monkeypatch.setattr(_assembly, "_stores", lambda config: (made, made))
    return made


def test_what_is_told_was_journalled_before(store: SlowStore) -> None:
    """Acknowledgements of checkpoints and traced values, results of children, ends that are reported, and orders."""
    machines = Machines()
    engine = PuppetEngine(machines)
    told: list[str] = []

    def said(what: str, answer: Any) -> None:
        told.append(f"{what} {answer}")
        machines.tell("said", what)

    with Session([Queue("default")], [Pool("p", engine="puppet")], engines={"puppet": lambda: engine}) as opened:
        run = opened.run(parent)
        (order,) = machines.started()
        link = engine.link(order.key)

        store.holds = True
        link.commit_checkpoint(
            CheckpointRecord(1, 1, "sha256:00", "bytes", 3, 0.0), lambda why: said("checkpoint", why)
        )
        link.traced("key", Payload(b"1"), lambda why: said("traced", why))
        link.call(call(opened), lambda outcome: said("outcome", outcome.phase))
        after_a_turn(opened)
        assert (told, len(machines.heard("start"))) == ([], 1)
        store.let_go()
        (_, second) = machines.started(2)
        machines.until(lambda: len(told) == 2)
        assert told == ["checkpoint None", "traced None"]

        store.holds = True
        engine.end(second.key, returns(child, 2), lambda why: said("end", why))
        after_a_turn(opened)
        assert len(told) == 2
        store.let_go()
        machines.until(lambda: len(told) == 4)
        assert told[2:] == ["outcome succeeded", "end None"]
        engine.end(order.key, returns(parent, 1))
        assert run.result(PATIENCE) == 1


def call(opened: Session) -> Call:
    assert opened._machinery is not None
    data = child.signature.encode_inputs((), {})
    profile = child.profile(opened.config.scope, opened._machinery.blobs.blocking)
    return Call(profile, Payload(data, None, len(data)), inputs_digest(data))


def after_a_turn(opened: Session) -> None:
    """The controller has taken in all that was posted until now, and ended its turn."""
    assert opened._machinery is not None
    for _ in range(2):
        ask(opened._machinery.controller, lambda state, now: None)
