"""Images: layers in the order in which they were added, one digest for one content, recorded with what runs in them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import flyteish
from flyteish import Image, TaskEnvironment
from flyteish._core.model.images import AptPackages, ImageVariables, PipPackages, ShellLines, WorkingDirectory
from flyteish._core.model.setting_rules import opinions
from flyteish._core.model.settings import Level, Scope, Settings
from flyteish.errors import ConfigurationError

BASE = Image.from_base("python:3.12")


def test_layers_keep_their_order_and_leave_the_image_before_as_it_was() -> None:
    """Each addition gives a new image with one layer more, behind the others."""
    image = (
        BASE.with_apt_packages("git", "curl")
        .with_env_vars({"A": "1"})
        .with_pip_packages("numpy", "pandas>=2")
        .with_workdir("/srv")
        .with_commands(["make", "make install"])
        .with_apt_packages("jq")
    )
    assert BASE.layers == ()
    assert image.layers == (
        AptPackages(("git", "curl")),
        ImageVariables({"A": "1"}),
        PipPackages(("numpy", "pandas>=2")),
        WorkingDirectory("/srv"),
        ShellLines(("make", "make install")),
        AptPackages(("jq",)),
    )
    assert image.base == BASE.base == "python:3.12"


def test_the_digest_covers_the_base_and_all_layers_in_their_order() -> None:
    """Equal content has one digest in every process; any other content, or order, has another."""
    one, other = BASE.with_pip_packages("numpy"), BASE.with_apt_packages("git")
    images = [
        BASE,
        Image.from_base("python:3.13"),
        one,
        BASE.with_pip_packages("numpy", "scipy"),
        one.with_pip_packages("scipy"),
        one.with_apt_packages("git"),
        other.with_pip_packages("numpy"),
        BASE.with_commands(["numpy"]),
        BASE.with_workdir("/a"),
        BASE.with_env_vars({"A": "1"}),
        BASE.with_env_vars({"A": "2"}),
    ]
    assert len({image.digest for image in images}) == len(images)
    assert one.digest == "59010260aa4baaceae83c36fda77ab6b802135a14e2d6118542d339a9601ac33"
    assert BASE.with_env_vars({"A": "1", "B": "2"}).digest == BASE.with_env_vars({"B": "2", "A": "1"}).digest


def test_the_short_form_makes_layers_too() -> None:
    """What Python packages need of Debian comes before them; nothing is kept twice."""
    image = Image("python:3.12", pip_packages=["numpy"], apt_packages=["git"], env_vars={"A": "1"})
    assert image == BASE.with_apt_packages("git").with_pip_packages("numpy").with_env_vars({"A": "1"})
    assert (image.pip_packages, image.apt_packages, image.env_vars) == ((), (), {})
    assert image.with_workdir("/srv").layers == (*image.layers, WorkingDirectory("/srv"))


def test_images_show_what_they_are() -> None:
    """Their `repr` is what makes them, without the values of environment variables."""
    image = Image.from_debian_base((3, 11)).with_pip_packages("numpy").with_env_vars({"TOKEN": "hunter2"})
    more = image.with_apt_packages("git").with_commands(["make"]).with_workdir("/srv")
    assert repr(more) == (
        "Image('python:3.11-slim-bookworm').with_pip_packages('numpy').with_env_vars({TOKEN=***})"
        ".with_apt_packages('git').with_commands(['make']).with_workdir('/srv')"
    )


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Image(""), "base=''"),
        (lambda: Image("a", pip_packages="numpy"), "pip_packages='numpy'"),
        (lambda: Image("a", layers=("pip",)), "layers="),  # type: ignore[arg-type]
        (lambda: BASE.with_pip_packages(7), "pip_packages="),  # type: ignore[arg-type]
        (lambda: BASE.with_pip_packages(), "pip_packages="),
        (lambda: BASE.with_apt_packages(" "), "apt_packages="),
        (lambda: BASE.with_env_vars({"A": 1}), "env_vars="),  # type: ignore[dict-item]
        (lambda: BASE.with_commands("make"), "commands='make'"),
        (lambda: BASE.with_workdir(7), "workdir="),  # type: ignore[arg-type]
        (lambda: Image.from_debian_base("3.12"), "python_version='3.12'"),  # type: ignore[arg-type]
    ],
)
def test_images_refuse_what_they_cannot_be(make: Any, said: str) -> None:
    """A wrong part of an image is refused where it is written."""
    with pytest.raises(ConfigurationError, match=rf"Image: {said}.* is not accepted: expected"):
        make()


def test_an_image_is_resolved_and_recorded_with_what_runs_in_it() -> None:
    """A session's default gives way to the environment's; a reference is an image; journals bring it back."""
    silent, speaks = TaskEnvironment("silent"), TaskEnvironment("speaks", image=BASE.with_pip_packages("numpy"))
    none = TaskEnvironment("none", image=None)
    scope = Scope(session=opinions(Level.SESSION, "test", {"image": "default:1"}))
    tasks = [env.task(_work) for env in (silent, speaks, none)]
    found = [task.settings(scope) for task in tasks]
    assert [settings.image for settings in found] == [Image("default:1"), speaks.image, None]
    assert [settings.source("image") for settings in found] == ["session config", "TaskEnvironment", "TaskEnvironment"]
    assert tasks[0].settings().image is None
    for settings in found:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings) == settings
    assert flyteish.TaskEnvironment("a", image="a:1").image == Image("a:1")


def _work() -> None: ...


def test_what_was_stored_before_images_had_layers_is_read() -> None:
    """Settings without an image, and images that were three lists."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"queue": "q"}), type=Settings).image is None
    old = msgspec.msgpack.encode({"base": "a", "pip_packages": ["numpy"], "env_vars": {"A": "1"}})
    assert msgspec.msgpack.decode(old, type=Image) == Image("a").with_pip_packages("numpy").with_env_vars({"A": "1"})
