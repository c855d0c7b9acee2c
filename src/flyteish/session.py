"""The composition root: builds a controller, its engines and stores from a configuration, and starts runs in it.

The only place that knows every implementation. Several sessions live side by side in one process; nothing here is
shared between them, save the one default session that ``init`` or the first ``run`` makes for programs that want
no session object.
"""

from __future__ import annotations

import asyncio
import secrets as chance
import sys
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from flyteish._authoring.calling import profile_of
from flyteish._authoring.feed import Feeds
from flyteish._authoring.payloads import pack
from flyteish._authoring.reference import needs_value, reference_for
from flyteish._controller.clock import SystemClock
from flyteish._controller.handles import Inside, Run
from flyteish._controller.loop import Controller
from flyteish._controller.mailman import Mailman
from flyteish._controller.orders import OrderDesk
from flyteish._controller.reclaimer import Reclaimer
from flyteish._core.cost import on_demand_price
from flyteish._core.events import Configured, RunSubmitted
from flyteish._core.ids import AttemptKey, inputs_digest, run_name
from flyteish._core.queues import Pool, Queue
from flyteish._core.settings import SILENT, Level, Opinions, Scope, Secret, opinions

from flyteish.config import Config, environment_secret, load_config
from flyteish.engines.inline import InlineEngine
from flyteish.errors import ConfigurationError, RunNotFoundError, SessionClosedError
from flyteish.interfaces import BlobStore, Call, Clock, Engine, Mailbox, Origin, RunStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from flyteish._authoring.task import Task

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Run", "Runner", "Session", "init", "run", "with_runcontext"]


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
    ) -> None:
        self.config = config or load_config(
            queues=queues, pools=pools, home=home, durability=durability, defaults=defaults
        )
        self._secrets = dict(secrets or {})
        self._clock = clock or SystemClock()
        self._print_to_log = print_to_log
        self._scope = self.config.scope
        self._scopes: dict[str, Scope] = {}
        self._runs: dict[str, Run[Any]] = {}
        self._lock = threading.Lock()
        self._opened = False
        self._closed = False
        self._portal: BlockingPortal | None = None
        self._exit_portal: AbstractContextManager[BlockingPortal] | None = None
        self._tokens: list[Token[Session | None]] = []

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._opened else "not open"
        return f"<Session {state}, home={str(self.config.home)!r}, queues={[q.name for q in self.config.queues]}>"

    # -- life ----------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Claim the store and start the controller; entering the session does it, and so does the first run."""
        with self._lock:
            if self._closed:
                raise SessionClosedError("this session was closed; make a new one")
            if not self._opened:
                self._build()
                self._opened = True
        return self

    def close(self) -> None:
        """Stop what runs, answer who waits, let go of the store. Unfinished runs can be resumed. Idempotent."""
        with self._lock:
            if self._closed or not self._opened:
                self._closed = True
                return
            self._closed = True
        assert self._portal is not None and self._exit_portal is not None
        try:
            self._portal.call(self._shut)
        finally:
            self._exit_portal.__exit__(None, None, None)
            self._store.close()

    async def _shut(self) -> None:
        self._mailman.close()
        await self._controller.close()

    def __enter__(self) -> Self:
        self.open()
        self._tokens.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.open)
        self._tokens.append(_current.set(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())
        # Closing waits for attempts on this very loop to clean up, so it must not block it.
        await asyncio.to_thread(self.close)

    def _build(self) -> None:
        from anyio.from_thread import start_blocking_portal

        config = self.config
        self._store, self._mailbox = _stores(config)
        self._store.open()
        try:
            self._blobs = _blobs(config)
            inline: list[InlineEngine] = []
            self._feeds = Feeds(lambda callback, arguments: inline[0].dropped(callback, arguments))
            engines = self._engines(inline)
            reclaimers = {pool.name: Reclaimer(pool, pool.market) for pool in config.pools if pool.market is not None}
            self._controller = Controller(
                configured=Configured(config.queues, _sized(config)),
                engines=engines,
                reclaimers=reclaimers,
                store=self._store,
                blobs=self._blobs,
                clock=self._clock,
                orders=OrderDesk(
                    blobs=self._blobs,
                    clock=self._clock,
                    scopes=lambda run: self._scopes.get(run, self._scope),
                    lifetimes=lambda pool: 7200.0,
                    lookup=self._secret,
                ),
                stop_grace=config.stop_grace,
                log_path=self._log_path,
                on_change=self._changed,
                on_drained=lambda queue: self._mailman.keep(queue, "drained"),
            )
            self._mailman = Mailman(self._controller, self._mailbox)
            self._exit_portal = start_blocking_portal("asyncio", name="flyteish-controller")
            self._portal = self._exit_portal.__enter__()
            self._portal.call(self._start)
        except BaseException:
            self._store.close()
            raise

    async def _start(self) -> None:
        await self._controller.open()
        self._mailman.open()

    def _engines(self, inline: list[InlineEngine]) -> dict[str, Engine]:
        config = self.config
        inline.append(
            InlineEngine(
                feeds=self._feeds,
                clock=self._clock,
                max_threads=config.max_threads,
                inline_limit=config.inline_limit,
                max_result=config.max_value_size,
                print_to_log=self._print_to_log,
            )
        )
        engines: dict[str, Engine] = {"inline": inline[0]}
        kinds = {pool.engine for pool in config.pools}
        if "processes" in kinds:
            from flyteish.engines.processes import ProcessesEngine

            engines["processes"] = ProcessesEngine(max_workers=config.max_workers)
        if "kubernetes" in kinds:
            raise ConfigurationError(
                "engine='kubernetes' of a Pool needs the Kubernetes engine, which is not installed"
            )
        return engines

    def _log_path(self, key: AttemptKey) -> Path | None:
        if not self.config.keep_logs or self.config.durability == "memory":
            return None
        folder = self.config.paths.make(self.config.paths.logs / key.run)
        return folder / f"{key.action}.{key.generation}.log"

    def _secret(self, secret: Secret) -> str | None:
        name = f"{secret.group}/{secret.key}" if secret.group else secret.key
        value = self._secrets.get(name)
        return value if value is not None else environment_secret(secret.env_name)

    def _changed(self, run: str) -> None:
        handle = self._runs.get(run)
        if handle is not None:
            handle.changed()

    # -- runs ----------------------------------------------------------------------------------------------------

    def run(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run of ``task`` and return its handle at once.

        Raises:
            TypeError: the arguments do not fit the task's signature; the message names the task.
            ResourceExhaustedError, UnknownQueueError: raised by the handle, which is refused.
        """
        return self.with_runcontext().run(task, *args, **kwargs)

    def with_runcontext(
        self,
        mode: str | None = None,
        *,
        name: str | None = None,
        env_vars: Mapping[str, str] | UnsetType = UNSET,
        interruptible: Any = UNSET,
        queue: str | UnsetType = UNSET,
        priority: Any = UNSET,
        cache: Any = UNSET,
        overwrite_cache: bool = False,
        disable_run_cache: bool = False,
        command: str = "",
    ) -> Runner:
        """Settings for one run and everything in it: above ``@env.task``, below ``.override()``.

        Args:
            mode: ``"local"`` or None, which mean the same here; there for programs written for Flyte 2.
            name: the run's name. Default: one that sorts by time.
            env_vars, interruptible, queue, priority, cache: as on ``@env.task``.
            overwrite_cache: compute anew and store. disable_run_cache: neither read nor store.
            command: for people: how the run was started.
        """
        if mode not in (None, "local"):
            raise ConfigurationError(f"mode={mode!r} in with_runcontext() is not accepted: expected 'local' or None")
        if overwrite_cache or disable_run_cache:
            cache = "override" if overwrite_cache else "disable"
        said = {
            "env_vars": env_vars, "interruptible": interruptible, "queue": queue, "priority": priority, "cache": cache,
        }  # fmt: skip
        return Runner(self, opinions(Level.RUN, "with_runcontext()", said), name, command)

    def start(
        self,
        task: Task[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        said: Opinions,
        name: str | None,
        command: str,
    ) -> Run[R]:
        """What ``run`` does, with the run's own opinions."""
        self.open()
        data = task.signature.encode_inputs(args, kwargs)
        scope = self._scope if said == SILENT else msgspec.structs.replace(self._scope, run=said)
        profile = profile_of(task, scope, self._blobs)
        run_id = name or run_name(self._clock.now(), chance.randbits(20))
        if name is not None and self._store.run(name) is not None:
            raise ConfigurationError(f"name={name!r} in with_runcontext() is not accepted: there is such a run already")
        handle: Run[R] = Run(run_id, task, self._inside())
        with self._lock:
            self._runs[run_id] = handle
            self._scopes[run_id] = scope
        call = Call(profile, pack(data, self._blobs), inputs_digest(data))
        event = RunSubmitted(run_id, task.name, profile.settings.queue, command, _entry(task), said)
        origin = Origin(self._controller.caller_loop(), copy_context(), task)
        self._controller.post(self._controller.take_run, event, call, origin, self._finisher(handle))
        return handle

    def resume(self, run: str, task: Task[..., R] | None = None) -> Run[R]:
        """Take up a run whose controller died: the root runs again, finished children return their results.

        Args:
            run: the run's name.
            task: the root task. Default: loaded from where the run recorded that it is.

        Raises:
            RunNotFoundError: the store knows no such run.
            TaskNotImportableError: the root task cannot be found again.
        """
        from flyteish._controller.resuming import outcome_on_record, recorded_opinions, root_task
        from flyteish._core.replay import state_of

        self.open()
        entries = [entry for _, entry in self._store.read(run)]
        if not entries:
            raise RunNotFoundError(f"no run {run!r} in the store {self.config.paths.store}")
        state = state_of(entries)
        root: Task[..., R] = task or root_task(state.runs[run], self._blobs)
        handle: Run[R] = Run(run, root, self._inside())
        outcome = outcome_on_record(state.runs[run])
        if outcome is not None:
            handle.finish(outcome, None)
            return handle
        with self._lock:
            self._runs[run] = handle
            said = recorded_opinions(entries)
            self._scopes[run] = self._scope if said == SILENT else msgspec.structs.replace(self._scope, run=said)
        origin = Origin(self._controller.caller_loop(), copy_context(), root)
        self._controller.post(self._controller.take_resume, state, run, origin, self._finisher(handle))
        return handle

    def _finisher(self, handle: Run[Any]) -> Any:
        def finish(outcome: Any, live: BaseException | None) -> None:
            handle.finish(outcome, live)
            with self._lock:
                self._runs.pop(handle.name, None)
                self._scopes.pop(handle.name, None)

        return finish

    def _inside(self) -> Inside:
        price = on_demand_price(self.config.pools)
        return Inside(self._controller, self._store, self._blobs, self._feeds, price)

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
        self.open()
        self._mailman.set_queue_state(queue, state)


class Runner:
    """A session with settings for one run: what ``with_runcontext`` returns."""

    def __init__(self, session: Session, said: Opinions, name: str | None, command: str) -> None:
        self._session = session
        self._said = said
        self._name = name
        self._command = command

    def run(self, task: Task[..., R], *args: Any, **kwargs: Any) -> Run[R]:
        """As ``Session.run``, with these settings."""
        return self._session.start(task, args, kwargs, self._said, self._name, self._command)


# -- the session in use ------------------------------------------------------------------------------------------

_current: ContextVar[Session | None] = ContextVar("flyteish_session", default=None)
# The one piece of process-wide state, made on demand only: programs without a session object need it somewhere.
_default: list[Session] = []
_default_lock = threading.Lock()


def current_session() -> Session:
    """The session of the enclosing ``with Session(...)`` block, else the default one, made at its first use."""
    session = _current.get()
    if session is not None:
        return session
    with _default_lock:
        if not _default:
            _make_default(Session())
        return _default[0]


def _make_default(session: Session) -> None:
    import atexit

    _default.append(session)
    atexit.register(session.close)


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
    with _default_lock:
        for old in _default:
            old.close()
        _default.clear()
        _make_default(session)
    return session


def run(task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
    """Start a run in the current session and return its handle at once: ``await`` it, or ``.wait()``, ``.result()``."""
    return current_session().run(task, *args, **kwargs)


def with_runcontext(
    mode: str | None = None,
    *,
    name: str | None = None,
    env_vars: Mapping[str, str] | UnsetType = UNSET,
    interruptible: Any = UNSET,
    queue: str | UnsetType = UNSET,
    priority: Any = UNSET,
    cache: Any = UNSET,
    overwrite_cache: bool = False,
    disable_run_cache: bool = False,
) -> Runner:
    """As ``Session.with_runcontext``, in the current session."""
    return current_session().with_runcontext(
        mode, name=name, env_vars=env_vars, interruptible=interruptible, queue=queue, priority=priority, cache=cache,
        overwrite_cache=overwrite_cache, disable_run_cache=disable_run_cache,
    )  # fmt: skip


# -- choosing implementations --------------------------------------------------------------------------------------


def _stores(config: Config) -> tuple[RunStore, Mailbox]:
    if config.durability == "memory":
        from flyteish.stores.memory import MemoryStore

        memory = MemoryStore()
        return memory, memory
    from flyteish.stores.sqlite import SqliteStore

    config.paths.make()
    store = SqliteStore(config.paths.store, durability="power" if config.durability == "full" else "process")
    return store, store


def _blobs(config: Config) -> BlobStore:
    if config.durability == "memory" and not any(pool.engine != "inline" for pool in config.pools):
        from flyteish.blobs.memory import MemoryBlobStore

        return MemoryBlobStore()
    from flyteish.blobs.files import FileBlobStore

    return FileBlobStore(config.paths.make(config.paths.blobs))


def _sized(config: Config) -> tuple[Pool, ...]:
    """Pools of worker processes without a capacity get one: enough to keep the workers busy, few enough to keep order."""
    several = config.max_workers * 16
    return tuple(
        msgspec.structs.replace(pool, capacity=several) if pool.engine == "processes" and not pool.capacity else pool
        for pool in config.pools
    )


def _entry(task: Task[..., Any]) -> str:
    """Where a person, and a later process, find the task: ``FILE:name``; ``module:name`` for what has no file.

    Empty for a task of a notebook, of a prompt or inside a function, which no later process can find.
    """
    reference = reference_for(task)
    if needs_value(reference):
        return ""
    file = reference.file or getattr(sys.modules.get(reference.module), "__file__", None)
    return f"{Path(file).resolve() if file else reference.module}:{reference.name}"
