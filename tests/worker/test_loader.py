"""From a function to its reference, and from the reference to the function in another process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyteish
from flyteish._authoring.values.task_reference import SCRIPT_MODULE, carried, needs_value, reference_for
from flyteish._core.model.values import TaskReference
from flyteish._worker.loader import Loader
from flyteish.blobs import open_blobs
from flyteish.errors import SerializationError, TaskNotImportableError
from flyteish.interfaces import BlockingBlobs

env = flyteish.TaskEnvironment(name="here")


@env.task
def top(x: int) -> int:
    return x + 1


def plain(x: int) -> int:
    return x - 1


renamed = env.task(plain)

SCRIPT = """
    import flyteish
    env = flyteish.TaskEnvironment(name="script")
    ran = []

    @env.task
    def shout(x: str) -> str:
        return x.upper()

    class OddError(Exception):
        pass

    if __name__ == "__main__":
        ran.append("the guarded part")
"""


@pytest.fixture
def blobs() -> BlockingBlobs:
    return open_blobs("memory:").blocking


@pytest.fixture
def loader(blobs: BlockingBlobs) -> Iterator[Loader]:
    """A loader whose traces in sys.modules are removed again."""
    before = {name: sys.modules.get(name) for name in ("__main__", SCRIPT_MODULE)}
    yield Loader(lambda: blobs)
    for name, module in before.items():
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module


def script(folder: Path, text: str = SCRIPT) -> Path:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    return path


# -- by module ---------------------------------------------------------------------------------------------------


def test_a_task_of_a_module_is_the_very_same_object(loader: Loader) -> None:
    """By module and name, from the task or from its function."""
    reference = reference_for(top)
    assert reference == reference_for(top.function) == TaskReference(__name__, "top")
    assert loader.load(reference, top.name) is top
    assert loader.known(reference, top.name) is top


def test_an_override_has_the_reference_of_its_task(loader: Loader) -> None:
    """Settings travel with the order, not with the function."""
    assert reference_for(top.override(retries=3)) == reference_for(top)


def test_a_task_that_stands_under_another_name_is_found(loader: Loader) -> None:
    """`renamed = env.task(plain)`: the module's `plain` is no task, but `renamed` is."""
    assert loader.load(reference_for(renamed), renamed.name) is renamed


def test_a_plain_function_is_wrapped(loader: Loader) -> None:
    """A function that its module does not know as a task can be called all the same."""
    loaded = loader.load(TaskReference("os.path", "basename"), "any.name")
    args, kwargs = loaded.signature.decode_inputs(loaded.signature.encode_inputs(("a/b",), {}))
    assert loaded.function(*args, **kwargs) == "b"


