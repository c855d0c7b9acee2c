"""Configuration: who wins, where each value came from, and what is said of a mistake."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import platformdirs
import pytest

from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Cache, Secret
from flyteish.config import Config, load_config
from flyteish.config_values import seconds
from flyteish.errors import ConfigurationError
from flyteish.markets.market import RandomMarket, ScriptedMarket, TraceMarket
from flyteish.paths import Paths


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of this test's own, so that nobody's real configuration takes part."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user/config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user/state"))
    folder = platformdirs.user_config_path("flyteish")
    assert tmp_path in folder.parents
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def loaded(project: Path, text: str, name: str = "flyteish.toml", **environ: str) -> Config:
    (project / name).write_text(text)
    return load_config(cwd=project, environ=environ)


def sources(config: Config) -> dict[str, tuple[str, str]]:
    return {key: (value, source) for key, value, source in config.provenance()}


# -- without configuration ----------------------------------------------------------------------------------


def test_without_configuration_there_is_a_default_queue_over_a_spot_and_an_on_demand_pool(project: Path) -> None:
    """The built-in values: two embedded pools, one queue that prefers spot, everything in the user's state."""
    config = load_config(cwd=project, environ={})
    assert config.pools == (Pool("spot", "spot"), Pool("on-demand", "on-demand"))
    assert config.queues == (Queue("default", pools=("spot", "on-demand")),)
    assert config.home == platformdirs.user_state_path("flyteish")
    assert (config.durability, config.inline_limit, config.max_value_size) == ("process", 256 * 1024, 1024**3)
    assert (config.allow_pickle, config.keep_logs, config.keep_days, config.stop_grace) == (True, True, 30.0, 10.0)
    assert config.max_threads >= config.max_workers >= 1
    assert config.defaults.said() == {}
    assert {source for _, source in sources(config).values()} == {"built-in default"}


def test_loading_creates_nothing(project: Path, tmp_path: Path) -> None:
    """Neither the home nor any other folder appears by looking at the configuration."""
    before = sorted(tmp_path.rglob("*"))
    load_config(cwd=project, environ={"FLYTEISH_HOME": str(tmp_path / "elsewhere")})
    assert sorted(tmp_path.rglob("*")) == before


# -- who wins -----------------------------------------------------------------------------------------------


def test_later_sources_win_key_by_key(project: Path, user_folder: Path, tmp_path: Path) -> None:
    """User file < project file < FLYTEISH_CONFIG < FLYTEISH_* < arguments, and each value knows its source."""
    user = user_folder / "config.toml"
    user.write_text("max_threads = 1\nmax_workers = 1\nkeep_days = 1\nstop_grace = 1\nkeep_logs = false")
    (project / "flyteish.toml").write_text("max_workers = 2\nkeep_days = 2\nstop_grace = '2s'")
    extra = tmp_path / "extra.toml"
    extra.write_text("keep_days = 3\nstop_grace = 3\nallow_pickle = false")
    environ = {"FLYTEISH_CONFIG": str(extra), "FLYTEISH_STOP_GRACE": "4s", "FLYTEISH_DURABILITY": "full"}
    config = load_config(cwd=project, environ=environ, durability="memory")
    found = sources(config)
    assert found["max_threads"] == ("1", str(user))
    assert found["keep_logs"] == ("false", str(user))
    assert found["max_workers"] == ("2", str(project / "flyteish.toml"))
    assert found["keep_days"] == ("3.0", str(extra))
    assert found["allow_pickle"] == ("false", str(extra))
    assert found["stop_grace"] == ("4.0", "environment variable FLYTEISH_STOP_GRACE")
    assert found["durability"] == ("memory", "argument")
    assert found["inline_limit"] == ("262144", "built-in default")
    assert (config.max_threads, config.keep_logs, config.stop_grace) == (1, False, 4.0)


