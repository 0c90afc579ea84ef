"""What keeps a thief with our key from destroying the bucket: what is wanted, what was found."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Protection(StrEnum):
    """The protections by name, in the order in which they are set and told."""

    VERSIONING = "versioning"
    OBJECT_LOCK = "object-lock"
    LOCK_RENEWAL = "lock-renewal"
    LIFECYCLE = "lifecycle"
    PUBLIC_ACCESS_BLOCK = "public-access-block"
    TLS_ONLY = "tls-only"
    WRITER_RIGHTS = "writer-rights"


class State(StrEnum):
    PROTECTED = "protected"
    EXPOSED = "not protected"
    ABSENT = "the store does not have it"
    UNKNOWN = "unknown"  # our key may not look


class Finding(BaseModel):
    """One protection as it is; `remedy` says what to do where it is not in force."""

    model_config = ConfigDict(frozen=True)

    protection: Protection
    state: State
    evidence: str
    remedy: str = ""

    def in_words(self) -> str:
        told = f"{self.protection}: {self.state}, {self.evidence}"
        return f"{told}. {self.remedy}" if self.remedy else told


LockMode = Literal["governance", "compliance"]


class Wanted(BaseModel):
    """How a bucket should be protected. Prefixes are below the vault's own."""

    model_config = ConfigDict(frozen=True)

    undo_days: int = Field(ge=1, description="Old versions are kept so long.")
    lock_days: int = Field(ge=1, description="New versions can't be deleted so long.")
    lock_mode: LockMode
    unfinished_days: int = Field(
        default=2, ge=1, description="Unfinished uploads are given up after this."
    )
    passing: tuple[str, ...] = Field(
        default=(), description="Below these objects come and go, and nobody wants them back."
    )
    rewritten: tuple[str, ...] = Field(
        default=(), description="Below these objects are rewritten often; the last few count."
    )

    @property
    def renewal_days(self) -> int:
        """Days between two renewals of an object's lock: two may fail before one lapses."""
        return max(1, self.lock_days // 3)


def due_for_renewal(key: str, written_at: datetime, wanted: Wanted, *, now: datetime) -> bool:
    """Whether an object's lock is to be renewed today.

    Each key has its day, so that the work is spread and nothing need be remembered. What is
    younger than the renewal's interval still has most of the lock it was born with.
    """
    if now - written_at < timedelta(days=wanted.renewal_days):
        return False
    return zlib.crc32(key.encode()) % wanted.renewal_days == now.toordinal() % wanted.renewal_days


def wrong(findings: Iterable[Finding], accepted: Iterable[Protection]) -> tuple[Finding, ...]:
    """The findings that are no protection and were not accepted by name."""
    excused = set(accepted)
    return tuple(
        finding
        for finding in findings
        if finding.state is not State.PROTECTED and finding.protection not in excused
    )
