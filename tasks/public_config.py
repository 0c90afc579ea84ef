"""The public part of the configuration on its way into a git repository, where people read it.

The vault comes first: nothing here keeps a backup from being made. What could not be pushed waits
in the local vault for the next run.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from lifeboat.core import published
from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    RecoveryError,
    TransientCommandFailed,
    TransientError,
    VerificationFailed,
)
from lifeboat.core.points import Asset
from lifeboat.core.published import Change
from lifeboat.core.secrecy import has_private_key, secrets_in
from lifeboat.settings import Settings
from lifeboat.tools.git import Mirror, MirrorDamaged, PublishedFile
from tasks import clock
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")


@step()
def publish(settings: Settings, *, point: str) -> Change:
    """Commit what differs from the branch of `config.public`, push it, and say what it was.

    `point` is the recovery point that holds the same. Without a difference, and with everything
    pushed, the repository is not even asked.

    Raises VerificationFailed, with nothing committed, if a file holds a known secret or a private
    key; TransientError or PermanentError if the repository can't be reached or refuses.
    """
    if settings.config.public is None:
        return Change()
    try:
        return _publish(settings, point)
    except VerificationFailed:
        raise
    except (RecoveryError, OSError) as error:
        # Whatever it is, it came after the backup: no refusal, and nothing to do twice.
        kind = TransientError if isinstance(error, TransientError) else PermanentError
        told = error if isinstance(error, RecoveryError) else RecoveryError(f"{error}.")
        raise kind(
            f"Publishing the configuration: {told.message}",
            hint=f"{told.hint} The backup itself is in the vault ({point}); the next run publishes "
            "what this one could not.".strip(),
        ) from error


def _publish(settings: Settings, point: str) -> Change:
    files = dict(_read(settings))
    _refuse_secrets(settings, files, point)
    mirror = _mirror(settings)
    try:
        return _bring_up_to_date(mirror, files, point)
    except MirrorDamaged as error:
        log.warning("The copy of the git repository is made anew: %s", error)
        shutil.rmtree(mirror.directory, ignore_errors=True)
        return _bring_up_to_date(mirror, files, point)


def _mirror(settings: Settings) -> Mirror:
    public = settings.config.public
    assert public is not None
    return Mirror(
        directory=settings.vault.local / str(Asset.CONFIG) / "public",
        repository=public.repository,
        branch=public.branch,
        author=f"Lifeboat of {settings.platform}",
        email=f"lifeboat@{settings.platform}",
    )


def _bring_up_to_date(mirror: Mirror, files: Mapping[str, PublishedFile], point: str) -> Change:
    mirror.prepare()
    if mirror.is_pushed() and not _difference(mirror, files):
        return Change()
    current_run().did_something_noteworthy()
    try:
        mirror.fetch()
    except CommandFailed:
        _commit(mirror, files, point)  # it waits here
        raise
    done = _commit(mirror, files, point)
    try:
        mirror.push()
    except TransientCommandFailed:
        raise
    except CommandFailed:
        # Somebody else may have pushed in between: ours is made once more on top of theirs.
        mirror.fetch()
        done = _commit(mirror, files, point)
        mirror.push()
    what = done.summary() or "what had waited"
    current_run().fact(configuration_published=what)
    log.info("Published to branch %s: %s", mirror.branch, what)
    return done


def _difference(mirror: Mirror, files: Mapping[str, PublishedFile]) -> Change:
    wanted = {name: file.identity for name, file in files.items()}
    return published.compare(mirror.identities(), wanted, ours=mirror.ours())


def _commit(mirror: Mirror, files: Mapping[str, PublishedFile], point: str) -> Change:
    change = _difference(mirror, files)
    if change:
        mirror.commit(
            change.message(host=socket.gethostname(), point=point),
            put={name: files[name] for name in (*change.changed, *change.added)},
            remove=change.removed,
            at=int(clock.now().timestamp()),
        )
    return change


# --- what is published ----------------------------------------------------------------------


def _read(settings: Settings) -> Iterator[tuple[str, PublishedFile]]:
    """Every public file by its name in the repository, read once: what is searched is published."""
    public = settings.config.public
    assert public is not None
    seen: dict[str, Path] = {}
    for place in public.paths:
        for path in _files(place):
            name = _name(settings, path)
            try:
                file = _file(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PermanentError(
                    f"{path} can't be read ({error.strerror}).", hint="Look at its owner and mode."
                ) from error
            if seen.setdefault(name, path) != path:
                raise PermanentError(
                    f"{path} and {seen[name]} would both be {name}.",
                    hint="Leave one of them out of config.public.paths.",
                )
            yield name, file


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or not place.is_dir():
        yield place
        return
    for parent, directories, names in os.walk(place):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        # The repository of somebody's checkout is none of ours.
        directories[:] = sorted(set(directories) - {*links, ".git"})
        for name in sorted((*names, *links)):
            path = Path(parent) / name
            if name != ".git" and (path.is_symlink() or path.is_file()):
                yield path


def _file(path: Path) -> PublishedFile:
    if path.is_symlink():
        return PublishedFile(os.fsencode(os.readlink(path)), "120000")
    may_be_run = path.stat().st_mode & stat.S_IXUSR
    return PublishedFile(path.read_bytes(), "100755" if may_be_run else "100644")


def _name(settings: Settings, path: Path) -> str:
    """Relative to the directory of lifeboat.yaml; from outside, below the name in config.paths."""
    if path.is_relative_to(settings.directory):
        return path.relative_to(settings.directory).as_posix()
    kept = next(kept for kept in settings.config.paths if path.is_relative_to(kept))
    return path.relative_to(kept.parent).as_posix()


def _refuse_secrets(settings: Settings, files: Mapping[str, PublishedFile], point: str) -> None:
    known = settings.known_secrets()
    refused = []
    for name, file in files.items():
        holds = [f"the value of {secret}" for secret in secrets_in(file.data, known)]
        if has_private_key(file.data):
            holds.append("a private key")
        if holds:
            refused.append(f"{name} holds {' and '.join(holds)}")
    if refused:
        raise VerificationFailed(
            f"Publishing the configuration: nothing was committed, because {'; '.join(refused)}.",
            hint="Take the secret out of the file, or the file out of config.public.paths; if "
            "anyone may read that value, name it in config.public.not_secret. "
            f"The backup itself is in the vault ({point}).",
        )