def test_the_project_file_is_found_from_below(project: Path) -> None:
    """The nearest file upwards holds; its relative paths are relative to it, not to where one stands."""
    below = project / "a/b"
    below.mkdir(parents=True)
    (project / "flyteish.toml").write_text("home = 'state'")
    assert load_config(cwd=below, environ={}).home == project / "state"
    (project / "a/flyteish.toml").write_text("keep_days = 7")
    config = load_config(cwd=below, environ={})
    assert (config.keep_days, config.home) == (7.0, platformdirs.user_state_path("flyteish"))


def test_a_table_in_pyproject_will_do(project: Path) -> None:
    """[tool.flyteish] is a project file too; a pyproject.toml without it is passed over, even a broken one."""
    config = loaded(project, "[tool.flyteish]\nmax_threads = 3\n[tool.flyteish.pools.gpu]\n", "pyproject.toml")
    assert [pool.name for pool in config.pools] == ["gpu"]
    assert sources(config)["max_threads"] == ("3", f"{project / 'pyproject.toml'} [tool.flyteish]")
    below = project / "a"
    below.mkdir()
    (below / "pyproject.toml").write_text("[broken")
    assert load_config(cwd=below, environ={}).max_threads == 3
    assert loaded(project, "max_threads = 4").max_threads == 4


def test_the_process_environment_and_folder_are_the_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch, flyteish_home: Path
) -> None:
    """Called without anything, it looks at the real environment and working directory."""
    monkeypatch.chdir(project)
    (project / "flyteish.toml").write_text("max_threads = 5")
    config = load_config()
    assert (config.home, config.max_threads) == (flyteish_home, 5)


def test_environment_variables_are_read_as_their_type(project: Path) -> None:
    """Numbers, truth, sizes and times; an empty variable says nothing."""
    environ = {
        "FLYTEISH_MAX_THREADS": "8", "FLYTEISH_ALLOW_PICKLE": "no", "FLYTEISH_KEEP_LOGS": "0",
        "FLYTEISH_INLINE_LIMIT": "1Ki", "FLYTEISH_MAX_VALUE_SIZE": "2048", "FLYTEISH_STOP_GRACE": "90",
        "FLYTEISH_KEEP_DAYS": "", "FLYTEISH_HOME": "~/runs", "FLYTEISH_DEFAULTS_RETRIES": "3",
        "FLYTEISH_DEFAULTS_CACHE": "auto", "FLYTEISH_DEFAULTS_INTERRUPTIBLE": "{work = '1h'}",
    }  # fmt: skip
    config = load_config(cwd=project, environ=environ)
    assert (config.max_threads, config.allow_pickle, config.keep_logs) == (8, False, False)
    assert (config.inline_limit, config.max_value_size, config.stop_grace) == (1024, 2048, 90.0)
    assert (config.keep_days, config.home) == (30.0, Path.home() / "runs")
    assert config.defaults.said() == {
        "retries": RetryStrategy(3),
        "cache": Cache("auto"),
        "interruptible": SpotPolicy(work=3600.0),
    }


def test_variables_of_others_that_begin_alike_are_left_alone(project: Path) -> None:
    """Only what is nearly one of ours is taken for a misspelling."""
    load_config(cwd=project, environ={"FLYTEISH_TEST_SEED": "1", "FLYTEISH_SOMETHING_ELSE": "x", "HOMES": "y"})


def test_arguments_win_and_say_so(project: Path) -> None:
    """Arguments take paths and timedeltas; queues and pools given as objects replace those of every file."""
    (project / "flyteish.toml").write_text("[pools.a]\n[queues.b]\n[defaults]\nretries = 1\nqueue = 'mine'\n")
    market = ScriptedMarket([1])
    pools = [Pool("p", "spot", capacity=2, resources=Resources(cpu=2), market=market), Pool("q")]
    queues = [Queue("mine", pools=("q",), defaults={"retries": 2}), Queue("other")]
    config = load_config(
        cwd=project,
        environ={},
        home=Path("here"),
        stop_grace=timedelta(minutes=1),
        defaults={"timeout": 5},
        queues=queues,
        pools=pools,
    )
    assert config.pools == tuple(pools)
    assert config.queues == (
        Queue("mine", pools=("q",), defaults={"retries": RetryStrategy(2)}),
        Queue("other", pools=("p", "q")),
    )
    assert (config.home, config.stop_grace) == (project / "here", 60.0)
    assert config.defaults.said() == {"retries": RetryStrategy(1), "queue": "mine", "timeout": Timeout(5)}
    assert sources(config)["pools.p.capacity"] == ("2", "argument")
    assert sources(config)["pools.p.market"] == (repr(market), "argument")
    assert not any(key.startswith("pools.a") for key in sources(config))


