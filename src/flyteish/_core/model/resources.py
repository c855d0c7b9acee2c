"""How much of a machine an attempt asks for and a pool or queue has: cpu, memory, gpu, disk, shared memory.

Pure arithmetic on amounts; must not know who asks or who grants.
"""

from __future__ import annotations

import re

import msgspec

from flyteish._core.wording import not_accepted

_MEMORY_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*)\Z")


class Resources(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """What one attempt needs (or what a pool has).

    Args:
        cpu: cores, as a number (``0.5``) or a Kubernetes quantity (``"500m"``). Default 0: unspecified.
        memory: bytes, as an int or a quantity (``"2Gi"``, ``"500M"``). Default 0: unspecified.
        gpu: whole devices, as an int or ``"T4:1"`` (type and count). Default 0.
        disk: ephemeral storage, as ``memory``. Default 0: unspecified.
        shm: shared memory, as ``memory`` (or ``"auto"``). Default 0: unspecified.

    Raises:
        ConfigurationError: an amount cannot be read or is negative; names the field and what is accepted.
    """

    cpu: float | int | str = 0
    memory: int | str = 0
    gpu: int | str = 0
    disk: int | str = 0
    shm: int | str = 0

    def __post_init__(self) -> None:
        self.amounts()
        _bytes("shm", self.shm)

    def amounts(self) -> Amounts:
        """The same as plain numbers: millicores, bytes and devices."""
        return Amounts(
            _millicores(self.cpu),
            _bytes("memory", self.memory),
            _gpus(self.gpu),
            _bytes("disk", self.disk),
        )


class Amounts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Resources as integers that add up exactly; 0 in a *limit* means unlimited."""

    millicores: int = 0
    memory: int = 0
    gpu: int = 0
    disk: int = 0

    def plus(self, other: Amounts) -> Amounts:
        return Amounts(
            self.millicores + other.millicores,
            self.memory + other.memory,
            self.gpu + other.gpu,
            self.disk + other.disk,
        )

    def minus(self, other: Amounts) -> Amounts:
        return Amounts(
            self.millicores - other.millicores,
            self.memory - other.memory,
            self.gpu - other.gpu,
            self.disk - other.disk,
        )

    def within(self, limit: Amounts) -> bool:
        """Whether this fits under ``limit``, where a 0 in the limit means unlimited."""
        return (
            (not limit.millicores or self.millicores <= limit.millicores)
            and (not limit.memory or self.memory <= limit.memory)
            and (not limit.gpu or self.gpu <= limit.gpu)
            and (not limit.disk or self.disk <= limit.disk)
        )


NO_AMOUNTS = Amounts()


def _millicores(value: float | int | str) -> int:
    accepted = 'cores as a number >= 0 (0.5) or a quantity ("500m", "2")'
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if match is None or match[2] not in ("", "m"):
            raise not_accepted("Resources.cpu", value, accepted)
        return round(float(match[1]) * (1 if match[2] else 1000))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise not_accepted("Resources.cpu", value, accepted)
    return round(value * 1000)


def _bytes(field: str, value: int | str) -> int:
    accepted = 'bytes as an int >= 0 or a quantity ("500M", "2Gi")'
    if isinstance(value, str):
        if field == "shm" and value == "auto":
            return 0
        match = _QUANTITY.match(value)
        if match is None or match[2] not in _MEMORY_UNITS:
            raise not_accepted(f"Resources.{field}", value, accepted)
        return int(float(match[1]) * _MEMORY_UNITS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise not_accepted(f"Resources.{field}", value, accepted)
    return value


def _gpus(value: int | str) -> int:
    count: object = value.partition(":")[2] or "1" if isinstance(value, str) else value
    if isinstance(count, str) and count.isdigit():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0 or value == "":
        raise not_accepted("Resources.gpu", value, 'devices as an int >= 0 or "TYPE:COUNT" ("T4:1")')
    return count
