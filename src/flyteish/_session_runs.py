"""The runs of a session: started, found again, and kept by name for as long as they are active.

Takes a root task's arguments down, posts the run to the controller and gives its handle. Must not know how a run is
carried out, nor how the machinery that does it is put together.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from secrets import randbits
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from flyteish._async.work_line import WorkLine
from flyteish._authoring.values.codec import pickling
from flyteish._authoring.values.current_blobs import at_hand
from flyteish._controller import recovery
from flyteish._controller.facts import RunFoundEnded, RunStarted, RunTakenUp
from flyteish._controller.root_call import RootCall
from flyteish._controller.run_handle import Inside, Run
from flyteish._core.billing.cost_summary import on_demand_price
from flyteish._core.model.events import RunSubmitted
from flyteish._core.model.ids import run_name
from flyteish._core.model.settings import SILENT, Opinions, Scope
from flyteish.config import Config
from flyteish.errors import ConfigurationError, FlyteishError, TaskDefinitionError
from flyteish.interfaces import Call, Clock

if TYPE_CHECKING:
    from flyteish._async.feeds import Feeds
    from flyteish._authoring.tasks.task import Task
    from flyteish._controller.loop import Controller
    from flyteish._learning.recorder import Keeper
    from flyteish.interfaces import BlobStore, Limits, RunStore

R = TypeVar("R")

MOST_TAKEN_UP: Final = 1_000_000
_log = logging.getLogger(__name__)


class Opened(Protocol):
    """What an open session runs on, as far as it matters here."""

    controller: Controller
    store: RunStore
    blobs: BlobStore
    feeds: Feeds
    keeper: Keeper
    limits: Limits


class SessionRuns:
    """Handles of active runs, and the settings that their tasks inherit. Thread-safe.

    Args:
        config: the session's.
        clock: for the names of runs.
        machinery: opens the session, if it is not open yet.
    """

    def __init__(self, config: Config, clock: Clock, machinery: Callable[[], Opened]) -> None:
        self._config = config
        self._clock = clock
        self._machinery = machinery
        self.scope = config.scope
        """What the tasks of a run inherit that says nothing of its own."""
        self._scopes: dict[str, Scope] = {}
        self._handles: dict[str, Run[Any]] = {}
        self._lock = threading.Lock()  # guards the two tables above
        self._packing = WorkLine("flyteish: packing values")
        self._noise = itertools.count(randbits(20))  # counted on, so that names of one moment differ

    def __repr__(self) -> str:
        return f"<SessionRuns {len(self._handles)} active>"

    # -- for the controller; any thread --------------------------------------------------------------------------

    def scope_of(self, run: str) -> Scope:
        """What the tasks of this run inherit."""
        return self._scopes.get(run, self.scope)

    def changed(self, run: str) -> None:
        """Its journal has grown."""
        handle = self._handles.get(run)
        if handle is not None:
            handle.changed()

    def loop_ends(self, run: str) -> bool:
        """Whether the event loop that it was started on is being shut down."""
        handle = self._handles.get(run)
        return handle is not None and handle.loop_ends()

    # -- for programs ----------------------------------------------------------------------------------------------

    def scope_saying(self, said: Opinions) -> Scope:
        """What the tasks of a run with these opinions inherit."""
        return self.scope if said == SILENT else msgspec.structs.replace(self.scope, run=said)

    def start(
        self,
        task: Task[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        said: Opinions,
        name: str | None,
        command: str,
    ) -> Run[R]:
        """What ``Session.run`` does, with the run's own opinions."""
        if not getattr(task, "__flyteish_task__", False):
            raise TaskDefinitionError(
                f"run({task!r}) is not accepted: expected a task, a function made one by @env.task"
            )
        machinery = self._machinery()
        controller, blobs = machinery.controller, machinery.blobs.blocking
        run_id = name or run_name(self._clock.now(), next(self._noise))
        scope, entry = self.scope_saying(said), recovery.entry_of(task)
        handle: Run[R] = Run(run_id, task, self._inside(machinery))
        finish = self._finisher(handle)
        waiting = controller.links.waiting(finish, task)

        def submit(call: Call) -> None:
            event = RunSubmitted(run_id, task.name, call.profile.settings.queue, command, entry, said)
            controller.post(RunStarted(event, call, waiting))

        with at_hand(blobs), pickling(self.scope.allow_pickle):
            root = RootCall.taken_down(task, args, kwargs, scope, blobs, machinery.limits)
            call = root.packed() if root.may_be_packed_here() else None
            self._register(handle, scope, machinery, named=name is not None)
            if call is not None:
                submit(call)
            else:
                self._packing.put(partial(root.pack_for, run_id, submit, finish), root.size)
        return handle

    def _register(self, handle: Run[Any], scope: Scope, machinery: Opened, *, named: bool) -> None:
        with self._lock:
            if named and (handle.name in self._handles or machinery.store.run(handle.name) is not None):
                raise ConfigurationError(
                    f"name={handle.name!r} in with_runcontext() is not accepted: there is such a run already"
                )
            self._handles[handle.name] = handle
            self._scopes[handle.name] = scope

    def resume(self, run: str, task: Task[..., R] | None = None, *, here: bool = True) -> Run[R]:
        """What ``Session.resume`` does. ``here``: whether it goes on on the event loop that this is called on."""
        machinery = self._machinery()
        controller = machinery.controller
        with self._lock:
            if run in self._handles:
                return self._handles[run]
        found = recovery.look_up(
            run, task, machinery.store, machinery.blobs, self._handles, allow_pickle=self.scope.allow_pickle
        )
        handle: Run[R] = Run(run, found.task, self._inside(machinery), here=here)
        if found.outcome is not None:
            record = found.state.runs[run]
            # What its root had called may not have let go yet when the controller died.
            controller.post(RunFoundEnded(record) if record.ended_at else RunTakenUp(record, found.last_at))
            handle.finish(found.outcome, None)
            return handle
        recovery.check_queues(found.state.runs[run], [queue.name for queue in self._config.queues])
        recovery.check_pools(found.state.runs[run], controller.pools_that_outlive_it)
        with self._lock:
            if run in self._handles:
                return self._handles[run]
            row = machinery.store.run(run)
            ended = row is not None and row.ended_at is not None  # under somebody who was faster
            if not ended:
                self._handles[run] = handle
                self._scopes[run] = self.scope_saying(found.said)
        if ended:
            return self.resume(run, task, here=here)
        waiting = controller.links.waiting(self._finisher(handle), found.task)
        if not here:
            waiting.loop = None
        controller.post(RunTakenUp(found.state.runs[run], found.last_at, waiting))
        return handle

    def take_up_all(self) -> None:
        """The unfinished runs of earlier sessions go on here, the oldest first; one that cannot is left as it is."""
        machinery = self._machinery()
        unfinished = machinery.store.runs(MOST_TAKEN_UP, active_only=not machinery.controller.attempts_outlive_it)
        for row in reversed(unfinished):
            if row.ended_at is not None and row.costs:
                continue  # with all that its root had called
            try:
                self.resume(row.run, here=False)
            except FlyteishError as error:
                _log.warning("run %s is left as it is: %s", row.run, error)

    def _finisher(self, handle: Run[Any]) -> Any:
        def finish(outcome: Any, live: BaseException | None) -> None:
            with self._lock:
                self._handles.pop(handle.name, None)
                self._scopes.pop(handle.name, None)
            handle.finish(outcome, live)

        return finish

    def _inside(self, machinery: Opened) -> Inside:
        price = on_demand_price(self._config.pools)
        of = machinery
        return Inside(of.controller, of.store, of.blobs, of.feeds, price, of.keeper, self.scope.allow_pickle)
