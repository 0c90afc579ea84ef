"""Recovery points: what was backed up, when, where its copies are, and which one to choose.

The catalogue is the store: a point is what a restic snapshot's tags and the `lifeboat.json`
inside it say (DESIGN, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.errors import PreconditionError
from lifeboat.core.kinds import Asset, Tier

FACTS_NAME = "lifeboat.json"
CLOCK_SKEW = timedelta(minutes=5)  # between hosts that are both right


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseFacts(_Frozen):
    """What a base backup is, as PostgreSQL itself told it."""

    system_identifier: str
    timeline: int
    start_lsn: str
    stop_lsn: str
    server_version: str  # as `SHOW server_version`, e.g. "18.6"
    wal_segment_bytes: int
    started_at: datetime
    stopped_at: datetime  # a point in time before this one can't be reached from this base
    tables: Mapping[str, int] = Field(
        description="least rows per schema.table, of just before the copy and just after"
    )
    sequences: Mapping[str, int] = Field(
        default_factory=dict, description="newest number of each schema.sequence, likewise"
    )


class DirectoryFacts(_Frozen):
    path: str  # absolute, as it was on the host that was backed up
    files: int
    bytes: int
    digests: Mapping[str, str] = Field(
        default_factory=dict, description="SHA-256 by relative path; for models and configuration"
    )


class Facts(_Frozen):
    """`lifeboat.json`, which lies inside every backup and explains it without Lifeboat."""

    format: int = 1
    point: str
    asset: Asset
    platform: str
    host: str
    taken_at: datetime
    git_commit: str | None = None  # of the platform's application code
    database: DatabaseFacts | None = None
    directories: Mapping[str, DirectoryFacts] = Field(default_factory=dict)
    images: Mapping[str, str] = Field(default_factory=dict)  # container image digests by service
    set_id: str = Field(default="", description="common name of the points of one coherent set")
    fingerprint: str = Field(
        default="", description="of the content, where a backup is made only of what has changed"
    )
    certificates: Mapping[str, datetime] = Field(
        default_factory=dict, description="when each certificate ends, by its path"
    )


class RecoveryPoint(_Frozen):
    """One moment to which one asset can be brought back."""

    asset: Asset
    id: str
    taken_at: datetime
    copies: Mapping[Tier, str]  # restic snapshot id, or the directory of the hot copy
    bytes: int
    verified_at: datetime | None = None
    verified_here_only: bool = False  # from a host's copy: the one in S3 may be damaged
    # What restic counted; None where it is not known (the hot copy).
    files: int | None = None
    unmodified_files: int | None = None  # since the snapshot before it
    added_bytes: int | None = None  # by which the repository grew
    new_blobs: int | None = None  # pieces of content that the repository did not know
    rows: Mapping[str, int] | None = None  # of each table of a database, see core.suspicion
    directory_files: Mapping[str, int] | None = None  # files below each directory, by its name
    set_id: str = ""
    fingerprint: str = ""
    suspicion: str = ""  # why it is not offered as the latest; empty: nothing speaks against it

    @property
    def tiers(self) -> tuple[Tier, ...]:
        return tuple(tier for tier in Tier if tier in self.copies)

    def verified_in(self, tier: Tier) -> datetime | None:
        """When it was proven, as far as that speaks for a tier: a proof from S3 does for all."""
        return None if tier is Tier.S3 and self.verified_here_only else self.verified_at

    def is_ahead_of(self, now: datetime) -> bool:
        """Whether it says that it is from the future: then a clock was wrong, or is."""
        return self.taken_at > now + CLOCK_SKEW


def point_id(asset: Asset, taken_at: datetime) -> str:
    """Name a recovery point so that names sort by time, e.g. `files-20261123T184501Z`."""
    return f"{asset}-{taken_at.astimezone(timezone.utc):%Y%m%dT%H%M%S}Z"


def taken_at_of(point: str) -> datetime:
    """Given a point's name, say when it was taken. Raise PreconditionError if it is no name."""
    try:
        stamp = point.rpartition("-")[2]
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise PreconditionError(
            f"Reading the recovery point's name {point!r}: it does not end in a time.",
            hint="`lifeboat points` lists the names.",
        ) from None


