"""The options of a task, made from its signature, and the call that a command line means.

Decides names, help and which arguments go where. How a text becomes a value is ``text_values``' business; must not
know how the task is run.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from enum import Enum
from types import GenericAlias
from typing import Any, NamedTuple

from flyteish._authoring.values.typecheck import label
from flyteish._core.wording import did_you_mean
from flyteish.cli.exit_codes import UsageError
from flyteish.cli.parser import Parser, build, parse
from flyteish.cli.text_values import UnreadableText, plain, value_of

_P = inspect.Parameter
_EPILOG = (
    "Values with structure are given as JSON. --option @FILE takes the value from a file, @- from standard input;\n"
    "@@ stands for a literal @. Options may be written with - or _."
)


class Arguments(NamedTuple):
    """What the task is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Option(NamedTuple):
    name: str
    option: str
    kind: Any
    """Of the annotation: what is read from the text."""
    is_flag: bool
    required: bool


def arguments(task: Any, given: Sequence[str], file: str) -> Arguments:
    """The call that the options after TASK mean.

    Raises:
        UsageError: an option is unknown, missing or not of its type; names option, text and type.
        SystemExit: after ``--help``.
    """
    parameters = task.signature.parameters
    options = [_option(parameter) for parameter in parameters]
    parser = _parser(task, parameters, options, file)
    parsed, extras = parser.parse_known_args(_kebab(given, options))
    if extras:
        _refuse_extras(parser, extras)
    texts: dict[str, Any] = vars(parsed)
    missing = [option for option in options if option.required and option.name not in texts]
    if missing:
        parser.error("missing " + ", ".join(f"{each.option} ({label(each.kind)})" for each in missing))
    values = {option.name: _value(option, texts[option.name]) for option in options if option.name in texts}
    return _call(parameters, values)


def _option(parameter: Any) -> _Option:
    kind: Any = plain(parameter.annotation)
    if parameter.kind is _P.VAR_POSITIONAL:
        kind = list if kind is _P.empty else GenericAlias(list, kind)
    elif parameter.kind is _P.VAR_KEYWORD:
        kind = dict if kind is _P.empty else GenericAlias(dict, (str, kind))
    several = parameter.kind in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
    option = "--" + parameter.name.strip("_").replace("_", "-")
    return _Option(parameter.name, option, kind, kind is bool, not (parameter.has_default or several))


def _parser(task: Any, parameters: Sequence[Any], options: Sequence[_Option], file: str) -> Parser:
    text = inspect.getdoc(task.function) or f"Task {task.name}."
    parser = Parser(
        prog=f"flyteish run {file} {task.function.__name__}",
        description=text,
        epilog=_EPILOG,
        add_help=False,
        conflict_handler="resolve",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-h", "--help", action="help", help="show this and leave")
    for parameter, option in zip(parameters, options, strict=True):
        words = "anything" if option.kind is _P.empty else label(option.kind)
        if parameter.has_default:
            words += f"; default: {_shown(parameter.default)}"
        elif option.required:
            words += "; required"
        words = words.replace("%", "%%")
        if option.is_flag:
            parser.add_argument(option.option, dest=option.name, action=argparse.BooleanOptionalAction, help=words)
        else:
            parser.add_argument(option.option, dest=option.name, metavar="VALUE", help=words)
    return parser


def _shown(default: Any) -> str:
    return default.name if isinstance(default, Enum) else repr(default)


def _kebab(given: Sequence[str], options: Sequence[_Option]) -> list[str]:
    """``--snake_case`` as ``--snake-case``, where that is an option."""
    known = {each.option for each in options} | {f"--no-{each.option[2:]}" for each in options if each.is_flag}
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        kebab = name.replace("_", "-")
        found.append(f"{kebab}{equals}{value}" if name.startswith("--") and kebab in known else text)
    return found


def _refuse_extras(parser: Parser, extras: Sequence[str]) -> None:
    for extra in extras:
        name = extra.partition("=")[0]
        if name.startswith("--"):
            known = parse(build(), ["run", "FILE"]).parser.known
            if name in known:
                hint = did_you_mean(name, parser.known)
                raise UsageError(f"{name} is an option of `flyteish run`: give it before FILE{hint}")
    parser.refuse_extras(extras)


def _value(option: _Option, text: Any) -> Any:
    if not isinstance(text, str):
        return text  # a flag
    try:
        return value_of(text, option.kind)
    except UnreadableText as error:
        shown = text if len(text) <= 200 else text[:200] + "..."
        kind = "" if option.kind is _P.empty else f" as {label(option.kind)}"
        raise UsageError(f"{option.option}: {shown!r} cannot be read{kind}: {error}") from None


def _call(parameters: Sequence[Any], values: Mapping[str, Any]) -> Arguments:
    """By keyword where that can be; by position what must be, with defaults in between."""
    kwargs = dict(values)
    args: list[Any] = []
    by_position = [p for p in parameters if p.kind is _P.POSITIONAL_ONLY]
    starred = next((p for p in parameters if p.kind is _P.VAR_POSITIONAL), None)
    if starred is not None and kwargs.get(starred.name):
        by_position = [p for p in parameters if p.kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)]
    last = max((n for n, p in enumerate(by_position) if p.name in kwargs or starred is not None), default=-1)
    for parameter in by_position[: last + 1]:
        args.append(kwargs.pop(parameter.name, parameter.default))
    if starred is not None:
        args.extend(kwargs.pop(starred.name, ()))
    for parameter in parameters:
        if parameter.kind is _P.VAR_KEYWORD:
            kwargs.update(kwargs.pop(parameter.name, {}))
    return Arguments(tuple(args), kwargs)
