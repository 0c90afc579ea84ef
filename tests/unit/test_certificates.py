"""Which certificates end soon, what is read out of PEM files, and which of them count."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lifeboat.core.certificates import expiring, kept_elsewhere
from lifeboat.core.errors import PermanentError
from lifeboat.core.points import Asset, DirectoryFacts, Facts
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.certificates import end_of
from tasks import certificates
from tests.unit.smallest_settings import SMALLEST

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


# --- what counts of a configuration -----------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "site" / "lifeboat.yaml"
    file.parent.mkdir()
    file.write_text(SMALLEST)
    return load_settings(file)


@pytest.fixture
def letsencrypt(tmp_path: Path) -> Path:
    """As certbot leaves it after two renewals, the newest of which it has not linked yet."""
    etc = tmp_path / "letsencrypt"
    archive, live = etc / "archive/cad.test", etc / "live/cad.test"
    archive.mkdir(parents=True)
    live.mkdir(parents=True)
    for number, days in enumerate((-60, 10, 70, 80), start=1):
        for kind in ("cert", "fullchain"):
            (archive / f"{kind}{number}.pem").write_bytes(certificate(days))
        (archive / f"privkey{number}.pem").write_bytes(PRIVATE)
    for kind in ("cert", "fullchain", "privkey"):
        (live / f"{kind}.pem").symlink_to(f"../../archive/cad.test/{kind}3.pem")
    return etc


def gathered(settings: Settings, *places: Path) -> dict[str, int]:
    """Days until the end, by path."""
    found = certificates.gather(settings, {str(place): place for place in places})
    return {path: (ends_at - NOW).days for path, ends_at in found.items()}


def test_older_versions_of_what_a_link_names_have_ended_and_do_not_count(
    settings: Settings, letsencrypt: Path
) -> None:
    archive = letsencrypt / "archive/cad.test"
    lone = archive / "other1.pem"
    lone.write_bytes(certificate(5))
    assert gathered(settings, letsencrypt) == {
        f"{archive}/cert3.pem": 70,
        f"{archive}/cert4.pem": 80,
        f"{archive}/fullchain3.pem": 70,
        f"{archive}/fullchain4.pem": 80,
        str(lone): 5,
    }
    (letsencrypt / "live/pinned.pem").symlink_to(archive / "cert2.pem")
    assert gathered(settings, letsencrypt)[f"{archive}/cert2.pem"] == 10


def test_they_are_known_through_a_parent_that_is_a_link(
    settings: Settings, letsencrypt: Path
) -> None:
    (letsencrypt.parent / "etc").symlink_to(letsencrypt.parent)
    place = letsencrypt.parent / "etc" / "letsencrypt"
    assert sorted(gathered(settings, place).values()) == [70, 70, 80, 80]
    assert all(path.startswith(str(place)) for path in gathered(settings, place))


def test_what_a_link_names_outside_of_the_configuration_counts_and_is_told(
    settings: Settings,
    letsencrypt: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = letsencrypt.parent / "usr"
    packages.mkdir()
    (packages / "authority.crt").write_bytes(root(-900))
    monkeypatch.setattr(certificates, "_NO_CONFIGURATION", (packages,))
    live, archive = letsencrypt / "live/cad.test", letsencrypt / "archive/cad.test"
    (live / "gone.pem").symlink_to("nowhere.pem")
    (live / "loop.pem").symlink_to("loop.pem")
    (live / "authority.pem").symlink_to(packages / "authority.crt")
    assert gathered(settings, live) == {
        f"{archive}/cert3.pem": 70,
        f"{archive}/fullchain3.pem": 70,
    }
    facts = Facts(
        point="config-20260131T031500Z",
        asset=Asset.CONFIG,
        platform="cad-test",
        host="x",
        taken_at=NOW,
        directories={"live": DirectoryFacts(path=str(live), files=0, bytes=0)},
        certificates=certificates.gather(settings, {"live": live}),
    )
    certificates.tell_expiring(settings, facts)
    assert f"Of {archive}/cert3.pem, {archive}/fullchain3.pem only a link" in caplog.text
    whole = {"all": DirectoryFacts(path=str(letsencrypt), files=9, bytes=9)}
    assert kept_elsewhere(facts.model_copy(update={"directories": whole})) == ()
