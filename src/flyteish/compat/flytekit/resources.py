"""Flyte 1's ``Resources`` and what ``requests`` and ``limits`` together ask for.

Translates amounts and checks them where they are written. Must not know who grants them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from flyteish._core.model.resources import Resources as Amounts
from flyteish.errors import ConfigurationError

_OURS: Final = {"cpu": "cpu", "mem": "memory", "gpu": "gpu", "ephemeral_storage": "disk"}


class Resources(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """What one attempt needs, in Flyte 1's words. What is left out is unspecified.

    Args:
        cpu: cores, as a number or a quantity (``"500m"``).
        mem: bytes, as an int or a quantity (``"2Gi"``).
        gpu: whole devices, as an int or its digits.
        ephemeral_storage: disk, as ``mem``.

    Raises:
        ConfigurationError: an amount cannot be read or is negative; names the field and what is accepted.
    """

    cpu: float | int | str | None = None
    mem: int | str | None = None
    gpu: int | str | None = None
    ephemeral_storage: int | str | None = None

    def __post_init__(self) -> None:
        for field, ours in _OURS.items():
            value = getattr(self, field)
            if value is not None:
                try:
                    checked: dict[str, Any] = {ours: _amount(value)}
                    Amounts(**checked)
                except ConfigurationError as error:
                    accepted = str(error).partition("expected ")[2]
                    message = f"Resources.{field}={value!r} is not accepted: expected {accepted}"
                    raise ConfigurationError(message) from None


def needed(requests: Resources | None, limits: Resources | None) -> Amounts | UnsetType:
    """What is requested and, as in Kubernetes, the limit of what is not; ``UNSET`` where neither is given.

    Raises ConfigurationError for what is no ``Resources``.
    """
    for name, given in (("requests", requests), ("limits", limits)):
        if given is not None and not isinstance(given, Resources):
            raise ConfigurationError(f"{name}={given!r} in @task is not accepted: expected Resources(cpu=..., mem=...)")
    said: dict[str, Any] = {}
    for level in (limits, requests):  # the later wins
        for field, ours in _OURS.items():
            value = getattr(level, field, None)
            if value is not None:
                said[ours] = _amount(value)
    return Amounts(**said) if requests is not None or limits is not None else UNSET


def _amount(value: float | int | str) -> float | int | str:
    # Digits are a number in each of the fields; as text they would name a type of device.
    return int(value) if isinstance(value, str) and value.isdecimal() else value
