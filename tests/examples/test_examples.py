"""Every example runs as a reader would run it; the main job, which takes half a minute, runs in small here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyteish import Run, Session, testing

ROOT = Path(__file__).parents[2]
MAIN_JOB = "spot_training.py"  # in full: `nox -s examples`
QUICK = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != MAIN_JOB)
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "PYTHONWARNINGS": "error"}


@pytest.mark.parametrize("name", QUICK)
def test_an_example_runs_and_has_nothing_to_complain_of(name: str, flyteish_home: Path) -> None:
    """Exit code 0, something on standard output, nothing on standard error."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}"],
        cwd=ROOT, env={**ENVIRON, "FLYTEISH_HOME": str(flyteish_home)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_main_job_learns_to_read_digits_whatever_the_market_does() -> None:
    """Two reclaims in eight epochs, and it still reads nine of ten digits that it never saw."""
    from examples import spot_training

    with testing.spot_session([0.3, 0.3], notice_seconds=0.5) as session:
        run = session.run(spot_training.train, *spot_training.digits(), epochs=8)
        assert run.result(60) > 0.9
        spot_training.report(run, run.result())


@pytest.mark.slow
def test_the_main_job_goes_on_after_ctrl_c(flyteish_home: Path, tmp_path: Path) -> None:
    """Stopped after its first checkpoint, it names the command, and the command finishes the work from there."""
    script = tmp_path / "short.py"
    script.write_text(
        "import asyncio\n"
        "from examples import spot_training\n"
        "spot_training.EPOCHS = 160\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(spot_training.main())\n"
    )
    environ = {**ENVIRON, "FLYTEISH_HOME": str(flyteish_home)}
    with subprocess.Popen(
        [sys.executable, "-u", str(script)],
        cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as job:  # fmt: skip
        assert job.stdout is not None
        said = ""
        while not re.search(r"\([1-9]\d* checkpoints so far", said):
            line = job.stdout.readline()
            assert line, said
            said += line
        os.killpg(job.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
        said += job.communicate(timeout=60)[0]
    name = said.split()[1]
    assert f"flyteish resume {name}" in said
    with Session() as session:
        run: Run[float] = session.resume(name)
        assert run.result(120) > 0.9
        (action,) = run.actions()
        assert action.checkpoints[-1].progress == 1.0
        assert sum(attempt.charged == "retries" for attempt in action.attempts) == 0
