"""The name of a tree's content: another one after every change, the same one otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat.tools.filesystem import fingerprint


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "config"
    (root / "certs").mkdir(parents=True)
    (root / "nginx.conf").write_text("listen 80;")
    (root / "certs" / "cad.pem").write_text("pem")
    (root / "current").symlink_to("certs")
    return root


def rewrite_in_place(root: Path) -> None:
    """Other content under the same size and time, as damage or a hurried attacker leaves it."""
    path = root / "nginx.conf"
    before = path.stat()
    path.write_text("listen 81;")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "nginx.conf").write_text("listen 443;"),
    "added": lambda root: (root / "certs" / "new.pem").write_text(""),
    "removed": lambda root: (root / "certs" / "cad.pem").unlink(),
    "renamed": lambda root: (root / "nginx.conf").rename(root / "nginx.bak"),
    "moved": lambda root: (root / "nginx.conf").rename(root / "certs" / "nginx.conf"),
    "mode of a file": lambda root: (root / "nginx.conf").chmod(0o600),
    "mode of a directory": lambda root: (root / "certs").chmod(0o700),
    "directory": lambda root: (root / "empty").mkdir(),
    "link": lambda root: ((root / "current").unlink(), (root / "current").symlink_to("other")),
}


@pytest.mark.parametrize("by_content", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_name(tree: Path, change: str, by_content: bool) -> None:
    (tree / "nginx.conf").chmod(0o644)
    (tree / "certs").chmod(0o755)
    before = fingerprint({"config": tree}, by_content=by_content)
    assert fingerprint({"config": tree}, by_content=by_content) == before
    CHANGES[change](tree)
    assert fingerprint({"config": tree}, by_content=by_content) != before


def test_a_touched_file_is_the_same_by_content_and_another_by_its_looks(tree: Path) -> None:
    by_content, by_looks = (fingerprint({"c": tree}, by_content=by) for by in (True, False))
    os.utime(tree / "nginx.conf", (1, 1))
    assert fingerprint({"c": tree}, by_content=True) == by_content
    assert fingerprint({"c": tree}, by_content=False) != by_looks


def test_only_the_content_shows_damage_under_the_same_size_and_time(tree: Path) -> None:
    by_content, by_looks = (fingerprint({"c": tree}, by_content=by) for by in (True, False))
    rewrite_in_place(tree)
    assert fingerprint({"c": tree}, by_content=True) != by_content
    assert fingerprint({"c": tree}, by_content=False) == by_looks


def test_a_restored_copy_has_the_name_of_its_original_wherever_it_lies(tree: Path) -> None:
    copy = shutil.copytree(tree, tree.parent / "elsewhere" / "etc", symlinks=True)
    for by_content in (True, False):
        assert fingerprint({"c": copy}, by_content=by_content) == fingerprint(
            {"c": tree}, by_content=by_content
        )


def test_names_that_are_no_text_count_too(tree: Path) -> None:
    before = fingerprint({"c": tree}, by_content=True)
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\xfe")).write_text("x")
    assert fingerprint({"c": tree}, by_content=True) != before


def test_a_file_by_itself_and_a_directory_are_told_apart(tree: Path) -> None:
    one = fingerprint({"a": tree / "nginx.conf"}, by_content=True)
    assert one != fingerprint({"b": tree / "nginx.conf"}, by_content=True)
    assert one != fingerprint({"a": tree}, by_content=True)
    with pytest.raises(FileNotFoundError):
        fingerprint({"a": tree / "lost"}, by_content=True)
