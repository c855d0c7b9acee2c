"""A home that somebody has edited, and results that a worker has made up: what is in them runs nothing.

Everything here is done to the journal of a real session; then another one opens it with ``allow_pickle = false``.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from msgspec.msgpack import Ext

from flyteish import Session, TaskEnvironment, errors
from flyteish._authoring.values import kinds
from flyteish.blobs import open_blobs
from flyteish.config import load_config

env = TaskEnvironment(name="forged")
FIRED: list[str] = []
SUBMISSION = {"RunSubmitted", "ActionSubmitted", "TaskDeclared"}
MARK = "the mark that is replaced"
write = msgspec.msgpack.encode


def sing(*_: Any, **__: Any) -> None:
    FIRED.append("sang")


class Bomb:
    def __reduce__(self) -> Any:
        return sing, ()


def _named(name: str) -> Ext:
    return Ext(kinds.REFERENCE.code, write(name))


FORGED = {
    "an enum that is a function": write(Ext(29, write([_named("os:system"), None, "true"]))),
    "an enum that is this function": write(Ext(29, write([_named(f"{__name__}:sing"), None, "x"]))),
    "a class that says how it travels": write(Ext(33, write([_named(f"{__name__}:sing"), {}, "x"]))),
    "a struct that is a process": write(Ext(31, write([_named("subprocess:Popen"), {"args": "true"}]))),
    "a class of a module that nobody imported": write(Ext(30, write([_named("a_forged_module:Thing"), {}]))),
    "a pickle": write(Ext(6, write(pickle.dumps(Bomb())))),
    "an array of objects that are pickled": write(Ext(40, write(b"\x93NUMPY\x01\x00" + pickle.dumps(Bomb())))),
    "no value at all": b"\xc1",
}


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "a_forged_module.py").write_text(f"import {__name__} as t\nt.FIRED.append('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(os, "system", sing)
    FIRED.clear()
    yield
    assert FIRED == []
    assert "a_forged_module" not in sys.modules


@env.task
async def marked() -> str:
    return MARK


@env.task
async def takes(text: str) -> str:
    return "taken"


@env.task
async def fails() -> str:
    raise KeyError(MARK)


def _session(home: Path) -> Session:
    return Session(config=load_config(home=home, durability="process", allow_pickle=False))


def _edit(home: Path, edit: Callable[[Any], Any], *, to_be_taken_up: bool = False) -> int:
    """Put every piece of the journal through ``edit``; returns how many it changed. Checksums are made to fit.

    ``to_be_taken_up``: all that came after the submission is forgotten, too.
    """
    changed = 0

    def walk(piece: Any) -> Any:
        nonlocal changed
        new = edit(piece)
        if new is not piece:
            changed += 1
            return new
        if isinstance(piece, list):
            return [walk(each) for each in piece]
        return {key: walk(each) for key, each in piece.items()} if isinstance(piece, dict) else piece

    with closing(sqlite3.connect(home / "flyteish.db")) as db, db:
        for rowid, data in db.execute("SELECT rowid, data FROM segments").fetchall():
            entries = msgspec.msgpack.decode(data)
            if to_be_taken_up:
                entries = [entry for entry in entries if entry[1][0] in SUBMISSION]
            data = write(walk(entries))
            change = "UPDATE segments SET data = ?, crc = ?, count = ? WHERE rowid = ?"
            db.execute(change, (data, crc32(data), len(entries), rowid))
        db.execute("DELETE FROM segments WHERE count = 0")
        if to_be_taken_up:
            db.execute("UPDATE runs SET phase = 'running', ended_at = NULL")
    return changed


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_result_is_an_error_and_nothing_else(tmp_path: Path, forged: str) -> None:
    """Read again by a session of its own."""
    home = tmp_path / "home"
    with _session(home) as session:
        run = session.run(marked)
        assert run.result(30) == MARK
    true = write(MARK)
    assert _edit(home, lambda piece: FORGED[forged] if piece == true else piece)
    with _session(home) as session, pytest.raises(errors.SerializationError):
        session.resume(run.name, marked).result(30)


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_input_fails_its_task_before_that_begins(tmp_path: Path, forged: str) -> None:
    """Of a run that another session takes up."""
    home = tmp_path / "home"
    with _session(home) as session:
        run = session.run(takes, MARK)
        assert run.result(30) == "taken"
    true, false = write({"text": MARK}), b"\x81" + write("text") + FORGED[forged]
    assert _edit(home, lambda piece: false if piece == true else piece, to_be_taken_up=True)
    with _session(home) as session, pytest.raises(errors.SerializationError):
        session.resume(run.name, takes).result(30)


@pytest.mark.parametrize("name", ["os.system", "a_forged_module.Thing", f"{__name__}.sing", f"{__name__}.Bomb"])
def test_a_forged_error_is_told_and_not_called(tmp_path: Path, name: str) -> None:
    """Its text arrives, as that of an error whose class is not known here."""
    home = tmp_path / "home"
    with _session(home) as session:
        run = session.run(fails)
        with pytest.raises(KeyError):
            run.result(30)
    assert _edit(home, lambda piece: name if piece == "builtins.KeyError" else piece)
    with _session(home) as session, pytest.raises(errors.RemoteTaskError, match=MARK):
        session.resume(run.name, fails).result(30)


def test_a_blob_that_was_exchanged_is_not_unpickled(tmp_path: Path) -> None:
    """A large result lies in the store; its address now leads to a pickle."""
    home = tmp_path / "home"
    with _session(home) as session:
        run = session.run(returns_much)
        assert len(run.result(30)) == 400_000
    store = next(path for path in home.rglob("blobs") if path.is_dir())
    address = open_blobs(f"file://{store}").blocking.put(FORGED["a pickle"])
    assert _edit(home, lambda piece: address if str(piece).startswith("sha256:") else piece)
    with _session(home) as session, pytest.raises(errors.SerializationError, match="pickling is refused"):
        session.resume(run.name, returns_much).result(30)


def test_a_run_whose_task_was_exchanged_for_a_pickle_is_not_taken_up(tmp_path: Path) -> None:
    """The journal says now that the task travels by value; ``resume`` is to find it itself."""
    home = tmp_path / "home"
    with _session(home) as session:
        run = session.run(takes, MARK)
        assert run.result(30) == "taken"
    store = next(path for path in home.rglob("blobs") if path.is_dir())
    address = open_blobs(f"file://{store}").blocking.put(pickle.dumps(Bomb()))

    def exchange(piece: Any) -> Any:
        is_reference = isinstance(piece, dict) and piece.keys() == {"module", "name"}
        return {**piece, "by_value": address} if is_reference else piece

    assert _edit(home, exchange, to_be_taken_up=True)
    with _session(home) as session, pytest.raises(errors.TaskNotImportableError, match="pickling is refused"):
        session.resume(run.name)


@env.task
async def returns_much() -> str:
    return "x" * 400_000


def test_the_canaries_sing_where_pickling_is_allowed() -> None:
    """Otherwise the tests above would prove nothing."""
    codec = importlib.import_module("flyteish._authoring.values.codec").Codec("x")
    codec.decode(FORGED["a pickle"])
    assert FIRED == ["sang"]
    FIRED.clear()
