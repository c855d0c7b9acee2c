"""The parts of the documentation that are made from the code, and ``python -m tests.docs.generated`` to write them.

A page has such parts between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Decides how each looks; what they say
is the code's to say.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, get_args

import flyteish
from flyteish import config, errors
from flyteish._authoring.attempt.checkpoint import Checkpoint
from flyteish._authoring.attempt.context import AttemptContext
from flyteish._authoring.attempt.interruption import Interruption
from flyteish._core.billing.cost_summary import CostSummary
from flyteish._core.model import events, queues, setting_rules, settings
from flyteish._core.model.records import Phase
from flyteish._core.rules import placement, retries
from flyteish._core.transitions import phases as phase_table
from flyteish.cli import exit_codes, parser
from flyteish.session import Run
from tests.docs.pages import PAGES as ALL_PAGES
from tests.docs.pages import ROOT

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The page's text with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]().strip()}\n{part[3]}", text)


# -- the parts -------------------------------------------------------------------------------------------------------


def settings_matrix() -> str:
    levels = {
        "TaskEnvironment": settings.Level.ENVIRONMENT,
        "@env.task": settings.Level.TASK,
        ".override()": settings.Level.OVERRIDE,
        "with_runcontext": settings.Level.RUN,
    }
    rows = [["`name`", "required", "-", "-", "-", "snake_case or kebab-case"]]
    rows += [[f"`{name}`", "yes", "-", "-", "-", text] for name, text in setting_rules.ENVIRONMENT_ONLY.items()]
    for field in setting_rules.FIELDS:
        rows.append([f"`{field.name}`", *["yes" if each in field.levels else "-" for each in levels.values()]])
        rows[-1].append(field.meaning)
    return _table(["setting", *levels, "meaning"], rows)


def error_tree() -> str:
    tree = (errors.__doc__ or "").partition("\n\n    FlyteishError")[2]
    return "```text\n" + textwrap.dedent("    FlyteishError" + tree).replace("``", "").rstrip() + "\n```"


def error_meanings() -> str:
    return "\n".join(f"- `{name}`: {_first(getattr(errors, name))}" for name in errors.__all__)


def who_pays() -> str:
    words = {
        "retries": "`retries`",
        "system_retries": "`system_retries`",
        "preemptions": "nobody: counted, not charged",
        "none": "nobody: not counted",
        "fails": "-, it fails at once",
        "ends": "-, it is over",
    }
    return _table(["the attempt's end", "pays"], [[end.value, words[budget]] for end, budget in retries.PAYS.items()])


def placement_rules() -> str:
    return _table(["rule", "medium", "if"], [[f"`{rule.name}`", rule.medium, rule.holds] for rule in placement.RULES])


def configuration() -> str:
    plain = {name: field for name, field in config._File.model_fields.items() if name in config._PLAIN}
    meanings = _attribute_docs(config.Config)
    rows = [[f"`{name}`", f"`FLYTEISH_{name.upper()}`", meanings[name]] for name in plain]
    return _table(["key", "variable", "meaning"], rows)


def pool_keys() -> str:
    return _table(["key", "meaning"], _arguments(queues.Pool, config._Pool))


def queue_keys() -> str:
    return _table(["key", "meaning"], _arguments(queues.Queue, config._Queue))


def commands() -> str:
    return "\n\n".join(_command(each) for each in _leaves(parser.build()))


def exit_code_table() -> str:
    return _table(["code", "meaning"], [[str(code.value), text] for code, text in exit_codes.MEANINGS.items()])


def event_table() -> str:
    return "\n\n".join(_event(kind) for kind in get_args(events.RunEvent))


def lifecycle_diagram() -> str:
    at_work = [phase for phase in Phase if phase_table.MOVES[phase] and phase is not Phase.DORMANT]
    everywhere = frozenset.intersection(*(phase_table.MOVES[phase] for phase in at_work))
    own = [(phase, to) for phase in at_work for to in _in_order(phase_table.MOVES[phase] - everywhere)]
    lines = ["stateDiagram-v2", "    state unfinished {", "        [*] --> entering"]
    lines += [f"        {phase} --> {to}" for phase, to in own if to in at_work]
    lines += ["    }"]
    lines += [f"    {phase} --> {to}" for phase, to in own if to not in at_work]
    lines += [f"    unfinished --> {to}" for to in _in_order(everywhere)]
    lines += [f"    {Phase.DORMANT} --> {to}" for to in _in_order(phase_table.MOVES[Phase.DORMANT])]
    return "\n".join(["```mermaid", *lines, "```"])


def phases() -> str:
    meanings = _attribute_docs(Phase)
    rows = []
    for phase in Phase:
        followers = ", ".join(_in_order(phase_table.MOVES[phase]))
        rows.append([f"`{phase}`", meanings.get(phase.name, "-"), followers or "-"])
    return _table(["phase", "meaning", "may become"], rows)


def _in_order(some: Iterable[Phase]) -> list[Phase]:
    return sorted(some, key=list(Phase).index)


def run_members() -> str:
    return _members(Run, skip=("finish", "changed", "loop_ends", "record", "journal"))


def context_members() -> str:
    return _members(AttemptContext, skip=("occurrence", "packing", "is_packing", "scratch", "close"))


def checkpoint_members() -> str:
    return _members(Checkpoint, skip=("save_since", "restoring"))


def interruption_members() -> str:
    return _members(Interruption, skip=("notify", "close"))


def cost_fields() -> str:
    return ", ".join(f"`{name}`" for name in CostSummary.__struct_fields__)


def public_names() -> str:
    things = {name: getattr(flyteish, name) for name in flyteish.__all__ if name != "__version__"}
    things["map"] = type(flyteish.map).__call__
    return _table(["name", "what it is"], [[f"`{name}`", _first(thing)] for name, thing in things.items()])


PARTS: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        settings_matrix, error_tree, error_meanings, who_pays, placement_rules, configuration, pool_keys, queue_keys,
        commands,
        exit_code_table, event_table, lifecycle_diagram, phases, public_names, run_members, context_members,
        checkpoint_members, interruption_members, cost_fields,
    )
}  # fmt: skip
PAGES = [page for page, path in ALL_PAGES.items() if _PART.search(path.read_text(encoding="utf-8"))]


# -- reading the code ------------------------------------------------------------------------------------------------


def _first(thing: Any) -> str:
    """The docstring's first sentence or paragraph, in Markdown."""
    documented = thing if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing) else type(thing)
    text = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return re.sub(r" \(spec: [^)]*\)", "", text).replace("``", "`").rstrip(".")


