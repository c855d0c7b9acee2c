"""The project's own files, read as text and as syntax trees, for the checks of this folder.

Knows where things lie, and nothing of what is allowed in them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    ".py",
    ".md",
    ".toml",
    ".sql",
    ".html",
    ".js",
    ".css",
    ".yaml",
    ".yml",
    ".json",
    ".cfg",
    ".ini",
    ".txt",
}


class Source(NamedTuple):
    """One file: where it lies from the root, and its text."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)


@cache
def modules(folder: str = "src") -> tuple[Source, ...]:
    """Every Python module below a folder of the project."""
    return tuple(Source(_name(path), path.read_text(encoding="utf-8")) for path in _files(folder, {".py"}))


@cache
def texts(*places: str) -> tuple[Source, ...]:
    """Every file of text in the given folders and files of the project; a place that is missing has none."""
    return tuple(
        Source(_name(path), path.read_text(encoding="utf-8")) for place in places for path in _files(place, TEXTS)
    )


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _files(place: str, suffixes: set[str]) -> list[Path]:
    start = ROOT / place
    found = start.rglob("*") if start.is_dir() else [start]
    return sorted(path for path in found if path.suffix in suffixes and path.is_file())


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
