"""Files that were changed are found without reading them; what only reading finds comes later."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.core.errors import NothingToDo, VerificationFailed
from lifeboat.core.points import Asset
from lifeboat.settings import Settings
from lifeboat.tools.restic import restoring
from tasks import integrity, repair
from tests.system import vault_site
from tests.system.vault_site import back_up

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def settings(quick_restic: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A host with 40 drawings. Each test backs up what it finds."""
    root = tmp_path_factory.mktemp("host")
    with (
        pytest.MonkeyPatch.context() as patch,
        vault_site.store(tmp_path_factory.mktemp("s3")) as s3,
    ):
        yield vault_site.make(s3, quick_restic, root, patch)


@pytest.fixture
def files(settings: Settings) -> list[Path]:
    """The drawings, just backed up."""
    back_up(settings, Asset.FILES)
    return sorted(p for p in settings.files.directories["drawings"].rglob("*") if p.is_file())


def flip_a_bit(path: Path) -> bytes:
    """Under the same size and time of modification. Gives what was there."""
    before, whole = path.stat(), path.read_bytes()
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return whole


def look(settings: Settings) -> integrity.FoundInFiles:
    source = repair.choose_source(settings, Asset.FILES)
    return integrity.look_at_files(settings, source, quick=True)


def named(found: integrity.FoundInFiles) -> dict[str, set[str]]:
    [damage] = found.damages
    return {
        "missing": set(damage.missing),
        "truncated": set(damage.truncated),
        "altered": set(damage.altered),
    }


def blind(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let nobody see by size or time that these have changed: as a disk changes them."""
    real = restoring.change_of
    hidden = {str(path) for path in paths}

    def change_of(node, path):
        return None if path in hidden else real(node, path)

    monkeypatch.setattr(restoring, "change_of", change_of)


def test_what_was_written_to_removed_or_replaced_is_found(
    settings: Settings, files: list[Path]
) -> None:
    root = settings.files.directories["drawings"]
    odd = os.fsencode(root) + b"/\xff.dxf"
    Path(os.fsdecode(odd)).write_bytes(b"its name is not UTF-8")
    back_up(settings, Asset.FILES)
    gone, cut, flipped, moved, linked, *_ = files[::7]
    wanted = {path: path.read_bytes() for path in files}
    gone.unlink()
    cut.write_bytes(b"")
    flip_a_bit(flipped)
    moved.rename(moved.with_suffix(".other"))
    shutil.copy2(moved.with_suffix(".other"), moved)
    linked.unlink()
    linked.symlink_to("/etc/hostname")
    (root / "newer.dxf").write_text("nobody has backed this up")
    Path(os.fsdecode(odd)).write_bytes(b"its name can't be told")
    found = look(settings)
    assert found.unread and "no file was read yet" in found.plan.symptoms

    def names(*paths: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in paths}

    assert named(found) == {
        "missing": names(gone, linked),
        "truncated": names(cut),
        "altered": names(flipped, moved),
    }
    linked.unlink()  # no backup holds a link there, and a restore would not replace it
    source = repair.choose_source(settings, Asset.FILES)
    repair.keep_damaged(found.damages)
    repair.rewrite_damaged(settings, source, found.damages, unread=True)
    assert {path: path.read_bytes() for path in files} == wanted
    assert (root / "newer.dxf").exists()
    Path(os.fsdecode(odd)).unlink()
    integrity.read_the_rest(settings, source, since=time.time())


def test_where_nothing_was_changed_the_content_tells(
    settings: Settings, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NothingToDo, match="there and whole"):
        look(settings)
    whole = flip_a_bit(files[3])
    blind(monkeypatch, files[3])
    found = look(settings)
    assert not found.unread and len(found.damages[0].altered) == 1
    files[3].write_bytes(whole)


def test_where_most_was_changed_the_content_tells(
    settings: Settings, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """As on another disk, to which all of it was copied."""
    for path in files:
        os.utime(path)
    whole = flip_a_bit(files[5])
    found = look(settings)
    assert not found.unread and len(found.damages[0].altered) == 1
    assert "files were changed since: all are read" in caplog.text
    files[5].write_bytes(whole)


def test_damage_that_only_a_disk_has_done_is_named_at_the_end(
    settings: Settings, files: list[Path]
) -> None:
    """And not what users write or remove while the services run again."""
    source = repair.choose_source(settings, Asset.FILES)
    rotten, removed, saved = files[1], files[2], files[3]
    whole = flip_a_bit(rotten)
    time.sleep(0.02)  # the clock of a file system goes in steps
    begun = time.time()
    removed_content, saved_content = removed.read_bytes(), saved.read_bytes()
    removed.unlink()
    saved.write_bytes(b"a user's new version")
    with pytest.raises(VerificationFailed, match="1 differ.*though nothing has written") as told:
        integrity.read_the_rest(settings, source, since=begun)
    assert str(rotten) in str(told.value) and "without --quick" in told.value.hint
    rotten.write_bytes(whole)
    removed.write_bytes(removed_content)
    saved.write_bytes(saved_content)
