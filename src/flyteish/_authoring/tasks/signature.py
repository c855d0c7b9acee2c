"""A task's signature: binds a call, checks it against the annotations, turns inputs and results into bytes.

Equal calls give equal bytes, however they are written: defaults are filled in, keywords sorted into the
parameters' order. Annotations are resolved when the first value asks, so that they may name what is defined
further down. Must not know how, where or whether the task runs.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from flyteish._authoring.tasks.binder import POSITIONAL, STARS, binder
from flyteish._authoring.values import annotations as hints
from flyteish._authoring.values.annotations import UnusableAnnotationError
from flyteish._authoring.values.codec import Codec
from flyteish._authoring.values.drafts import NUMBERS, SCALARS, Draft, are_small, drafting
from flyteish._authoring.values.names import Names
from flyteish._authoring.values.typecheck import ANYTHING, Check, Mismatch, conform_each, describe, label
from flyteish._authoring.values.unserialisable import Unserialisable, serialization_error
from flyteish.errors import InputTypeError, OutputTypeError, SerializationError, TaskDefinitionError

_EMPTY: Any = inspect.Parameter.empty
_VAR_POSITIONAL: Any = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD: Any = inspect.Parameter.VAR_KEYWORD
_KEYWORD_ONLY: Any = inspect.Parameter.KEYWORD_ONLY


class Parameter(NamedTuple):
    """A parameter as the task's author declared it."""

    name: str
    annotation: Any
    """Resolved; ``Annotated`` is kept; ``inspect.Parameter.empty`` where there is none."""
    default: Any
    """``inspect.Parameter.empty`` where there is none."""
    has_default: bool
    kind: Any
    """One of ``inspect.Parameter``'s kinds."""


class _Form(NamedTuple):
    """What the annotations say, compiled: made once, when a value first asks."""

    parameters: tuple[Parameter, ...]
    names: tuple[str, ...]
    steps: tuple[tuple[str, frozenset[type], Callable[[Any], Any]], ...]
    """Per parameter: name, types that need neither check nor lowering, check."""
    result: Check
    result_annotation: Any
    plain_results: frozenset[type]
    positional_only: bool
    """Every parameter can be passed by position: decoding needs no keywords."""


