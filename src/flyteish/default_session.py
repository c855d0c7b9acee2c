"""The session in use, for programs that name none: that of the enclosing block, else the default one.

Makes the default session when it is first needed, with the configuration's settings. Must not know what a session
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from flyteish import _in_use
from flyteish._authoring.tasks.options import RunOptions, takes
from flyteish._core.model.queues import Pool, Queue
from flyteish.session import Run, Runner, Session

if TYPE_CHECKING:
    from flyteish._authoring.tasks.task import Task
    from flyteish._learning.forecasts import Comparison

P = ParamSpec("P")
R = TypeVar("R")


def current_session() -> Session:
    """The session of the enclosing ``with Session(...)`` block, else the default one, made at its first use."""
    session: Session = _in_use.session_in_use(Session)
    return session


def init(
    queues: Sequence[Queue] | UnsetType = UNSET,
    pools: Sequence[Pool] | UnsetType = UNSET,
    *,
    home: str | Path | UnsetType = UNSET,
    durability: Any = UNSET,
    defaults: Mapping[str, Any] | UnsetType = UNSET,
    secrets: Mapping[str, str] | None = None,
) -> Session:
    """Make the default session, closing the one before; parameters as for ``Session``.

    It is closed when the program ends. Programs that never call it get one with the configuration's settings.
    """
    session = Session(queues, pools, home=home, durability=durability, defaults=defaults, secrets=secrets)
    _in_use.replace_default(session)
    return session


def run(task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
    """Start a run in the current session and return its handle at once: ``await`` it, or ``.wait()``, ``.result()``."""
    return current_session().run(task, *args, **kwargs)


@takes(RunOptions)
def with_runcontext(
    mode: str | None = None,
    *,
    name: str | None = None,
    overwrite_cache: bool = False,
    disable_run_cache: bool = False,
    **options: Unpack[RunOptions],
) -> Runner:
    """As ``Session.with_runcontext``, in the current session."""
    return current_session().with_runcontext(
        mode, name=name, overwrite_cache=overwrite_cache, disable_run_cache=disable_run_cache, **options
    )


def forecasts(task: Task[..., Any] | str | None = None) -> tuple[Comparison, ...]:
    """As ``Session.forecasts``, in the current session."""
    return current_session().forecasts(task)
