"""Names of runs, actions and attempts, and how a child's identity follows from its call.

Deterministic: equal calls get equal identities, which is what lets a resumed parent find its finished
children. Must not know what an action is for; the random part of a run's name is an argument.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
ROOT_ACTION = "a0"


class ActionKey(NamedTuple):
    """Which action, in which run."""

    run: str
    action: str

    def __str__(self) -> str:
        return f"{self.run}/{self.action}"


class AttemptKey(NamedTuple):
    """Which attempt: the action and the generation, which is never used twice."""

    run: str
    action: str
    generation: int

    def __str__(self) -> str:
        return f"{self.run}/{self.action}#{self.generation}"


def chance_of(key: AttemptKey) -> float:
    """A number in [0, 1) that is another one for each attempt, for what must not happen to all of them in step."""
    return int.from_bytes(blake2b(repr(tuple(key)).encode(), digest_size=6).digest()) / 2**48


def run_name(now: float, noise: int) -> str:
    """A name for a run that sorts by time: ``r`` + 8 characters of time + 4 of ``noise`` (20 bits)."""
    return "r" + _base32(int(now * 64) & (2**40 - 1), 8) + _base32(noise & 0xFFFFF, 4)


def child_action(parent: str, task: str, inputs_digest: bytes, occurrence: int, incarnation: int = 0) -> str:
    """The identity of a child: parent, task, inputs' digest and occurrence (design: durability).

    ``occurrence`` counts equal calls within one attempt of the parent, from 0. ``incarnation`` counts how
    often this same call ended without success under earlier attempts of the parent: a parent's retry
    must get a new try of a child that failed, and the recorded result of one that succeeded.
    """
    text = f"{parent}\0{task}\0{occurrence}\0{incarnation}\0".encode()
    return blake2b(text + inputs_digest, digest_size=10).hexdigest()


def inputs_digest(payload: bytes) -> bytes:
    """Sixteen bytes that stand for the encoded inputs."""
    return blake2b(payload, digest_size=16).digest()


def _base32(number: int, length: int) -> str:
    return "".join([_ALPHABET[(number >> shift) & 31] for shift in range(5 * (length - 1), -1, -5)])
