"""What must not be shown: known secrets, private keys; and what a secret is known by. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

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


def fingerprint(secret: str, *, platform: str) -> str:
    """Four hexadecimal digits by which a person knows the right secret, printed on the card.

    Whoever finds the card must not be helped to guess. So each try costs 1.5 s and 128 MiB, more
    than trying the vault itself does, and the platform's name keeps one table from serving for
    all. And it is short on purpose: 16 bits find 65,535 of 65,536 wrong envelopes, but of a million
    likely passwords they leave fifteen, between which only the vault can tell. A longer one would
    tell a weak password by itself.
    """
    digest = hashlib.scrypt(
        unicodedata.normalize("NFC", secret).encode(),
        salt=b"lifeboat card\0" + platform.encode(),
        n=1 << 17,
        r=8,
        p=3,
        maxmem=1 << 28,
        dklen=2,
    )
    return digest.hex()


def without_credentials(address: str) -> str:
    """A URL without the user, password or token that may stand before its host."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
