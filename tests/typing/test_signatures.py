"""Type checkers see tasks as the functions that they are: mypy is run on a file of claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_mypy_agrees_with_every_claim(tmp_path: Path) -> None:
    """Signatures survive decoration, overriding and tracing, and misspelt parameters are type errors."""
    options = ["--strict", "--explicit-package-bases", "--config-file=", f"--cache-dir={tmp_path}"]
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--follow-imports=silent", "tests/typing/signatures.py"],
        cwd=ROOT,
        env={"MYPYPATH": "src", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.stdout.startswith("Success"), finished.stdout + finished.stderr
