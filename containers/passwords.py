"""The passwords of Prefect and of its database: random, made once, in a volume of their own.

Standard library only: the health checks read them too.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

FILE = Path("/run/lifeboat/prefect.env")

_MADE_BY = {
    "PREFECT_DATABASE_PASSWORD": lambda: secrets.token_urlsafe(24),
    # One for all who use the API: user and password, as Prefect wants it.
    "PREFECT_API_AUTH_STRING": lambda: f"lifeboat:{secrets.token_urlsafe(24)}",
    # A key as Fernet wants it. Without one, secret blocks lie beside the key that opens them.
    "PREFECT_SERVER_ENCRYPTION_KEY": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
}


def read_passwords(file: Path = FILE) -> dict[str, str]:
    """Return them by name; none where the file is not there yet."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def ensure_passwords(file: Path = FILE) -> dict[str, str]:
    """Make those that are missing, and only those; return all. The file is whole at any moment."""
    known = read_passwords(file)
    missing = {name: make() for name, make in _MADE_BY.items() if not known.get(name)}
    if missing:
        known |= missing
        part = file.with_name(f"{file.name}.part")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with part.open("w", encoding="utf-8") as out:
            out.writelines(f"{name}={value}\n" for name, value in known.items())
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    return known
