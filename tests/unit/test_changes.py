"""Whether a file was changed since a snapshot, by what `ls` tells of it and of the snapshot."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lifeboat.tools.restic.changes import Change, change_of


def as_restic_writes(nanoseconds: int) -> str:
    whole, fraction = divmod(nanoseconds, 10**9)
    moment = f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%S}"
    return f"{moment}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def node_of(path: Path, **otherwise: object) -> dict[str, object]:
    there = path.lstat()
    told = {
        "type": "symlink" if path.is_symlink() else "dir" if path.is_dir() else "file",
        "size": there.st_size,
        "inode": there.st_ino,
        "mtime": as_restic_writes(there.st_mtime_ns),
        "ctime": as_restic_writes(there.st_ctime_ns),
    }
    return told | otherwise


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "drawing.dxf"
    path.write_text("as it was")
    return path


@pytest.mark.parametrize("mtime", [0, 1, 10**9, 1_700_000_000_000_000_000, -500_000_000])
def test_an_untouched_file_is_the_same_to_the_nanosecond(file: Path, mtime: int) -> None:
    os.utime(file, ns=(mtime, mtime))
    assert change_of(node_of(file), str(file)) is None


@pytest.mark.parametrize("field", ["mtime", "ctime"])
def test_a_nanosecond_more_is_a_change(file: Path, field: str) -> None:
    there = file.stat()
    other = (there.st_mtime_ns if field == "mtime" else there.st_ctime_ns) + 1
    node = node_of(file, **{field: as_restic_writes(other)})
    assert change_of(node, str(file)) is Change.ALTERED


def test_another_inode_or_size_is_a_change(file: Path) -> None:
    assert change_of(node_of(file, inode=1), str(file)) is Change.ALTERED
    assert change_of(node_of(file, size=8), str(file)) is Change.TRUNCATED


def test_what_is_not_there_or_no_file_any_more_is_missing(file: Path, tmp_path: Path) -> None:
    node = node_of(file)
    assert change_of(node, str(tmp_path / "other")) is Change.MISSING
    assert change_of(node, str(file / "below")) is Change.MISSING
    file.unlink()
    file.symlink_to("/etc/hostname")
    assert change_of(node, str(file)) is Change.MISSING
    link = node_of(file)
    assert change_of(link, str(file)) is None
    file.unlink()
    file.mkdir()
    assert change_of(node, str(file)) is change_of(link, str(file)) is Change.MISSING


def test_directories_and_devices_are_no_matter(tmp_path: Path) -> None:
    assert change_of(node_of(tmp_path), str(tmp_path / "gone")) is None
    assert change_of({"type": "fifo"}, str(tmp_path / "gone")) is None
