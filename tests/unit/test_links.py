"""Protected paths that are themselves symbolic links: refused, and never called proven."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import PermanentError, PreconditionError, VerificationFailed
from lifeboat.core.points import Asset, DirectoryFacts, Facts, RecoveryPoint, Tier
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.restic import Repository
from lifeboat.tools.restic.errors import NotADirectory
from tasks import new_host, places, preflight, repair, trees
from tasks.questions import directories
from tasks.repair import Source
from tests.unit.smallest_settings import SMALLEST

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
CONTENT = b"weights"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A platform whose models lie on a disk of their own; nothing is a link yet."""
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    for name in ("postgres", "files"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "some").write_bytes(CONTENT)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "model.bin").write_bytes(CONTENT)
    return load_settings(tmp_path / "lifeboat.yaml")


def link_models(settings: Settings) -> Path:
    link = settings.models.directories["models"]
    link.symlink_to(settings.directory / "disk")
    return link


def facts_of(settings: Settings) -> Facts:
    told = DirectoryFacts(
        path=str(settings.models.directories["models"]),
        files=1,
        bytes=len(CONTENT),
        digests={"model.bin": hashlib.sha256(CONTENT).hexdigest()},
    )
    return Facts(
        point="models-20260131T120000Z",
        asset=Asset.MODELS,
        platform="cad-test",
        host="x",
        taken_at=NOON,
        directories={"models": told},
    )


def source(settings: Settings) -> Source:
    facts = facts_of(settings)
    point = RecoveryPoint(
        asset=Asset.MODELS, id=facts.point, taken_at=NOON, copies={Tier.S3: "5" * 8}, bytes=1
    )
    return Source(point=point, tier=Tier.S3, facts=facts)


def test_a_link_is_no_backup_of_what_it_points_to(settings: Settings) -> None:
    link = link_models(settings)
    for look in (
        lambda: trees.gather_facts(settings, Asset.MODELS),
        lambda: trees.find_unchanged(settings, Asset.MODELS),
    ):
        with pytest.raises(PreconditionError) as refused:
            look()
        assert f"{link} is a symbolic link to {settings.directory / 'disk'}" in str(refused.value)
        assert "Name in lifeboat.yaml what it points to" in str(refused.value)


def test_a_link_among_the_configuration_is_told_and_the_rest_is_backed_up(
    settings: Settings, caplog
) -> None:
    file = settings.directory / "lifeboat.yaml"
    file.rename(settings.directory / "real")
    file.symlink_to(settings.directory / "real")
    assert trees.gather_facts(settings, Asset.CONFIG).directories["lifeboat.yaml"].files == 1
    assert "lifeboat.yaml is a symbolic link" in caplog.text


@pytest.mark.parametrize("name", ["models", "postgres", "lifeboat.yaml"])
def test_the_check_of_the_settings_names_each_link(settings: Settings, name: str) -> None:
    """Of the data directory too: a recovery would refuse to put anything in its place."""
    (settings.directory / "disk").rename(settings.models.directories["models"])
    assert preflight._directories(settings) == "3 protected paths and the data directory are there"
    path = settings.directory / (name if "." in name else f"data/{name}")
    path.rename(settings.directory / "real")
    path.symlink_to(settings.directory / "real")
    with pytest.raises(PreconditionError, match=f"{name} is a symbolic link to .*/real"):
        preflight._directories(settings)


def test_what_lies_below_a_linked_directory_is_protected(settings: Settings) -> None:
    """Restic follows the parents of what is named to it."""
    data = settings.directory / "data"
    (settings.directory / "disk").rename(data / "models")
    data.rename(settings.directory / "elsewhere")
    data.symlink_to(settings.directory / "elsewhere")
    assert trees.gather_facts(settings, Asset.MODELS).directories["models"].files == 1


def test_a_restored_link_is_a_fault_and_not_looked_through(settings: Settings, tmp_path) -> None:
    place = tmp_path / "restored"
    place.mkdir()
    (place / "models").symlink_to(settings.directory / "disk")
    assert (place / "models" / "model.bin").read_bytes() == CONTENT
    with pytest.raises(VerificationFailed, match="models: a symbolic link"):
        directories.question(settings, facts_of(settings), place)


# --- recoveries -----------------------------------------------------------------------------


def test_no_recovery_puts_a_directory_in_the_place_of_a_link(settings, monkeypatch) -> None:
    link_models(settings)
    never = SimpleNamespace(restore=None, find_damage=None)
    monkeypatch.setattr(places, "repository", lambda *_: never)
    for act in (repair.find_damage, repair.restore_directories):
        with pytest.raises(PreconditionError, match="is a symbolic link"):
            act(settings, source(settings))
    with pytest.raises(PreconditionError, match="Remove the link"):
        new_host.require_empty(settings)


def test_a_point_that_holds_only_a_link_does_not_hold(settings, monkeypatch) -> None:
    """It is gone again, so that the next older point is tried in its place."""
    store = SimpleNamespace(restore=lambda snapshot, **_: link_models(settings))
    monkeypatch.setattr(places, "repository", lambda *_: store)
    with pytest.raises(PermanentError, match="it holds a symbolic link"):
        repair.restore_directories(settings, source(settings))
    assert not settings.models.directories["models"].is_symlink()
    assert (settings.directory / "disk" / "model.bin").read_bytes() == CONTENT


def test_a_directory_is_not_compared_with_a_link(settings: Settings) -> None:
    """Restic says of a directory and a link of the same name that nothing is damaged."""

    class OfALink(Repository):
        def _sharing(self, words, *, doing: str, **_) -> None:
            if words[-1].endswith("/disk"):
                raise NotADirectory("not a directory")

    store = OfALink(location="x", program=Path("restic"), password="x")
    path = settings.directory / "disk"
    with pytest.raises(PermanentError, match="there it is a file or a symbolic link"):
        store.find_damage("5" * 8, subfolder=str(path), target=path)
