"""Git: the platform's application code, and the repository of the public configuration.

`git fast-import` is documented in git-fast-import(1); settings by environment in git-config(1).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    TransientCommandFailed,
)
from lifeboat.tools import process

# Never ask for a password: at 3 a.m. a hidden prompt looks like a hang. And words to recognise.
_ENV = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15",
    "LC_ALL": "C",
}
_PASSING = (
    "Could not resolve host",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Failed to connect",
    "The requested URL returned error: 5",
    "early EOF",
)
_CODE = "Look at `code.repository` and `code.branch` in lifeboat.yaml, and at its access."
_PUBLIC = "Look at `config.public` in lifeboat.yaml, and at the repository's access."
_REMOTE_SECONDS = 120.0
_CLONING = ".lifeboat-cloning"


def clone(repository: str, *, branch: str, into: Path, timeout_seconds: float = 600) -> None:
    """Clone one branch. `into` may hold other things; a file of the same name is replaced.

    `into` is no checkout before all of it is there, so that an interrupted clone can be made again.
    Raises TransientCommandFailed if the network is to blame, CommandFailed otherwise; nothing but
    directories was made then.
    """
    into.mkdir(parents=True, exist_ok=True)
    part = into / _CLONING
    shutil.rmtree(part, ignore_errors=True)  # of a clone that was killed
    try:
        _git(
            ["clone", "--quiet", "--branch", branch, "--", repository, str(part)],
            doing=f"Cloning branch {branch} of {repository}",
            repository=repository,
            timeout_seconds=timeout_seconds,
        )
        # Last what makes it a checkout.
        for entry in sorted(part.iterdir(), key=lambda path: path.name == ".git"):
            _merge(entry, into / entry.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _merge(source: Path, target: Path) -> None:
    """Move what was cloned to its place, into a directory that is there already."""
    if source.is_dir() and not source.is_symlink() and target.is_dir():
        for entry in source.iterdir():
            _merge(entry, target / entry.name)
    else:
        source.replace(target)


def head_commit(directory: Path) -> str | None:
    """The commit that is checked out; None if the directory is no checkout or git is not here."""
    try:
        done = process.run(
            ["git", "-c", f"safe.directory={directory}", "-C", str(directory), "rev-parse", "HEAD"],
            doing=f"Reading the commit of {directory}",
            # Not the commit of a repository that the directory merely lies in.
            env={**_ENV, "GIT_CEILING_DIRECTORIES": str(directory.absolute().parent)},
            timeout_seconds=30,
        )
    except (CommandFailed, PreconditionError):
        return None
    return done.stdout.decode().strip()


def origin_of(directory: Path) -> str | None:
    """The address that a checkout was cloned from; None if it is none, or from this machine."""
    try:
        done = process.run(
            ["git", "-C", str(directory), "config", "--get", "remote.origin.url"],
            doing=f"Asking where {directory} was cloned from",
            env={**_ENV, "GIT_CEILING_DIRECTORIES": str(directory.absolute().parent)},
            timeout_seconds=30,
        )
    except (CommandFailed, PreconditionError):
        return None
    address = done.stdout.decode().strip()
    return address if ":" in address else None


def reachable(repository: str, *, branch: str) -> str:
    """The commit at the head of a branch. Raises CommandFailed if it can't be read."""
    done = _git(
        ["ls-remote", "--exit-code", "--", repository, f"refs/heads/{branch}"],
        doing=f"Asking {repository} for branch {branch}",
        repository=repository,
        timeout_seconds=30,
    )
    return done.stdout.decode().split()[0]


# --- files that are published to a branch ---------------------------------------------------

FileMode = Literal["100644", "100755", "120000"]  # a file, a program, a symbolic link


@dataclass(frozen=True)
class PublishedFile:
    """What a file is in git. Of a symbolic link `data` is where it points."""

    data: bytes
    mode: FileMode = "100644"

    @property
    def identity(self) -> str:
        """Mode and object name: the same for the same file."""
        name = hashlib.sha1(b"blob %d\0" % len(self.data) + self.data, usedforsecurity=False)
        return f"{self.mode} {name.hexdigest()}"


