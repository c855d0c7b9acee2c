"""Exceptions as plain data and back: what was raised in one process can be raised again in another.

``document`` describes any exception, however hostile its ``__str__``; ``rebuild`` makes the same class of
exception again without unpickling, without importing anything, and without calling a line of the class's own code.
Neither ever raises.
Must not know who failed, nor what follows from it: ``final`` is the one judgement, and it is by type.

What cannot be the same again: an argument that is not plain data arrives as its ``repr``; an attribute that
is not plain data is left out; an exception whose class this process has not imported arrives as ``RemoteTaskError``,
and so does one that must not be raised by somebody else (``SystemExit``, ``KeyboardInterrupt``,
``GeneratorExit``, a ``CancelledError``, ``StopIteration``): it would end the host, or a generator in it.
The original is then its cause.
"""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import Any, Final

from flyteish._authoring.values import plain_data
from flyteish._authoring.values.kind_checks import (
    bases_of,
    declared,
    is_class,
    is_subclass,
    namespace_of,
    put_attribute,
)
from flyteish._authoring.values.renamed_modules import current
from flyteish._authoring.values.task_reference import SCRIPT_MODULE
from flyteish._core.model.values import ErrorDocument
from flyteish.errors import (
    ConfigurationError,
    InputTypeError,
    NonRecoverableError,
    OutputTypeError,
    RemoteTaskError,
    SecretMissingError,
    SerializationError,
    TaskNotImportableError,
)

#: No retry can mend these.
FINAL: Final[tuple[type[BaseException], ...]] = (
    NonRecoverableError,
    InputTypeError,
    OutputTypeError,
    SerializationError,
    ConfigurationError,
    SecretMissingError,
    TaskNotImportableError,
)
#: How the note begins that carries the traceback from where the exception was raised.
REMOTE_TRACEBACK: Final = "Traceback where it was raised"


_DEPTH = 12  # causes and members followed, each way
_DOCUMENTS = 256  # in one document, at all depths
_TEXT = 32_768  # characters of one message, note or traceback
_STAYS_FINAL = "_final"
_OURS = "flyteish._worker."
# State that built-in exceptions keep outside of `args` and `__dict__`.
_SLOTS: Final[tuple[tuple[type[BaseException], tuple[str, ...]], ...]] = (
    (ImportError, ("msg", "name", "path")),
    (NameError, ("name",)),
    (AttributeError, ("name",)),
)


# -- from exception to document ----------------------------------------------------------------------------


def document(exc: BaseException) -> ErrorDocument:
    """The exception with its notes, traceback, cause, context and members; what is not plain data as text."""
    return _Describer().describe(exc, _DEPTH, frozenset())


class _Describer:
    """One exception and what hangs on it: bounded in depth, and in number over all branches."""

    def __init__(self) -> None:
        self.left = _DOCUMENTS

    def describe(self, exc: BaseException, depth: int, above: frozenset[int]) -> ErrorDocument:
        kind = type(exc)
        self.left -= 1
        above = above | {id(exc)}
        try:
            cause, context = exc.__cause__, exc.__context__
            if context is cause or exc.__suppress_context__:
                context = None
            message = _message(exc)
            return ErrorDocument(
                type=type_name(kind),
                message=message,
                bases=tuple(type_name(base) for base in type.mro(kind) if base is not object),
                args=plain_data.encode(_arguments(exc)),
                attributes=_attributes(exc),
                notes=_notes(exc),
                traceback=_traceback(exc, message),
                cause=self.linked(cause, depth, above),
                context=self.linked(context, depth, above),
                group=self.members(exc, depth, above),
                final=_is_final(exc),
            )
        except BaseException:  # whatever the exception's own code does, it gets a document
            bases = tuple(type_name(base) for base in type.mro(kind) if base is not object)
            words = "(this exception's own code failed while it was described)"
            return ErrorDocument(type=type_name(kind), message=words, bases=bases, final=_is_final(exc))

    def linked(self, exc: BaseException | None, depth: int, above: frozenset[int]) -> ErrorDocument | None:
        if exc is None or depth == 0 or self.left <= 0 or id(exc) in above:
            return None
        return self.describe(exc, depth - 1, above)

    def members(self, exc: BaseException, depth: int, above: frozenset[int]) -> tuple[ErrorDocument, ...]:
        if not isinstance(exc, BaseExceptionGroup):
            return ()
        described = (self.linked(member, depth, above) for member in exc.exceptions)
        return tuple(member for member in described if member is not None)


