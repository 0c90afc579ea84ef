"""Whether a file was changed since a snapshot, told without reading it."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from enum import Enum
from typing import Any

from lifeboat.tools.restic.answers import moment

_TO_NANOSECONDS = 10**9


class Change(Enum):
    """What is wrong with a file or symbolic link of a snapshot, as it lies here."""

    MISSING = "missing"
    TRUNCATED = "of another size"
    ALTERED = "changed since"


def change_of(node: Mapping[str, Any], path: str) -> Change | None:
    """Compare a snapshot's file or link with what lies at `path`; None: as it was, or neither.

    To write to a file sets its time of change, which no program can set back. So one whose size,
    inode and times are those of the snapshot is the same, unless the disk itself has changed it.
    """
    if node["type"] not in ("file", "symlink"):
        return None
    try:
        there = os.lstat(path)
    except OSError:
        return Change.MISSING
    if node["type"] == "symlink":
        return None if stat.S_ISLNK(there.st_mode) else Change.MISSING
    if not stat.S_ISREG(there.st_mode):
        return Change.MISSING
    if there.st_size != node.get("size", 0):
        return Change.TRUNCATED
    known = (node.get("inode"), _nanoseconds(node["mtime"]), _nanoseconds(node["ctime"]))
    return None if known == (there.st_ino, there.st_mtime_ns, there.st_ctime_ns) else Change.ALTERED


def _nanoseconds(text: str) -> int:
    """Since 1970, of a moment as restic writes it: `2026-01-31T03:15:00.123456789Z`."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return _seconds(whole) * _TO_NANOSECONDS + int(fraction.ljust(9, "0"))


@functools.lru_cache(maxsize=4096)
def _seconds(text: str) -> int:
    return int(moment(f"{text}+00:00").timestamp())