# -- queues, pools, markets, defaults -----------------------------------------------------------------------

FULL = """
[defaults]
retries = {count = 2, backoff = {base = "1m", factor = 2, cap = "1h"}, system_retries = 5}
timeout = {max_runtime = "2h30m", deadline = "P1D"}
interruptible = {fallback = "never", max_spot_wait = "10m"}
cache = {behavior = "auto", ignored_inputs = ["seed"]}
resources = {cpu = 2, memory = "4Gi"}
secrets = ["token", {key = "db", as_env_var = "DB"}]
env_vars = {API = "sesame"}
priority = "max"

[queues.default]

[queues.gpu]
pools = ["fast", "slow"]
action_concurrency = 8
max_resources = {gpu = 4}
priority = "max"
defaults = {timeout = "45m", env_vars = {KEY = "sesame"}}

[pools.slow]
engine = "processes"
price_per_hour = 2

[pools.fast]
medium = "spot"
capacity = 4
resources = {cpu = "8", memory = "16Gi"}
price_per_hour = 0.5
cooldown = "1m"
grace = 30
market = {kind = "random", seed = 1, median_lifetime = "10m", outages = {mean_up = "1h", mean_down = 60}}
"""


def test_queues_pools_and_defaults_become_what_the_core_takes(project: Path) -> None:
    """Tables become queues, pools, markets and settings; times are read in any spelling."""
    config = loaded(project, FULL)
    assert [pool.name for pool in config.pools] == ["slow", "fast"]
    slow, fast = config.pools
    assert slow == Pool("slow", engine="processes", price_per_hour=2.0)
    assert (fast.medium, fast.capacity, fast.cooldown, fast.grace) == ("spot", 4, 60.0, 30.0)
    assert fast.resources == Resources(cpu="8", memory="16Gi")
    assert repr(fast.market).startswith(
        "RandomMarket(seed=1, median_lifetime=600, shape=1, floor=100, notice_seconds=30, outages="
    )
    default, gpu = config.queues
    assert default == Queue("default", pools=("slow", "fast"))
    assert (gpu.pools, gpu.action_concurrency, gpu.priority) == (("fast", "slow"), 8, 100)
    assert gpu.max_resources == Resources(gpu=4)
    assert gpu.defaults == {"timeout": Timeout(2700.0), "env_vars": {"KEY": "sesame"}}
    assert config.defaults.said() == {
        "retries": RetryStrategy(2, Backoff(base=60.0, factor=2, cap=3600.0), system_retries=5),
        "timeout": Timeout(max_runtime=9000.0, deadline=86400.0),
        "interruptible": SpotPolicy(fallback="never", max_spot_wait=600.0),
        "cache": Cache("auto", ignored_inputs=("seed",)),
        "resources": Resources(cpu=2, memory="4Gi"),
        "secrets": (Secret("token"), Secret("db", as_env_var="DB")),
        "env_vars": {"API": "sesame"},
        "priority": 100,
    }
    assert config.scope.session == config.defaults
    assert config.scope.queues["gpu"].timeout == Timeout(2700.0)


