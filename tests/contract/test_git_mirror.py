"""The branch of the public configuration, with the real git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lifeboat.core.errors import CommandFailed, TransientCommandFailed
from lifeboat.tools.git import Mirror, MirrorDamaged, PublishedFile

pytestmark = pytest.mark.system

AT = 1_769_829_300


def git(*words: str | Path, cwd: Path | None = None) -> str:
    who = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.test"}
    who |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.test"}
    done = subprocess.run(
        ["git", *words], cwd=cwd, check=True, capture_output=True, env={**os.environ, **who}
    )
    return done.stdout.decode()


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return a_mirror(tmp_path, "mirror")


def a_mirror(tmp_path: Path, name: str, repository: str = "") -> Mirror:
    return Mirror(
        directory=tmp_path / name,
        repository=repository or str(tmp_path / "origin.git"),
        branch="main",
        author="Lifeboat of cad",
        email="lifeboat@cad",
    )


def put(mirror: Mirror, message: str = "Change", remove: tuple = (), **files: str) -> None:
    named = {name.replace("_", "."): PublishedFile(text.encode()) for name, text in files.items()}
    mirror.commit(message, put=named, remove=remove, at=AT)


def clone(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    shutil.rmtree(work, ignore_errors=True)
    git("clone", "--quiet", "--branch", "main", tmp_path / "origin.git", work)
    return work


def test_a_path_that_is_not_there_becomes_a_repository(mirror: Mirror, tmp_path: Path) -> None:
    mirror.prepare()
    assert mirror.identities() == {}
    assert mirror.ours() == frozenset()
    mirror.fetch()
    put(mirror, "Add a.conf", a_conf="listen 80;")
    assert not mirror.is_pushed()
    mirror.push()
    assert mirror.is_pushed()
    work = clone(tmp_path)
    assert (work / "a.conf").read_text() == "listen 80;"
    told = git("log", "--format=%an|%ae|%at|%s", cwd=work).strip()
    assert told == f"Lifeboat of cad|lifeboat@cad|{AT}|Add a.conf"


ODD = {
    'with "quotes" and \\': PublishedFile(b"x"),
    "two\nlines": PublishedFile(b""),
    "ünïcode/ 漢 ": PublishedFile("ü".encode()),
    os.fsdecode(b"no\xfftext"): PublishedFile(b"\x00\xff\r\n"),
    "deploy.sh": PublishedFile(b"#!/bin/sh\n", "100755"),
    "current": PublishedFile(b"releases/7", "120000"),
    ".gitignore": PublishedFile(b"*\n"),
    ".gitattributes": PublishedFile(b"* text=auto eol=crlf\n"),
    "dos.ini": PublishedFile(b"a=b\r\nc=d\n"),
}


def test_every_name_and_every_byte_arrives_as_it_was(mirror: Mirror, tmp_path: Path) -> None:
    mirror.prepare()
    mirror.commit("All", put=ODD, remove=(), at=AT)
    mirror.push()
    assert mirror.identities() == {name: file.identity for name, file in ODD.items()}
    assert mirror.ours() == set(ODD)
    for name, file in ODD.items():
        blob = file.identity.split()[1]
        data = subprocess.run(
            ["git", "-C", tmp_path / "origin.git", "cat-file", "blob", blob],
            capture_output=True,
            check=True,
        ).stdout
        assert data == file.data, name


def test_what_goes_is_removed_and_what_others_added_is_not_ours(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.prepare()
    put(mirror, a_conf="1", b_conf="1")
    mirror.push()
    work = clone(tmp_path)
    (work / "README.md").write_text("By hand")
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "--message", "Explain", cwd=work)
    git("push", "--quiet", cwd=work)
    assert mirror.is_pushed(), "nobody asked yet"
    mirror.fetch()
    assert set(mirror.identities()) == {"README.md", "a.conf", "b.conf"}
    assert mirror.ours() == {"a.conf", "b.conf"}
    put(mirror, remove=("b.conf",), a_conf="2")
    mirror.push()
    assert {path.name for path in clone(tmp_path).iterdir()} == {".git", "README.md", "a.conf"}


def test_two_hosts_go_on_from_what_the_other_pushed(mirror: Mirror, tmp_path: Path) -> None:
    other = a_mirror(tmp_path, "other")
    for one in (mirror, other):
        one.prepare()
        one.fetch()
    put(mirror, a_conf="1")
    mirror.push()
    put(other, a_conf="2")
    with pytest.raises(CommandFailed) as refused:
        other.push()
    assert not isinstance(refused.value, TransientCommandFailed)
    assert "config.public" in refused.value.hint
    other.fetch()
    assert other.identities() == mirror.identities(), "its own commit is given up, never forced"
    put(other, a_conf="2")
    other.push()
    mirror.fetch()
    assert mirror.identities() == other.identities()
    assert git("rev-list", "--count", "main", cwd=tmp_path / "origin.git").strip() == "2"


def test_what_was_not_pushed_waits(mirror: Mirror, tmp_path: Path) -> None:
    mirror.prepare()
    put(mirror, a_conf="1")
    mirror.push()
    hidden = tmp_path / "hidden.git"
    (tmp_path / "origin.git").rename(hidden)
    (tmp_path / "origin.git").write_text("no repository")
    put(mirror, "Second", b_conf="1")
    for act in (mirror.fetch, mirror.push):
        with pytest.raises(CommandFailed):
            act()
    assert not mirror.is_pushed()
    (tmp_path / "origin.git").unlink()
    hidden.rename(tmp_path / "origin.git")
    mirror.prepare()
    mirror.fetch()
    mirror.push()
    told = git("log", "--format=%s", "main", cwd=tmp_path / "origin.git").split()
    assert told == ["Second", "Change"]


def test_an_address_that_does_not_answer_may_pass_and_shows_no_password(tmp_path: Path) -> None:
    mirror = a_mirror(tmp_path, "mirror", "http://me:canary-7f3@127.0.0.1:9/x.git")
    mirror.prepare()
    put(mirror, a_conf="1")
    with pytest.raises(TransientCommandFailed) as refused:
        mirror.push()
    assert "canary-7f3" not in str(refused.value)
    for path in mirror.directory.rglob("*"):
        assert path.is_dir() or b"canary-7f3" not in path.read_bytes()


def test_a_killed_git_and_a_lost_repository_are_got_over(mirror: Mirror, tmp_path: Path) -> None:
    mirror.prepare()
    put(mirror, a_conf="1")
    mirror.push()
    (mirror.directory / "refs/heads/main.lock").touch()
    shutil.rmtree(tmp_path / "origin.git")
    mirror.prepare()
    assert not mirror.is_pushed()
    put(mirror, a_conf="2")
    mirror.fetch()
    mirror.push()
    assert (clone(tmp_path) / "a.conf").read_text() == "2"


def test_a_damaged_copy_is_told_apart_from_a_damaged_repository(mirror: Mirror) -> None:
    mirror.prepare()
    put(mirror, a_conf="1")
    shutil.rmtree(mirror.directory / "objects")
    with pytest.raises(MirrorDamaged, match="made anew"):
        mirror.identities()


def test_a_hook_of_the_user_does_not_run(mirror: Mirror, tmp_path: Path, monkeypatch) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-push").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-push").chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(f"[core]\nhooksPath = {hooks}\n")
    mirror.prepare()
    put(mirror, a_conf="1")
    mirror.push()