class TaskSignature:
    """See the module. Made by ``of``, which is cheap; safe to use from several threads."""

    __slots__ = ("_binder", "_codec", "_form_", "_function", "_local", "_signature", "_task")

    def __init__(
        self,
        function: Callable[..., Any],
        task_name: str,
        signature: inspect.Signature,
        local: Mapping[str, Any],
    ) -> None:
        self._function = function
        self._task = task_name
        self._signature = signature
        self._local = local
        self._binder = binder(signature)
        self._codec = Codec(f"{task_name}()", Names.around(function))
        self._form_: _Form | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], task_name: str, local: Mapping[str, Any] | None = None) -> TaskSignature:
        """The signature of a function. ``local`` holds names that annotations may use beside the module's.

        Raises TaskDefinitionError for what can be seen without resolving annotations.
        """
        if not callable(function):
            raise TaskDefinitionError(f"{task_name}: a task is made of a function, not of {describe(function)}")
        inner = _unwrapped(function)
        if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
            raise TaskDefinitionError(
                f"{task_name}(): a task returns its result; this function yields. Return a list instead"
            )
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise TaskDefinitionError(f"{task_name}(): its parameters cannot be read ({error})") from error
        return cls(function, task_name, signature, {} if local is None else local)

    def __repr__(self) -> str:
        return f"TaskSignature({self._task}{self._signature})"

    @property
    def parameters(self) -> Sequence[Parameter]:
        """In the order of declaration."""
        return self._form().parameters

    @property
    def result_annotation(self) -> Any:
        """Resolved; ``inspect.Parameter.empty`` where there is none."""
        return self._form().result_annotation

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Arguments by parameter, defaults filled in. Types are not looked at.

        Raises InputTypeError with the words of Python's own TypeError.
        """
        try:
            values = self._binder(*args, **kwargs)
        except TypeError as trouble:
            self._refuse_call(args, kwargs, trouble)
        return inspect.BoundArguments(
            self._signature, OrderedDict(zip(self._signature.parameters, values, strict=True))
        )

    def _refuse_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], trouble: TypeError) -> NoReturn:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputTypeError(f"{self._task}() {error}") from None
        # The inspect module of Python 3.13.0 takes a keyword for a parameter that is positional only.
        raise InputTypeError(f"{self._task}() {str(trouble).partition('() ')[2]}")

    # -- inputs ------------------------------------------------------------------------------------

    def encode_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Bind, check and encode a call. Raises InputTypeError, SerializationError."""
        form = self._form_
        if form is None:
            form = self._form()
        try:
            values = self._binder(*args, **kwargs)
        except TypeError as trouble:
            self._refuse_call(args, kwargs, trouble)
        lowered: dict[str, Any] = {}
        name = ""
        try:
            for (name, plain, conform), value in zip(form.steps, values, strict=True):
                lowered[name] = value if type(value) in plain else self._codec.lower(conform(value))
            return self._codec.seal(lowered)
        except Mismatch as mismatch:
            self._refuse_input(name, mismatch)
        except (Unserialisable, RecursionError) as trouble:
            self._refuse_to_pack(name, trouble)

    def draft_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | Draft:
        """``encode_inputs`` for callers on an event loop: what is large is copied here, and packed by ``finish``.

        Raises as ``encode_inputs`` does.
        """
        if not kwargs and are_small(args):
            return self.encode_inputs(args, kwargs)
        form = self._form()
        try:
            values = self._binder(*args, **kwargs)
        except TypeError as trouble:
            self._refuse_call(args, kwargs, trouble)
        lowered: dict[str, Any] = {}
        draft = Draft(self._refuse_to_pack)
        token = drafting.set(draft)
        try:
            for (draft.name, plain, conform), value in zip(form.steps, values, strict=True):
                lowered[draft.name] = self._codec.lower(value if type(value) in plain else conform(value))
            return draft.kept(lowered, self._codec.seal)
        except Mismatch as mismatch:
            self._refuse_input(draft.name, mismatch)
        except (Unserialisable, RecursionError) as trouble:
            self._refuse_to_pack(draft.name, trouble)
        finally:
            drafting.reset(token)

    def _refuse_to_pack(self, name: str, trouble: Unserialisable | RecursionError) -> NoReturn:
        where = f"{self._task}(): parameter {self._shown(name)!r}" if name else f"{self._task}(): the result"
        raise serialization_error(trouble, where, name or "result") from trouble

    def without(self, data: bytes, ignored: tuple[str, ...]) -> bytes:
        """Encoded inputs with some parameters left out: what a cache's key is made of."""
        kept = {name: value for name, value in self._record(data).items() if name not in ignored}
        return self._codec.seal({name: self._codec.lower(value) for name, value in kept.items()})

    def decode_inputs(self, data: bytes | memoryview) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call as ``(args, kwargs)``, made of fresh objects. Raises SerializationError."""
        form = self._form_
        if form is None:
            form = self._form()
        record = self._record(data)
        if tuple(record) != form.names:
            record = self._reconciled(record)
        if form.positional_only:
            return tuple(record.values()), {}
        return self._split(record)

    def _record(self, data: bytes | memoryview) -> dict[str, Any]:
        record = self._codec.decode(data)
        if type(record) is not dict:
            raise SerializationError(f"{self._task}(): the recorded call is a {type(record).__name__}, not a call")
        return record

    def _split(self, record: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self._form().parameters, record.values(), strict=True):
            if parameter.kind is _VAR_POSITIONAL:
                args.extend(self._starred(parameter, value, list, tuple))
            elif parameter.kind is _VAR_KEYWORD:
                kwargs.update(self._starred(parameter, value, dict))
            elif parameter.kind is _KEYWORD_ONLY:
                kwargs[parameter.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _starred(self, parameter: Parameter, value: Any, *kinds: type) -> Any:
        if type(value) not in kinds:
            shown = f"{STARS[parameter.kind]}{parameter.name}"
            raise SerializationError(f"{self._task}(): the recorded {shown} is a {type(value).__name__}")
        return value

    def _reconciled(self, record: dict[str, Any]) -> dict[str, Any]:
        """A call recorded before the function's parameters were changed, by name."""
        values: dict[str, Any] = {}
        for parameter in self._form().parameters:
            if parameter.name in record:
                values[parameter.name] = record.pop(parameter.name)
            elif parameter.has_default:
                values[parameter.name] = parameter.default
            elif parameter.kind in (_VAR_POSITIONAL, _VAR_KEYWORD):
                values[parameter.name] = () if parameter.kind is _VAR_POSITIONAL else {}
            else:
                raise SerializationError(
                    f"{self._task}(): the recorded call has no {parameter.name!r}, which is now required"
                )
        if record:
            gone = ", ".join(map(repr, record))
            raise SerializationError(f"{self._task}(): the recorded call has {gone}, which the task no longer takes")
        return values

    def _refuse_input(self, name: str, mismatch: Mismatch) -> NoReturn:
        shown = self._shown(name)
        declared = label(next(p.annotation for p in self._form().parameters if p.name == name))
        text = f"{self._task}(): parameter {shown!r} expects {declared}, got {_fault(mismatch, name)}"
        raise InputTypeError(text) from None

    def _shown(self, name: str) -> str:
        return STARS.get(self._signature.parameters[name].kind, "") + name

    # -- results -----------------------------------------------------------------------------------

    def encode_result(self, value: object) -> bytes:
        """Check and encode a result. Raises OutputTypeError, SerializationError."""
        form = self._form_
        if form is None:
            form = self._form()
        try:
            if type(value) in form.plain_results:
                return self._codec.seal(value)
            return self._codec.seal(self._codec.lower(form.result.conform(value)))
        except Mismatch as mismatch:
            self._refuse_output(form, mismatch)
        except (Unserialisable, RecursionError) as trouble:
            self._refuse_to_pack("", trouble)

    def draft_result(self, value: object) -> bytes | Draft:
        """``encode_result`` on an event loop, as ``draft_inputs``."""
        if type(value) in NUMBERS or are_small((value,)):
            return self.encode_result(value)
        form = self._form()
        draft = Draft(self._refuse_to_pack)
        token = drafting.set(draft)
        try:
            plain = type(value) in form.plain_results
            lowered = self._codec.lower(value if plain else form.result.conform(value))
            return draft.kept(lowered, self._codec.seal)
        except Mismatch as mismatch:
            self._refuse_output(form, mismatch)
        except (Unserialisable, RecursionError) as trouble:
            self._refuse_to_pack("", trouble)
        finally:
            drafting.reset(token)

    def _refuse_output(self, form: _Form, mismatch: Mismatch) -> NoReturn:
        declared = label(form.result_annotation)
        fault = _fault(mismatch, "result")
        raise OutputTypeError(f"{self._task}(): declared to return {declared}, returned {fault}") from None

    def decode_result(self, data: bytes | memoryview) -> Any:
        """The result, made of fresh objects. Raises SerializationError."""
        if self._form_ is None:
            self._form()  # the codec learns classes from the annotations
        return self._codec.decode(data)

    # -- annotations -------------------------------------------------------------------------------

    def _form(self) -> _Form:
        form = self._form_
        if form is None:
            # Two threads may both do this; they get the same.
            form = self._form_ = self._compiled()
        return form

    def _compiled(self) -> _Form:
        parameters: list[Parameter] = []
        checks: list[Check] = []
        for parameter in self._signature.parameters.values():
            annotation, check = self._read(f"parameter {self._shown(parameter.name)!r}", parameter.annotation)
            has_default = parameter.default is not _EMPTY
            if has_default:
                annotation, check = self._admit_default(parameter, annotation, check)
            parameters.append(Parameter(parameter.name, annotation, parameter.default, has_default, parameter.kind))
            checks.append(_for_kind(parameter.kind, annotation, check))
        returned, result = self._read("the result", self._signature.return_annotation)
        if returned is type(None):
            result = ANYTHING
        names = tuple(parameter.name for parameter in parameters)
        plain = SCALARS if result is ANYTHING else result.exact & SCALARS
        return _Form(
            tuple(parameters),
            names,
            tuple((n, _plain(c), c.conform) for n, c in zip(names, checks, strict=True)),
            result,
            returned,
            plain,
            all(parameter.kind in POSITIONAL for parameter in parameters),
        )

    def _read(self, what: str, annotation: Any) -> tuple[Any, Check]:
        inner = _unwrapped(self._function)
        local = {**hints.closure_of(inner), **self._local}
        try:
            resolved = hints.resolve(annotation, getattr(inner, "__globals__", {}), local)
            check = hints.compile_check(resolved)
        except UnusableAnnotationError as error:
            raise TaskDefinitionError(f"{self._task}(): the annotation of {what} cannot be used: {error}") from error
        for cls in hints.classes_in(resolved):
            self._codec.names.learn(cls)
        return resolved, check

    def _admit_default(self, parameter: inspect.Parameter, annotation: Any, check: Check) -> tuple[Any, Check]:
        try:
            check.conform(parameter.default)
        except Mismatch:
            if parameter.default is None:  # `x: int = None`, as many still write it
                optional = typing.Optional[annotation]  # noqa: UP045 - made at run time
                return optional, hints.compile_check(optional)
            raise TaskDefinitionError(
                f"{self._task}(): parameter {parameter.name!r} is declared {label(annotation)}, "
                f"but its default is {describe(parameter.default)}"
            ) from None
        return annotation, check


