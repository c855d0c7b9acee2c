"""The session: opens its machinery from a configuration, starts and resumes runs in it, and closes it again.

Must not know how anything is done below (``_assembly`` picks the parts). Several sessions live side by side in one
process; nothing here is shared between them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextvars import Token
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from flyteish import _in_use
from flyteish._authoring.tasks.options import RunOptions, refuse_strangers, takes
from flyteish._controller import recovery
from flyteish._controller.clock import SystemClock
from flyteish._controller.run_handle import Run
from flyteish._controller.state_queries import ask
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, Opinions, Scope, Secret
from flyteish._engine_kinds import BUILT_IN
from flyteish._session_runs import SessionRuns
from flyteish.config import Config, environment_secret, load_config
from flyteish.errors import ConfigurationError, SessionClosedError
from flyteish.interfaces import Clock, EngineFactory

if TYPE_CHECKING:
    from types import TracebackType

    from flyteish._assembly import Machinery
    from flyteish._authoring.tasks.task import Task
    from flyteish._learning.forecasts import Comparison, Forecast, ForecastOptions

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Run", "Runner", "Session"]


class Session:
    """Runs tasks: a controller on a thread of its own, with its queues, pools, engines and store.

    Use it as ``with Session(...)`` or ``async with Session(...)``; within the block ``flyteish.run`` uses it.

    Args:
        queues: all queues. Default: those of the configuration, else one called ``default``.
        pools: all pools. Default: those of the configuration, else ``spot`` and ``on-demand``, both inline.
        home: folder of store, blobs and logs. Default: ``FLYTEISH_HOME``, else the platform's state folder.
        durability: ``"process"`` (survives ``kill -9``), ``"full"`` (and loss of power) or ``"memory"`` (nothing kept).
        defaults: settings that tasks get when nobody more specific says otherwise, by name.
        secrets: values of secrets by name; others are looked up in the environment.
        config: a whole configuration, in place of all of the above but ``secrets``.
        clock: time and chance, for tests.
        print_to_log: also keep what inline tasks print in the attempts' logs.
        engines: engines that the program brings, by the names with which pools ask for them; each is called for every
            cluster that such pools name, without arguments, and gives an engine that is not open yet.
        recover: ``"all"``: opening the session takes up all runs that an earlier one left unfinished; those that
            cannot be are left, with a warning. Default: as configured, else ``"none"``: ``resume`` takes up one.

    Raises:
        ConfigurationError: a setting is wrong; says which and where.
        StoreLockedError: another live controller uses the same home.
    """

    def __init__(
        self,
        queues: Sequence[Queue] | UnsetType = UNSET,
        pools: Sequence[Pool] | UnsetType = UNSET,
        *,
        home: str | Path | UnsetType = UNSET,
        durability: Any = UNSET,
        defaults: Mapping[str, Any] | UnsetType = UNSET,
        secrets: Mapping[str, str] | None = None,
        config: Config | None = None,
        clock: Clock | None = None,
        print_to_log: bool = False,
        engines: Mapping[str, EngineFactory] | None = None,
        recover: Literal["none", "all"] | UnsetType = UNSET,
    ) -> None:
        self._engines = dict(engines or {})
        if taken := sorted(self._engines.keys() & set(BUILT_IN)):
            raise ConfigurationError(f"engines={taken} of a Session is not accepted: expected other names than {taken}")
        self.config = config or load_config(
            queues=queues, pools=pools, home=home, durability=durability, defaults=defaults, engines=self._engines
        )
        self._recover = self.config.recover if recover is UNSET else recover
        if self._recover not in ("none", "all"):
            raise ConfigurationError(f"recover={recover!r} of a Session is not accepted: expected 'none' or 'all'")
        self._secrets = dict(secrets or {})
        self._clock = clock or SystemClock()
        self._print_to_log = print_to_log
        self._runs = SessionRuns(self.config, self._clock, self._open)
        self._life = threading.Lock()  # guards the two facts below; held while opening and closing
        self._machinery: Machinery | None = None
        self._closed = False
        self._tokens: list[Token[Any]] = []

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._machinery is not None else "not open"
        return f"<Session {state}, home={str(self.config.home)!r}, queues={[q.name for q in self.config.queues]}>"

    # -- life ----------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Claim the store and start the controller; entering the session does it, and so does the first run."""
        self._open()
        return self

    def _open(self) -> Machinery:
        machinery = self._machinery
        if machinery is not None and not self._closed:
            return machinery
        opened = False
        with self._life:
            if self._closed:
                raise SessionClosedError("this session was closed; make a new one")
            if self._machinery is None:
                from flyteish._assembly import Machinery

                self._machinery = Machinery(
                    self.config,
                    clock=self._clock,
                    secrets=self._secret,
                    scopes=self._runs.scope_of,
                    on_change=self._runs.changed,
                    loop_ends=self._runs.loop_ends,
                    print_to_log=self._print_to_log,
                    engines=self._engines,
                )
                opened = True
        if opened and self._recover == "all":
            try:
                self._runs.take_up_all()
            except BaseException:
                self.close()
                raise
        return self._machinery

    def close(self) -> None:
        """Stop what runs, answer who waits, let go of the store. Unfinished runs can be resumed. Idempotent.

        On a running event loop use ``async with``, or call this on a thread: called on the loop itself it blocks
        it, and attempts there can only clean up afterwards.
        """
        with self._life:
            if not self._closed:
                self._closed = True
                if self._machinery is not None:
                    self._machinery.close()

    def __enter__(self) -> Self:
        self.open()
        self._tokens.append(_in_use.enter(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _in_use.leave(self._tokens.pop())
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self.open)
        except asyncio.CancelledError:
            await asyncio.to_thread(self.close)  # the thread may have opened it all the same
            raise
        self._tokens.append(_in_use.enter(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _in_use.leave(self._tokens.pop())
        # Closing waits for attempts on this very loop to clean up, so it must not block it.
        await asyncio.to_thread(self.close)

    def _secret(self, secret: Secret) -> str | None:
        name = f"{secret.group}/{secret.key}" if secret.group else secret.key
        value = self._secrets.get(name)
        return value if value is not None else environment_secret(secret.env_name)

    # -- runs ----------------------------------------------------------------------------------------------------

    def run(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run of ``task`` and return its handle at once.

        Raises:
            TypeError: the arguments do not fit the task's signature; the message names the task.
            ResourceExhaustedError, UnknownQueueError: raised by the handle, which is refused.
        """
        return self.with_runcontext().run(task, *args, **kwargs)

    @takes(RunOptions)
    def with_runcontext(
        self,
        mode: str | None = None,
        *,
        name: str | None = None,
        overwrite_cache: bool = False,
        disable_run_cache: bool = False,
        command: str = "",
        **options: Unpack[RunOptions],
    ) -> Runner:
        """Settings for one run and everything in it: above ``@env.task``, below ``.override()``.

        Args:
            mode: ``"local"`` or None, which mean the same here; there for programs written for Flyte 2.
            name: the run's name. Default: one that sorts by time.
            overwrite_cache: compute anew and store. disable_run_cache: neither read nor store.
            command: for people: how the run was started.
            options: ``env_vars``, ``interruptible``, ``queue``, ``priority``, ``cache``: as on ``@env.task``.
        """
        if mode not in (None, "local"):
            raise ConfigurationError(f"mode={mode!r} in with_runcontext() is not accepted: expected 'local' or None")
        recovery.check_name(name)
        refuse_strangers("with_runcontext", Session.with_runcontext, options)
        if overwrite_cache or disable_run_cache:
            options["cache"] = "override" if overwrite_cache else "disable"
        return Runner(self, opinions(Level.RUN, "with_runcontext()", options), name, command)

    def resume(self, run: str, task: Task[..., R] | None = None) -> Run[R]:
        """Take up a run whose controller died: the root runs again, finished children return their results.

        A run that is over gives its recorded outcome, one that is active in this session its handle.

        Args:
            run: the run's name.
            task: the root task. Default: loaded from where the run recorded that it is.

        Raises:
            RunNotFoundError: the store knows no such run; near names are suggested.
            ConfigurationError: ``task`` is another task than the run's; or attempts of it may live of which no engine
                of this session would know.
            UnknownQueueError: unfinished work of the run is in a queue that is not configured any more.
            TaskNotImportableError: the root task cannot be found again.
        """
        return self._runs.resume(run, task)

    # -- forecasts -----------------------------------------------------------------------------------------------

    def forecast(self, task: Task[..., Any], **options: Unpack[ForecastOptions]) -> Forecast:
        """When a run of ``task`` would finish here and what it would cost; options as for ``task.forecast``."""
        return self.with_runcontext().forecast(task, **options)

    def forecast_within(self, scope: Scope, task: Task[..., Any], options: ForecastOptions) -> Forecast:
        """What ``forecast`` does, with the run's own opinions in ``scope``."""
        from flyteish.forecasting.forecaster import Basis, forecast

        machinery = self._open()
        controller, config = machinery.controller, self.config
        picture = ask(controller, machinery.keeper.picture)
        if picture is None:
            raise controller.over or SessionClosedError("this session was closed; make a new one")
        basis = Basis(
            config.queues, config.pools, picture.learned, picture.ahead, config.max_workers, self._clock.now()
        )
        found = forecast(task.name, task.settings(scope), basis, options)
        machinery.keeper.remember(found)
        return found

    def forecasts(self, task: Task[..., Any] | str | None = None) -> tuple[Comparison, ...]:
        """Runs that are over beside their forecasts, the oldest first: of one task, or of all.

        ``Calibration.of`` of ``flyteish.forecasting`` sums them up.
        """
        name = getattr(task, "name", task)
        return tuple(each for each in self._open().keeper.comparisons() if name in (None, each.task))

    # -- operating -----------------------------------------------------------------------------------------------

    def set_queue_state(self, queue: str, state: str) -> None:
        """``hold`` keeps a queue from starting work, ``drain`` refuses new work, ``active`` undoes both.

        Survives a restart. Raises ConfigurationError for an unknown queue or state.
        """
        known = [each.name for each in self.config.queues]
        if queue not in known:
            raise ConfigurationError(f"queue={queue!r} is not accepted: known queues are {', '.join(known)}")
        if state not in ("active", "held", "draining"):
            raise ConfigurationError(f"state={state!r} is not accepted: expected 'active', 'held' or 'draining'")
        machinery = self._open()
        if machinery.controller.over is not None:
            raise machinery.controller.over
        machinery.commands.set_queue_state(queue, state)


class Runner:
    """A session with settings for one run: what ``with_runcontext`` returns."""

    def __init__(self, session: Session, said: Opinions, name: str | None, command: str) -> None:
        self._session = session
        self._said = said
        self._name = name
        self._command = command

    def run(self, task: Task[..., R], *args: Any, **kwargs: Any) -> Run[R]:
        """As ``Session.run``, with these settings."""
        return self._session._runs.start(task, args, kwargs, self._said, self._name, self._command)

    def forecast(self, task: Task[..., Any], **options: Unpack[ForecastOptions]) -> Forecast:
        """As ``Session.forecast``, with these settings."""
        return self._session.forecast_within(self._session._runs.scope_saying(self._said), task, options)
