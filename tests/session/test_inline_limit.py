"""`inline_limit` is one value: what is larger goes by the blob store, in every engine and on every way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish import Pool, Run, Session, TaskEnvironment
from flyteish._core.model.events import ActionSubmitted, AttemptEnded, ValueTraced
from flyteish._core.model.values import Payload
from flyteish.config import load_config
from flyteish.errors import SerializationError
from flyteish.stores.sqlite import SqliteStore

env = TaskEnvironment("inline_limit")
SIZE = 100_000
"""Bytes of every value here."""


@flyteish.trace
def traced(data: bytes) -> bytes:
    return data[::-1]


@flyteish.trace
async def traced_async(data: bytes) -> bytes:
    return data[::-1]


@env.task
def child(data: bytes) -> bytes:
    return data


@env.task
async def child_async(data: bytes) -> bytes:
    return data


@env.task
def blocking(data: bytes) -> bytes:
    return child(traced(data))


@env.task
async def awaiting(data: bytes) -> bytes:
    return await child_async(await traced_async(data))


@env.task
def grows(size: int) -> int:
    return len(child(bytes(size)))


@env.task
def remembers(size: int) -> int:
    return len(traced(bytes(size)))


@env.task
def returns(size: int) -> bytes:
    return bytes(size)


def payloads(home: Path, run: str) -> Iterator[tuple[str, Payload]]:
    """What the journal has of a run's values, and where each is from."""
    for _, entry in SqliteStore(home / "flyteish.db").read(run):
        match entry.event:
            case ActionSubmitted() as event:
                yield f"inputs of {event.action}", event.inputs
            case AttemptEnded() as event if event.evidence.result is not None:
                yield f"result of {event.action}", event.evidence.result
            case ValueTraced() as event:
                yield "traced", event.result


@pytest.mark.parametrize("engine", ["inline", "processes"])
@pytest.mark.parametrize("limit, inline", [(99_000, False), (101_000, True), (None, True)])
def test_every_way_of_a_value_knows_the_same_limit(
    tmp_path: Path, engine: str, limit: int | None, inline: bool
) -> None:
    """Inputs and results, of the root and of a child, and traced values; 256 KiB where nobody says anything."""
    said: dict[str, Any] = {} if limit is None else {"inline_limit": limit}
    config = load_config(home=tmp_path, pools=[Pool("only", engine=engine)], **said)
    data = bytes(range(250)) * (SIZE // 250)
    with Session(config=config) as session:
        for task in (blocking, awaiting):
            run: Run[bytes] = session.with_runcontext(name=task.name).run(task, data)
            assert run.result() == data[::-1]
    for task in (blocking, awaiting):
        found = dict(payloads(tmp_path, task.name))
        assert len(found) == 5, found
        assert {payload.data is not None for payload in found.values()} == {inline}
        assert {payload.blob is None for payload in found.values()} == {inline}
        assert all(SIZE < payload.size < SIZE + 100 for payload in found.values())


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_what_is_larger_than_any_value_may_be_is_refused(tmp_path: Path, engine: str) -> None:
    """`max_value_size` goes as far: for calls within a run as for its root, and says what to do instead."""
    config = load_config(home=tmp_path, pools=[Pool("only", engine=engine)], max_value_size=2048)
    with Session(config=config) as session:
        for task, what in ((grows, "arguments"), (remembers, "value"), (returns, "result")):
            assert session.run(task, 1000).result()
            said = rf"\(\): {what} of 2.9 KiB, more than the 2.0 KiB accepted \(max_value_size\)"
            with pytest.raises(SerializationError, match=said):
                session.run(task, 3000).result()
        with pytest.raises(SerializationError, match=r"arguments of 2\.9 KiB"):
            session.run(blocking, bytes(3000))
