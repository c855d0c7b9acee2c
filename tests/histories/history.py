"""A history as data: what is configured, which tasks there are, and the steps that are taken; nothing is drawn here.

Steps name whom they concern by names that do not depend on other steps (run ``r3``, call ``c7``), so that a step can
be left out and the others still mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from flyteish._core.model.events import Configured
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings

Step = tuple[Any, ...]
"""A kind of step (a row of ``steps.STEPS``) and its arguments: strings, numbers, booleans."""


class History(msgspec.Struct, frozen=True):
    """Everything that makes a history; to play it twice gives the same twice."""

    configurations: tuple[Configured, ...]
    """The first is in force from the beginning, the others when a step says so."""
    tasks: dict[str, Settings]
    steps: tuple[Step, ...] = ()


# -- simpler ones ----------------------------------------------------------------------------------------------------


def simpler(history: History) -> Iterator[History]:
    """The same history with one thing fewer in its configuration, each in turn; some make no sense."""
    replace = msgspec.structs.replace
    first, *others = history.configurations
    for n in range(len(others)):
        yield replace(history, configurations=(first, *others[:n], *others[n + 1 :]))
    for name in history.tasks:
        tasks = {other: settings for other, settings in history.tasks.items() if other != name}
        yield replace(history, tasks=tasks)
    for n, config in enumerate(history.configurations):
        for other in _simpler_configuration(config):
            configurations = (*history.configurations[:n], other, *history.configurations[n + 1 :])
            yield replace(history, configurations=configurations)
    for name, settings in history.tasks.items():
        for plainer in _plainer(settings):
            yield replace(history, tasks={**history.tasks, name: plainer})


def _simpler_configuration(config: Configured) -> Iterator[Configured]:
    queues, pools = config.queues, config.pools
    for n in range(len(queues)):
        yield Configured((*queues[:n], *queues[n + 1 :]), pools)
    for n, gone in enumerate(pools):
        rest = [
            msgspec.structs.replace(queue, pools=tuple(name for name in queue.pools if name != gone.name))
            for queue in queues
        ]
        yield Configured(tuple(rest), (*pools[:n], *pools[n + 1 :]))
    for n, queue in enumerate(queues):
        for plainer in _plainer(queue):
            yield Configured((*queues[:n], plainer, *queues[n + 1 :]), pools)
    for n, pool in enumerate(pools):
        for plainer_pool in _plainer(pool):
            yield Configured(queues, (*pools[:n], plainer_pool, *pools[n + 1 :]))


_NESTED = (Backoff, RetryStrategy, SpotPolicy, Timeout)
_NAMES = ("name", "medium", "queue")


def _plainer(value: Any) -> Iterator[Any]:
    """The same struct with one field at its default, or with a plainer struct in a field."""
    for field in msgspec.structs.fields(value):
        if field.name in _NAMES:
            continue
        has = getattr(value, field.name)
        default = _default(field)
        if has != default:
            yield msgspec.structs.replace(value, **{field.name: default})
        if isinstance(has, _NESTED):
            for plainer in _plainer(has):
                yield msgspec.structs.replace(value, **{field.name: plainer})


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


# -- as Python -------------------------------------------------------------------------------------------------------

_STRUCTS = (Configured, Queue, Pool, Settings, Resources, *_NESTED)


def as_python(value: Any) -> str:
    """Source text that makes this value."""
    if isinstance(value, _STRUCTS):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        said = [f"{f.name}={as_python(has)}" for f, has in fields if f.required or has != _default(f)]
        return f"{type(value).__name__}({', '.join(said)})"
    if isinstance(value, tuple):
        items = [as_python(item) for item in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return repr(value).replace("'", '"') if isinstance(value, str) and '"' not in value else repr(value)


def as_test(history: History, name: str, says: str) -> str:
    """A test that plays this history, to be pasted beside the fix."""
    lines = [f"def test_{name}() -> None:", f'    """{says}"""', "    play(", "        History("]
    lines += ["            configurations=("]
    lines += [f"                {as_python(config)}," for config in history.configurations]
    lines += ["            ),", "            tasks={"]
    lines += [f'                "{task}": {as_python(settings)},' for task, settings in history.tasks.items()]
    lines += ["            },", "            steps=("]
    lines += [f"                {as_python(step)}," for step in history.steps]
    lines += ["            ),", "        )", "    )"]
    return "\n".join(lines)
