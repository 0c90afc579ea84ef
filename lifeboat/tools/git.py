"""The platform's application code, from its git repository."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from lifeboat.core.errors import CommandFailed, PreconditionError, TransientCommandFailed
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


def clone(repository: str, *, branch: str, into: Path, timeout_seconds: float = 600) -> None:
    """Clone one branch; `into` must not exist or be empty, and is as it was if this fails.

    Raises TransientCommandFailed if the network is to blame, CommandFailed otherwise.
    """
    _git(
        ["clone", "--quiet", "--branch", branch, "--", repository, str(into)],
        doing=f"Cloning branch {branch} of {repository}",
        repository=repository,
        timeout_seconds=timeout_seconds,
    )


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


def reachable(repository: str, *, branch: str) -> str:
    """The commit at the head of a branch. Raises CommandFailed if it can't be read."""
    done = _git(
        ["ls-remote", "--exit-code", "--", repository, f"refs/heads/{branch}"],
        doing=f"Asking {repository} for branch {branch}",
        repository=repository,
        timeout_seconds=30,
    )
    return done.stdout.decode().split()[0]


def _git(
    words: list[str], *, doing: str, repository: str, timeout_seconds: float
) -> process.Finished:
    try:
        return process.run(
            ["git", *words],
            doing=doing,
            env=_ENV,
            timeout_seconds=timeout_seconds,
            secrets=_secrets_of(repository),
        )
    except TransientCommandFailed:
        raise
    except CommandFailed as error:
        hint = "Look at `code.repository` and `code.branch` in lifeboat.yaml, and at its access."
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
