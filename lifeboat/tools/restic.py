"""restic: the vault's repositories, and every file of theirs that comes back.

Manual: https://restic.readthedocs.io/en/v0.18.0/ ("Scripting" for the JSON, "Exit codes"). What is
said here of restic's behaviour was tried with 0.18.0.

The password goes to restic by environment, never by argument. Opening a repository costs 0.6 s of
one core, whatever is asked of it: that is how the password is made hard to guess.
"""

from __future__ import annotations

import collections
import contextvars
import json
import logging
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientCommandFailed,
    TransientError,
    VerificationFailed,
)
from lifeboat.tools import process

log = logging.getLogger("lifeboat.restic")

MINIMUM_VERSION = (0, 17)  # the first whose restore can leave alone what is already right

STALL_SECONDS = 1800.0
"""So long a backup may stand still before it counts as hanging: restic has been seen to wait for
itself for ever when a disk was full."""

Overwrite = Literal["always", "if-changed", "never"]
_Picked = TypeVar("_Picked")

_CONNECT_SECONDS = 5.0
_PROGRESS_SECONDS = 0.2
_NAMED_FILES = 10  # how many of many files a message names
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")

_INCOMPLETE, _NO_REPOSITORY, _LOCKED, _WRONG_PASSWORD = 3, 10, 11, 12

