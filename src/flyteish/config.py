"""From files, environment variables and arguments to one checked ``Config`` that knows where each value comes from.

The only reader of the environment. Must not open stores, start engines or create folders. Later sources win, by key:

    built-in defaults
    user file         config.toml in the user's configuration folder for flyteish
    project file      flyteish.toml, or [tool.flyteish] in pyproject.toml: the first found from here upwards
    FLYTEISH_CONFIG   one more file
    FLYTEISH_*        FLYTEISH_HOME, FLYTEISH_MAX_THREADS, ..., FLYTEISH_DEFAULTS_RETRIES, ...
    arguments         of ``load_config``; ``queues`` and ``pools`` given here replace all of the others
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import platformdirs
from msgspec import UNSET, UnsetType
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic import Field as Checked
from pydantic_core import ErrorDetails, PydanticCustomError

from flyteish._core.model.queues import ON_DEMAND, SPOT, Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, Opinions, Scope
from flyteish._engine_kinds import checked
from flyteish.config_values import (
    SETTINGS,
    TIMES,
    FoundFile,
    Origin,
    blame,
    built_tables,
    by_name,
    pool_fields,
    project_file,
    read_file,
    seconds,
    spelt,
    spelt_settings,
    unknown,
    wrong,
)
from flyteish.errors import ConfigurationError
from flyteish.interfaces import Limits
from flyteish.paths import Paths

Durability = Literal["full", "process", "memory"]
Recover = Literal["none", "all"]
BUILT_IN: Final = "built-in default"
ARGUMENT: Final = "argument"
_Key = tuple[str, ...]
_Values = dict[_Key, tuple[Any, str]]  # key -> value and source, in order of first mention

# -- what a file may say ------------------------------------------------------------------------------------


def _time(value: object) -> float:
    try:
        return seconds(value)
    except ValueError:
        raise PydanticCustomError("time", "Input should be {accepted}", {"accepted": TIMES}) from None


def _size(value: Any) -> int:
    try:
        return Resources(memory=int(value) if isinstance(value, str) and value.isdigit() else value).amounts().memory
    except ConfigurationError:
        raise PydanticCustomError("size", "Input should be bytes >= 0 or a quantity ('500M', '2Gi')") from None


Seconds = Annotated[float, BeforeValidator(_time)]
Size = Annotated[int, BeforeValidator(_size)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def said(self, source: str, key: str) -> dict[str, Any]:
        said = (name for name in type(self).model_fields if name in self.model_fields_set)
        return {name: spelt(source, f"{key}.{name}", getattr(self, name)) for name in said}


class _Pool(_Table):
    medium: str = ON_DEMAND
    engine: str = "inline"
    capacity: int = 0
    resources: dict[str, Any] = {}
    price_per_hour: float | str | dict[str, Any] = 0.0
    cluster: str = ""
    context: str = ""
    namespace: str = ""
    preset: str = ""
    cooldown: Seconds = 30.0
    grace: Seconds = 120.0
    market: dict[str, Any] = {}
    half_life: Seconds = 3600.0
    startup: Seconds = 1.0
    on_close: str = "stop"


class _Queue(_Table):
    pools: list[str] = []
    action_concurrency: int = 0
    run_concurrency: int = 0
    depth: int = 0
    on_full: str = "refuse"
    max_resources: dict[str, Any] = {}
    priority: int | str = 50
    scheduling: str = "strict_fifo"
    fairness: str = "round_robin"
    overlap: str = "allow"
    spot_share: float = 1.0
    spend_limit: float = 0.0
    state: str = "active"
    defaults: dict[str, Any] = {}


class _File(_Table):
    home: str = ""
    durability: Durability = "process"
    inline_limit: Size = Limits().inline
    max_value_size: Size = Limits().value
    allow_pickle: bool = True
    max_threads: int = Checked(default_factory=lambda: min(32, (os.cpu_count() or 1) + 4), ge=1)
    max_workers: int = Checked(default_factory=lambda: os.cpu_count() or 1, ge=1)
    stop_grace: Seconds = 10.0
    keep_days: float = Checked(default=30.0, ge=0, allow_inf_nan=False)
    keep_logs: bool = True
    recover: Recover = "none"
    defaults: dict[str, Any] = {}
    queues: dict[str, _Queue] = {}
    pools: dict[str, _Pool] = {}


_PLAIN: Final = tuple(name for name in _File.model_fields if name not in ("defaults", "queues", "pools"))


def _mistake(source: str, error: ErrorDetails) -> ConfigurationError:
    where = tuple(str(part) for part in error["loc"])
    key = ".".join(where)
    if error["type"] != "extra_forbidden":
        return wrong(source, key, error["input"], error["msg"].removeprefix("Input should be "))
    table: type[_Table] = _File if len(where) != 3 else _Pool if where[0] == "pools" else _Queue
    return unknown(source, key, where[-1], table.model_fields)


# -- layers -------------------------------------------------------------------------------------------------


def _layer(source: str, folder: Path, table: Mapping[str, Any], strict: bool = True) -> _Values:
    """What one source says, checked by itself, so that a mistake is reported where it was made."""
    given = {key: by_name(source, key, v) if key in ("queues", "pools") else v for key, v in table.items()}
    try:
        file = _File.model_validate(given, strict=strict)
    except ValidationError as error:
        mistakes = [str(_mistake(source, each)) for each in error.errors()]
        raise ConfigurationError("\n".join(mistakes)) from None
    plain = file.model_dump(include={*_PLAIN}, exclude_unset=True)
    said: dict[_Key, Any] = {(name,): value for name, value in plain.items()}
    if "home" in plain:
        if not file.home.strip():
            raise wrong(source, "home", file.home, "the path of a folder")
        said["home",] = (folder / Path(file.home).expanduser()).absolute()
    with blame(source, "defaults"):
        settings = spelt_settings(source, "defaults", Level.SESSION, file.defaults)
        said |= {("defaults", name): value for name, value in settings.items()}
    for name, pool in file.pools.items():
        with blame(source, f"pools.{name}"):
            fields = pool_fields(source, name, pool.said(source, f"pools.{name}"), folder)
            said |= {("pools", name, key): value for key, value in fields.items()}
    for name, queue in file.queues.items():
        with blame(source, f"queues.{name}"):
            fields = {"name": name, **queue.said(source, f"queues.{name}")}
            Queue(**fields)
            said |= _queue_values(source, fields)
    return {key: (value, source) for key, value in said.items()}


def _queue_values(source: str, fields: Mapping[str, Any]) -> dict[_Key, Any]:
    name = fields["name"]
    said: dict[_Key, Any] = {("queues", name, key): value for key, value in fields.items() if key != "defaults"}
    settings = spelt_settings(source, f"queues.{name}.defaults", Level.QUEUE, fields.get("defaults", {}))
    return said | {("queues", name, "defaults", key): value for key, value in settings.items()}


def _objects(source: str, section: str, items: Sequence[Queue] | Sequence[Pool]) -> _Values:
    """Queues and pools that were given as objects, as the values that a file would have said."""
    kind, said = (Queue if section == "queues" else Pool), dict[_Key, Any]()
    silent = {each.name: each.default for each in msgspec.structs.fields(kind)}
    if not items:
        raise wrong(source, section, items, f"at least one {kind.__name__}(...)")
    for item in items:
        if not isinstance(item, kind) or (section, item.name, "name") in said:
            given = getattr(item, "name", item)
            raise wrong(source, section, given, f"{kind.__name__}(...)s with different names")
        fields = {name: v for name in silent if (v := getattr(item, name)) != silent[name]}
        plain: dict[_Key, Any] = {(section, item.name, name): value for name, value in fields.items()}
        said |= _queue_values(source, fields) if section == "queues" else plain
    return {key: (value, source) for key, value in said.items()}


def _environment(environ: Mapping[str, str], folder: Path) -> _Values:
    values: _Values = {}
    names = ["config", *_PLAIN, *(f"defaults_{name}" for name in SETTINGS)]
    for variable, raw in sorted(environ.items()):
        key = variable.removeprefix("FLYTEISH_").lower()
        if not variable.startswith("FLYTEISH_") or not raw or key == "config":
            continue
        source = f"environment variable {variable}"
        if key in _PLAIN:
            values |= _layer(source, folder, {key: raw}, strict=False)
        elif key in names:
            try:
                value = tomllib.loads(f"value = {raw}")["value"]
            except tomllib.TOMLDecodeError:
                value = raw  # a plain word
            values |= _layer(source, folder, {"defaults": {key.removeprefix("defaults_"): value}})
        elif key.startswith("defaults_") or difflib.get_close_matches(key, names, cutoff=0.85):
            # Others may have variables that begin alike; one that is nearly ours is a slip of the finger.
            raise unknown("environment", variable, variable, [f"FLYTEISH_{name.upper()}" for name in names])
    return values


# -- the result ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """What a session needs to know, checked. Times in seconds, sizes in bytes."""

    home: Path
    """Everything that flyteish keeps lies in it. Absolute."""
    durability: Durability
    """What the journal survives: ``full`` loss of power, ``process`` (default) its process, ``memory`` nothing."""
    inline_limit: int
    """Values up to this size travel inline, larger ones by the blob store. Default 256 KiB."""
    max_value_size: int
    """Larger inputs, results and traced values are refused. Default 1 GiB."""
    allow_pickle: bool
    """Whether what nothing else can encode is pickled, and data may import modules. Default True."""
    max_threads: int
    """For ``def`` tasks of inline pools. Default: cores + 4, at most 32."""
    max_workers: int
    """Worker processes of a ``processes`` pool. Default: cores."""
    stop_grace: float
    """Between asking an attempt to stop and ending it. Default 10."""
    keep_days: float
    """Ended runs older than this may be removed. Default 30."""
    keep_logs: bool
    """Whether the output of attempts is kept. Default True."""
    recover: Recover
    """Which unfinished runs an opening session takes up: ``all``, or ``none`` (default)."""
    defaults: Opinions
    """Settings that tasks get when nobody more specific says otherwise."""
    queues: tuple[Queue, ...]
    """Each with the pools that it feeds spelt out."""
    pools: tuple[Pool, ...]
    origins: tuple[Origin, ...] = field(compare=False)

    @property
    def paths(self) -> Paths:
        """What lies where in the home."""
        return Paths(self.home)

    @property
    def scope(self) -> Scope:
        """The defaults of session and queues, as tasks inherit them."""
        said = [(queue.name, queue.defaults) for queue in self.queues if queue.defaults]
        queues = {name: opinions(Level.QUEUE, f"queue {name!r}", defaults) for name, defaults in said}
        return Scope(session=self.defaults, queues=queues, allow_pickle=self.allow_pickle)

    def provenance(self) -> list[Origin]:
        """Each value that was said, or is built in, with its source; secrets are masked."""
        return list(self.origins)

    def __repr__(self) -> str:
        queues, pools = ([each.name for each in group] for group in (self.queues, self.pools))
        return f"Config(home={str(self.home)!r}, durability={self.durability!r}, {queues=}, {pools=})"


def load_config(
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    file: str | Path | None = None,
    home: str | Path | UnsetType = UNSET,
    durability: Durability | UnsetType = UNSET,
    inline_limit: int | str | UnsetType = UNSET,
    max_value_size: int | str | UnsetType = UNSET,
    allow_pickle: bool | UnsetType = UNSET,
    max_threads: int | UnsetType = UNSET,
    max_workers: int | UnsetType = UNSET,
    stop_grace: float | str | timedelta | UnsetType = UNSET,
    keep_days: float | UnsetType = UNSET,
    keep_logs: bool | UnsetType = UNSET,
    recover: Recover | UnsetType = UNSET,
    defaults: Mapping[str, Any] | UnsetType = UNSET,
    queues: Sequence[Queue] | UnsetType = UNSET,
    pools: Sequence[Pool] | UnsetType = UNSET,
    engines: Collection[str] = (),
) -> Config:
    """The configuration as it holds here and now. Reads files; creates none.

    Args:
        cwd: where the search for a project file starts. Default: the working directory.
        environ: the variables. Default: the process's, which also says where the user's folders are.
        file: one more configuration file; takes the place of ``FLYTEISH_CONFIG``.
        home, ..., recover: as the fields of ``Config``; what is given here wins over every other source.
        defaults: settings for tasks, by name (``{"retries": 2}``); each wins by itself.
        queues, pools: all of them; those of files are not used. engines: more names of engines (``"*"``: any).

    Raises:
        ConfigurationError: names file or variable, key, value and what is accepted, or the nearest known key.
    """
    here, variables = (cwd or Path.cwd()).absolute(), os.environ if environ is None else environ
    said = {
        "home": str(home) if isinstance(home, Path) else home, "durability": durability,
        "inline_limit": inline_limit, "max_value_size": max_value_size, "allow_pickle": allow_pickle,
        "max_threads": max_threads, "max_workers": max_workers, "stop_grace": stop_grace,
        "keep_days": keep_days, "keep_logs": keep_logs, "recover": recover,
        "defaults": dict(defaults) if isinstance(defaults, Mapping) else defaults,
    }  # fmt: skip
    values: _Values = {(name,): (v, BUILT_IN) for name, v in _File().model_dump(include={*_PLAIN}).items()}
    values["home",] = (platformdirs.user_state_path("flyteish"), BUILT_IN)
    for found in _files(here, file if file is not None else variables.get("FLYTEISH_CONFIG")):
        values |= _layer(found.source, found.folder, found.table)
    values |= _environment(variables, here)
    values |= _layer(ARGUMENT, here, {name: value for name, value in said.items() if value is not UNSET})
    for section, items, otherwise in (
        ("pools", pools, [Pool("spot", SPOT), Pool("on-demand", ON_DEMAND)]),
        ("queues", queues, [Queue("default")]),
    ):
        if items is not UNSET:
            values = {key: value for key, value in values.items() if key[0] != section}
            values |= _objects(ARGUMENT, section, items)
        if not any(key[0] == section for key in values):
            values |= _objects(BUILT_IN, section, otherwise)
    return _config(values, engines)


def environment_secret(variable: str) -> str | None:
    """The value of a secret that an environment variable holds, looked up when an attempt starts; None: not set."""
    return os.environ.get(variable)


def _files(here: Path, extra: str | Path | None) -> list[FoundFile]:
    user = platformdirs.user_config_path("flyteish") / "config.toml"
    paths = [user if user.is_file() else None, project_file(here), here / Path(extra).expanduser() if extra else None]
    return [read_file(path) for path in paths if path is not None]


def _config(values: _Values, engines: Collection[str]) -> Config:
    pools = _build_pools(values, engines)
    queues = _build_queues(values, [pool.name for pool in pools])
    settings = {key[1]: value for key, (value, _) in values.items() if key[0] == "defaults"}
    if "queue" in settings and settings["queue"] not in (names := [queue.name for queue in queues]):
        raise unknown(values["defaults", "queue"][1], "defaults.queue", settings["queue"], names, what="queue")
    plain = {key[0]: value for key, (value, _) in values.items() if len(key) == 1}
    origins = tuple(Origin.of(key, value, source) for key, (value, source) in values.items())
    return Config(**plain, defaults=Opinions(**settings), queues=queues, pools=pools, origins=origins)


def _tables(values: _Values, section: str) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for key, (value, _) in values.items():
        if key[0] == section:
            table = tables.setdefault(key[1], {})
            (table.setdefault("defaults", {}) if len(key) == 4 else table)[key[-1]] = value
    return tables


def _build_pools(values: _Values, engines: Collection[str]) -> tuple[Pool, ...]:
    pools = []
    for name, table in _tables(values, "pools").items():
        for key, built in built_tables(table).items():
            values["pools", name, key] = (built, values["pools", name, key][1])
            table[key] = built
        with blame(values["pools", name, "name"][1], f"pools.{name}"):
            pools.append(checked(Pool(**table), engines))
    return tuple(pools)


def _build_queues(values: _Values, pools: list[str]) -> tuple[Queue, ...]:
    queues = []
    for name, table in _tables(values, "queues").items():
        for pool in table.get("pools", ()):
            if pool not in pools:
                raise unknown(values["queues", name, "pools"][1], f"queues.{name}.pools", pool, pools, what="pool")
        queues.append(Queue(**{**table, "pools": tuple(table.get("pools", ())) or tuple(pools)}))
    return tuple(queues)
