"""From a task's reference to something that can be called: by import, from the script's file, or by value.

Loads a module or a value once and remembers it. A reference names code that is to run, so importing it is what a
worker is for; but what it leads to is looked at, not asked, and called only if it is a task or a plain function.
Must not know about attempts: what it raises is the same whoever asks, names the module, the file and the cure, and
no retry can mend it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from flyteish._authoring.values.kind_checks import MISSING, declared, shown
from flyteish._authoring.values.names import look_up
from flyteish._authoring.values.renamed_modules import current
from flyteish._authoring.values.task_reference import SCRIPT_MODULE
from flyteish._core.model.values import TaskReference
from flyteish.errors import BlobError, TaskNotImportableError
from flyteish.interfaces import BlockingContent

if TYPE_CHECKING:
    from flyteish._authoring.tasks.signature import TaskSignature

_CURE = "define it at module level in a file that workers can import"


class Loadable(Protocol):
    """What an attempt needs of a task; the tasks of ``_authoring.tasks.task`` are such."""

    @property
    def name(self) -> str:
        """``environment.function``."""

    @property
    def function(self) -> Callable[..., Any]:
        """The plain function."""

    @property
    def signature(self) -> TaskSignature:
        """How inputs and results travel."""


class CarriedTask:
    """A function that came by value, or that its module does not know as a task."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        from flyteish._authoring.tasks.signature import TaskSignature

        self.function = function
        self.name = name
        self.signature = TaskSignature.of(function, name)

    def __repr__(self) -> str:
        return f"CarriedTask({self.name})"


class Loader:
    """Loads tasks for one process.

    Args:
        blobs: opens the blob store, for functions that travel by value; called at most once per function.
    """

    def __init__(self, blobs: Callable[[], BlockingContent]) -> None:
        self._blobs = blobs
        self._loaded: dict[tuple[TaskReference, str], Loadable] = {}

    def known(self, reference: TaskReference, task: str) -> Loadable | None:
        """The task, if it was loaded before."""
        return self._loaded.get((reference, task))

    def load(
        self, reference: TaskReference, task: str, *, may_import: bool = True, may_unpickle: bool = True
    ) -> Loadable:
        """The task called ``task`` behind a reference.

        Args:
            reference: where it is.
            task: its name, ``environment.function``.
            may_import: whether the reference may have a module imported or a file run, and may lead to a plain
                function; else it has to be a declared task of a module that is imported already.
            may_unpickle: whether a function that travels by value may be unpickled.

        Raises:
            TaskNotImportableError: says which module or file, why, and what to do.
            BlobError: the function travels by value and the blob store cannot be read.
        """
        found = self._loaded.get((reference, task))
        if found is None:
            if reference.by_value:
                found = self._carried(reference, task, may_unpickle)
            else:
                found = self._named(reference, task, may_import)
            self._loaded[reference, task] = found
        return found

    def _carried(self, reference: TaskReference, task: str, may_unpickle: bool) -> Loadable:
        assert reference.by_value is not None
        if not may_unpickle:
            raise TaskNotImportableError(
                f"task {task!r} is carried by value, that is pickled, and pickling is refused by configuration "
                f"(allow_pickle = false): {_CURE}"
            )
        data = self._blobs().get(reference.by_value)
        try:
            from flyteish._authoring.values.unpickling import unpickle

            thing = unpickle(data)
        except BlobError:
            raise
        except Exception as error:
            raise TaskNotImportableError(
                f"task {task!r} was carried by value and cannot be unpickled in the worker ({_said(error)}): {_CURE}"
            ) from error
        return CarriedTask(getattr(thing, "function", thing), task)

    def _named(self, reference: TaskReference, task: str, may_import: bool) -> Loadable:
        if "<" in reference.name:
            raise TaskNotImportableError(
                f"task {task!r} is {reference.name} of module {reference.module!r}, a local function, which "
                f"no other process can import: {_CURE}"
            )
        module = self._module(reference, task) if may_import else _imported(reference, task)
        where = f"module {reference.module!r} ({getattr(module, '__file__', None) or 'no file'})"
        thing = look_up(module.__dict__, reference.name)
        if _is_task(thing):
            found: Loadable = thing
            return found
        known = _task_called(module, task)
        if known is not None:
            return known
        if thing is MISSING:
            raise TaskNotImportableError(
                f"task {task!r}: {where} has no {reference.name!r} when a worker imports it. Is it "
                f"defined under `if __name__ == '__main__'`? {_CURE[0].upper()}{_CURE[1:]}"
            )
        if type(thing) is FunctionType and may_import:
            return CarriedTask(thing, task)
        raise TaskNotImportableError(
            f"task {task!r}: {reference.name!r} in {where} is {shown(thing)}, no task"
            + (" and no function" if may_import else ", and a worker's word is not enough to call it here")
        )

    def _module(self, reference: TaskReference, task: str) -> ModuleType:
        try:
            if reference.file is not None:
                return script_module(reference.file, reference.module)
            if reference.module == "__main__":
                raise TaskNotImportableError(
                    f"task {task!r} is defined at a prompt or in a notebook, so a worker has no file to "
                    f"import it from: {_CURE}"
                )
            return importlib.import_module(current(reference.module, reference.name)[0])
        except TaskNotImportableError:
            raise
        except (Exception, SystemExit) as error:
            place = f"file {reference.file}" if reference.file else f"module {reference.module!r}"
            raise TaskNotImportableError(
                f"task {task!r}: a worker cannot import {place} ({_said(error)}): {_CURE}, whose own imports "
                f"are installed in {sys.executable}"
            ) from error