def test_values_of_environment_variables_are_never_shown(project: Path) -> None:
    """The names of a task's environment variables may be seen, their values may be secrets."""
    config = loaded(project, FULL)
    assert sources(config)["defaults.env_vars"][0] == "{API=***}"
    assert sources(config)["queues.gpu.defaults.env_vars"][0] == "{KEY=***}"
    assert "sesame" not in repr(config) + repr(config.provenance()) + repr(config.defaults)
    with pytest.raises(ConfigurationError) as caught:
        loaded(project, "[defaults]\nenv_vars = {A = 5, B = 'sesame'}")
    assert "env_vars=" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_files_add_to_each_others_pools(project: Path, user_folder: Path) -> None:
    """A project may change one value of a pool that the user's file describes, and add its own."""
    (user_folder / "config.toml").write_text("[pools.spot]\nmedium = 'spot'\ncapacity = 2\nprice_per_hour = 1")
    config = loaded(project, "[pools.spot]\ncapacity = 9\n[pools.extra]\n")
    assert config.pools == (Pool("spot", "spot", capacity=9, price_per_hour=1.0), Pool("extra"))


def test_queues_may_be_an_array(project: Path) -> None:
    """[[queues]] with names is the same as [queues.NAME]."""
    config = loaded(project, "[[queues]]\nname = 'a'\n[[queues]]\nname = 'b'\ndepth = 4")
    assert config.queues == (Queue("a", ("spot", "on-demand")), Queue("b", ("spot", "on-demand"), depth=4))


def test_markets_of_every_kind(project: Path) -> None:
    """A trace lies relative to the file that names it; a script says "never" for attempts it leaves alone."""
    (project / "zone.json").write_text(json.dumps({"metadata": {"gap_seconds": 60}, "data": [1, 0]}))
    config = loaded(
        project,
        """
        [pools.t]
        market = {kind = "trace", file = "zone.json", speed = 60, start = "30s", nodes = 3, notice_seconds = 1}
        [pools.s]
        market = {kind = "script", reclaims = [5, "never", "1m"], capacity = [[10, 0], [20.5, 4]]}
        [pools.r]
        market = {kind = "random"}
        """,
    )
    trace, script, random = (pool.market for pool in config.pools)
    assert isinstance(trace, TraceMarket)
    assert (trace.capacity(0), trace.next_change(0), trace.notice_seconds) == (3, 0.5, 1.0)
    assert isinstance(script, ScriptedMarket)
    assert [script.lifetime(0, n) for n in range(4)] == [5.0, None, 60.0, None]
    assert (script.capacity(15), script.next_change(15), script.notice_seconds) == (0, 20.5, 120.0)
    assert repr(random) == repr(RandomMarket(0))


