"""Which certificates end soon, and what is read out of PEM files."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lifeboat.core.certificates import expiring
from lifeboat.core.errors import PermanentError
from lifeboat.tools.certificates import end_of

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(days: float, *, subject: str = "cad", issuer: str = "An Authority") -> bytes:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    ends_at = NOW + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(NOW, ends_at) - timedelta(days=90))
        .not_valid_after(ends_at)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def root(days: float) -> bytes:
    return certificate(days, subject="Root", issuer="Root")


PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def test_the_soonest_is_told_first_and_those_far_away_are_not() -> None:
    ends = {"far": 22.0, "soon": 20.9, "edge": 21.0, "over": -3.0}
    found = expiring(
        {path: NOW + timedelta(days=days) for path, days in ends.items()}, now=NOW, days=21
    )
    assert [one.path for one in found] == ["over", "soon", "edge"]
    assert [one.ended for one in found] == [True, False, False]
    assert found[0].in_words() == "The certificate over ended 3 days ago"
    assert found[1].in_words() == "The certificate soon ends in 20 days (2026-02-21 00:51 UTC)"


def test_at_its_end_it_has_ended() -> None:
    [one] = expiring({"a": NOW}, now=NOW, days=0)
    assert one.ended
    assert not expiring({"a": NOW + timedelta(seconds=1)}, now=NOW, days=0)


@pytest.mark.parametrize(
    ("content", "days"),
    [
        (certificate(90), 90),
        (root(10), 10),
        (PRIVATE + b"some words\n" + certificate(7), 7),
        (certificate(80) + certificate(30, subject="Intermediate") + root(-5), 30),
        (root(-900) + root(4000) + root(100), 4000),
        (certificate(5).replace(b" CERTIFICATE", b" X509 CERTIFICATE"), 5),
    ],
)
def test_a_file_ends_with_what_it_certifies(tmp_path: Path, content: bytes, days: int) -> None:
    path = tmp_path / "cad.pem"
    path.write_bytes(content)
    assert end_of(path) == NOW + timedelta(days=days)


@pytest.mark.parametrize("content", [b"", b"listen 80;", PRIVATE, b"\x00\xff" * 100])
def test_a_file_without_certificates_has_no_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.conf"
    path.write_bytes(content)
    assert end_of(path) is None


@pytest.mark.parametrize(
    "content", [certificate(9)[:200], certificate(9).replace(b"M", b"!"), certificate(9)[:-30]]
)
def test_a_damaged_one_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cad.pem"
    path.write_bytes(content)
    with pytest.raises(PermanentError, match=r"cad\.pem: it can't be parsed \(\w+.*\)\."):
        end_of(path)
