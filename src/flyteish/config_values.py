"""How people spell configuration: files, and the times, policies, pools and markets in them.

Turns what is written into values, or says where it was written and what is accepted. Must not know which keys a file
may hold (``config`` does), nor read the environment.
"""

from __future__ import annotations

import inspect
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool
from flyteish._core.model.resources import Resources
from flyteish._core.model.setting_rules import FIELDS, opinions
from flyteish._core.model.settings import Cache, Level, Secret
from flyteish._core.wording import did_you_mean
from flyteish.errors import ConfigurationError
from flyteish.interfaces import Market, PriceSource
from flyteish.markets.market import MARKETS, Outages
from flyteish.markets.price_sources import PRICES

# -- configuration files ------------------------------------------------------------------------------------


class FoundFile(NamedTuple):
    """A configuration file that was read."""

    source: str
    """For people: the path, and the table within it."""
    folder: Path
    """What relative paths in it are relative to."""
    table: dict[str, Any]


def read_file(path: Path) -> FoundFile:
    """Read a configuration file: its top level, or ``[tool.flyteish]`` where it is a pyproject.toml.

    Raises:
        ConfigurationError: it cannot be read or is not TOML; names the file and the place.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"configuration file {str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {str(path)!r} is not TOML: {error}") from error
    if path.name != "pyproject.toml":
        return FoundFile(str(path), path.parent, table)
    ours = table.get("tool", {}).get("flyteish", {})
    if not isinstance(ours, dict):
        raise ConfigurationError(f"{path}: tool.flyteish={ours!r} is not accepted: expected a table")
    return FoundFile(f"{path} [tool.flyteish]", path.parent, ours)


def project_file(start: Path) -> Path | None:
    """The nearest project file from ``start`` upwards; flyteish.toml comes before pyproject.toml."""
    for folder in [start, *start.parents]:
        if (own := folder / "flyteish.toml").is_file():
            return own
        shared = folder / "pyproject.toml"
        # Somebody else's pyproject.toml is none of our business, not even whether it is valid TOML.
        if shared.is_file() and re.search(rb"^\s*\[+\s*tool\s*\.\s*flyteish\b", shared.read_bytes(), re.MULTILINE):
            return shared
    return None


# -- spelling -----------------------------------------------------------------------------------------------

TIMES: Final = "seconds >= 0 or a text like '90s', '2h30m' or 'PT2H30M'"
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+|\d+(?:\.\d+)?")
_ISO = re.compile(r"P(?=.)(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(value: object) -> float:
    """A time as people write it: seconds, a timedelta, ``"2h30m"``, ``"1.5d"`` or ISO 8601 (``"PT2H30M"``).

    Raises:
        ValueError: it is none of these, negative or not finite.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        text = value.replace(" ", "")
        if _DURATION.fullmatch(text):
            return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)(ms|[smhdw]|)", text))
        if match := _ISO.fullmatch(text):
            parts = zip(match.groups(), ("w", "d", "h", "m", "s"), strict=True)
            return sum(float(number) * _UNITS[unit] for number, unit in parts if number)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError(f"{value!r} is not a time: expected {TIMES}")


_POLICIES: Final[dict[str, type]] = {
    "resources": Resources, "retries": RetryStrategy, "backoff": Backoff, "timeout": Timeout,
    "interruptible": SpotPolicy, "cache": Cache, "secrets": Secret, "max_resources": Resources,
}  # fmt: skip
_TIMES: Final = {
    "max_runtime", "max_queued_time", "deadline", "max_spot_wait", "work", "base", "cap", "timeout",
    "median_lifetime", "floor", "start", "notice_seconds", "mean_up", "mean_down", "reclaims",
}  # fmt: skip
#: What a session or queue may give defaults for.
SETTINGS: Final = tuple(each.name for each in FIELDS if Level.ENVIRONMENT in each.levels)


