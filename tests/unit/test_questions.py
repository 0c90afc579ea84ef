"""Restored files and configuration: what is not as it was, or has not its form, is named."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import VerificationFailed
from lifeboat.core.points import Asset, DirectoryFacts, Facts
from lifeboat.settings import Settings, load_settings
from tasks.questions import directories
from tests.unit.smallest_settings import SMALLEST

CANARY = "canary-4711"
PEM = """\
-----BEGIN CERTIFICATE-----
MAwCAQEEBwECAwQFBgc=
-----END CERTIFICATE-----
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "live" / "lifeboat.yaml"
    file.parent.mkdir()
    file.write_text(SMALLEST)
    return load_settings(file)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A restored configuration: `lifeboat.yaml` and a directory."""
    place = tmp_path / "restored"
    (place / "config").mkdir(parents=True)
    (place / "lifeboat.yaml").write_text(SMALLEST)
    return place


def facts_of(place: Path, asset: Asset, *, digests: bool = True, **more) -> Facts:
    """What is in a place now, as a backup would have said it."""
    told = {}
    for path in sorted(place.iterdir()):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        root = path.parent if path.is_file() else path
        told[path.name] = DirectoryFacts(
            path=f"/srv/{path.name}",
            files=len(files) + more.get("files", 0),
            bytes=sum(p.stat().st_size for p in files) + more.get("bytes", 0),
            digests={
                str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
            }
            if digests
            else {},
        )
    return Facts(
        point=f"{asset}-20260101T000000Z",
        asset=asset,
        platform="cad-test",
        host="x",
        taken_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        directories=told,
    )


# --- compared with its facts ----------------------------------------------------------------


def test_what_is_as_it_was_is_good_and_more_is_no_fault(settings, place: Path) -> None:
    facts = facts_of(place, Asset.CONFIG)
    directories.question(settings, facts, place)
    (place / "config" / "newer.txt").write_text("written between the count and the snapshot")
    directories.question(settings, facts, place)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"files": 1}, "config: 2 files, not 3"), ({"bytes": 1}, "config: 10 bytes, not 11")],
)
def test_fewer_files_or_bytes_are_named(settings, place: Path, more, said: str) -> None:
    for name in ("a", "b"):
        (place / "config" / name).write_text("12345")
    facts = facts_of(place, Asset.FILES, digests=False, **more)
    with pytest.raises(VerificationFailed, match=said):
        directories.question(settings, facts, place)


def test_as_many_fewer_as_are_tolerated_are_no_fault(settings: Settings, place: Path) -> None:
    for number in range(99):
        (place / "config" / str(number)).write_text("12345")
    facts = facts_of(place, Asset.FILES, digests=False)
    (place / "config" / "7").unlink()
    with pytest.raises(VerificationFailed, match="98 files, not 99"):
        directories.question(settings, facts, place)
    counts = settings.checks.file_counts.model_copy(update={"tolerance_percent": 2})
    checks = settings.checks.model_copy(update={"file_counts": counts})
    directories.question(settings.model_copy(update={"checks": checks}), facts, place)


def test_each_altered_or_missing_file_is_named(settings, place: Path) -> None:
    for name in ("same", "altered", "missing"):
        (place / "config" / name).write_text("12345")
    facts = facts_of(place, Asset.MODELS)
    (place / "config" / "altered").write_text("12346")
    (place / "config" / "missing").rename(place / "config" / "other")
    with pytest.raises(VerificationFailed) as failed:
        directories.question(settings, facts, place)
    assert "config/altered is altered; config/missing is missing." in str(failed.value)
    assert "same" not in str(failed.value)


def test_a_directory_that_did_not_come_back_is_named(settings, place: Path) -> None:
    (place / "config" / "a").write_text("12345")
    facts = facts_of(place, Asset.MODELS)
    (place / "config" / "a").unlink()
    (place / "config").rmdir()
    (place / "lifeboat.yaml").unlink()
    with pytest.raises(VerificationFailed, match="config/a is missing"):
        directories.question(settings, facts, place)


# --- the forms of configuration -------------------------------------------------------------


def fault(settings: Settings, place: Path, name: str, content: str | bytes) -> str:
    """What is said of a file, which was like this already when it was backed up."""
    path = place / "config" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        directories.question(settings, facts_of(place, Asset.CONFIG), place)
    except VerificationFailed as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("compose.yml", "services:\n  web: !reset null\n  db: !vault |\n    3132\n"),
        ("two.yaml", "a: 1\n---\nb: 2\n"),
        ("daemon.json", '{"log-driver": "none"}'),
        ("pyproject.toml", "[a]\nb = 1\n"),
        (".env", "# note\n\nexport A=1\nB='two\nlines'\nC=\"it's\"\nONLY_A_NAME\nd.e=1\n"),
        (".env.production", "\ufeffA=b=c\n"),
        (".envrc", "layout python\n"),  # a shell script
        ("nginx.conf", "server { listen 80; }"),
        ("latin.ini", "[a]\nname = M\xfcller\n".encode("latin-1")),
        ("server.crt", PEM),
        ("chain.pem", PEM + PEM),
        ("der.crt", b"0\x03\x02\x01\x05"),
        ("secret.key", b"\x00\x01\x02 raw bytes of another program"),
        (
            "old.key",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"
            "-----END RSA PRIVATE KEY-----\n",
        ),
        ("README", ""),
        (".gitkeep", ""),
    ],
)
def test_what_is_valid_is_let_be(settings, place: Path, name: str, content) -> None:
    assert fault(settings, place, name, content) == ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("compose.yml", f"a: [{CANARY}\nb: }}", r"compose\.yml can't be parsed \(.*, line 2\)"),
        ("daemon.json", f'{{"a": "{CANARY}", }}', r"daemon\.json can't be parsed \(.*, line 1\)"),
        ("a.toml", f"password = {CANARY}\n", "a.toml can't be parsed"),
        (".env", f"A=1\nthis is {CANARY}\n", r"\.env can't be parsed \(line 2 is not KEY=VALUE"),
        (".env.production", b"\xff\xfe\x00", "can't be parsed"),
        ("nginx.conf", "", "config/nginx.conf is empty"),
        ("a.yaml", "\n  \n", "config/a.yaml is empty"),
        ("a.env", "\0" * 100, "config/a.env is all zeros"),
        ("server.pem", "", "is empty"),
        ("server.crt", PEM[:-20], "a block of it does not end"),
        ("server.key", PEM.replace("MAwCAQEEBwECAwQFBgc=", "MAwCAQEE"), "it is cut short"),
        ("broken.pem", PEM.replace("MAw", "M*w"), "broken.pem can't be parsed"),
    ],
)
def test_what_has_not_its_form_is_named_and_its_content_is_not(
    settings, place: Path, name: str, content, said: str
) -> None:
    told = fault(settings, place, name, content)
    assert re.search(said, told), told
    assert CANARY not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "lifeboat.yaml is not in it"),
        ("", "lifeboat.yaml is empty"),
        ("platform: [", "lifeboat.yaml can't be parsed"),
        (SMALLEST.replace("platform:", "platfrom:"), "lifeboat.yaml is not valid"),
    ],
)
def test_lifeboat_yaml_must_be_settings(settings, place: Path, text, said: str) -> None:
    file = place / "lifeboat.yaml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(VerificationFailed, match=said):
        directories.question(settings, facts_of(place, Asset.CONFIG), place)