@pytest.mark.parametrize(
    "reference, words",
    [
        (TaskReference("no_such_module", "f"), ["no_such_module", "ModuleNotFoundError", "module level"]),
        (TaskReference("os.path", "nothing"), ["os.path", "nothing", "posixpath.py", "Is it defined under"]),
        (TaskReference("os.path", "sep"), ["sep", "is a str"]),
        (TaskReference("m", "f.<locals>.g"), ["f.<locals>.g", "local function", "module level"]),
        (TaskReference("__main__", "f"), ["notebook", "module level"]),
        (TaskReference("__main__", "f", file="/no/such/file.py"), ["/no/such/file.py", "FileNotFoundError"]),
    ],
)
def test_what_cannot_be_loaded_says_what_and_why(loader: Loader, reference: TaskReference, words: list[str]) -> None:
    """The error names the task, the module or file, the reason and the cure."""
    with pytest.raises(TaskNotImportableError) as caught:
        loader.load(reference, "some.task")
    for word in ["some.task", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(3)", "def f(:", "import no_such_library"])
def test_a_module_that_fails_while_it_is_imported_is_the_cause(loader: Loader, tmp_path: Path, statement: str) -> None:
    """Whatever importing raises, the error names the file, and has the original as its cause."""
    path = script(tmp_path, statement)
    main = sys.modules["__main__"]
    with pytest.raises(TaskNotImportableError, match=r"program\.py") as caught:
        loader.load(TaskReference("__main__", "f", file=str(path)), "some.task")
    assert caught.value.__cause__ is not None
    assert sys.modules["__main__"] is main


# -- by file -----------------------------------------------------------------------------------------------------


def test_a_script_is_loaded_by_its_file_without_its_guarded_part(loader: Loader, tmp_path: Path) -> None:
    """The main script runs as another module, once, and its classes are found under `__main__` too."""
    path = str(script(tmp_path))
    reference = TaskReference("__main__", "shout", file=path)
    task: Any = loader.load(reference, "script.shout")
    assert task.function("a") == "A"
    module: Any = sys.modules["__main__"]
    assert module is sys.modules[SCRIPT_MODULE]
    assert module.ran == []
    assert loader.load(TaskReference("__main__", "shout", file=path), "script.shout") is task


def test_a_script_refers_to_itself_by_file(tmp_path: Path) -> None:
    """Run as a program, a script's task has the script's path in its reference."""
    path = script(tmp_path, SCRIPT + "\n    from flyteish._authoring.values.task_reference import reference_for\n"
                  "    print(repr(reference_for(shout)))\n")  # fmt: skip
    printed = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr(TaskReference("__main__", "shout", file=str(path)))


def test_a_module_run_as_a_program_keeps_its_package(loader: Loader, tmp_path: Path) -> None:
    """`python -m package.module`: relative imports work in the worker."""
    package = tmp_path / "a_package_for_this"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("WORD = 'helped'")
    path = package / "program.py"
    path.write_text(
        "from a_package_for_this.helper import WORD\nfrom .helper import WORD as same\ndef f(): return same\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        task = loader.load(TaskReference("a_package_for_this.program", "f", file=str(path)), "some.f")
    finally:
        sys.path.remove(str(tmp_path))
        for name in [name for name in sys.modules if name.startswith("a_package_for_this")]:
            del sys.modules[name]
    assert task.function() == "helped"


# -- by value ----------------------------------------------------------------------------------------------------


def test_a_local_function_travels_by_value_with_what_it_closes_over(loader: Loader, blobs: BlockingBlobs) -> None:
    """Closures are pickled into the blob store when they are called."""
    factor = 5
    local = flyteish.TaskEnvironment(name="local")

    @local.task
    def times(x: int) -> int:
        return x * factor

    reference = carried(times, blobs)
    assert needs_value(reference_for(times))
    assert reference.by_value is not None
    loaded = loader.load(reference, times.name)
    assert loaded is not times
    assert loaded.name == "local.times"
    args, kwargs = loaded.signature.decode_inputs(times.signature.encode_inputs((3,), {}))
    assert loaded.function(*args, **kwargs) == 15


def test_an_importable_function_is_not_pickled(blobs: BlockingBlobs) -> None:
    """By name is enough, and follows the code as it is in the worker."""
    assert carried(top, blobs) == reference_for(top)
    assert not needs_value(reference_for(top))


def test_a_function_that_cannot_be_pickled_says_so(blobs: BlockingBlobs) -> None:
    """The error names the task, what is in the way, and the cure."""
    import threading

    lock = threading.Lock()

    def locked() -> None:
        lock.acquire()

    with pytest.raises(SerializationError, match=r"locked.*cannot pickle.*[Dd]efine it at module level"):
        carried(locked, blobs)


# -- what a worker's word is worth where pickling is refused -------------------------------------------------------


@pytest.mark.parametrize(
    "reference, words",
    [
        (TaskReference("antigravity", "fly"), "has not imported 'antigravity'"),
        (TaskReference("__main__", "f", file="/no/such/file.py"), "has not imported '/no/such/file.py'"),
        (TaskReference("os.path", "basename"), "is a function, no task, and a worker's word is not enough"),
        (TaskReference("os", "system"), "is a builtin_function_or_method, no task"),
        (TaskReference("os", "path.join"), "no task|has no 'path.join'"),
    ],
)
def test_a_reference_from_a_worker_imports_and_calls_nothing_new(
    loader: Loader, reference: TaskReference, words: str
) -> None:
    """It has to lead to a declared task of a module that is there already."""
    with pytest.raises(TaskNotImportableError, match=words):
        loader.load(reference, "some.task", may_import=False)
    assert "antigravity" not in sys.modules
    assert loader.load(reference_for(top), top.name, may_import=False) is top


def test_a_function_by_value_is_not_unpickled_where_pickling_is_refused(loader: Loader, blobs: BlockingBlobs) -> None:
    """The error names the setting and the cure."""
    reference = TaskReference("m", "f.<locals>.g", by_value=blobs.put(b"cos\nsystem\n(S'true'\ntR."))
    with pytest.raises(TaskNotImportableError, match=r"allow_pickle = false.*define it at module level"):
        loader.load(reference, "some.task", may_unpickle=False)