def type_name(kind: type) -> str:
    """``module.QualName``; the main script's module is ``__main__`` whatever the worker calls it."""
    try:
        module = type.__getattribute__(kind, "__module__")
        name = type.__getattribute__(kind, "__qualname__")
    except Exception:  # a class that hides its name still has one for the interpreter
        return "builtins.Exception"
    if not isinstance(module, str):
        module = "unknown"
    return f"{'__main__' if module == SCRIPT_MODULE else module}.{name}"


def _is_final(exc: BaseException) -> bool:
    """By type, and for a group by any of its members; each is looked at once, however often it occurs."""
    left, seen = [exc], {id(exc)}
    while left:
        one = left.pop()
        kinds = type.mro(type(one))
        if any(kind in kinds for kind in FINAL):
            return True
        if RemoteTaskError in kinds and BaseException.__getattribute__(one, "__dict__").get(_STAYS_FINAL) is True:
            return True
        if BaseExceptionGroup in kinds:
            members: tuple[BaseException, ...] = BaseExceptionGroup.exceptions.__get__(one)
            left += [member for member in members if id(member) not in seen]
            seen.update(map(id, members))
    return False


def _message(exc: BaseException) -> str:
    try:
        return shortened(str(exc))
    except BaseException:  # the exception's own code; the arguments still tell something
        return shortened(plain_data.shown(exc.args))


def _arguments(exc: BaseException) -> tuple[object, ...]:
    if isinstance(exc, OSError) and exc.filename is not None and len(exc.args) == 2:
        # OSError takes the file names out of its args; put back, its own __new__ understands them.
        more: tuple[object, ...] = () if exc.filename2 is None else (None, exc.filename2)
        return (*exc.args, exc.filename, *more)
    if isinstance(exc, BaseExceptionGroup):
        return exc.args[:1]
    return exc.args


def _attributes(exc: BaseException) -> bytes | None:
    values: dict[object, object] = dict(BaseException.__getattribute__(exc, "__dict__"))
    values.pop("__notes__", None)
    for kind, names in _SLOTS:
        if isinstance(exc, kind):
            values.update((name, getattr(exc, name)) for name in names if getattr(exc, name, None) is not None)
    kept = {name: value for name, value in values.items() if isinstance(name, str) and plain_data.is_plain(value)}
    return plain_data.encode(kept) if kept else None


def _notes(exc: BaseException) -> tuple[str, ...]:
    notes = getattr(exc, "__notes__", None)
    if not isinstance(notes, list | tuple):
        return ()
    return tuple(shortened(note if isinstance(note, str) else plain_data.shown(note)) for note in notes)


def _traceback(exc: BaseException, message: str) -> str:
    """As Python prints it, without causes and members: these have documents of their own."""
    from traceback import format_tb  # here, since most programs never need it

    frames = exc.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith(_OURS):
        frames = frames.tb_next
    if frames is None:
        frames = exc.__traceback__
    name = type_name(type(exc)).removeprefix("builtins.").removeprefix("__main__.")
    last = f"{name}: {message}" if message else name
    # Not format_exception: it would walk through all causes and members again, for each of them.
    return shortened("".join(["Traceback (most recent call last):\n", *format_tb(frames), last]))


def shortened(text: str) -> str:
    """The text, without its middle where it is too long to keep; always something that UTF-8 can encode."""
    if len(text) > _TEXT:
        text = f"{text[: _TEXT // 2]}\n... {len(text) - _TEXT} characters left out ...\n{text[-_TEXT // 2 :]}"
    # str, not a subclass of it, and without lone surrogates, which msgpack refuses.
    return str(text).encode("utf-8", "backslashreplace").decode()


# -- from document to exception ----------------------------------------------------------------------------


def rebuild(document: ErrorDocument) -> BaseException:
    """The exception, of its own class where this process has imported that; its traceback is kept as a note.

    Always an ``Exception`` that anybody may raise: see the module's docstring for what becomes of others.
    """
    try:
        return _rebuilt(document, _DEPTH)
    except Exception:  # a document that nobody of ours wrote: its text is still worth raising
        return RemoteTaskError(document.message, remote_type=document.type.removeprefix("builtins."))


