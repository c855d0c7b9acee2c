"""What goes for a kind of engine: which pools share one, what pools of it may want, and what it says for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyteish import Pool
from flyteish._engine_kinds import ANY, by_engine, checked
from flyteish.config import load_config
from flyteish.errors import ConfigurationError


def test_pools_of_one_kind_and_cluster_share_an_engine() -> None:
    """Engines of this machine know no clusters."""
    pools = [
        Pool("a", engine="cloud", cluster="east"),
        Pool("b", engine="cloud", cluster="west"),
        Pool("c", engine="cloud", cluster="east"),
        Pool("d", cluster="east"),
        Pool("e"),
    ]
    found = {key: list(those) for key, those in by_engine(pools).items()}
    assert found == {("cloud", "east"): ["a", "c"], ("cloud", "west"): ["b"], ("inline", ""): ["d", "e"]}


def test_pods_take_long_to_start_unless_the_pool_says_otherwise(tmp_path: Path) -> None:
    """Three minutes are assumed on Kubernetes, a second elsewhere; what is said wins."""
    (tmp_path / "flyteish.toml").write_text(
        "[pools.k]\nengine = 'kubernetes'\n[pools.fast]\nengine = 'kubernetes'\nstartup = '5s'\n[pools.here]\n"
    )
    config = load_config(cwd=tmp_path, environ={})
    assert {pool.name: pool.assumed_startup for pool in config.pools} == {"k": 180.0, "fast": 5.0, "here": 1.0}


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_engines_of_this_machine_cannot_let_attempts_go_on(engine: str) -> None:
    """The message names pool, parameter and what is accepted."""
    with pytest.raises(ConfigurationError, match=rf"Pool\('p'\): on_close='detach' .*'stop' for engine='{engine}'"):
        checked(Pool("p", engine=engine, on_close="detach"))
    assert checked(Pool("p", engine="cloud", on_close="detach"), ["cloud"]).on_close == "detach"


def test_names_of_others_are_known_if_somebody_says_so() -> None:
    """By name, or whatever they are called."""
    assert checked(Pool("p", engine="cloud"), [ANY]).engine == "cloud"
    with pytest.raises(ConfigurationError, match=r"engine='cloud' .*'inline' or 'processes' or 'kubernetes' or 'sky'"):
        checked(Pool("p", engine="cloud"), ["sky"])
