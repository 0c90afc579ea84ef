"""Files that users have changed since the last backup: no damage, and never set back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lifeboat.core.errors import TransientError
from lifeboat.core.references import Referred
from lifeboat.settings import Settings, load_settings
from tasks import integrity
from tasks.repair import Damage
from tests.unit.smallest_settings import SMALLEST

NEW = b"as the user saved it at 03:10"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    files = tmp_path / "data/files"
    files.mkdir(parents=True)
    (files / "saved.dwg").write_bytes(NEW)
    (files / "shorter.dwg").write_bytes(NEW[:9])
    (files / "flipped.dwg").write_bytes(b"bs" + NEW[2:])
    return load_settings(tmp_path / "lifeboat.yaml")


def damage(settings: Settings) -> tuple[Damage, ...]:
    """All that differs from the point."""
    return (
        Damage(
            directory="drawings",
            path=str(settings.files.directories["drawings"]),
            missing=("gone.dwg",),
            truncated=("shorter.dwg", "unknown.dwg"),
            altered=("saved.dwg", "flipped.dwg"),
        ),
    )


def known(name: str, content: bytes) -> Referred:
    return Referred(path=name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def test_what_has_the_sha256_of_the_database_is_no_damage(settings, monkeypatch) -> None:
    rows = (
        known("saved.dwg", NEW),
        known("shorter.dwg", NEW[:9]),
        known("flipped.dwg", NEW),
        known("gone.dwg", NEW),
    )
    monkeypatch.setattr(integrity, "referred_files", lambda _: rows)
    [left] = integrity.without_changes(settings, damage(settings))
    assert (left.missing, left.truncated, left.altered) == (
        ("gone.dwg",),
        ("unknown.dwg",),
        ("flipped.dwg",),
    )


def test_where_the_database_can_not_be_asked_all_of_it_stays(settings, monkeypatch) -> None:
    def refuse(_: Settings) -> tuple[Referred, ...]:
        raise TransientError("it does not answer")

    monkeypatch.setattr(integrity, "referred_files", refuse)
    assert integrity.without_changes(settings, damage(settings)) == damage(settings)


def test_a_known_loss_that_was_uploaded_again_is_whole(settings, monkeypatch) -> None:
    rows = (known("saved.dwg", NEW), known("flipped.dwg", NEW), known("gone.dwg", NEW))
    monkeypatch.setattr(integrity, "referred_files", lambda _: rows)
    lost = frozenset({"saved.dwg", "gone.dwg"})
    monkeypatch.setattr(integrity, "known_losses", lambda _: lost)
    found = integrity.read_referred(settings)
    assert found.whole == {"saved.dwg"}
    assert found.bad == ("flipped.dwg",), "what is known to be lost is no news"