def _members(kind: type, skip: tuple[str, ...] = ()) -> str:
    """The public methods and properties of a class, each with the first sentence of its docstring."""
    rows = []
    for name, member in ((name, member) for each in kind.__mro__[:-1] for name, member in vars(each).items()):
        if name.startswith("_") or name in skip or not (callable(member) or isinstance(member, property)):
            continue
        call = (
            "" if isinstance(member, property) else "(...)" if len(inspect.signature(member).parameters) > 1 else "()"
        )
        wait = "await " if inspect.iscoroutinefunction(member) else ""
        rows.append([f"`{wait}{name}{call}`", _first(member.fget if isinstance(member, property) else member)])
    return _table(["", "what it is"], rows)


def _attribute_docs(kind: type) -> dict[str, str]:
    """The strings that stand below the attributes of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found, named = {}, ""
    for each in body.body:
        match each:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                named = name
            case ast.Expr(value=ast.Constant(value=str(text))) if named:
                found[named] = " ".join(text.split()).replace("``", "`")
    return found


def _arguments(documented: type, table: Any) -> list[list[str]]:
    """The keys of a table in a file, with what the object's docstring says of the argument."""
    text = inspect.getdoc(documented) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\w|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    said: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", textwrap.indent(textwrap.dedent(section[1]), "    ")):
        names, _, meaning = entry.strip().partition(": ")
        for name in names.split(", "):
            said[name] = " ".join(meaning.split()).replace("``", "`")
    return [[f"`{name}`", said[name]] for name in table.model_fields]


def _leaves(root: Any) -> Iterable[Any]:
    inner = [each for action in root._actions if hasattr(action, "choices") for each in _parsers(action)]
    if not inner:
        yield root
    for each in inner:
        yield from _leaves(each)


def _parsers(action: Any) -> Iterable[Any]:
    return action.choices.values() if isinstance(action.choices, dict) else []


_EVERYWHERE = ("--help", "--json", "--home", "--config", "--traceback")


def _command(leaf: Any) -> str:
    rows = []
    for action in leaf._actions:
        if not set(action.option_strings) & set(_EVERYWHERE):
            name = ", ".join(action.option_strings) or action.metavar
            value = f" {action.metavar}" if action.option_strings and action.metavar else ""
            rows.append([f"`{name}{value}`", action.help])
    table = f"\n\n{_table(['argument', 'meaning'], rows)}" if rows else ""
    return f"### `{leaf.prog}`\n\n{leaf.description}{table}"


def _event(kind: Any) -> str:
    fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
    return f"### {kind.__name__}\n\n{_first(kind)}.\n\nFields: {fields}."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    _main()
