"""What is remembered about points and sources besides the copies: small notes below `records/`.

Each is one JSON file named after what it is about, in the local vault and in the bucket, readable
without Lifeboat.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.kinds import Tier
from lifeboat.core.production import Production
from lifeboat.core.reviews import SignedOff
from lifeboat.core.stability import Baseline


class _Mark(BaseModel):
    # A newer Lifeboat may add keys; an older one must still be able to recover.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Verified(_Mark):
    """A point was restored, started and questioned, by a restore test or a real recovery."""

    point: str
    verified_at: datetime
    by: str  # id of the run
    tier: Tier | None = None  # whose copy was restored; None: from before that was noted
    restored_bytes: int | None = None
    restore_seconds: float | None = None
    wal_replayed_bytes: int | None = None
    wal_replay_seconds: float | None = None

    @property
    def from_s3(self) -> bool:
        """Whether what lies in S3 was proven: of that a copy on a host says nothing."""
        if self.tier is None:  # only restore tests take the time, and they restore from S3
            return self.restore_seconds is not None
        return self.tier is Tier.S3


class Hold(_Mark):
    """A point stays, whatever its age, until it is released."""

    point: str
    why: str
    since: datetime


class Accepted(_Mark):
    """Someone looked at a suspicious point and says that it is right as it is."""

    point: str
    why: str
    since: datetime


class Sighting(_Mark):
    """At `as_of` a source was looked at, and the store held all of it.

    It is believed only as far as the store bears it out: `holds` names what must be found there.
    """

    subject: str  # "wal", or an asset
    as_of: datetime
    holds: str = Field(
        description="For WAL `<system identifier>/<timeline>/<LSN>`; for an asset the name of the "
        "point whose content is the source's."
    )


class TestResult(_Mark):
    """How the newest restore test of an asset ended."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    asset: str
    point: str
    ended_at: datetime
    passed: bool
    error: str = ""
    by: str  # id of the run


class Gap(_Mark):
    """The log of one tier does not lead from a base copy to the newest moment."""

    tier: str
    missing: str  # the first missing segment; empty: see `why`
    why: str
    newest_base: str  # the point, when it was noticed
    base_is_behind: bool  # whether that one is of no use for the newest moment either
    noticed_at: datetime
    earliest: datetime | None  # from when on every moment can be reached; None: not one
    closed_at: datetime | None = None  # it was filled, or no base copy is before it any more


class Began(_Mark):
    """Since when a platform is protected: a review that was never held is due a period later."""

    since: datetime


class Kind(StrEnum):
    """The directories below `records/`, one for each kind of mark."""

    VERIFIED = "verified"
    HOLDS = "holds"
    ACCEPTED = "accepted"
    SIGHTINGS = "sightings"
    TESTS = "tests"
    DRILLS = "drills"
    GAPS = "gaps"
    PRODUCTION = "production"
    REVIEWS = "reviews"
    BEGAN = "began"
    BASELINES = "baselines"


MODELS: dict[Kind, type[BaseModel]] = {
    Kind.VERIFIED: Verified,
    Kind.HOLDS: Hold,
    Kind.ACCEPTED: Accepted,
    Kind.SIGHTINGS: Sighting,
    Kind.TESTS: TestResult,
    Kind.DRILLS: DrillOnRecord,
    Kind.GAPS: Gap,
    Kind.PRODUCTION: Production,
    Kind.REVIEWS: SignedOff,
    Kind.BEGAN: Began,
    Kind.BASELINES: Baseline,
}
