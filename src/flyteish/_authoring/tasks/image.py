"""Container images as values: which base, which packages, which environment variables.

An image is recorded with its environment and used by engines that run containers; where tasks run in this
machine's own interpreter it changes nothing. Must not know how, or whether, an image is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from flyteish.errors import ConfigurationError

_DEBIAN_BASE: Final = "python:{major}.{minor}-slim-bookworm"


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """A container image: a base and what is added to it. Every ``with_...`` returns a new value.

    Args:
        base: reference of the base image, such as ``"python:3.12-slim"``.
        pip_packages: requirements as pip understands them, in order.
        apt_packages: names of Debian packages, in order.
        env_vars: environment variables that are part of the image.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    base: str
    pip_packages: tuple[str, ...] = ()
    apt_packages: tuple[str, ...] = ()
    env_vars: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not isinstance(self.base, str) or not self.base.strip():
            raise _refuse("base", self.base, "the reference of an image")
        for name in ("pip_packages", "apt_packages"):
            msgspec.structs.force_setattr(self, name, _names(name, getattr(self, name)))
        msgspec.structs.force_setattr(self, "env_vars", _variables(self.env_vars))

    @classmethod
    def from_base(cls, image_uri: str) -> Image:
        """An existing image, by its reference."""
        return cls(base=image_uri)

    @classmethod
    def from_debian_base(cls, python_version: tuple[int, int] = (3, 12)) -> Image:
        """The official slim Python image on Debian. ``python_version``: major and minor; default 3.12."""
        given: object = python_version
        if not (isinstance(given, tuple) and len(given) == 2 and all(type(part) is int for part in given)):
            raise _refuse("python_version", python_version, "a pair of ints such as (3, 12)")
        major, minor = python_version
        return cls(base=_DEBIAN_BASE.format(major=major, minor=minor))

    def with_pip_packages(self, *packages: str) -> Image:
        """This image with more Python packages."""
        return msgspec.structs.replace(self, pip_packages=self.pip_packages + _names("pip_packages", packages))

    def with_apt_packages(self, *packages: str) -> Image:
        """This image with more Debian packages."""
        return msgspec.structs.replace(self, apt_packages=self.apt_packages + _names("apt_packages", packages))

    def with_env_vars(self, env_vars: Mapping[str, str]) -> Image:
        """This image with more environment variables; a name said again gets the new value."""
        return msgspec.structs.replace(self, env_vars={**self.env_vars, **_variables(env_vars)})

    def __repr__(self) -> str:
        # Names only: values of environment variables may be secrets.
        parts = [repr(self.base)]
        parts += [f"pip_packages={self.pip_packages!r}"] if self.pip_packages else []
        parts += [f"apt_packages={self.apt_packages!r}"] if self.apt_packages else []
        parts += ["env_vars={" + ", ".join(f"{name}=***" for name in self.env_vars) + "}"] if self.env_vars else []
        return f"Image({', '.join(parts)})"


def _refuse(name: str, value: object, accepted: str) -> ConfigurationError:
    return ConfigurationError(f"Image: {name}={value!r} is not accepted: expected {accepted}")


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise _refuse(name, value, "names of packages")


def _variables(value: object) -> dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(k, str) and k and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise _refuse(
        "env_vars", sorted(value, key=str) if isinstance(value, Mapping) else value, "a mapping of str to str"
    )