# -- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("max_thread = 3", "unknown key 'max_thread'; did you mean max_threads?"),
        ("colour = 3", "unknown key 'colour'; known here: "),
        ("max_threads = 'many'", "max_threads='many' is not accepted: expected a valid integer"),
        ("max_threads = true", "max_threads=True is not accepted: expected a valid integer"),
        ("max_threads = 0", "max_threads=0 is not accepted: expected greater than or equal to 1"),
        ("durability = 'some'", "durability='some' is not accepted: expected 'full', 'process' or 'memory'"),
        ("stop_grace = 'soon'", "stop_grace='soon' is not accepted: expected seconds >= 0 or a text like"),
        ("stop_grace = -1", "stop_grace=-1 is not accepted: expected seconds >= 0"),
        ("inline_limit = '5 apples'", "inline_limit='5 apples' is not accepted: expected bytes >= 0"),
        ("keep_days = nan", "keep_days=nan is not accepted"),
        ("home = ''", "home='' is not accepted: expected the path of a folder"),
        ("allow_pickle = 1", "allow_pickle=1 is not accepted: expected a valid boolean"),
        ("defaults = 3", "defaults=3 is not accepted: expected a valid dictionary"),
        ("[defaults]\nretrys = 3", "unknown key 'defaults.retrys'; did you mean retries?"),
        ("[defaults]\nretries = -1", r"retries=-1 in \[defaults\] is not accepted: expected an int >= 0"),
        ("[defaults]\nretries = {cuont = 1}", "unknown key 'defaults.retries.cuont'; did you mean count?"),
        ("[defaults]\nretries = {backoff = {bse = 1}}", "'defaults.retries.backoff.bse'; did you mean base?"),
        ("[defaults]\nretries = {count = -1}", "RetryStrategy.count=-1 is not accepted: expected an int >= 0"),
        ("[defaults]\ntimeout = 'soon'", "defaults.timeout='soon' is not accepted: expected seconds"),
        ("[defaults]\nsecrets = [{group = 'a'}]", "defaults.secrets=.* is not accepted: expected a table: .*key"),
        ("[defaults]\nqueue = 'defualt'", "defaults.queue names an unknown queue, 'defualt'; did you mean default?"),
        ("[queues.a]\ndept = 4", "unknown key 'queues.a.dept'; did you mean depth?"),
        ("[queues.a]\ndepth = -4", r"queues.a: Queue\('a'\): depth=-4 is not accepted: expected an int >= 0"),
        ("[queues.a]\npools = ['sopt']", "queues.a.pools names an unknown pool, 'sopt'; did you mean spot?"),
        ("[queues.a]\ndefaults = {retrys = 1}", "'queues.a.defaults.retrys'; did you mean retries?"),
        ("[queues]\na = 3", "queues.a=3 is not accepted"),
        ("[[queues]]\ndepth = 1", r"queues\[0\].name=None is not accepted: expected a name of its own"),
        ("[[queues]]\nname = 'a'\n[[queues]]\nname = 'a'", r"queues\[1\].name='a' is not accepted"),
        ("[pools.a]\nengin = 'inline'", "unknown key 'pools.a.engin'; did you mean engine?"),
        ("[pools.a]\nengine = 'in-line'", r"pools.a: Pool\('a'\): engine='in-line' is not accepted: expected 'inline'"),
        ("[pools.a]\nresources = {cpus = 1}", "unknown key 'pools.a.resources.cpus'; did you mean cpu?"),
        ("[pools.a]\nresources = {memory = '1X'}", "pools.a: Resources.memory='1X' is not accepted"),
        ("[pools.a]\nmarket = {kind = 'ranom'}", "pools.a.market.kind='ranom' .* expected 'random' or 'trace' or"),
        ("[pools.a]\nmarket = {kind = 'random', sead = 1}", "'pools.a.market.sead'; did you mean seed?"),
        ("[pools.a]\nmarket = {kind = 'random', seed = 'x'}", "pools.a.market: RandomMarket: seed='x'"),
        ("[pools.a]\nmarket = {kind = 'random', outages = {mean_op = 1}}", "did you mean mean_up?"),
        (
            "[pools.a]\nmarket = {kind = 'random', outages = {}}",
            "outages=.* is not accepted: expected a table: .*mean_up",
        ),
        ("[pools.a]\nmarket = {kind = 'random', outages = 3}", "outages=3 is not accepted"),
        ("[pools.a]\nmarket = {kind = 'trace'}", "pools.a.market.file is missing"),
        ("[pools.a]\nmarket = {kind = 'trace', file = 3}", "pools.a.market.file=3 is not accepted"),
        ("[pools.a]\nmarket = {kind = 'trace', file = 'none.json'}", "none.json' cannot be read"),
        ("[pools.a]\nmarket = {kind = 'script', reclaims = ['soon']}", r"market.reclaims\[0\]='soon' is not accepted"),
        ("[pools.a]\nmarket = {kind = 'script', reclaims = 3}", "reclaims=3 is not accepted"),
        ("[pools.a]\nmarket = {kind = 'script', capacity = [5]}", "capacity=.* is not accepted: expected pairs"),
        ("max_threads = ", "is not TOML: Invalid value"),
    ],
)
def test_a_mistake_in_a_file_is_named_where_it_was_made(project: Path, text: str, complaint: str) -> None:
    """The error names the file, the key and what is accepted, or the nearest known key."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        loaded(project, text)
    assert "flyteish.toml" in str(caught.value)


def test_every_mistake_of_a_file_is_told_at_once(project: Path) -> None:
    """Three wrong keys need one look, not three."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(project, "max_threads = 'x'\nmax_worker = 1\nkeep_days = -1")
    assert str(caught.value).count("flyteish.toml: ") == 3