def _plain(check: Check) -> frozenset[type]:
    return SCALARS if check is ANYTHING else check.exact & SCALARS


def _fault(mismatch: Mismatch, root: str) -> str:
    reason = f", {mismatch.reason}" if mismatch.reason else ""
    text = f"{describe(mismatch.value)}{reason}"
    return f"{text} at {mismatch.path(root)}, where {mismatch.expected} is expected" if mismatch.steps else text


def _for_kind(kind: Any, annotation: Any, check: Check) -> Check:
    """The check for what the binder hands over: ``*args`` as a tuple, ``**kwargs`` as a dict."""

    def conform_args(values: tuple[Any, ...]) -> list[Any]:
        converted = conform_each(values, check)
        return list(values) if converted is None else converted

    def conform_kwargs(values: dict[str, Any]) -> dict[str, Any]:
        ordered = dict(sorted(values.items()))
        if typing.get_origin(annotation) is typing.Unpack:  # a TypedDict that names them all
            return dict(check.conform(ordered))
        try:
            converted = conform_each(ordered.values(), check)
        except Mismatch as mismatch:
            mismatch.steps[-1] = f"[{list(ordered)[int(mismatch.steps[-1][1:-1])]!r}]"
            raise
        return ordered if converted is None else dict(zip(ordered, converted, strict=True))

    if kind is _VAR_POSITIONAL:
        return Check(check.expected, conform_args)
    return Check(check.expected, conform_kwargs) if kind is _VAR_KEYWORD else check


def _unwrapped(function: Any) -> Any:
    """The function whose module's names the annotations mean."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)
