"""Data that is moved keeps its owner, also where a rename is not possible."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lifeboat.core.points import Tier
from lifeboat.tools import filesystem
from tasks import restore_database


@pytest.fixture
def other_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renames between directories fail as they do between two mounts."""
    rename = os.rename

    def refuse(source, target, **options):
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        return rename(source, target, **options)

    monkeypatch.setattr(os, "rename", refuse)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "vault" / "base"
    (tree / "global").mkdir(parents=True)
    (tree / "global" / "pg_control").write_text("control")
    (tree / "link").symlink_to("global")
    (tmp_path / "data").mkdir()
    return tree


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("mounts", ["one", "two"])
def test_a_tree_that_is_brought_keeps_its_owners(
    tree: Path, tmp_path: Path, request: pytest.FixtureRequest, mounts: str
) -> None:
    for path in (tree, tree / "global", tree / "global" / "pg_control"):
        os.chown(path, 999, 998)
    os.chown(tree / "link", 997, 997, follow_symlinks=False)
    if mounts == "two":
        request.getfixturevalue("other_mount")
    target = tmp_path / "data" / "incoming"
    filesystem.bring(tree, target)
    for path in (target, target / "global", target / "global" / "pg_control"):
        assert (path.stat().st_uid, path.stat().st_gid) == (999, 998)
    assert (target / "link").lstat().st_uid == 997
    assert (target / "global" / "pg_control").read_text() == "control"


def test_whether_a_rename_works_is_tried(tree: Path, tmp_path: Path, other_mount: None) -> None:
    assert not filesystem.can_rename(tree.parent, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    assert [path.name for path in tree.parent.iterdir()] == ["base"]


def test_a_rename_that_works_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    assert filesystem.can_rename(tree.parent, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    assert [path.name for path in tree.parent.iterdir()] == ["base"]


# --- single files ---------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "scratch" / "1.dxf"
    file.parent.mkdir()
    file.write_text("whole")
    file.chmod(0o640)
    os.utime(file, (1_000_000, 1_000_000))
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
    return file


def test_a_file_takes_the_place_of_another_and_keeps_what_it_was(
    file: Path, tmp_path: Path, other_mount: None
) -> None:
    target = tmp_path / "data" / "new" / "1.dxf"
    target.parent.mkdir(parents=True)
    target.write_text("damaged")
    target.with_name(".1.dxf.part").write_text("of a run that was killed")
    filesystem.put_file(file, target)
    assert target.read_text() == "whole"
    was, now = file.stat(), target.stat()
    assert (now.st_mode, now.st_mtime, now.st_uid) == (was.st_mode, was.st_mtime, was.st_uid)
    assert [path.name for path in target.parent.iterdir()] == ["1.dxf"]


def test_what_is_there_stays_whole_when_a_file_can_not_be_brought(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "1.dxf"
    target.write_text("the only one")

    def full(*_) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "copy_file", full)
    with pytest.raises(OSError, match="No space"):
        filesystem.put_file(file, target)
    assert target.read_text() == "the only one"
    assert {path.name for path in tmp_path.iterdir()} == {"1.dxf", "scratch"}


@pytest.mark.parametrize("mounts", ["one", "two"])
def test_a_hot_copy_that_was_not_used_lies_in_its_place_again(
    tree: Path, tmp_path: Path, request: pytest.FixtureRequest, mounts: str
) -> None:
    """Between two mounts it was copied, and must not lie beside the data for the next rung."""
    if mounts == "two":
        request.getfixturevalue("other_mount")
    incoming = tmp_path / "data" / "postgres.incoming-1"
    filesystem.bring(tree, incoming)
    assert tree.exists() == (mounts == "two")
    restore_database.discard(
        restore_database.Incoming.model_construct(
            directory=incoming, tier=Tier.HOT, hot_copy=str(tree.parent)
        )
    )
    assert (tree / "global/pg_control").read_text() == "control"
    assert list((tmp_path / "data").iterdir()) == []
