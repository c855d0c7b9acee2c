"""The lifecycle as a picture, drawn from the table: the docs show what the code does, and a test compares the two.

Text in, text out. Must not know anything that the table does not say.
"""

from __future__ import annotations

from collections.abc import Mapping

from flyteish._core.model.records import TERMINAL, Phase
from flyteish._core.transitions.phases import MOVES


def mermaid(moves: Mapping[Phase, frozenset[Phase]] = MOVES) -> str:
    """A Mermaid state diagram. Ends that every unfinished phase may reach are drawn once, from a box around them."""
    living = [phase for phase in moves if phase not in TERMINAL]
    common = sorted(frozenset.intersection(*(moves[phase] for phase in living)) & TERMINAL)
    lines = ["stateDiagram-v2", "    [*] --> entering", "    state unfinished {"]
    lines += [f"        {phase} --> {after}" for phase in living for after in sorted(moves[phase] - TERMINAL)]
    lines += ["    }", *(f"    unfinished --> {end}" for end in common)]
    for phase in living:
        lines += [f"    {phase} --> {end}" for end in sorted((moves[phase] & TERMINAL) - frozenset(common))]
    lines += [f"    {end} --> [*]" for end in sorted(TERMINAL)]
    return "\n".join(lines) + "\n"


def table(moves: Mapping[Phase, frozenset[Phase]] = MOVES) -> str:
    """The same as a Markdown table."""
    rows = [f"| `{phase}` | {', '.join(f'`{after}`' for after in sorted(moves[phase])) or '-'} |" for phase in moves]
    return "\n".join(["| phase | may become |", "|---|---|", *rows]) + "\n"
