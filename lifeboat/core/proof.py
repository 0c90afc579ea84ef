"""What proves the vault: which share of it is read today, and what a restore test's result changes.

Pure decisions; the proving itself is in `tasks.restore_test` and `tasks.repository_health`.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.marks import TestResult

_MOST_SHARES = 256  # restic tells packs apart by the first byte of their names
_DAY_SECONDS = 86400.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Share(_Frozen):
    """The `part`-th of `of` shares of a repository's packs, counted from one."""

    part: int = Field(ge=1)
    of: int = Field(ge=1, le=_MOST_SHARES)

    def __str__(self) -> str:
        return f"{self.part}/{self.of}"


def share_now(now: datetime, *, every_seconds: float, within_days: float) -> Share:
    """The share to read now, so that reads so far apart read everything within `within_days`.

    It depends on the clock alone: another host, or one that lost its notes, goes on where the last
    one was, and a second test on the same day reads the same.
    """
    within_seconds = within_days * _DAY_SECONDS
    of = min(max(int(within_seconds // every_seconds), 1), _MOST_SHARES)
    # Never shorter than the time between two reads, so that no share's turn is passed over.
    turn = max(every_seconds, within_seconds / of)
    return Share(part=int(now.timestamp() // turn) % of + 1, of=of)


class Measured(_Frozen):
    """What restoring a point took; for estimates of how long a recovery will."""

    restored_bytes: int
    restore_seconds: float
    wal_replayed_bytes: int | None = None
    wal_replay_seconds: float | None = None


def replaces(new: TestResult, old: TestResult | None) -> bool:
    """Whether a result becomes the asset's newest one.

    That an older point is good does not make it unsaid that a newer one is not.
    """
    if old is None or old.passed or not new.passed or not old.point:
        return True
    return new.point >= old.point  # names of one asset sort by time


def forecast_bytes(point_bytes: int, wal_bytes: int) -> int:
    """Bytes that a test of a point needs at most, with a fifth to spare for the platform.

    WAL lies there twice, as it was fetched and in the place from which it is replayed, and the
    database grows by at most as much again.
    """
    return int((point_bytes + 3 * wal_bytes) * 1.2)
