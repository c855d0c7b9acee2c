"""From FILE and TASK on a command line to a task object, so that worker processes and a later resume find it too.

A file in a package is imported by its dotted name, any other is loaded as the program's script: known by its path, its
``if __name__ == "__main__"`` block not run. Must not know what is done with the task.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from flyteish._authoring.values.task_reference import SCRIPT_MODULE
from flyteish._core.wording import did_you_mean
from flyteish._worker.loader import script_module
from flyteish.cli.exit_codes import LoadError, UsageError

_ALIASES = (SCRIPT_MODULE, "__main__")


@contextmanager
def module_of(file: str) -> Iterator[ModuleType]:
    """The module behind FILE, its folder on ``sys.path``. What the process looked like before comes back afterwards.

    Raises:
        UsageError: there is no such file or module; names near ones.
        LoadError: it raised while it was loaded; its error is the cause.
    """
    with _surroundings():
        path = Path(file)
        if path.is_file():
            yield _from_file(path.absolute())
        elif path.suffix == ".py" or "/" in file or not all(part.isidentifier() for part in file.split(".")):
            there = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
            raise UsageError(f"there is no file {file!r}{did_you_mean(path.name, there)}")
        else:
            _put_first(Path.cwd())
            yield _imported(file, file)


@contextmanager
def findable(module: str, file: str | None, entry: str) -> Iterator[None]:
    """Let the task of a recorded run be loaded as it was: puts the folder in ``sys.path`` that it was loaded from.

    Args:
        module: the recorded reference's module.
        file: its script, if it was one.
        entry: the run's recorded entry, ``FILE:NAME`` or ``module:NAME``.
    """
    with _surroundings():
        where = entry.rpartition(":")[0]
        if file is not None:
            sys.argv[:] = [file]
            _put_first(Path(file).parent)
        elif Path(where).is_absolute():
            depth = module.count(".") + (Path(where).name == "__init__.py")
            _put_first(Path(where).parents[depth])
        yield


@contextmanager
def _surroundings() -> Iterator[None]:
    path, argv = list(sys.path), list(sys.argv)
    modules = {alias: sys.modules.get(alias) for alias in _ALIASES}
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, argv
        for alias, module in modules.items():
            if module is not None:
                sys.modules[alias] = module
            else:
                sys.modules.pop(alias, None)


def _put_first(folder: Path) -> None:
    place = str(folder)
    if place in sys.path:
        sys.path.remove(place)
    sys.path.insert(0, place)


def _from_file(path: Path) -> ModuleType:
    sys.argv[:] = [str(path)]
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    _put_first(folder)
    if len(parts) == 1:
        try:
            return script_module(str(path))
        except (Exception, SystemExit) as error:
            raise _load_error(str(path), error) from error
    if parts[-1] == "__init__":
        parts.pop()
    module = _imported(".".join(parts), str(path))
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path.resolve():
        raise UsageError(f"{path} is module {module.__name__}, but that name is taken by {found}")
    return module


def _imported(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no file or module {shown!r}") from error
        raise _load_error(shown, error) from error
    except (Exception, SystemExit) as error:
        raise _load_error(shown, error) from error


def _load_error(shown: str, error: BaseException) -> LoadError:
    return LoadError(f"{shown} cannot be loaded: {type(error).__name__}: {error}")


# -- tasks -----------------------------------------------------------------------------------------------------------


def tasks_in(module: ModuleType) -> dict[str, Any]:
    """The module's tasks by the name of their variable."""
    return {name: thing for name, thing in vars(module).items() if getattr(type(thing), "__flyteish_task__", False)}


def task_in(module: ModuleType, name: str | None, file: str) -> Any:
    """The task that is called ``name``: its variable, else ``environment.function``, else its function.

    Raises:
        UsageError: none or several are; lists what there is.
    """
    tasks = tasks_in(module)
    if not tasks:
        raise UsageError(f"{file} has no tasks: a task is a function with @env.task above it")
    if name is None:
        raise UsageError(f"give a task of {file}: {', '.join(tasks)}")
    if name in tasks:
        return tasks[name]
    found = {id(task): task for task in tasks.values() if name in (task.name, task.function.__name__)}
    if len(found) == 1:
        return found.popitem()[1]
    if found:
        raise UsageError(f"several tasks of {file} are called {name!r}: {', '.join(t.name for t in found.values())}")
    known = [*tasks, *(task.name for task in tasks.values())]
    raise UsageError(f"{file} has no task {name!r}{did_you_mean(name, known)}; it has {', '.join(tasks)}")