# Exit code -> what to raise, and what to do next. Any other code: see _BY_TEXT, else CommandFailed.
_BY_CODE: dict[int, tuple[type[RecoveryError], str]] = {
    _NO_REPOSITORY: (
        PreconditionError,  # as NoRepository
        "There is no repository: look at `vault` in lifeboat.yaml, or run `lifeboat prepare`.",
    ),
    _LOCKED: (
        TransientError,
        "Another program is working on it and its lock is not stale: wait for it to end.",
    ),
    _WRONG_PASSWORD: (
        PreconditionError,  # as WrongPassword
        "Set LIFEBOAT_VAULT_PASSWORD to the password with which this vault was made.",
    ),
    130: (TransientError, "It was interrupted: run it again."),
}
# What restic says with exit code 1, or while it goes on trying for 15 minutes.
_BY_TEXT: tuple[tuple[str, type[RecoveryError], str], ...] = (
    (r"signal \w+ received", TransientError, "It was interrupted: run it again."),
    (
        r"bucket does not exist|NoSuchBucket",
        PreconditionError,
        "Look at vault.s3.bucket, or make the bucket.",
    ),
    (
        r"Access Key Id you provided does not exist|access key ID .* not exist|InvalidAccessKeyId"
        r"|signature we calculated does not match|SignatureDoesNotMatch",
        PreconditionError,
        "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    ),
    (r"Access Denied|AccessDenied", PreconditionError, "Look at the policy of the access key."),
    (
        r"time difference between|RequestTimeTooSkewed",
        PreconditionError,
        "This machine's clock is wrong: set it (NTP).",
    ),
    (r"empty password", PreconditionError, "Set LIFEBOAT_VAULT_PASSWORD."),
    (
        r"no matching ID found|not found in snapshot|^path .*: not found",
        PreconditionError,
        "It is not in the vault: `lifeboat points` lists what is.",
    ),
    (
        r"no space left on device|quota exceeded",
        PermanentError,
        "Free some space (restic's cache may be removed), then run it again.",
    ),
    (r"permission denied|read-only file system", PermanentError, "Look at owner and mode."),
    (
        r"ciphertext verification failed|hash does not match|unexpected (blob|pack)"
        r"|invalid data returned|wrong data returned|not found in (repository|index)"
        r"|(ReadFull|LoadRaw)\(.*(no such file|key does not exist|NoSuchKey|file is too short)"
        r"|pack .* contains .* errors|repository contains",
        VerificationFailed,
        "This repository is damaged. Recover from the other tier (--from local, --from s3).",
    ),
    (
        r"made no progress",
        TransientError,
        "It hung and was ended. Look for a full disk or a storage that does not answer.",
    ),
    (
        r"connection refused|connection reset|no route to host|no such host|i/o timeout|"
        r"TLS handshake|timeout|server closed|unexpected EOF|SlowDown|Service Unavailable|"
        r"Internal Server Error|Bad Gateway|network is unreachable|broken pipe|context canceled",
        TransientError,
        "Look at the network and at vault.s3.endpoint.",
    ),
)
_NOISE = re.compile(
    r"\x1b\[\d*K|^Fatal: |^the `unlock` command .*|^Is there a repository at .*"
    # Of a file that could not be restored at all; why is said before.
    r"|^(lchown|UtimesNano|chmod) .*: no such file or directory"
    # What to do is ours to say.
    r"|^The repository (index )?(is|contains) damaged.*|^Damaged pack files can.*|^restic repair .*"
)
# What a check says of damage, with the whole name of what is damaged.
_PACK = re.compile(r"\bpack ([0-9a-f]{64})\b")
_MISSING = re.compile(r"\bpack ([0-9a-f]{64}): does not exist")
_INDEX = re.compile(r"\bindex ([0-9a-f]{64})\b")
_SNAPSHOT = re.compile(r'(?:belongs to snapshot |"snapshot":")([0-9a-f]{64})')
_RETRYING = re.compile(r"returned error, retrying after ([\d.hmsµn]+): (.*)")
_DURATION = re.compile(r"([\d.]+)(h|ms|m|s|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Progress:
    """How far a backup or restore is. `seconds_left` is an estimate."""

    percent: float
    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int
    seconds_left: float | None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class BackupSummary:
    """A complete backup. `added_bytes` is what the repository grew by."""

    snapshot_id: str
    files_new: int
    files_changed: int
    files_unmodified: int
    total_files: int
    total_bytes: int
    added_bytes: int
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """What restic calls a recovery point."""

    id: str
    short_id: str
    taken_at: datetime
    host: str
    paths: tuple[str, ...]
    tags: Mapping[str, str]
    bytes: int
    files: int
    unmodified_files: int | None  # since its parent; None where restic did not say
    added_bytes: int | None
    new_blobs: int | None  # pieces of content, not of metadata


@dataclass(frozen=True)
class RestoreSummary:
    """What a restore did. Names are files, relative to the target."""

    restored: tuple[str, ...]  # were not there
    updated: tuple[str, ...]  # were there with other content
    unchanged: int
    deleted: tuple[str, ...]
    bytes_restored: int
    seconds: float


@dataclass(frozen=True)
class Damage:
    """How a directory differs from a snapshot. Names are files, relative to the directory."""

    missing: tuple[str, ...]  # no file of that name is there
    truncated: tuple[str, ...]  # of another size
    altered: tuple[str, ...]  # of the same size with other content
    files_unharmed: int
    seconds: float


@dataclass(frozen=True)
class Health:
    """What a check of a repository found; no problems: it is whole as far as it was read."""

    problems: str = ""
    damaged_packs: tuple[str, ...] = ()
    missing_packs: tuple[str, ...] = ()
    index_is_damaged: bool = False  # it lacks packs that are there
    something_is_lost: bool = False  # snapshots refer to what is in no pack
    seconds: float = 0.0

    @property
    def packs(self) -> tuple[str, ...]:
        return (*self.damaged_packs, *self.missing_packs)


@dataclass(frozen=True)
class FileEntry:
    """A file of a snapshot; `path` is relative to the directory that was asked for."""

    path: str
    bytes: int
    mtime: datetime


@dataclass(frozen=True)
class FoundFile:
    """A file of some snapshot. Two of one path have the same content if the rest is the same too.

    Time and size alone would not tell: what rots or is tampered with may keep both.
    """

    snapshot_id: str
    path: str
    bytes: int
    mtime: datetime
    ctime: datetime
    inode: int


_UNREADABLE = re.compile(
    r"Unable to load tree [0-9a-f]{64}\n \.\.\. which belongs to snapshot ([0-9a-f]{64})\n"
)

_listed: contextvars.ContextVar[dict[str, tuple[Snapshot, ...]] | None] = contextvars.ContextVar(
    "listed", default=None
)


@contextmanager
def listing_once() -> Iterator[None]:
    """Within the block the snapshots of each repository are listed once, for looks from many sides.

    It also holds for threads to which the context is copied.
    """
    token = _listed.set({})
    try:
        yield
    finally:
        _listed.reset(token)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """One restic repository. Making the object touches nothing.

    Every method raises PreconditionError for a missing repository, bucket or snapshot and for a
    wrong password, TransientError for a lock that is not stale and for a network that fails,
    VerificationFailed for damage, and CommandFailed or another PermanentError otherwise.

    A storage that fails is tried again for `patience_seconds`, where restic itself would go on for
    15 minutes, even when there is no such bucket.
    """

    location: str
    password: str = field(repr=False)
    program: Path
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    cache_directory: Path | None = None
    host: str | None = None
    connections: int | None = None  # at the same time; restic's own: 5 for S3, 2 for a directory
    pack_size_mib: int | None = None
    compression: Literal["auto", "off", "max"] = "auto"
    options: Sequence[str] = ()  # further `-o key=value`
    patience_seconds: float = 60.0
    lock_wait_seconds: int = 30  # for another program's lock that is not stale

    # --- the repository itself --------------------------------------------------------------

    def version(self) -> str:
        """The program's version, e.g. `0.18.0`. Raise PreconditionError if it is too old."""
        told = process.run([self.program, "version"], doing="Asking restic for its version")
        found = re.search(r"restic (\d+)\.(\d+)\S*", told.stdout.decode())
        if not found or (int(found[1]), int(found[2])) < MINIMUM_VERSION:
            raise PreconditionError(
                f"Asking restic for its version: {self.program} is "
                f"{found[0] if found else 'no restic'}.",
                hint=f"Install restic {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} or newer.",
            )
        return found[0].removeprefix("restic ")

    def exists(self) -> bool:
        """Whether there is a repository that our password opens. A wrong password raises."""
        try:
            self._read(["cat", "config"], doing=f"Opening {self.location}")
        except NoRepository:
            return False
        return True

    def initialise(self) -> None:
        """Make the repository if there is none. Safe to call again, and from two hosts at once."""
        # Asked first, because `init` would make a bucket that does not exist.
        if self.exists():
            return
        try:
            self._call(["init"], doing=f"Making {self.location}")
        except CommandFailed as error:
            if "already exists" not in error.stderr_tail or not self.exists():
                raise

    def unlock(self) -> int:
        """Remove locks whose owner is dead or silent for 30 minutes; say how many there were."""
        said = self._call(
            ["unlock"], doing=f"Removing stale locks of {self.location}", as_json=False
        )
        found = re.search(rb"removed (\d+) lock", said.stdout)
        return int(found[1]) if found else 0

    def check(self, *, read: str = "", alone: bool = False, connections: int = 0) -> Health:
        """Check the repository's structure, and all bytes of a share of its packs.

        `read` is that share as restic writes it, `3/30` or `5%`; empty: none. Backups go on
        meanwhile; but what a prune removes looks like damage, so a finding counts when it was made
        `alone`, with a lock that keeps everyone else away.

        Nothing is taken from the cache: what is proven is what lies in the store.
        """
        doing = f"Checking {self.location}"
        words = ["check", *([f"--read-data-subset={read}"] if read else [])]
        problems, heard = _Problems(), _Heard()
        began = time.monotonic()
        try:
            run = self._locked if alone else self._read
            run(words, doing=doing, problems=problems, on_line=heard.take)
        except TransientError:
            raise
        except (VerificationFailed, CommandFailed):
            if not problems.text:
                raise
            # Packs that no index knows: what `prune` would remove.
            unknown = heard.summary.get("suggest_prune") or heard.summary.get(
                "suggest_repair_index"
            )
            unfound = "not found in" in problems.text
            return Health(
                problems=problems.text,
                damaged_packs=tuple(p for p in problems.packs if p not in problems.missing),
                missing_packs=tuple(problems.missing),
                index_is_damaged=bool(problems.indexes) or bool(unfound and unknown),
                something_is_lost=bool(unfound and not unknown),
                seconds=time.monotonic() - began,
            )
        return Health(seconds=time.monotonic() - began)

    def harmed_by(self, packs: Collection[str]) -> frozenset[str]:
        """The snapshots that hold anything of these packs. Reads every snapshot's directories."""
        told = self._read(
            ["find", "--pack", *packs],
            doing=f"Looking which snapshots {len(packs)} packs belong to",
        )
        # With lines for people among the JSON, where a directory itself is lost.
        return frozenset(_SNAPSHOT.findall(told.stdout.decode()))

    # --- backing up -------------------------------------------------------------------------

    def backup(
        self,
        paths: Collection[Path],
        *,
        tags: Mapping[str, str],
        cwd: Path | None = None,
        excludes: Collection[str] = (),
        taken_at: datetime | None = None,
        on_progress: OnProgress | None = None,
        timeout_seconds: float | None = None,
    ) -> BackupSummary:
        """Back up files and directories as one snapshot: complete, or none at all.

        A source that can't be read, or vanished as a whole, makes the snapshot incomplete: it is
        forgotten at once and PermanentError names the files. Files that come and go below a
        source are no fault.
        """
        doing = f"Backing up {', '.join(map(str, paths))} to {self.location}"
        absent = [str(path) for path in paths if not (cwd or Path()).joinpath(path).exists()]
        if absent or not paths:
            # restic itself skips a missing source with a warning and calls that a success.
            raise PreconditionError(
                f"{doing}: {_some(absent)} does not exist.",
                hint="An empty place must not become a backup. If data is lost, recover it first.",
            )
        words = ["backup", f"--tag={_tag_words(tags)}"]
        words += [f"--exclude={pattern}" for pattern in excludes]
        words += [f"--host={self.host}"] if self.host else []
        words += [f"--time={taken_at.astimezone(timezone.utc):%F %T}"] if taken_at else []
        words += [] if on_progress else ["--no-scan", "--quiet"]
        heard = _Heard(on_progress)
        problems = _Problems()
        done = self._locked(
            [*words, "--", *map(str, paths)],
            doing=doing,
            cwd=cwd,
            on_line=heard.take,
            # Without progress it says nothing, so that nothing can be told of it.
            on_look=heard.require_progress if on_progress else None,
            problems=problems,
            ok_codes=(0, _INCOMPLETE),
            timeout_seconds=timeout_seconds,
        )
        if problems.stored_again:
            log.warning(
                "%s: %d files were stored again, parts of which the repository had lost",
                doing,
                problems.stored_again,
            )
        # To have stored files again is no success to restic either.
        incomplete = done.exit_code == _INCOMPLETE and (problems.count or not problems.stored_again)
        if incomplete or problems.skipped:
            self._forget_incomplete(heard.summary.get("snapshot_id"), doing, problems)
        told = heard.summary
        if "snapshot_id" not in told:
            raise PermanentError(f"{doing}: restic did not say which snapshot it made.")
        return BackupSummary(
            snapshot_id=told["snapshot_id"],
            files_new=told["files_new"],
            files_changed=told["files_changed"],
            files_unmodified=told["files_unmodified"],
            total_files=told["total_files_processed"],
            total_bytes=told["total_bytes_processed"],
            added_bytes=told["data_added_packed"],
            seconds=done.seconds,
        )

    def _forget_incomplete(self, snapshot_id: str | None, doing: str, problems: _Problems) -> None:
        files = [*problems.items, *problems.skipped]
        what = f"{doing}: {max(problems.count, len(files))} could not be read: {_some(files)}."
        if snapshot_id:
            try:
                self.forget([snapshot_id])
            except RecoveryError as error:
                raise PermanentError(
                    f"{what} Its incomplete snapshot {snapshot_id[:8]} could not be removed.",
                    hint=f"Remove it by hand: `restic forget {snapshot_id[:8]}`. {error}",
                ) from error
        raise PermanentError(
            what,
            hint="No recovery point was made of it. Look at owner, mode and disk; "
            "what need not be kept can be excluded.",
        )

    def forget(self, snapshot_ids: Collection[str]) -> None:
        """Remove snapshots; one that is not there counts as removed. Space comes with `prune`."""
        if snapshot_ids:
            self._locked(
                ["forget", *snapshot_ids],
                doing=f"Removing {len(snapshot_ids)} snapshots from {self.location}",
                as_json=False,
            )

    def prune(self, *, timeout_seconds: float | None = None) -> None:
        """Give back the space that no snapshot needs."""
        self._locked(
            ["prune"],
            doing=f"Freeing space in {self.location}",
            as_json=False,
            timeout_seconds=timeout_seconds,
        )

    # --- looking ----------------------------------------------------------------------------

    def snapshots(self, *, tags: Mapping[str, str] | None = None) -> tuple[Snapshot, ...]:
        """All snapshots that have all of `tags`, oldest first."""
        known = _listed.get()
        found = known.get(self.location) if known is not None else None
        if found is None:
            told = self._read(["snapshots"], doing=f"Listing the snapshots of {self.location}")
            found = tuple(_snapshot(item) for item in json.loads(told.stdout) or ())
            if known is not None:
                known[self.location] = found
        wanted = (tags or {}).items()
        return tuple(
            sorted(
                (snapshot for snapshot in found if wanted <= snapshot.tags.items()),
                key=lambda snapshot: snapshot.taken_at,
            )
        )

    def dump(self, snapshot_id: str, path: str) -> bytes:
        """The content of one file of a snapshot."""
        doing = f"Reading {path} of snapshot {snapshot_id[:8]}"
        return self._read(["dump", "--", snapshot_id, path], doing=doing).stdout

    def list_files(self, snapshot_id: str, subfolder: str) -> tuple[FileEntry, ...]:
        """Every file below a directory of a snapshot, or that one file."""

        def file(node: dict[str, Any]) -> FileEntry | None:
            if node["type"] != "file":
                return None
            return FileEntry(node["path"], node.get("size", 0), _moment(node["mtime"]))

        return tuple(self._nodes(snapshot_id, subfolder, file))

    def find(self, names: Collection[str]) -> tuple[FoundFile, ...]:
        """Every file of every snapshot that has one of these names, in whatever directory.

        What of a snapshot can't be read is told and passed over.
        """
        patterns = [re.sub(r"([*?\[\\])", r"\\\1", name) for name in names]
        doing = f"Looking for {len(names)} files in all snapshots of {self.location}"
        told = self._read(["find", "--", *patterns], doing=doing).stdout.decode()
        # restic says that in the middle of its JSON, and ends well.
        for snapshot in sorted(set(_UNREADABLE.findall(told))):
            log.warning("%s: a part of snapshot %s can't be read.", doing, snapshot[:8])
        try:
            found = json.loads(_UNREADABLE.sub("", told)) or ()
        except ValueError as error:
            raise PermanentError(f"{doing}: restic's answer can't be read.") from error
        return tuple(
            FoundFile(
                snapshot["snapshot"],
                match["path"],
                match.get("size", 0),
                _moment(match["mtime"]),
                _moment(match["ctime"]),
                match.get("inode", 0),
            )
            for snapshot in found
            for match in snapshot["matches"]
            if match["type"] == "file"
        )

    def _nodes(
        self, snapshot_id: str, subfolder: str, pick: Callable[[dict[str, Any]], _Picked | None]
    ) -> list[_Picked]:
        """What is picked of files, directories and links below a directory, `path` relative to it.

        A node is let go once something was picked of it: there may be millions.
        """
        doing = f"Listing {subfolder} of snapshot {snapshot_id[:8]}"
        picked: list[_Picked] = []

        def take(line: str) -> None:
            node = json.loads(line)
            if node.get("message_type", node.get("struct_type")) == "node":
                node["path"] = node["path"].removeprefix("/")
                keep(node)

        def keep(node: dict[str, Any]) -> None:
            if (found := pick(node)) is not None:
                picked.append(found)

        try:
            self._read(["ls", "--", f"{snapshot_id}:{subfolder}"], doing=doing, on_line=take)
        except _NotADirectory:
            path = PurePosixPath(subfolder)

            def keep_file(line: str) -> None:
                node = json.loads(line)
                if node.get("path") == subfolder:
                    keep({**node, "path": path.name})

            self._read(["ls", "--", snapshot_id, subfolder], doing=doing, on_line=keep_file)
        return picked

    # --- bringing back ----------------------------------------------------------------------

    def restore(
        self,
        snapshot_id: str,
        *,
        subfolder: str,
        target: Path,
        overwrite: Overwrite,
        include: Collection[str] = (),
        delete: bool = False,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
        timeout_seconds: float | None = None,
    ) -> RestoreSummary:
        """Bring a directory of a snapshot back as `target`, which may have any other name.

        `subfolder` may also be a file; then `target` is that file, of the same name.
        `overwrite="always"` compares content and writes only what differs; "if-changed" trusts
        size and time, so it finds no flipped bit; "never" brings back only what is missing.
        `include` names the files to bring back, literally and relative to `subfolder`; each is
        compared with each file of the snapshot: 600 names among 20,000 files take 2 s, 20,000
        names 28 s. For more, move the damaged files away and restore with "never".

        Nothing here is synced to the disk: see filesystem.sync_tree.
        """
        began = time.monotonic()
        heard = _Heard(on_progress)
        root = self._restore(
            snapshot_id,
            subfolder,
            target,
            [
                f"--overwrite={overwrite}",
                *(["--delete"] if delete else []),
                *(["--dry-run"] if dry_run else []),
            ],
            include,
            doing=f"Restoring {subfolder} of snapshot {snapshot_id[:8]} from {self.location}",
            heard=heard,
            timeout_seconds=timeout_seconds,
        )
        top = os.path.abspath(root)
        return RestoreSummary(
            restored=_without_directories(heard.actions["restored"], root),
            updated=_without_directories(heard.actions["updated"], root),
            unchanged=heard.summary.get("files_skipped", 0),
            deleted=tuple(os.path.relpath(f"/{name}", top) for name in heard.actions["deleted"]),
            bytes_restored=heard.summary.get("bytes_restored", 0),
            seconds=time.monotonic() - began,
        )

    def find_damage(
        self,
        snapshot_id: str,
        *,
        subfolder: str,
        target: Path,
        on_progress: OnProgress | None = None,
        timeout_seconds: float | None = None,
    ) -> Damage:
        """Compare every file of a snapshot's directory with what lies in `target`, by content.

        Nothing is changed. A file that can't be read is damaged; one that the snapshot does not
        know is not. Owner, mode, time and where a link points are not compared.

        By a dry run of `restore --overwrite always`, which really reads and digests: a flipped bit
        under the same size and time is found. It reads each file once, in memory that does not
        grow with their number, on one core at 1.1 GB/s plus 0.8 s; data is not fetched, so it
        takes no longer against S3.
        """
        began = time.monotonic()
        heard = _Heard(on_progress)
        root = self._restore(
            snapshot_id,
            subfolder,
            target,
            ["--overwrite=always", "--dry-run"],
            (),
            doing=f"Comparing {target} with {subfolder} of snapshot {snapshot_id[:8]}",
            heard=heard,
            timeout_seconds=timeout_seconds,
        )
        truncated, altered = [], []
        for name, size in heard.actions["updated"].items():
            (altered if _size_of(root / name) == size else truncated).append(name)
        missing = self._missing(heard.actions["restored"], root, snapshot_id, subfolder)
        return Damage(
            missing=tuple(sorted(missing)),
            truncated=tuple(sorted(truncated)),
            altered=tuple(sorted(altered)),
            files_unharmed=heard.summary.get("files_skipped", 0),
            seconds=time.monotonic() - began,
        )

    def _missing(
        self, restored: Mapping[str, int], root: Path, snapshot_id: str, subfolder: str
    ) -> list[str]:
        """The files and absent links: restic also names each directory and link, always."""
        missing = [name for name, size in restored.items() if size]
        unclear = [
            name
            for name, size in restored.items()
            if not size and (not (root / name).is_dir() or (root / name).is_symlink())
        ]
        if unclear:
            kinds = dict(
                self._nodes(snapshot_id, subfolder, lambda node: (node["path"], node["type"]))
            )
            for name in unclear:
                absent = kinds.get(name) == "symlink" and not (root / name).is_symlink()
                if kinds.get(name) == "file" or absent:
                    missing.append(name)
        return missing

    def _restore(
        self,
        snapshot_id: str,
        subfolder: str,
        target: Path,
        flags: list[str],
        include: Collection[str],
        *,
        doing: str,
        heard: _Heard,
        timeout_seconds: float | None,
    ) -> Path:
        """Run `restic restore` and give the directory to which the names in its output belong."""

        def run(folder: str, root: Path, names: Collection[str]) -> Path:
            arguments, patterns = _include_words(names)
            self._sharing(
                [
                    *("restore", "-vv", f"--target={root}", *flags, *arguments),
                    *("--", f"{snapshot_id}:{folder}"),
                ],
                doing=doing,
                on_line=heard.take,
                input=patterns,
                timeout_seconds=timeout_seconds,
            )
            return root

        try:
            return run(subfolder, target, include)
        except _NotADirectory:
            path = PurePosixPath(subfolder)
            if target.name != path.name:
                raise PreconditionError(
                    f"{doing}: a single file can't be restored under another name ({target}).",
                    hint="Restore it beside, and rename it.",
                ) from None
            return run(str(path.parent), target.parent, [path.name])

    # --- running restic ---------------------------------------------------------------------

    def _read(
        self,
        words: list[str],
        *,
        doing: str,
        **how: Any,
    ) -> process.Finished:
        """A look without a lock: it must not make a prune or a backup fail, nor wait for one."""
        return self._call(["--no-lock", *words], doing=doing, **how)

    def _sharing(self, words: list[str], *, doing: str, **how: Any) -> process.Finished:
        """A long read, with a lock that keeps a prune away; without one where it can't be had.

        A server that was lost in the middle of a prune leaves a lock that counts as alive for
        half an hour, and a full disk takes no lock: neither may hold up a recovery.
        """
        try:
            return self._call(words, doing=doing, **how)
        except (_Locked, _NoLockPossible) as error:
            log.warning("%s: going on without a lock (%s)", doing, error)
            return self._call(["--no-lock", *words], doing=doing, **how)

    def _locked(self, words: list[str], *, doing: str, **how: Any) -> process.Finished:
        """A change. A stale lock is removed and reported; one that is alive is waited for."""
        try:
            return self._call(words, doing=doing, **how)
        except _Locked:
            removed = self.unlock()
            if removed:
                log.warning("%s: removed %d stale locks", doing, removed)
            words = [f"--retry-lock={self.lock_wait_seconds}s", *words]
            return self._call(words, doing=doing, **how)

    def _call(
        self,
        words: list[str],
        *,
        doing: str,
        as_json: bool = True,
        problems: _Problems | None = None,
        ok_codes: Collection[int] = (0,),
        **how: Any,
    ) -> process.Finished:
        self._require_answer(doing)
        problems = problems or _Problems()
        problems.begin(self.patience_seconds)
        try:
            return process.run(
                [self.program, *(["--json"] if as_json else []), *self._global_words(), *words],
                doing=doing,
                env=self._environment(),
                secrets=self._secrets(),
                on_error_line=problems.take,
                ok_codes=ok_codes,
                **how,
            )
        except _GaveUp as error:
            raise _error_of(-signal.SIGTERM, str(error), doing) from error
        except TransientCommandFailed:
            raise  # a time-out
        except CommandFailed as error:
            text = problems.text or error.stderr_tail
            raise _error_of(error.exit_code, text, error.doing) from error

    def _global_words(self) -> list[str]:
        words = [f"--repo={self.location}", "--stuck-request-timeout=1m"]
        words += [f"--compression={self.compression}"]
        words += [f"--pack-size={self.pack_size_mib}"] if self.pack_size_mib else []
        if self.connections:
            backend = "s3" if self.location.startswith("s3:") else "local"
            words += [f"--option={backend}.connections={self.connections}"]
        return words + [f"--option={option}" for option in self.options]

    def _environment(self) -> dict[str, str]:
        cache = {"RESTIC_CACHE_DIR": str(self.cache_directory)} if self.cache_directory else {}
        return {
            **self.environment,
            **cache,
            "RESTIC_PASSWORD": self.password,
            "RESTIC_PROGRESS_FPS": f"{1 / _PROGRESS_SECONDS:g}",
            "TZ": "UTC",  # in which `--time` is read
        }

    def _secrets(self) -> tuple[str, ...]:
        secret = (value for name, value in self.environment.items() if _SECRET_NAME.search(name))
        return (self.password, *secret)

    def _require_answer(self, doing: str) -> None:
        """Raise TransientError if nothing listens at the S3 service's address.

        restic finds out too, but tells after 15 minutes.
        """
        if not self.location.startswith("s3:"):
            return
        address = self.location.removeprefix("s3:")
        url = urlsplit(address if "://" in address else f"https://{address}")
        host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
        proxied = urllib.request.getproxies().get(url.scheme)
        if proxied and not urllib.request.proxy_bypass(host):
            return
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise TransientError(
                f"{doing}: {host}:{port} does not answer ({error}).",
                hint="Look at the network and at vault.s3.endpoint.",
            ) from error


class NoRepository(PreconditionError):
    """There is no repository."""


class WrongPassword(PreconditionError):
    """None of the repository's key files is opened by the password."""


class _NotADirectory(PreconditionError):
    """A path inside a snapshot is a file."""


class _Locked(TransientError):
    """Another program's lock is in the way."""


class _NoLockPossible(PermanentError):
    """The storage takes no lock: it is full, or we may only read."""


class _GaveUp(Exception):
    """The storage has failed for too long; the message is restic's own."""


@dataclass
class _Heard:
    """What restic says on standard output, line by line: progress, actions, and the summary."""

    on_progress: OnProgress | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    # action -> name -> size
    actions: dict[str, dict[str, int]] = field(
        default_factory=lambda: collections.defaultdict(dict)
    )
    _began: float = field(default_factory=time.monotonic)
    _reported: float = 0.0
    _done: tuple[int, int] = (0, 0)
    _moved_at: float = field(default_factory=time.monotonic)

    def require_progress(self) -> None:
        """Raise _GaveUp if what is told of has stood still for too long."""
        if time.monotonic() - self._moved_at > STALL_SECONDS:
            raise _GaveUp(f"it made no progress for {STALL_SECONDS:g} s")

    def take(self, line: str) -> None:
        if '"action":"unchanged"' in line:
            return  # most lines, and counted in the summary
        try:
            told = json.loads(line)
        except ValueError:
            return  # a line for people
        kind = told.get("message_type")
        if kind == "status":
            done = (told.get("bytes_done", 0), told.get("files_done", 0))
            if done != self._done:
                self._done, self._moved_at = done, time.monotonic()
            self._report(told)
        elif kind == "verbose_status":
            self.actions[told["action"]][told["item"].removeprefix("/")] = told.get("size", 0)
        elif kind == "summary":
            self.summary = told
            total = told.get("total_bytes", told.get("total_bytes_processed", 0))
            files = told.get("total_files", told.get("total_files_processed", 0))
            self._reported = 0.0  # the end is always told
            self._report(
                {"percent_done": 1.0, "bytes_done": total, "total_bytes": total}
                | {"files_done": files, "total_files": files}
            )

    def _report(self, told: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self.on_progress is None or now - self._reported < _PROGRESS_SECONDS:
            return
        self._reported = now
        share = told.get("percent_done", 0.0)
        progress = Progress(
            percent=100 * share,
            bytes_done=told.get("bytes_done", told.get("bytes_restored", 0)),
            bytes_total=told.get("total_bytes", 0),
            files_done=told.get("files_done", told.get("files_restored", 0)),
            files_total=told.get("total_files", 0),
            seconds_left=(now - self._began) * (1 - share) / share if share else None,
        )
        try:
            self.on_progress(progress)
        except Exception:
            # A broken progress bar must not stop a recovery.
            log.exception("Progress can't be shown")
            self.on_progress = None


@dataclass
class _Problems:
    """What restic says on standard error. Raises _GaveUp when its retrying leads nowhere."""

    patience_seconds: float = 60.0
    count: int = 0
    items: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    stored_again: int = 0  # files whose blobs the repository had lost
    packs: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)  # of the packs
    indexes: dict[str, None] = field(default_factory=dict)
    # The first say what happened, the last how it ended.
    _first: list[str] = field(default_factory=list)
    _last: collections.deque[str] = field(
        default_factory=lambda: collections.deque(maxlen=_NAMED_FILES)
    )
    _failing_since: float | None = None

    def begin(self, patience_seconds: float) -> None:
        """Forget what an attempt before this one said."""
        vars(self).update(vars(_Problems(patience_seconds)))

    @property
    def text(self) -> str:
        """The first and the last messages, without repetition."""
        return "; ".join(dict.fromkeys([*self._first, *self._last]))

    def take(self, line: str) -> None:
        if line.startswith("{"):
            self._take_json(line)
        elif line.endswith("does not exist, skipping"):
            self.skipped.append(line.removesuffix("does not exist, skipping").strip())
        elif found := _RETRYING.search(line):
            self._say(found[2])
            self._lose_patience(found[2], _seconds_of(found[1]))
        elif "operation successful after" in line:
            self._failing_since = None
        else:
            self._say(line)

    def _take_json(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        if told.get("message_type") == "error":
            # `check` says it otherwise than the others.
            message = told.get("error", told).get("message", "")
            if "storing the file again" in message:
                self.stored_again += 1
                return
            self.count += 1
            if len(self.items) < _NAMED_FILES:
                self.items.append(told.get("item") or "?")
            self._say(message)
        elif told.get("message_type") == "exit_error":
            self._say(told["message"])

    def _say(self, text: str) -> None:
        self.packs |= dict.fromkeys(_PACK.findall(text))
        self.missing |= dict.fromkeys(_MISSING.findall(text))
        self.indexes |= dict.fromkeys(_INDEX.findall(text))
        for line in filter(None, (_NOISE.sub("", line).strip() for line in text.splitlines())):
            if len(self._first) < _NAMED_FILES // 2:
                self._first.append(line)
            else:
                self._last.append(line)

    def _lose_patience(self, message: str, delay_seconds: float) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        waited_then = now + delay_seconds - self._failing_since
        hopeless = _meaning(message)[0] is PreconditionError
        if hopeless or waited_then > self.patience_seconds:
            raise _GaveUp(message)


def _error_of(exit_code: int, text: str, doing: str) -> RecoveryError:
    """Turn restic's exit code and words into one of our errors."""
    if exit_code == _NO_REPOSITORY:
        kind, hint = NoRepository, _BY_CODE[exit_code][1]
    elif exit_code == _WRONG_PASSWORD:
        kind, hint = WrongPassword, _BY_CODE[exit_code][1]
    elif exit_code == _LOCKED:
        kind, hint = _Locked, _BY_CODE[exit_code][1]
    elif "not a directory" in text:
        kind, hint = _NotADirectory, ""
    elif "unable to create lock" in text and not re.search(r"already locked", text):
        kind, hint = _NoLockPossible, _meaning(text)[1]
    elif exit_code in _BY_CODE:
        kind, hint = _BY_CODE[exit_code]
    else:
        kind, hint = _meaning(text)
    if kind is TransientError:
        return TransientCommandFailed("restic", exit_code, text, doing=doing, hint=hint)
    if exit_code == -signal.SIGKILL:
        hint = "Something killed it: look for `out of memory` in the kernel's log."
    if kind is CommandFailed:
        return CommandFailed("restic", exit_code, text, doing=doing, hint=hint)
    return kind(f"{doing}: {text.rstrip('.') or 'restic said nothing'}.", hint=hint)


def _meaning(text: str) -> tuple[type[RecoveryError], str]:
    for pattern, kind, hint in _BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, hint
    return CommandFailed, ""


def _include_words(names: Collection[str]) -> tuple[list[str], bytes | None]:
    """Give arguments and standard input that make restic take exactly these names.

    Patterns come by standard input, because thousands of names are too long for arguments. There
    restic expands `$NAME` and cuts spaces at the end of a line, so names with line ends or with a
    space at their end go as arguments. A name that is not UTF-8 has U+FFFD for what restic could
    not say; `?` fits that byte.
    """
    arguments, lines = [], []
    for name in names:
        pattern = "/" + re.sub(r"([*?\[])", r"\\\1", name).replace("\ufffd", "?")
        if "\n" in name or "\r" in name or name != name.rstrip():
            arguments.append(f"--include={pattern}")
        else:
            lines.append(pattern.replace("$", "$$") + "\n")
    if not lines:
        return arguments, None
    return [*arguments, "--include-file=/dev/stdin"], "".join(lines).encode()


def _without_directories(names: Mapping[str, int], root: Path) -> tuple[str, ...]:
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    return tuple(
        name
        for name, size in names.items()
        if size
        or (name not in parents and ((root / name).is_symlink() or not (root / name).is_dir()))
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # It is there, for restic would call it missing otherwise.
        raise PreconditionError(
            f"Comparing files: {path} is damaged, and its name is not UTF-8.",
            hint="Nothing was touched. Rename the damaged file; then it counts as missing and "
            "comes back.",
        ) from None


def _snapshot(told: Mapping[str, Any]) -> Snapshot:
    summary = told.get("summary") or {}
    return Snapshot(
        id=told["id"],
        short_id=told["short_id"],
        taken_at=_moment(told["time"]),
        host=told.get("hostname", ""),
        paths=tuple(told.get("paths") or ()),
        tags=dict(_tag(tag) for tag in told.get("tags") or ()),
        bytes=summary.get("total_bytes_processed", 0),
        files=summary.get("total_files_processed", 0),
        unmodified_files=summary.get("files_unmodified"),
        added_bytes=summary.get("data_added"),
        new_blobs=summary.get("data_blobs"),
    )


def _tag(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _tag_words(tags: Mapping[str, str]) -> str:
    words = [f"{key}={value}" for key, value in tags.items()]
    wrong = next((word for word in words if "," in word), None)
    if wrong:
        raise PreconditionError(f"Tagging a snapshot: {wrong!r} has a comma in it.")
    return ",".join(words)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _seconds_of(duration: str) -> float:
    """Given Go's `1m8.8s`, return 68.8."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def _in_one_line(text: str) -> str:
    return "; ".join(filter(None, (line.strip() for line in text.splitlines())))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_FILES
    return ", ".join(names[:_NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
