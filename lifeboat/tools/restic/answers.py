"""What restic answers, as types of our own: snapshots, files, damage, summaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifeboat.core.errors import PreconditionError

NAMED_FILES = 10  # how many of many files a message names


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


def snapshot_of(told: Mapping[str, Any]) -> Snapshot:
    summary = told.get("summary") or {}
    return Snapshot(
        id=told["id"],
        short_id=told["short_id"],
        taken_at=moment(told["time"]),
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


def tag_words(tags: Mapping[str, str]) -> str:
    words = [f"{key}={value}" for key, value in tags.items()]
    wrong = next((word for word in words if "," in word), None)
    if wrong:
        raise PreconditionError(f"Tagging a snapshot: {wrong!r} has a comma in it.")
    return ",".join(words)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_FILES
    return ", ".join(names[:NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
