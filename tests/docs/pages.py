"""The README and the pages of docs/ as pages of blocks, and how a page is run.

Decides which block is run, and how. A page's Python blocks are one program with the page's line numbers, run by a
Python of its own, as a reader would; those of the notebooks page are the cells of one.

    ```python               run; the blocks of a page go on from each other
    ```python file=NAME     written beside the page's program, for the commands and modules of the page
    ```text output          what the block before it prints, exactly
    ```bash                 run if it begins with ``flyteish``; anything else stands in EXCLUDED with its reason
    ```toml                 loaded as a configuration file; with ``file=NAME`` also written
    ```text, ```console, ```mermaid    shown only
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}

#: Beginnings of bash blocks that no test runs -> why.
EXCLUDED = {
    "python3.11 -m venv": "sets up a machine; .ci/run runs these very commands",
    "nox ": "runs the checks, of which this test is one",
    "python examples/": "tests/examples and `nox -s examples` run it",
}
SECONDS = 60
_FENCE = re.compile(r"^```(\w*) ?(.*)$")
_MARK = "\x1e"
#: Runs its arguments as the cells of a notebook.
_NOTEBOOK = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
for cell in sys.argv[1:]:
    shell.run_cell(cell).raise_error()
    print({_MARK!r}, end="", flush=True)
"""


class Block(NamedTuple):
    language: str
    info: str
    line: int
    """Of the opening fence, from 1."""
    text: str

    @property
    def file(self) -> str | None:
        return self.info.removeprefix("file=") if self.info.startswith("file=") else None

    @property
    def is_program(self) -> bool:
        return self.language == "python" and self.file is None

    @property
    def is_command(self) -> bool:
        return self.language == "bash" and self.text.startswith("flyteish ")


def blocks(page: str) -> list[Block]:
    return list(_blocks(PAGES[page].read_text(encoding="utf-8").splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    opened: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if opened is None and fence is not None:
            opened = number, fence
        elif opened is not None and line == "```":
            start, head = opened
            yield Block(head[1], head[2], start, "\n".join(lines[start : number - 1]) + "\n")
            opened = None


def _script(program: list[Block]) -> str:
    lines: list[str] = []
    for block in program:
        lines += [""] * (block.line - len(lines)) + block.text.splitlines()
        lines.append(f"print({_MARK!r}, end='', flush=True)")  # where the closing fence stands
    return "\n".join(lines) + "\n"


class Page:
    """A page being run: its files lie in ``folder``, its runs in a home of their own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.blocks = blocks(name)
        self.folder = folder
        self.printed: dict[int, str] = {}
        """By the line of the block that printed it."""
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        command = bin_folder / "flyteish"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m flyteish "$@"\n')
        command.chmod(0o755)
        self.environ = {
            **os.environ,
            "FLYTEISH_HOME": str(folder / "home"),
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONIOENCODING": "utf-8",
        }
        for block in self.blocks:
            if block.file is not None:
                (folder / block.file).write_text(block.text, encoding="utf-8")

    def run(self) -> None:
        """Run what is to be run: the program first, then the commands."""
        program = [block for block in self.blocks if block.is_program]
        if program:
            self._run_program(program)
        for block in self.blocks:
            if block.is_command:
                self.printed[block.line] = self._call(["sh", "-e", "-c", block.text], f"line {block.line}")

    def _run_program(self, program: list[Block]) -> None:
        if "notebook" in self.name:
            arguments = ["-c", _NOTEBOOK, *(block.text for block in program)]
        else:
            file = self.folder / f"page_{Path(self.name).stem}.py"
            file.write_text(_script(program), encoding="utf-8")
            arguments = [str(file)]
        texts = self._call([sys.executable, "-W", "error", *arguments], "its Python blocks").split(_MARK)
        self.printed.update(zip([block.line for block in program], texts, strict=False))

    def _call(self, command: list[str], what: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        said = f"{self.name}, {what}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        return done.stdout
