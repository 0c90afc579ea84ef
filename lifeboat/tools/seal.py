"""Objects that only the holder of one key can read: compressed with zstd, encrypted with age.

For whole objects in memory, such as WAL segments of 16 MB; nothing here streams.
"""

from __future__ import annotations

import pyrage
import zstandard

from lifeboat.core.errors import PreconditionError, VerificationFailed

# WAL compresses about as well at level 1 as at 3, at twice the speed.
_LEVEL = 1
_LARGEST_BYTES = 1 << 30


def new_identity() -> tuple[str, str]:
    """Make a key pair: (identity, which opens and is secret; recipient, to which one seals)."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(identity: str) -> str:
    return str(_identity(identity).to_public())


def seal(data: bytes, recipient: str) -> bytes:
    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        raise PreconditionError(
            f"Sealing: {recipient[:12]!r}... is not an age recipient.",
            hint="Run `lifeboat prepare` to write it anew from the vault.",
        ) from error
    return pyrage.encrypt(zstandard.ZstdCompressor(level=_LEVEL).compress(data), [key])


def unseal(data: bytes, identity: str, *, doing: str = "Opening a sealed object") -> bytes:
    """Raise VerificationFailed if the object is damaged or was sealed to another key."""
    try:
        packed = pyrage.decrypt(data, [_identity(identity)])
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_LARGEST_BYTES)
    except (pyrage.DecryptError, zstandard.ZstdError) as error:
        raise VerificationFailed(
            f"{doing} ({len(data)} bytes): {error}.",
            hint="It is damaged, cut short, or sealed to another platform's key.",
        ) from error


def _identity(text: str) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError as error:
        raise PreconditionError("Reading the WAL key: it is not an age identity.") from error
