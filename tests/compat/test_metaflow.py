"""Metaflow's page on spot instances comes true: the loop inside its step hears of the notice, as a task's body."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

import flyteish
from flyteish import Pool, Session, ctx, testing
from tests.compat.attempts import PATIENCE, ends, root
from tests.compat.seeds import OURS, code_blocks

SHORT = {"time.sleep(1)": "time.sleep(0.01)"}


def step(origin: str, changes: dict[str, str]) -> str:
    """The step's body: what stands between ``def start`` and ``self.next``, with faster clocks."""
    code = (OURS / "metaflow_step.py").read_text() if origin == "ours" else code_blocks("metaflow_step")[0]
    body = code.partition("def start(")[2].partition("\n")[2].partition("self.next(")[0].rstrip()
    for old, new in changes.items():
        assert old in body
        body = body.replace(old, new)
    return textwrap.indent(textwrap.dedent(body), "    ")


def task(origin: str, folder: Path, changes: dict[str, str]) -> flyteish.SyncTask:
    """A program whose one task has that body."""
    head = "import os\nimport time\nimport flyteish\nfrom flyteish import current\n"
    declared = (
        "env = flyteish.TaskEnvironment('flow', interruptible=True, retries=1)\n\n@env.task\ndef start() -> None:\n"
    )
    code = f"{head}{declared}{step(origin, changes)}\n"
    namespace: dict = {"__name__": "flow"}
    exec(compile(code, str(folder / "flow.py"), "exec"), namespace)
    return namespace["start"]


@pytest.mark.parametrize("origin", ["ours", "page"])
def test_the_loop_hears_of_the_notice(origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The market's notice makes the file, the loop breaks, and what is done within the grace period counts."""
    start = task(origin, tmp_path, SHORT)
    with testing.spot_session([0.1], notice_seconds=PATIENCE) as session:
        run = session.run(start)
        assert run.result(PATIENCE) is None
        assert ends(run) == ["succeeded"]
        (attempt,) = root(run).attempts
        assert (attempt.medium, attempt.notice) == ("spot", "terminate")
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["SPOT TERMINATION DETECTED...", "Task completed or interrupted."]


@pytest.mark.parametrize("origin", ["ours", "page"])
def test_the_loop_ends_by_itself_where_no_notice_comes(
    origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a notice there is no such file, and the work is done in full."""
    start = task(origin, tmp_path, {**SHORT, "< 300": "< 0.05"})
    with testing.spot_session() as session:
        assert session.run(start).result(PATIENCE) is None
    printed = capsys.readouterr().out
    assert "DETECTED" not in printed
    assert printed.splitlines()[-1] == "Task completed or interrupted."


env = flyteish.TaskEnvironment("cleaning", interruptible=True, retries=1)


@env.task
def looks_for_it() -> str:
    saved = ctx().checkpoint.read()
    while saved is None:
        time.sleep(0.01)
        if os.path.exists(flyteish.current.spot_termination_notice):
            ctx().checkpoint.write(b"what was done")
            raise InterruptedError("go on elsewhere")
    return saved.decode()


def test_a_worker_process_hears_of_it_too() -> None:
    """The file is there for a process that will be killed, which saves its work; the next attempt has it."""
    # A busy machine may take a first worker's whole lifetime to start it.
    with testing.spot_session([0.5, 5.0], notice_seconds=5.0, engine="processes") as session:
        run = session.run(looks_for_it)
        assert run.result(PATIENCE) == "what was done"
        assert ends(run)[-2:] == ["preempted", "succeeded"]


def test_outside_a_task_it_says_so() -> None:
    """There is no such file where no task runs; the module and the object say the same."""
    import flyteish.current as module

    for current in (flyteish.current, module):
        with pytest.raises(AttributeError, match="only available inside a running task"):
            _ = current.spot_termination_notice


def test_pools_that_are_not_spot_give_no_notice(tmp_path: Path) -> None:
    """On an on-demand machine the path can be asked for all the same."""
    start = task("ours", tmp_path, {**SHORT, "< 300": "< 0.05"})
    with Session(pools=[Pool("only")], durability="memory") as session:
        assert session.run(start.override(interruptible=False)).result(PATIENCE) is None
