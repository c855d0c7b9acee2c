"""Tokens by which attempts in other processes prove who they are, and what is kept of them.

A token is good for one action and generation. The journal has its digest only: enough for a later controller to know
an attempt again, and of no use to whoever reads it. Must not know how tokens travel.
"""

from __future__ import annotations

import secrets
from hashlib import sha256


def new_token() -> str:
    """128 bits that nobody can guess."""
    return secrets.token_urlsafe(16)


def digest_of(token: str) -> bytes:
    """What is kept of it: its SHA-256."""
    return sha256(token.encode()).digest()