def _rebuilt(document: ErrorDocument, depth: int) -> BaseException:
    cause = _rebuilt(document.cause, depth - 1) if document.cause is not None and depth else None
    context = _rebuilt(document.context, depth - 1) if document.context is not None and depth else None
    exc = _instance(document, depth)
    if exc is not None:
        _put_attributes(exc, document)
    if exc is None or not _may_travel(exc):
        original, exc = exc, _stand_in(document)
        cause = original if cause is None else cause
    _put_notes(exc, document)
    # Through BaseException: the class may have set traps of its own.
    if context is not None:
        _CONTEXT.__set__(exc, context)
    if cause is not None:
        _CAUSE.__set__(exc, cause)  # sets __suppress_context__ too, as `raise ... from` does
    return exc


def _instance(document: ErrorDocument, depth: int) -> BaseException | None:
    kind = find_class(document.type)
    if kind is None:
        return None
    arguments = plain_data.decode(document.args)
    if not isinstance(arguments, tuple):
        arguments = (document.message,) if document.message else ()
    if issubclass(kind, BaseExceptionGroup):
        members = [_rebuilt(member, depth - 1) for member in document.group] if depth else []
        return _made(kind, (arguments[0] if arguments else document.message, members), ())
    return _made(kind, arguments, arguments)


def _made(kind: type[BaseException], arguments: tuple[Any, ...], init: tuple[Any, ...]) -> BaseException | None:
    """An instance made by the built-in bases alone: the class's own code is not called."""
    for base in map(_BUILTIN.get, map(id, bases_of(kind))):
        if base is None:
            continue
        try:
            exc: BaseException = base.__new__(kind, *arguments)
        except (TypeError, ValueError):
            continue  # not the base that lays out this class; one further on is
        if init:
            try:
                base.__init__(exc, *init)
            except (TypeError, ValueError):
                _ARGS.__set__(exc, init)
        return exc
    return None


def _stand_in(document: ErrorDocument) -> RemoteTaskError:
    exc = RemoteTaskError(document.message, remote_type=document.type.removeprefix("builtins."))
    arguments = plain_data.decode(document.args)
    if isinstance(arguments, tuple) and arguments:
        exc.args = arguments
    # Should it travel on through a parent, what is final stays final.
    exc.__dict__[_STAYS_FINAL] = document.final
    return exc


def _put_attributes(exc: BaseException, document: ErrorDocument) -> None:
    attributes = plain_data.decode(document.attributes)
    if issubclass(type(exc), RemoteTaskError):
        put_attribute(exc, "remote_type", "")  # its __init__ was not called
    if not isinstance(attributes, dict):
        return
    for name, value in attributes.items():
        try:
            put_attribute(exc, name, value)
        except (AttributeError, TypeError, ValueError):
            pass  # a read-only attribute: the class computes it


def _put_notes(exc: BaseException, document: ErrorDocument) -> None:
    notes = list(document.notes)
    if document.traceback and not any(note.startswith(REMOTE_TRACEBACK) for note in notes):
        notes.append(f"{REMOTE_TRACEBACK}:\n{document.traceback}")
    if notes:
        put_attribute(exc, "__notes__", notes)


def _may_travel(exc: BaseException) -> bool:
    # Of the type: isinstance would ask the exception for its __class__.
    return issubclass(type(exc), Exception) and not issubclass(type(exc), StopIteration | StopAsyncIteration)


def find_class(name: str) -> type[BaseException] | None:
    """The exception class of that qualified name, if this process has imported it; None: it has not."""
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return None
    for end in range(len(parts) - 1, 0, -1):
        named, qualname = current(".".join(parts[:end]), ".".join(parts[end:]))
        module = sys.modules.get(named)
        if issubclass(type(module), ModuleType):
            return _class_in(object.__getattribute__(module, "__dict__"), qualname.split("."))
    return None


def _class_in(namespace: Any, path: list[str]) -> type[BaseException] | None:
    """By looking, not by asking: a module or a class may answer with code of its own."""
    found = namespace.get(path[0])
    for part in path[1:]:
        found = namespace_of(found).get(part) if is_class(found) else None
    return found if is_subclass(found, BaseException) else None


_BUILTIN: dict[int, Any] = {id(kind): kind for kind in vars(builtins).values() if is_subclass(kind, BaseException)}
_ARGS: Any = declared(BaseException, "args")
_CAUSE: Any = declared(BaseException, "__cause__")
_CONTEXT: Any = declared(BaseException, "__context__")
