"""Passwords as salted scrypt hashes."""

from __future__ import annotations

import hashlib
import hmac
import os

_COST = {"n": 2**13, "r": 8, "p": 1}


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    salt = salt or os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, **_COST)
    return f"scrypt${salt.hex()}${digest.hex()}"


def matches(password: str, hashed: str) -> bool:
    salt = bytes.fromhex(hashed.split("$")[1])
    return hmac.compare_digest(hash_password(password, salt=salt), hashed)
