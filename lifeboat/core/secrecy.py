"""What must not be shown to others: known secrets, and private keys of any kind. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

SHORTEST = 6
"""A shorter value would be found in every other file."""

_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|AGE-SECRET-KEY-1|PuTTY-User-Key-File-\d"
)


@dataclass(frozen=True)
class Secret:
    """A secret and what it is called. Its value is in no repr."""

    name: str
    value: str = field(repr=False)


def secrets_in(data: bytes, known: Iterable[Secret]) -> tuple[str, ...]:
    """The names of the known secrets whose value is in it: plain, as in a URL, or in base64.

    Values of fewer than `SHORTEST` characters are not looked for.
    """
    return tuple(
        sorted(
            {
                secret.name
                for secret in known
                if len(secret.value) >= SHORTEST
                and any(form in data for form in _forms(secret.value))
            }
        )
    )


def _forms(value: str) -> set[bytes]:
    plain = value.encode()
    coded = base64.b64encode(plain).rstrip(b"=")
    # The last character depends on what follows, if anything does.
    whole = coded if len(plain) % 3 == 0 else coded[:-1]
    return {plain, quote(value, safe="").encode(), whole}


def has_private_key(data: bytes) -> bool:
    """Whether it holds a private key in PEM, OpenPGP, age or PuTTY's form."""
    return bool(_PRIVATE_KEY.search(data))