class MirrorDamaged(PermanentError):
    """The local copy of the branch can't be used; it may be removed and made anew."""


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Our bare copy of one branch of a repository, in which commits wait until they are pushed.

    It has no work tree and no index, so nothing half-written is ever met, and neither attributes
    nor ignored names of the published files have a say. Only one process may use it at a time.

    Methods raise MirrorDamaged if the copy itself is at fault; `fetch` and `push`
    TransientCommandFailed if the network is to blame, and CommandFailed otherwise.
    """

    directory: Path
    repository: str
    branch: str
    author: str
    email: str

    @property
    def _head(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def _remote_head(self) -> str:
        return f"refs/remotes/origin/{self.branch}"

    def prepare(self) -> None:
        """Make the copy if there is none, and the repository if its path is not there yet."""
        if not (self.directory / "HEAD").exists():
            self._init(self.directory)
        for lock in self.directory.rglob("*.lock"):
            lock.unlink()  # of a git that was killed
        if ":" not in self.repository and not _has_content(Path(self.repository)):
            self._init(Path(self.repository))
            self._local("update-ref", "-d", self._remote_head)

    def _init(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        process.run(
            ["git", "init", "--quiet", "--bare", f"--initial-branch={self.branch}", str(directory)],
            doing=f"Making the git repository {directory}",
            env=_ENV,
        )

    def identities(self) -> dict[str, str]:
        """Mode and object name of every file of the branch, by its name."""
        if self._commit(self._head) is None:
            return {}
        found = {}
        for entry in _by_nul(self._local("ls-tree", "-r", "-z", self._head)):
            told, _, name = entry.partition("\t")
            mode, _, identity = told.split()
            found[name] = f"{mode} {identity}"
        return found

    def ours(self) -> frozenset[str]:
        """The names that a commit of ours has added, ever: all others belong to someone else."""
        if self._commit(self._head) is None:
            return frozenset()
        return frozenset(
            _by_nul(
                self._local(
                    *("log", "-z", "--format=", "--name-only", "--no-renames", "--diff-filter=A"),
                    *("--fixed-strings", f"--author=<{self.email}>", self._head),
                )
            )
        )

    def is_pushed(self) -> bool:
        """Whether the repository had all of it when it was last asked."""
        return self._commit(self._head) == self._commit(self._remote_head)

    def commit(
        self, message: str, *, put: Mapping[str, PublishedFile], remove: Collection[str], at: int
    ) -> None:
        """Make one commit on top of the branch. `at` is its time in seconds since the epoch."""
        who = f"{self.author} <{self.email}> {at} +0000"
        stream = [f"commit {self._head}\nauthor {who}\ncommitter {who}\n".encode()]
        stream.append(_data(message.encode()))
        if self._commit(self._head) is not None:
            stream.append(f"from {self._head}^0\n".encode())
        stream += [b"D " + _quoted(name) + b"\n" for name in remove]
        for name, file in put.items():
            stream.append(f"M {file.mode} inline ".encode() + _quoted(name) + b"\n")
            stream.append(_data(file.data))
        stream.append(b"done\n")
        self._local("fast-import", "--quiet", "--done", input=b"".join(stream))

    def fetch(self) -> None:
        """Learn what the repository has, and go on from there if others have added to it.

        What of ours it has not got and can't be put on top is given up: the next commit makes the
        same difference once more. Nothing is ever forced.
        """
        try:
            self._remote(
                *("fetch", "--quiet", "--no-tags", "origin"),
                f"+{self._head}:{self._remote_head}",
                doing=f"Fetching branch {self.branch} of {self.repository}",
            )
        except CommandFailed as error:
            if "couldn't find remote ref" not in error.stderr_tail:
                raise
            self._local("update-ref", "-d", self._remote_head)
            return
        ours, theirs = self._commit(self._head), self._commit(self._remote_head)
        assert theirs is not None
        if ours is None or self._local("merge-base", ours, theirs, ok=(0, 1)).strip() != theirs:
            self._local("update-ref", self._head, theirs)

    def push(self) -> None:
        """Add our commits to the repository's branch."""
        self._remote(
            *("push", "--quiet", "origin", f"{self._head}:{self._head}"),
            doing=f"Pushing branch {self.branch} to {self.repository}",
        )
        self._local("update-ref", self._remote_head, self._head)

    def _commit(self, ref: str) -> str | None:
        return (
            self._local("rev-parse", "--quiet", "--verify", f"{ref}^0", ok=(0, 1)).strip() or None
        )

    def _local(self, *words: str, input: bytes | None = None, ok: tuple[int, ...] = (0,)) -> str:
        try:
            done = process.run(
                ["git", "-C", str(self.directory), *words],
                doing=f"Working on {self.directory}",
                env={**_ENV, "GIT_DIR": "."},
                input=input,
                ok_codes=ok,
            )
        except CommandFailed as error:
            hint = f"Remove {self.directory}; it is made anew."
            raise MirrorDamaged(error.message, hint=hint) from error
        return os.fsdecode(done.stdout)

    def _remote(self, *words: str, doing: str) -> None:
        # By environment, because the address may hold a password, and arguments are seen by all.
        told = {"remote.origin.url": self.repository, "core.hooksPath": "/dev/null"}
        settings = {"GIT_CONFIG_COUNT": str(len(told))}
        for number, (key, value) in enumerate(told.items()):
            settings |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        _git(
            ["-C", str(self.directory), *words],
            doing=doing,
            repository=self.repository,
            timeout_seconds=_REMOTE_SECONDS,
            env={"GIT_DIR": ".", **settings},
            hint=_PUBLIC,
        )


def _has_content(path: Path) -> bool:
    try:
        return any(path.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True  # a bundle, or a mistake that git will tell


def _by_nul(text: str) -> list[str]:
    return [word for word in text.split("\0") if word]


def _data(data: bytes) -> bytes:
    return b"data %d\n" % len(data) + data + b"\n"


def _quoted(name: str) -> bytes:
    told = os.fsencode(name).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + told + b'"'


# --- running git ----------------------------------------------------------------------------


def _git(
    words: list[str],
    *,
    doing: str,
    repository: str,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    hint: str = _CODE,
) -> process.Finished:
    try:
        return process.run(
            ["git", *words],
            doing=doing,
            env={**_ENV, **(env or {})},
            timeout_seconds=timeout_seconds,
            secrets=_secrets_of(repository),
        )
    except TransientCommandFailed:
        raise
    except CommandFailed as error:
        passing = any(sign in error.stderr_tail for sign in _PASSING)
        kind = TransientCommandFailed if passing else CommandFailed
        raise kind(
            error.program, error.exit_code, error.stderr_tail, doing=error.doing, hint=hint
        ) from error


def _secrets_of(repository: str) -> tuple[str, ...]:
    """What must not be shown of `https://token@host/path` or `https://user:password@host/path`."""
    parts = urlsplit(repository) if "://" in repository else None
    if parts is None or parts.scheme not in ("http", "https"):
        return ()
    return tuple(filter(None, (parts.username, parts.password)))
