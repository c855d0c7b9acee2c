"""The core decides and does nothing else: `src/flyteish/_core` is read here, not run.

The import contracts and ruff say part of this; this test also sees builtins, `await` and hidden state.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.sources import modules

CORE = "src/flyteish/_core"

# What the core may import: modules that touch nothing and give equal results for equal arguments.
PURE = {
    "__future__", "abc", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json",
    "math", "msgspec", "operator", "re", "statistics", "string", "struct", "textwrap", "types",
    "typing", "zlib",
}  # fmt: skip
OURS = ("flyteish._core", "flyteish.errors")

IMPURE_CALLS = {
    "open": "reads or writes a file",
    "print": "writes to the terminal",
    "input": "reads from the terminal",
    "breakpoint": "stops for a debugger",
    "exec": "runs text",
    "eval": "runs text",
    "__import__": "imports behind the contracts' back",
    "hash": "differs between processes for strings (the core's digests come from hashlib)",
}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef)


def impurities(tree: ast.Module) -> Iterator[str]:
    """What the code does that the core may not, each as "line: what"."""
    own_hashes = {id(call) for node in ast.walk(tree) if _is_hash_method(node) for call in ast.walk(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"{node.lineno}: imports {alias.name}" for alias in names if not _may_import(alias.name))
            case ast.ImportFrom(module=module) if not _may_import(module or ".", [a.name for a in node.names]):
                yield f"{node.lineno}: imports from {module}"
            case ast.Call(func=ast.Name(id="hash")) if id(node) in own_hashes:
                pass
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield f"{node.lineno}: {name}() {IMPURE_CALLS[name]}"
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=attribute):
                if (owner, attribute) in CLOCKS:
                    yield f"{node.lineno}: {owner}.{attribute} asks the clock; `now` is an argument"
            case ast.Global() | ast.Nonlocal():
                yield f"{node.lineno}: hidden state ({', '.join(node.names)})"
            case _ if isinstance(node, WAITS):
                yield f"{node.lineno}: waits ({type(node).__name__})"


def _may_import(module: str, names: list[str] | None = None) -> bool:
    if module == "flyteish":
        return all(_may_import(f"flyteish.{name}") for name in names or [""])
    return module.partition(".")[0] in PURE or any(module == ours or module.startswith(f"{ours}.") for ours in OURS)


def _is_hash_method(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__hash__"


def test_the_core_touches_nothing_outside_itself() -> None:
    """No module of the core imports, calls or awaits anything that could see or change the world."""
    core = [source for source in modules() if source.name.startswith(CORE)]
    assert core, f"no modules in {CORE}"
    assert [f"{source.name}:{found}" for source in core for found in impurities(source.tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "import os.path",
        "def f():\n    from random import random",
        "from flyteish import session",
        "from flyteish.stores.sqlite import Store",
        "import flyteish",
        "import flyteish._core_of_something_else",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import date\ndate.today()",
        "async def f(): ...",
        "with open('x'): ...",
        "print('decided')",
        "key = hash('name')",
        "def f():\n    global count",
    ],
)
def test_the_check_sees_impure_code(code: str) -> None:
    """Each way to reach the world that the check knows of is reported."""
    assert len(list(impurities(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations",
        "from collections.abc import Mapping",
        "from flyteish import errors",
        "from flyteish._core.model.ids import ActionKey",
        "from datetime import timedelta\nday = timedelta(days=1)",
        "class A:\n    def __hash__(self): return hash((self.x, self.y))",
        "file.open()",
    ],
)
def test_the_check_leaves_pure_code_alone(code: str) -> None:
    """What the core needs every day is not reported."""
    assert list(impurities(ast.parse(code))) == []


def test_phases_change_in_one_place() -> None:
    """`transitions/phases.move`, by the table in it; nothing else assigns an action's phase."""
    writers = {
        source.name
        for source in modules()
        for target in assigned(source.tree)
        if isinstance(target, ast.Attribute) and target.attr == "phase" and parts(target)[0] != "self"
    }
    assert writers == {f"{CORE}/transitions/phases.py"}


def test_nobody_else_writes_the_cores_state() -> None:
    """Outside of the core nothing assigns what hangs on a state: an event does it."""
    found = [
        f"{source.name}:{target.lineno}"
        for source in modules()
        if not source.name.startswith(CORE)
        for target in assigned(source.tree)
        if "state" in parts(target)[:-1] and parts(target)[-2:] != ["state", "[]"]
    ]
    assert found == []


def assigned(tree: ast.Module) -> Iterator[ast.expr]:
    """What is assigned, augmented, annotated with a value or deleted."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                yield from targets
            case ast.AugAssign(target=target):
                yield target
            case ast.AnnAssign(target=target, value=ast.expr()):
                yield target


def parts(target: ast.expr) -> list[str]:
    """``self.state.runs[x]`` as ``["self", "state", "runs", "[]"]``."""
    match target:
        case ast.Attribute(value=value, attr=attr):
            return [*parts(value), attr]
        case ast.Subscript(value=value):
            return [*parts(value), "[]"]
        case ast.Name(id=name):
            return [name]
    return ["?"]