def spelt(source: str, key: str, value: Any, kinds: Mapping[str, Any] = _POLICIES) -> Any:
    """A value as TOML has it -> as Python has it: tables become policies, texts become times.

    Which, follows from the last part of ``key``; what is neither stays as it is.

    Raises:
        ConfigurationError: a table has an unknown key, or a text is not a time.
    """
    name = key.rpartition(".")[2].partition("[")[0]
    if name in _TIMES and isinstance(value, str):
        try:
            return seconds(value)
        except ValueError:
            raise wrong(source, key, value, TIMES) from None
    if isinstance(value, list) and name in kinds:
        return [spelt(source, key, item, kinds) for item in value]
    if not isinstance(value, dict) or name not in kinds:
        return value
    kind = kinds[name]
    known = list(inspect.signature(kind).parameters)
    for inner in value:
        if inner not in known:
            raise unknown(source, f"{key}.{inner}", inner, known)
    try:
        return kind(**{inner: spelt(source, f"{key}.{inner}", given) for inner, given in value.items()})
    except TypeError as error:
        raise wrong(source, key, value, f"a table: {error}") from error


def spelt_settings(source: str, key: str, level: Level, table: Mapping[str, object]) -> dict[str, Any]:
    """A table of defaults for settings, as the checked values that ``level`` says."""
    for name in table:
        if name not in SETTINGS:
            raise unknown(source, f"{key}.{name}", name, SETTINGS)
    given = {name: spelt(source, f"{key}.{name}", value) for name, value in table.items()}
    return opinions(level, f"[{key}]", given).said()


def by_name(source: str, section: str, value: object) -> object:
    """``[[queues]]`` with a name in each -> ``[queues.NAME]``."""
    if not isinstance(value, list):
        return value
    tables: dict[str, Any] = {}
    for index, table in enumerate(value):
        name = table.get("name") if isinstance(table, dict) else None
        if not isinstance(name, str) or name in tables:
            raise wrong(source, f"{section}[{index}].name", name, "a name of its own for each")
        tables[name] = {key: inner for key, inner in table.items() if key != "name"}
    return tables


# -- markets in files ---------------------------------------------------------------------------------------


class MarketTable(NamedTuple):
    """A market as a file describes it; built when the pool that it belongs to is known."""

    source: str
    key: str
    kind: str
    given: dict[str, Any]

    def build(self, grace: float) -> Market:
        """Without a notice of its own the market gives the pool's grace."""
        with blame(self.source, self.key):
            market: Market = MARKETS[self.kind](**{"notice_seconds": grace, **self.given})
        return market


def market_table(source: str, key: str, table: dict[str, Any], folder: Path) -> MarketTable:
    """Check a market's table; its numbers are checked when it is built. Paths are relative to ``folder``."""
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in MARKETS:
        raise wrong(source, f"{key}.kind", kind, " or ".join(map(repr, MARKETS)))
    names = {"file" if name == "path" else name for name in inspect.signature(MARKETS[kind]).parameters}
    given: dict[str, Any] = {}
    for name, value in table.items():
        if name not in {"kind", *names}:
            raise unknown(source, f"{key}.{name}", name, {"kind", *names})
        if name == "file":
            given["path"] = _file(source, f"{key}.file", value, folder)
        elif name == "outages":
            given[name] = spelt(source, f"{key}.outages", value, {"outages": Outages})
        elif name == "reclaims" and isinstance(value, list):
            places = [f"{key}.reclaims[{index}]" for index in range(len(value))]
            times = zip(places, value, strict=True)
            given[name] = [None if each == "never" else spelt(source, place, each) for place, each in times]
        elif name != "kind":
            given[name] = spelt(source, f"{key}.{name}", value)
    if kind == "trace" and "path" not in given:
        raise ConfigurationError(f"{source}: {key}.file is missing")
    return MarketTable(source, key, kind, given)


class PriceTable(NamedTuple):
    """Prices as a file describes them."""

    source: str
    key: str
    kind: str
    given: dict[str, Any]

    def build(self) -> PriceSource:
        with blame(self.source, self.key):
            prices: PriceSource = PRICES[self.kind](**self.given)
        return prices


