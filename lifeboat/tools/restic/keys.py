"""A host's own key to a repository: a random one, which takes restic no time to try.

restic makes each guess at a password cost half a second of one core, and pays that itself whenever
it opens a repository, in a recovery some ten times. That keeps short passwords from being guessed;
one of 256 random bits needs no such help. So a host may have a key of its own beside the vault's
password, in the repository as any other of restic's keys. Its own password is made of random bits
that only this host keeps and of the vault's password: what the host keeps opens nothing by itself,
and what lies in the bucket is guarded as well as before.

The vault's password remains the one that counts. An hour after it last opened the repository it has
to do so again, so that a day on which it no longer does is noticed while this host is there.

Source: restic's design document, "Keys, Encryption and MAC".
"""

from __future__ import annotations

import base64
import contextvars
import hashlib
import hmac
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

# Not the name of any user: restic writes that into the keys that it makes itself.
_USER = "lifeboat: this host"
_COST = {"N": 1 << 10, "r": 8, "p": 1}  # of one guess: 3 ms
_BITS = 256
_NONCE_BYTES = _MAC_BYTES = 16
_FRESH_SECONDS = 3600.0
_AGAIN_SECONDS = 86400.0  # after it could not be made

_any_age: contextvars.ContextVar[bool] = contextvars.ContextVar("any_age", default=False)


@contextmanager
def at_any_age() -> Iterator[None]:
    """Within the block this host's keys are used however long ago the password was proven.

    For recoveries: they must not end in the middle for a password that is not there any more.
    """
    token = _any_age.set(True)
    try:
        yield
    finally:
        _any_age.reset(token)


def is_at_any_age() -> bool:
    return _any_age.get()


@dataclass(frozen=True)
class HostKey:
    """What this host keeps of its key to one repository; no `id`: it has none.

    When the vault's own password last opened the repository is the time of the file.
    """

    path: Path
    id: str = ""  # the name of the key in the repository
    bits: str = field(default="", repr=False)
    of_password: str = ""  # the name of the key that the vault's password opens
    made: tuple[str, ...] = ()  # names under which this host has put keys there, `id` among them

    def password(self, of_vault: str) -> str:
        digest = hmac.digest(bytes.fromhex(self.bits), os.fsencode(of_vault), "sha256")
        return base64.urlsafe_b64encode(digest).decode()

    def environment(self, of_vault: str) -> dict[str, str]:
        """What makes restic open the repository with it, and try no other key before."""
        return {"RESTIC_PASSWORD": self.password(of_vault), "RESTIC_KEY_HINT": self.id}

    @property
    def may_be_used(self) -> bool:
        return bool(self.id) and (is_at_any_age() or self._seconds_old() < _FRESH_SECONDS)

    @property
    def is_wanted(self) -> bool:
        """Whether it should be made: there is none, and it was not tried in vain a while ago."""
        return not self.id and self._seconds_old() >= _AGAIN_SECONDS

    def to_bytes(self) -> bytes:
        """The content of its file."""
        told = {"id": self.id, "bits": self.bits, "of_password": self.of_password}
        return json.dumps(told | {"made": self.made}).encode()

    def password_opened(self, at: float) -> None:
        """Note that the vault's own password opened the repository at that moment."""
        with suppress(OSError):
            os.utime(self.path, (at, at))

    def forget(self) -> None:
        """The repository does not know it any more, or holds it damaged: make it anew, at once.

        Which key the password opens is kept: restic tries none after one that is damaged.
        """
        with suppress(OSError):
            self.path.write_bytes(replace(self, id="", bits="").to_bytes())
            os.utime(self.path, (0, 0))

    def _seconds_old(self) -> float:
        try:
            age = time.time() - self.path.stat().st_mtime
        except OSError:
            return float("inf")
        return age if age >= 0 else float("inf")  # written under a clock that was ahead


def host_key(directory: Path, location: str) -> HostKey:
    """What this host keeps in `directory` for a repository. A file that can't be read is none."""
    path = directory / f"{hashlib.sha256(location.encode()).hexdigest()[:32]}.json"
    try:
        told = json.loads(path.read_bytes())
        bytes.fromhex(told["bits"])
        return HostKey(path, told["id"], told["bits"], told["of_password"], tuple(told["made"]))
    except (OSError, ValueError, KeyError, TypeError):
        return HostKey(path)


def new_bits() -> str:
    return secrets.token_hex(_BITS // 8)


def key_file(master: bytes, password: str) -> tuple[str, bytes]:
    """A key of this host as restic keeps it: its name, and what it holds.

    `master` is what every key of the repository holds.
    """
    told = {
        "created": datetime.now(timezone.utc).isoformat(),
        "username": _USER,
        "hostname": socket.gethostname(),
        "kdf": "scrypt",
        **_COST,
        "salt": base64.b64encode(secrets.token_bytes(64)).decode(),
    }
    sealed = seal(master, derive(told, password))
    data = json.dumps({**told, "data": base64.b64encode(sealed).decode()}).encode()
    return hashlib.sha256(data).hexdigest(), data


def is_left_by_this_host(data: bytes, now: datetime) -> bool:
    """Whether a repository's key is one that `key_file` made on this host, a day ago or earlier.

    A younger one may be that of another host of the same name, which would make itself another.
    """
    try:
        told = json.loads(data)
        created = datetime.fromisoformat(told["created"])
        ours = (told["username"], told["hostname"]) == (_USER, socket.gethostname())
        return ours and (now - created).total_seconds() > _AGAIN_SECONDS
    except (ValueError, KeyError, TypeError):
        return False


# --- restic's cryptography -----------------------------------------------------------------------


def derive(told: Mapping[str, object], password: str) -> bytes:
    """What a password makes by what a key file says: 32 bytes to encrypt with, 32 for MACs."""
    return hashlib.scrypt(
        os.fsencode(password),
        salt=base64.b64decode(str(told["salt"])),
        n=int(str(told["N"])),
        r=int(str(told["r"])),
        p=int(str(told["p"])),
        dklen=64,
        maxmem=1 << 30,
    )


def seal(text: bytes, key: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    encrypted = _encrypted(text, nonce, key)
    return nonce + encrypted + _mac(encrypted, nonce, key)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Raises ValueError if it was sealed with another key, or is damaged."""
    nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:-_MAC_BYTES]
    if not hmac.compare_digest(_mac(text, nonce, key), sealed[-_MAC_BYTES:]):
        raise ValueError("sealed with another key")
    return _encrypted(text, nonce, key)


def _encrypted(text: bytes, nonce: bytes, key: bytes) -> bytes:
    """AES-256 in counter mode, which is its own inverse."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor().update(text)


def _mac(text: bytes, nonce: bytes, key: bytes) -> bytes:
    """Poly1305-AES."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    block = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return Poly1305.generate_tag(key[48:64] + block, text)
