"""Certificates in PEM files, by the library cryptography."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from lifeboat.core.errors import PermanentError

_BEGIN = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----")
_LARGEST_BYTES = 8 << 20  # the list of all authorities that a browser trusts has 0.3 MB


def end_of(path: Path) -> datetime | None:
    """When what a PEM file certifies ends; None if it holds no certificate.

    Of a chain it is the first to end, roots aside, which nobody reads from there. A file of roots
    alone is a list of whom to trust, and ends with its last. Raises PermanentError, saying what is
    wrong, if a certificate in it can't be parsed.
    """
    if path.stat().st_size > _LARGEST_BYTES:
        return None
    data = path.read_bytes()
    if not _BEGIN.search(data):
        return None
    # It costs 0.1 s to import, which hosts without certificates need not pay.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        why = str(error).rpartition("details. ")[2].rstrip(".")
        raise PermanentError(
            f"Reading the certificate {path}: it can't be parsed ({why}).",
            hint="Is it cut short, or edited by hand?",
        ) from error
    leaves = [c.not_valid_after_utc for c in found if c.issuer != c.subject]
    return min(leaves) if leaves else max(c.not_valid_after_utc for c in found)