def _price(source: str, key: str, value: object, folder: Path) -> object:
    """A number, ``"market"``, or a table with ``kind``; the numbers in it are checked when it is built."""
    if not isinstance(value, dict):
        if isinstance(value, str) and value != "market":
            raise wrong(source, key, value, "$ >= 0, 'market' or a table with kind")
        return value
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in PRICES:
        raise wrong(source, f"{key}.kind", kind, " or ".join(map(repr, PRICES)))
    names = {"file" if name == "path" else name for name in inspect.signature(PRICES[kind]).parameters}
    given: dict[str, Any] = {}
    for name, inner in value.items():
        if name not in {"kind", *names}:
            raise unknown(source, f"{key}.{name}", name, {"kind", *names})
        if name == "file":
            given["path"] = _file(source, f"{key}.file", inner, folder)
        elif name == "changes" and isinstance(inner, list):
            given[name] = [
                [spelt(source, f"{key}.start", pair[0]), *pair[1:]] if isinstance(pair, list) and pair else pair
                for pair in inner
            ]
        elif name != "kind":
            given[name] = spelt(source, f"{key}.{name}", inner)
    for name in ("file", "changes"):
        if name in names and name not in value:
            raise ConfigurationError(f"{source}: {key}.{name} is missing")
    return PriceTable(source, key, kind, given)


def _file(source: str, key: str, value: object, folder: Path) -> Path:
    if not isinstance(value, str):
        raise wrong(source, key, value, "the path of a trace file")
    return folder / Path(value).expanduser()


def pool_fields(source: str, name: str, said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What one source says of a pool, checked by itself; its market and prices are built when all has been read."""
    fields = {"name": name, **said}
    if "market" in fields:
        fields["market"] = market_table(source, f"pools.{name}.market", fields["market"], folder)
    if "price_per_hour" in fields:
        fields["price_per_hour"] = _price(source, f"pools.{name}.price_per_hour", fields["price_per_hour"], folder)
    fixed = isinstance(fields.get("price_per_hour"), int | float)
    Pool(**{key: value for key, value in fields.items() if key != "price_per_hour" or fixed})
    return fields


def built_tables(table: Mapping[str, Any]) -> dict[str, Any]:
    """By field, what a pool's tables describe."""
    found: dict[str, Any] = {}
    if isinstance(table.get("market"), MarketTable):
        found["market"] = table["market"].build(table.get("grace", Pool("any").grace))
    if isinstance(table.get("price_per_hour"), PriceTable):
        found["price_per_hour"] = table["price_per_hour"].build()
    return found


# -- mistakes -----------------------------------------------------------------------------------------------


@contextmanager
def blame(source: str, where: str) -> Iterator[None]:
    """Errors of values that check themselves do not know where they were written: this says it."""
    try:
        yield
    except ConfigurationError as error:
        text = str(error)
        raise (error if text.startswith(source) else ConfigurationError(f"{source}: {where}: {text}")) from None


def wrong(source: str, key: str, value: object, accepted: str) -> ConfigurationError:
    """A value is not accepted; those of environment variables of tasks are never shown."""
    shown = "***" if "env_vars" in key else repr(value)
    return ConfigurationError(f"{source}: {key}={shown} is not accepted: expected {accepted}")


def unknown(source: str, key: str, name: str, known: Iterable[str], what: str = "key") -> ConfigurationError:
    """There is no such key (or pool, or queue); suggests the nearest and lists what there is."""
    names = list(known)
    subject = f"unknown key {key!r}" if what == "key" else f"{key} names an unknown {what}, {name!r}"
    return ConfigurationError(f"{source}: {subject}{did_you_mean(name, names)}; known here: {', '.join(names)}")


# -- origins ------------------------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Where one value came from; for people, so tasks' environment variables are masked."""

    key: str
    value: str
    source: str

    @classmethod
    def of(cls, key: tuple[str, ...], value: object, source: str) -> Origin:
        """The value as people read it."""
        if key[-1] == "env_vars" and isinstance(value, dict):
            shown = "{" + ", ".join(f"{name}=***" for name in value) + "}"
        elif isinstance(value, bool):
            shown = str(value).lower()
        else:
            shown = str(value) if isinstance(value, str | Path) else repr(value)
        return cls(".".join(key), shown, source)
