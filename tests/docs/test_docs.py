"""README and documentation are true: their code runs, prints what they say, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flyteish.config import load_config
from tests.docs import generated
from tests.docs.pages import EXCLUDED, PAGES, ROOT, Page, blocks

RUN = [page for page in PAGES if any(block.is_program or block.is_command for block in blocks(page))]


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    """All Python and ``flyteish`` blocks succeed, and every ``text output`` block is what the one before it prints."""
    shown = Page(page, tmp_path)
    shown.run()
    for before, block in zip(shown.blocks, shown.blocks[1:], strict=False):
        if (block.language, block.info) == ("text", "output"):
            assert shown.printed[before.line].rstrip() == block.text.rstrip(), f"{page}:{block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_checked(page: str) -> None:
    """Nothing passes because nobody looked: a block is run, loaded, compared, or excluded with a reason."""
    for block in blocks(page):
        where = f"{page}:{block.line}"
        assert block.language in ("python", "bash", "toml", "text", "mermaid"), where
        if block.language == "bash" and not block.is_command:
            assert block.text.startswith(tuple(EXCLUDED)), f"{where}: not run, and no reason given in EXCLUDED"


def test_no_exclusion_is_left_over() -> None:
    """Each reason for not running a block still has its block."""
    commands = [block.text for page in PAGES for block in blocks(page) if block.language == "bash"]
    assert [start for start in EXCLUDED if not any(text.startswith(start) for text in commands)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "toml" for b in blocks(page))])
def test_configuration_shown_is_accepted(page: str, tmp_path: Path) -> None:
    """Every ``toml`` block loads as a configuration file."""
    for block in blocks(page):
        if block.language == "toml":
            file = tmp_path / (block.file or "flyteish.toml")
            file.write_text(block.text, encoding="utf-8")
            load_config(cwd=tmp_path, environ={}, file=file)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative links name files that exist, and headings that they have."""
    text = PAGES[page].read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        file = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert file.exists(), f"{page} links to {target}"
        if heading:
            assert heading in _anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}"


def test_every_page_is_reachable_from_the_index() -> None:
    """docs/README.md lists all pages."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {f"docs/{target.partition('#')[0]}" for target in re.findall(r"\]\(([^)\s]+)\)", index)}
    assert [page for page in PAGES if page not in listed | {"README.md", "docs/README.md"}] == []


@pytest.mark.parametrize("page", generated.PAGES)
def test_generated_parts_are_current(page: str) -> None:
    """What is made from the code says what the code says; ``python -m tests.docs.generated`` writes it anew."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert generated.renewed(text) == text, "run: python -m tests.docs.generated"


def _anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
