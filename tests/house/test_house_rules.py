"""House rules that no linter knows: size, explanations, nothing left undone, nothing of one machine only."""

from __future__ import annotations

import ast
import re
import tomllib

from tests.house.sources import ROOT, functions, modules, texts

FILE_LINES = 400
FUNCTION_LINES = 60

# Each entry: the file, and why it is better long. Empty is the goal.
LONG_FILES: dict[str, str] = {}

# Who may read the environment, and why. Everybody else gets a value.
ENVIRONMENT_READERS = {
    "src/flyteish/config.py": "turns files and environment into Config",
    "src/flyteish/_worker/variables.py": "gives each attempt of a worker process its variables",
    "src/flyteish/engines/inline/scoped_environ.py": "gives each attempt in this process its variables",
}

# Classes there are named as in the program that they stand in for.
SPEAKS_FOR_OTHERS = "src/flyteish/compat/"

EVERYWHERE = (
    "src",
    "tests",
    "docs",
    "examples",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "noxfile.py",
)
# The folder that lies beside the checkout on some machines, as a path in text or joined in code.
NEIGHBOUR = re.compile(r"""\.\./shared\b|/\s*["']shared\b""")


def test_every_module_says_what_it_decides_and_what_it_must_not_know() -> None:
    """A module of the library opens with a docstring of at least two sentences."""
    short = [source.name for source in modules() if sentences(ast.get_docstring(source.tree) or "") < 2]
    assert short == []


def test_no_file_is_too_long_to_read() -> None:
    """A module of the library has at most 400 lines, or a reason in the list above."""
    lengths = {source.name: source.text.count("\n") for source in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES and name not in LONG_FILES} == {}
    assert [name for name in LONG_FILES if lengths.get(name, 0) <= FILE_LINES] == [], "a reason that is needed no more"


def test_no_function_is_too_long_to_read() -> None:
    """A function of the library has at most 60 lines; its docstring is not counted."""
    long = [
        f"{source.name}:{function.lineno} {function.name}: {code_lines(function)} lines"
        for source in modules()
        for function in functions(source.tree)
        if code_lines(function) > FUNCTION_LINES
    ]
    assert long == []


def test_no_two_public_classes_have_one_name() -> None:
    """A name in a traceback, a log or a search stands for one thing; one that others wrote keeps theirs."""
    homes: dict[str, list[str]] = {}
    for source in modules():
        if not source.name.startswith(SPEAKS_FOR_OTHERS):
            for node in ast.walk(source.tree):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(source.name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_nothing_is_left_undone() -> None:
    """The library holds no notes to self and no functions that only promise."""
    undone = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [name for name, text in texts("src") if undone.search(text)] == []


def test_only_the_configuration_reads_the_environment() -> None:
    """`os.environ` and `os.getenv` appear in the configuration and in nothing below or above it."""
    environment = re.compile(r"\b(environ|getenvb?|environb)\b")
    readers = {source.name for source in modules() if any(environment.search(name) for name in names(source.tree))}
    assert readers - ENVIRONMENT_READERS.keys() == set()


def test_nothing_depends_on_files_beside_the_checkout() -> None:
    """Only tests and benchmarks may look for recorded data beside the checkout, and they skip where it is absent."""
    mentions = {name: text for name, text in texts(*EVERYWHERE) if NEIGHBOUR.search(text)}
    assert [name for name in mentions if not name.startswith("tests/")] == []
    assert [name for name, text in mentions.items() if "skip" not in text] == []


def test_the_lock_has_every_dependency_and_no_address() -> None:
    """requirements.lock pins every dependency of pyproject.toml and does not say where packages come from."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    pinned = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    assert {distribution(requirement) for requirement in wanted} - pinned - {"flyteish"} == set()
    assert "://" not in lock


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?][\"'`)\]]*(?=\s|$)", text))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def names(tree: ast.Module) -> set[str]:
    """The names that code uses: variables, attributes, imports. Not what stands in comments and strings."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
    return found


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_pickles_are_read_in_one_place() -> None:
    """Where old names are known; whoever calls it has asked whether that is allowed."""
    reads = {
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "cloudpickle.load",
        "cloudpickle.loads",
        "marshal.loads",
    }
    found = {
        source.name
        for source in modules()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in reads
    }
    assert found == {"src/flyteish/_authoring/values/unpickling.py"}
