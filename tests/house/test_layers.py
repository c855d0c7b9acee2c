"""The rooms: the layer contracts that the build checks, and the architecture page, name the same ones."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from tests.house.sources import ROOT, modules

PAGE = "docs/concepts/architecture.md"
# By the container of a layer contract: the words above its table on the page.
TABLES = {
    "flyteish": "## The rooms",
    "flyteish._core": "Inside `_core`:",
    "flyteish._authoring": "Inside `_authoring`:",
}


def test_the_architecture_page_has_the_rooms_of_the_layer_contract() -> None:
    """Every room, on its floor, with what it is for; rooms that do not know each other share a floor."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    contracts = layers()
    for container, heading in TABLES.items():
        assert table_below(heading, page) == floors(contracts[container]), container


def test_layer_contracts_are_exhaustive() -> None:
    """A new module that no layer names fails the build, in every room that has layers; none is left out."""
    found = [each for each in contracts() if each["type"] == "layers"]
    assert [each["name"] for each in found if not each.get("exhaustive") or each.get("exhaustive_ignores")] == []
    assert [each["name"] for each in found if each.get("ignore_imports")] == []


def test_every_room_has_layers() -> None:
    """A folder with more than one module says in which order they stand."""
    source = ROOT / "src" / "flyteish"
    rooms = [path.parent for path in source.rglob("__init__.py")]
    several = {".".join(room.relative_to(source.parent).parts) for room in rooms if len(members(room)) > 1}
    assert several - layers().keys() == set()


def test_circles_are_looked_for_everywhere() -> None:
    """From the top to the last room; an exception that is needed no more fails the build."""
    (circles,) = (each for each in contracts() if each["type"] == "acyclic_siblings")
    assert circles["ancestors"] == ["flyteish"]
    assert not circles.keys() & {"skip_descendants", "depth", "unmatched_ignore_imports_alerting"}


def test_nothing_imports_the_package_that_it_is_in() -> None:
    """That would be a circle, too, by way of what the package's `__init__` imports; import-linter does not see it."""
    found = []
    for source in modules():
        here = source.name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and here.startswith(f"{node.module}."):
                # `from flyteish._worker import messages` is of a module: the package is no more than its place.
                place = ROOT / "src" / str(node.module).replace(".", "/")
                found += [
                    f"{source.name}:{node.lineno}"
                    for name in node.names
                    if not (place / f"{name.name}.py").is_file() and not (place / name.name).is_dir()
                ]
    assert found == []


def test_layer_contracts_name_what_there_is() -> None:
    """No layer is left of a module that went."""
    for container, rows in layers().items():
        place = ROOT / "src" / container.replace(".", "/")
        assert {name for row in rows for name in row} == members(place), container


def test_tests_mirror_the_rooms() -> None:
    """A room's tests stand in the folder of its name; what is asked of several rooms is named in tests/README.md."""
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    across = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert folders("tests") - across - mirrored("src/flyteish") == set()
    assert across <= folders("tests"), "named, and not there any more"
    for inside in ("core", "authoring", "engines", "io", "blobs", "stores", "testing"):
        room = "src/flyteish/" + (inside if (ROOT / "src/flyteish" / inside).is_dir() else f"_{inside}")
        assert folders(f"tests/{inside}") - mirrored(room) == set(), inside


def folders(place: str) -> set[str]:
    start = ROOT / place
    return {path.name for path in start.iterdir() if (path / "__init__.py").is_file()} if start.is_dir() else set()


def mirrored(place: str) -> set[str]:
    """Modules and packages there, with and without the underscore that says that they are ours alone."""
    names = {path.stem for path in (ROOT / place).iterdir() if path.suffix == ".py"} | folders(place)
    return names | {name.lstrip("_") for name in names}


def members(room: Path) -> set[str]:
    """Modules and packages in a room."""
    here = {path.stem for path in room.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return here - {"__init__"}


def contracts() -> list[dict[str, Any]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return found


def layers() -> dict[str, list[list[str]]]:
    """Top to bottom, by container."""
    return {
        container: [[name.strip() for name in re.split(r"[|:]", row)] for row in each["layers"]]
        for each in contracts()
        if each["type"] == "layers"
        for container in each["containers"]
    }


def floors(rows: list[list[str]]) -> list[tuple[int, str]]:
    return [(floor, name) for floor, row in zip(range(len(rows), 0, -1), rows, strict=True) for name in row]


def table_below(heading: str, page: str) -> list[tuple[int, str]]:
    """Floor and room of each row; a row that does not say what its room is for is none."""
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, f"{PAGE} has no {heading!r}"
    table = re.search(r"^\|.*?(?=^[^|]|\Z)", rest, re.MULTILINE | re.DOTALL)
    assert table, f"{PAGE}: no table below {heading!r}"
    return [(int(floor), name) for floor, name in re.findall(r"^\| (\d+) \| `(\w+)` \| \S", table[0], re.MULTILINE)]
