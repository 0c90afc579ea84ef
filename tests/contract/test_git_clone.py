"""The application's code on a new machine, with the real git: whole or not there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lifeboat.core.errors import CommandFailed, TransientCommandFailed
from lifeboat.tools import git

pytestmark = pytest.mark.system


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository whose branch `production` is not its default."""
    work = tmp_path / "origin"
    (work / "deploy").mkdir(parents=True)
    (work / "deploy/app.conf").write_text("as released\n")
    (work / "run").symlink_to("deploy/app.conf")
    words = (
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.test",
        "-c",
        "core.hooksPath=/dev/null",
    )
    for step in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "Release"),
        ("branch", "production"),
    ):
        subprocess.run(["git", *words, "-C", work, *step], check=True)
    return work


def test_the_branch_is_checked_out(origin: Path, tmp_path: Path) -> None:
    into = tmp_path / "new"
    git.clone(str(origin), branch="production", into=into)
    assert git.head_commit(into) == git.reachable(str(origin), branch="production")
    assert (into / "run").read_text() == "as released\n"
    status = subprocess.run(["git", "-C", into, "status", "--porcelain"], capture_output=True)
    assert status.stdout == b""


def test_it_may_share_its_directory_with_what_is_there(origin: Path, tmp_path: Path) -> None:
    """The server's directory is the repository's in many platforms, and the vault lies in it."""
    into = tmp_path / "new"
    (into / "deploy").mkdir(parents=True)
    (into / "backups").mkdir()
    (into / "deploy/secret.env").write_text("A=1\n")
    git.clone(str(origin), branch="production", into=into)
    assert {path.name for path in into.iterdir()} == {".git", "backups", "deploy", "run"}
    assert (into / "deploy/secret.env").read_text() == "A=1\n"
    assert (into / "deploy/app.conf").read_text() == "as released\n"


def test_what_a_killed_clone_left_is_no_checkout_and_is_replaced(
    origin: Path, tmp_path: Path
) -> None:
    into = tmp_path / "new"
    (into / ".lifeboat-cloning/.git/objects").mkdir(parents=True)
    (into / "deploy").mkdir()
    (into / "deploy/app.conf").write_text("as rel")
    assert git.head_commit(into) is None
    git.clone(str(origin), branch="production", into=into)
    assert (into / "deploy/app.conf").read_text() == "as released\n"
    assert not (into / ".lifeboat-cloning").exists()


@pytest.mark.parametrize(
    ("repository", "branch", "kind"),
    [
        ("origin", "no-such-branch", CommandFailed),
        ("nowhere", "production", CommandFailed),
        ("http://127.0.0.1:9/a.git", "production", TransientCommandFailed),
    ],
)
def test_a_clone_that_fails_leaves_nothing(
    origin: Path, tmp_path: Path, repository: str, branch: str, kind: type[CommandFailed]
) -> None:
    address = repository if ":" in repository else str(tmp_path / repository)
    into = tmp_path / "new"
    with pytest.raises(kind, match=r"(?s)Cloning branch .*code\.repository"):
        git.clone(address, branch=branch, into=into)
    assert list(into.iterdir()) == []