def merge_copies(points: Iterable[RecoveryPoint]) -> tuple[RecoveryPoint, ...]:
    """Join what each tier knows of the same point; newest first."""
    merged: dict[str, RecoveryPoint] = {}
    for point in points:
        known = merged.get(point.id)
        if known is None:
            merged[point.id] = point
            continue
        told = {
            name: value
            for name, value in point.model_dump(exclude_none=True).items()
            if getattr(known, name) in (None, "")
        }
        merged[point.id] = known.model_copy(
            update={
                **told,
                "copies": {**known.copies, **point.copies},
                "bytes": max(known.bytes, point.bytes),
                **_least_change(known, point),
            }
        )
    return tuple(sorted(merged.values(), key=lambda point: point.taken_at, reverse=True))


def _least_change(one: RecoveryPoint, other: RecoveryPoint) -> dict[str, int]:
    """A tier that missed a backup compares with an older one, and tells of more change."""
    found = {}
    for name, choose in (("unmodified_files", max), ("added_bytes", min), ("new_blobs", min)):
        told = [v for v in (getattr(one, name), getattr(other, name)) if v is not None]
        if told:
            found[name] = choose(told)
    return found


def end_of_day(day: date, zone: timezone = timezone.utc) -> datetime:
    return datetime.combine(day + timedelta(days=1), time.min, tzinfo=zone) - timedelta(
        microseconds=1
    )


def choose_point(
    points: Iterable[RecoveryPoint],
    *,
    asset: Asset,
    not_after: datetime | None = None,
    tiers: Iterable[Tier] = tuple(Tier),
) -> RecoveryPoint:
    """Give the newest trusted point of `asset` with a copy in one of `tiers`, taken by `not_after`.

    Raise PreconditionError, naming what there is, if no point fits or all that fit are suspicious.
    """
    wanted = set(tiers)
    of_asset = sorted(
        (p for p in points if p.asset is asset and wanted & set(p.copies)),
        key=lambda point: point.taken_at,
        reverse=True,
    )
    where = " or ".join(sorted(wanted))
    if not of_asset:
        raise PreconditionError(
            f"Choosing a recovery point of {asset}: there is none in {where}.",
            hint=f"Run `lifeboat points` to see what there is, or `lifeboat backup {asset}`.",
        )
    fitting = [p for p in of_asset if not_after is None or p.taken_at <= not_after]
    if not fitting:
        assert not_after is not None
        raise PreconditionError(
            f"Choosing a recovery point of {asset} taken by {not_after.isoformat()}: "
            f"the first one was taken at {of_asset[-1].taken_at.isoformat()}.",
            hint="Choose a later time, or run `lifeboat points` to see all of them.",
        )
    chosen = next((point for point in fitting if not point.suspicion), None)
    if chosen is None:
        newest = fitting[0]
        raise PreconditionError(
            f"Choosing a recovery point of {asset} in {where}: none can be trusted. The newest, "
            f"{newest.id}, is suspicious: {newest.suspicion}.",
            hint=f"If it is right as it is: `lifeboat accept {newest.id} --why ...`.",
        )
    return chosen


def find_named(points: Iterable[RecoveryPoint], name: str) -> RecoveryPoint:
    """Give the point of that name. Raise PreconditionError if it is not among `points`."""
    found = next((point for point in points if point.id == name), None)
    if found is None:
        raise PreconditionError(
            f"Choosing the recovery point {name}: there is no such point.",
            hint="`lifeboat points` lists them.",
        )
    return found


def passed_over(
    points: Iterable[RecoveryPoint], chosen: RecoveryPoint, *, not_after: datetime | None = None
) -> tuple[RecoveryPoint, ...]:
    """The suspicious points for which `chosen`, an older one, stands in; newest first."""
    newer = (
        point
        for point in points
        if point.asset is chosen.asset
        and point.suspicion
        and point.taken_at > chosen.taken_at
        and (not_after is None or point.taken_at <= not_after)
    )
    return tuple(sorted(newer, key=lambda point: point.taken_at, reverse=True))
