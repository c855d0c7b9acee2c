"""How a task is named so that another process can load it: by module, by the script's file, or by value.

Decides which of the three a function needs. Must not know how a worker loads it (``_worker.loader``), nor
what a value costs to carry: pickling happens only in ``pickled``, and only for what has no importable name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from flyteish._core.model.values import TaskReference
from flyteish.errors import SerializationError
from flyteish.interfaces import BlockingContent

#: What a worker calls the program's main script, so that ``if __name__ == "__main__"`` is not run.
SCRIPT_MODULE: Final = "__mp_main__"


def reference_for(task: Any) -> TaskReference:
    """The reference of a task, or of its plain function. Cheap: nothing is read, pickled or stored.

    A function of the main script gets the script's ``file``; one of a module run by ``python -m`` keeps the
    module's real name too, so that relative imports work in the worker.
    """
    function: Callable[..., Any] = getattr(task, "function", task)
    module, name = function.__module__, function.__qualname__
    if module not in ("__main__", SCRIPT_MODULE):
        return TaskReference(module=module, name=name)
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if not isinstance(file, str) or file.startswith("<"):
        return TaskReference(module="__main__", name=name)
    return TaskReference(module="__main__" if spec is None else spec.name, name=name, file=str(Path(file).absolute()))


def needs_value(reference: TaskReference) -> bool:
    """Whether another process cannot find the function by its name: local functions, notebooks, prompts."""
    return "<" in reference.name or (reference.module == "__main__" and reference.file is None)


def carried(task: Any, blobs: BlockingContent) -> TaskReference:
    """The reference, with the function pickled into the blob store where it has no importable name.

    Blocks while it stores. To be called when the task is called: the function is carried as it is then.

    Raises:
        SerializationError: the function, or something that it closes over, cannot be pickled.
        BlobError: the store cannot be written.
    """
    data = pickled(task)
    return reference_for(task) if data is None else by_value(task, data, blobs)


def by_value(task: Any, data: bytes, blobs: BlockingContent) -> TaskReference:
    """The reference, with the function as it was pickled; blocks while that is stored."""
    return msgspec.structs.replace(reference_for(task), by_value=blobs.put(data))


def pickled(task: Any) -> bytes | None:
    """The function pickled, where it has no importable name; None: it has one.

    Raises:
        SerializationError: the function, or something that it closes over, cannot be pickled.
    """
    reference = reference_for(task)
    if not needs_value(reference):
        return None
    import cloudpickle  # here, since few programs need it

    function = getattr(task, "function", task)
    try:
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise SerializationError(
            f"task {getattr(task, 'name', reference.name)!r} cannot be carried to a worker by value: "
            f"{type(error).__name__}: {error}. Define it at module level in an importable file, or create "
            "what it closes over inside the task"
        ) from error
    return data