@pytest.mark.parametrize(
    "variable, value, complaint",
    [
        ("FLYTEISH_HOMES", "x", "environment: unknown key 'FLYTEISH_HOMES'; did you mean FLYTEISH_HOME?"),
        ("FLYTEISH_DEFAULTS_RETRYS", "3", "did you mean FLYTEISH_DEFAULTS_RETRIES?"),
        ("FLYTEISH_MAX_THREADS", "many", "environment variable FLYTEISH_MAX_THREADS: max_threads='many' is not acc"),
        ("FLYTEISH_DEFAULTS_RETRIES", "-3", "environment variable FLYTEISH_DEFAULTS_RETRIES: defaults: retries=-3"),
        ("FLYTEISH_CONFIG", "/none.toml", "configuration file '/none.toml' cannot be read: No such file"),
    ],
)
def test_a_mistake_in_a_variable_names_it(project: Path, variable: str, value: str, complaint: str) -> None:
    """A variable that is misspelt or holds something unusable is named, with what is accepted."""
    with pytest.raises(ConfigurationError, match=complaint):
        load_config(cwd=project, environ={variable: value})


def test_a_wrong_argument_is_named(project: Path) -> None:
    """Arguments are checked like everything else, and two queues of one name are refused."""
    with pytest.raises(ConfigurationError, match="argument: max_threads=0 is not accepted"):
        load_config(cwd=project, environ={}, max_threads=0)
    with pytest.raises(ConfigurationError, match=r"argument: queues='a' is not accepted: expected Queue\(...\)s with"):
        load_config(cwd=project, environ={}, queues=[Queue("a"), Queue("a")])
    with pytest.raises(ConfigurationError, match=r"argument: queues.a.pools names an unknown pool, 'x'"):
        load_config(cwd=project, environ={}, queues=[Queue("a", pools=("x",))])
    with pytest.raises(TypeError, match="max_thread"):
        load_config(cwd=project, environ={}, max_thread=1)  # type: ignore[call-arg]


# -- spelling and places ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        (5, 5.0), (0.5, 0.5), ("90", 90.0), ("90s", 90.0), ("2h30m", 9000.0), ("2h 30m", 9000.0),
        ("1.5d", 129600.0), ("250ms", 0.25), ("1w", 604800.0), ("PT2H30M", 9000.0), ("P1DT1S", 86401.0),
        ("P2W", 1209600.0), (timedelta(minutes=1), 60.0),
    ],
)  # fmt: skip
def test_times_as_people_write_them(text: object, expected: float) -> None:
    """Seconds, short units and ISO 8601 all mean the same."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "5 parsecs", "P", "PT", "-5s", -5, True, None, float("inf"), "2h30"])
def test_what_is_not_a_time_is_refused(text: object) -> None:
    """Nothing is guessed: a number without unit after one with unit, a sign, a truth value."""
    with pytest.raises(ValueError, match="is not a time: expected seconds >= 0 or a text like"):
        seconds(text)


def test_folders_appear_when_they_are_used_and_are_private(tmp_path: Path) -> None:
    """The home and what is in it are made on demand, for their owner only; parents are ordinary folders."""
    paths = Paths(tmp_path / "deep/home")
    assert not paths.home.exists()
    assert paths.make(paths.blobs) == paths.home / "blobs"
    assert [path.name for path in paths.home.iterdir()] == ["blobs"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (paths.home, paths.blobs)] == [0o700, 0o700]
    assert paths.make() == paths.home
    assert (paths.store.parent, paths.logs.parent) == (paths.home, paths.home)


def test_a_home_that_cannot_be_is_explained(tmp_path: Path) -> None:
    """A file in the home's place is an error with a cure; a folder outside the home is the caller's defect."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be created .*set FLYTEISH_HOME"):
        Paths(tmp_path / "file/home").make()
    with pytest.raises(ConfigurationError, match="set FLYTEISH_HOME"):
        Paths(tmp_path / "file").make()
    with pytest.raises(ValueError, match="is not in the home"):
        Paths(tmp_path / "home").make(tmp_path / "other")