def script_module(file: str, name: str = "__main__") -> ModuleType:
    """The program's main script, run as a module of another name, as multiprocessing does it; once per process.

    Raises FileNotFoundError, and whatever the script raises; then nothing of it is left behind.
    """
    for alias in (SCRIPT_MODULE, "__main__"):  # the latter: this process is the program itself
        known = sys.modules.get(alias)
        if known is not None and getattr(known, "__file__", None) == file:
            return known
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file {file}")
    code = SourceFileLoader(SCRIPT_MODULE, file).get_code(SCRIPT_MODULE)
    module = ModuleType(SCRIPT_MODULE)
    module.__file__ = file
    module.__package__ = name.rpartition(".")[0]
    before = {alias: sys.modules.get(alias) for alias in (SCRIPT_MODULE, "__main__")}
    # Classes of the script are known as `__main__.X` in the host, so both names mean this module here.
    sys.modules[SCRIPT_MODULE] = sys.modules["__main__"] = module
    try:
        assert code is not None
        exec(code, module.__dict__)
    except BaseException:
        for alias, loaded in before.items():
            if loaded is None:
                del sys.modules[alias]
            else:
                sys.modules[alias] = loaded
        raise
    return module


def _imported(reference: TaskReference, task: str) -> ModuleType:
    """The module, if this process has it: a reference that a worker sent runs nothing new."""
    names = (SCRIPT_MODULE, "__main__") if reference.file is not None else (reference.module,)
    for name in names:
        module = sys.modules.get(name)
        if module is not None and (reference.file is None or getattr(module, "__file__", None) == reference.file):
            return module
    raise TaskNotImportableError(
        f"task {task!r} was called by a worker process and is to run in this one, which has not imported "
        f"{reference.file or reference.module!r}; where pickling is refused (allow_pickle = false), a worker cannot "
        "have modules imported here: import it in the program, or give its queue a pool of worker processes"
    )


def _is_task(thing: Any) -> bool:
    return declared(type(thing), "__flyteish_task__") is True


def _task_called(module: ModuleType, task: str) -> Loadable | None:
    """A task that stands in the module under another name than its function's (``t = env.task(f)``)."""
    for thing in list(vars(module).values()):
        if _is_task(thing) and thing.name == task:
            found: Loadable = thing.base  # an override stands for the same function
            return found
    return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
