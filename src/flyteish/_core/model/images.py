"""Container images as values: a base, and layers on top of it in the order in which they were added.

An image is resolved like any setting and recorded with each action, for engines that run containers; where tasks run in
this machine's own interpreter it changes nothing. Two images with one digest have the same content. Must not know how,
or whether, an image is built: nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from flyteish._core.wording import not_accepted

_DEBIAN_BASE: Final = "python:{major}.{minor}-slim-bookworm"


class AptPackages(msgspec.Struct, frozen=True, tag="apt"):
    """Debian packages."""

    packages: tuple[str, ...]


class PipPackages(msgspec.Struct, frozen=True, tag="pip"):
    """Python packages: requirements as pip understands them."""

    packages: tuple[str, ...]


class ImageVariables(msgspec.Struct, frozen=True, tag="env"):
    """Environment variables, for the layers that follow and for what runs in the image."""

    values: dict[str, str]


class ShellLines(msgspec.Struct, frozen=True, tag="run"):
    """Lines for the shell, each by itself."""

    commands: tuple[str, ...]


class WorkingDirectory(msgspec.Struct, frozen=True, tag="workdir"):
    """Where the layers that follow, and what runs in the image, begin."""

    path: str


Layer: TypeAlias = AptPackages | PipPackages | ImageVariables | ShellLines | WorkingDirectory


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """A container image: a base and what is added to it. Every ``with_...`` returns a new value with one layer more.

    Args:
        base: reference of the base image, such as ``"python:3.12-slim"``.
        pip_packages, apt_packages, env_vars: layers to begin with, kept in ``layers`` and nowhere else: Debian packages
            first, then Python's, then variables.
        layers: what is added to the base, the oldest first.

    Raises:
        ConfigurationError: names the parameter, the value and what is accepted.
    """

    base: str
    # These three are how an image was made, stored and pickled before it had layers.
    pip_packages: Sequence[str] = ()
    apt_packages: Sequence[str] = ()
    env_vars: Mapping[str, str] = {}
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.base, str) or not self.base.strip():
            raise not_accepted("Image: base", self.base, "the reference of an image")
        given: object = self.layers
        if not isinstance(given, tuple) or not all(isinstance(layer, Layer) for layer in given):
            raise not_accepted("Image: layers", given, "a tuple of layers")
        first: list[Layer] = []
        if self.apt_packages:
            first.append(AptPackages(_texts("apt_packages", self.apt_packages, _PACKAGES)))
        if self.pip_packages:
            first.append(PipPackages(_texts("pip_packages", self.pip_packages, _PACKAGES)))
        if self.env_vars:
            first.append(ImageVariables(_variables(self.env_vars)))
        if first:
            for name, value in (("pip_packages", ()), ("apt_packages", ()), ("env_vars", {})):
                msgspec.structs.force_setattr(self, name, value)
            msgspec.structs.force_setattr(self, "layers", (*first, *self.layers))

    @classmethod
    def from_base(cls, image_uri: str) -> Image:
        """An existing image, by its reference."""
        return cls(base=image_uri)

    @classmethod
    def from_debian_base(cls, python_version: tuple[int, int] = (3, 12)) -> Image:
        """The official slim Python image on Debian. ``python_version``: major and minor; default 3.12."""
        given: object = python_version
        if not (isinstance(given, tuple) and len(given) == 2 and all(type(part) is int for part in given)):
            raise not_accepted("Image: python_version", python_version, "a pair of ints such as (3, 12)")
        major, minor = python_version
        return cls(base=_DEBIAN_BASE.format(major=major, minor=minor))

    def with_pip_packages(self, *packages: str) -> Image:
        """This image with more Python packages: requirements as pip understands them."""
        return self._with(PipPackages(_texts("pip_packages", packages, _PACKAGES)))

    def with_apt_packages(self, *packages: str) -> Image:
        """This image with more Debian packages."""
        return self._with(AptPackages(_texts("apt_packages", packages, _PACKAGES)))

    def with_env_vars(self, env_vars: Mapping[str, str]) -> Image:
        """This image with more environment variables; a name said again gets the new value from here on."""
        return self._with(ImageVariables(_variables(env_vars)))

    def with_commands(self, commands: Sequence[str]) -> Image:
        """This image after these lines for the shell, each by itself."""
        return self._with(ShellLines(_texts("commands", commands, "a list of lines for the shell")))

    def with_workdir(self, workdir: str) -> Image:
        """This image with another working directory, for the layers that follow and for what runs in it."""
        (path,) = _texts("workdir", (workdir,), "the path of a directory")
        return self._with(WorkingDirectory(path))

    @property
    def digest(self) -> str:
        """Of the base and all layers, their order included: 64 hexadecimal digits, the same in every process."""
        from hashlib import sha256  # loads OpenSSL, a tenth of what `import flyteish` takes

        return sha256(_encode([self.base, self.layers])).hexdigest()

    def _with(self, layer: Layer) -> Image:
        return msgspec.structs.replace(self, layers=(*self.layers, layer))

    def __repr__(self) -> str:
        return f"Image({self.base!r})" + "".join(_shown(layer) for layer in self.layers)


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_PACKAGES: Final = "names of packages"


def _shown(layer: Layer) -> str:
    """The layer as its author would write it; of variables names only, since values may be secrets."""
    match layer:
        case PipPackages(packages):
            return f".with_pip_packages({', '.join(map(repr, packages))})"
        case AptPackages(packages):
            return f".with_apt_packages({', '.join(map(repr, packages))})"
        case ImageVariables(values):
            return ".with_env_vars({" + ", ".join(f"{name}=***" for name in values) + "})"
        case ShellLines(commands):
            return f".with_commands({list(commands)!r})"
        case WorkingDirectory(path):
            return f".with_workdir({path!r})"


def _texts(name: str, value: object, accepted: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) and item.strip() for item in value):
        return tuple(value)
    raise not_accepted(f"Image: {name}", value, accepted)


def _variables(value: object) -> dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(k, str) and k and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise not_accepted(
        "Image: env_vars", sorted(value, key=str) if isinstance(value, Mapping) else value, "a mapping of str to str"
    )
