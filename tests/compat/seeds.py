"""The programs of other systems' own pages, as modules: read beside the checkout, or equivalents of ours.

Knows how code stands in those pages: among prose, in one of them without its indentation. Changes nothing but the
import, and what a test asks to be changed.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).resolve().parents[2] / "../shared/seeds"
OURS = Path(__file__).parent / "programs"
#: Program -> the page that it is from, and which of its blocks.
NAMES = {
    "flyte_1": ("flyte1-spot-instances.txt", slice(None)),
    "flyte_1_older": ("flyte1-howto-interruptible-old.txt", slice(None)),
    "flyte_2": ("flyte2-interruptible-tasks.txt", slice(None)),
    "flyte_2_older": ("flyte2-interruptible-and-queues-older.txt", slice(0, 4)),
    "flyte_2_queue": ("flyte2-interruptible-and-queues-older.txt", slice(4, 5)),
    "flyte_2_queues": ("flyte2-interruptible-and-queues-older.txt", slice(5, 6)),
    "metaflow_step": ("metaflow-spot-instances.txt", slice(None)),
}
IMPORTS = {
    "import flyte\n": "import flyteish as flyte\n",
    "from flytekit import": "from flyteish.compat.flytekit import",
    "from flytekit.exceptions": "from flyteish.compat.flytekit.exceptions",
}
_START = re.compile(r"import |from \w+[.\w]* import|@")
_GOES_ON = re.compile(
    r"$|\s|import |from |@|#|\)|(async )?def |env = |name=|queue=|interruptible=|return |processed = "
)
_GLUED = re.compile(r"(?<=[})\"])(?=(?:Setting|You|Behavior|Retries|If)\b)")


def page(name: str) -> str:
    """The page's text; skips the test where there is none."""
    file = PAGES / NAMES[name][0]
    if not file.exists():
        pytest.skip("no pages of other systems beside the checkout")
    return file.read_text(encoding="utf-8")


def code_blocks(name: str) -> list[str]:
    """The page's Python blocks, with their imports changed."""
    text = page(name)
    if "```python" in text:
        found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    elif ".. code-block:: python" in text:
        found = [
            textwrap.dedent(each) for each in re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text + "\n")
        ]
    else:
        found = list(_among_prose(_GLUED.sub("\n", text).splitlines()))
    if not any(line.startswith("    ") for block in found for line in block.splitlines()):
        found = [_indented(block) for block in found]
    return [_here(block) for block in found[NAMES[name][1]]]


def program(origin: str, name: str, folder: Path, header: str = "", changes: dict[str, str] | None = None) -> Any:
    """The page's program as a module: its blocks one after the other.

    ``origin`` is ``page`` or ``ours``. ``header`` is what a page leaves out, ``changes`` are texts to be replaced.
    """
    if origin == "ours":
        code = (OURS / f"{name}.py").read_text(encoding="utf-8")
    else:
        code = header + "\n\n".join(code_blocks(name))
    for old, new in (changes or {}).items():
        assert old in code, f"{old!r} is not in the program any more"
        code = code.replace(old, new)
    file = folder / f"{name}_of_{origin}.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[file.stem]
    return module


def _here(block: str) -> str:
    for old, new in IMPORTS.items():
        block = block.replace(old, new)
    return block


def _among_prose(lines: list[str]) -> list[str]:
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if inside and not _GOES_ON.match(line):
            inside = False
        elif not inside and _START.match(line):
            inside = True
            blocks.append([])
        if inside:
            blocks[-1].append(line)
    return ["\n".join(block).strip() + "\n" for block in blocks]


def _indented(block: str) -> str:
    """What the page lost: the indentation of arguments and bodies. A body ends with its ``return``."""
    lines, depth = [], 0
    for line in block.splitlines():
        depth = 0 if line == ")" else depth
        lines.append("    " * depth + line)
        if line.startswith(("def ", "async def ")) or line.endswith("("):
            depth = 1
        elif line.startswith("return "):
            depth = 0
    return "\n".join(lines) + "\n"
