"""Which recovery points are kept and which may go, each with its reason. A pure decision.

The policy of the plan: 30 days on this host, 90 days in S3. A point is never removed for its age
alone if it is among the newest few, the newest verified one, or held: age-based pruning after
failing backups has left others with nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.points import RecoveryPoint
from lifeboat.core.wal import PARTIAL, Segment, parse_lsn


class Policy(BaseModel):
    """How long the points of one tier are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: float = Field(gt=0, description="A point older than this may go.")
    minimum: int = Field(default=3, ge=1, description="How many of the newest always stay.")


class Decision(BaseModel):
    """What becomes of one point, and why."""

    model_config = ConfigDict(frozen=True)

    point: RecoveryPoint
    keep: bool
    reason: str


def decide(
    points: Iterable[RecoveryPoint], policy: Policy, *, now: datetime, held: Collection[str] = ()
) -> tuple[Decision, ...]:
    """Say of each point of one asset in one tier whether it stays; newest first.

    Whatever the clock says, the newest `minimum`, the newest verified and every held point stay.
    """
    ordered = sorted(points, key=lambda point: point.taken_at, reverse=True)
    verified = next((point.id for point in ordered if point.verified_at), None)
    return tuple(
        _decide(point, place, policy, now, held, verified) for place, point in enumerate(ordered)
    )


def _decide(
    point: RecoveryPoint,
    place: int,
    policy: Policy,
    now: datetime,
    held: Collection[str],
    verified: str | None,
) -> Decision:
    def is_kept(reason: str) -> Decision:
        return Decision(point=point, keep=True, reason=reason)

    if point.id in held:
        return is_kept("on hold")
    if point.id == verified:
        return is_kept("the newest verified one")
    if place < policy.minimum:
        return is_kept(f"one of the newest {policy.minimum}")
    age = now - point.taken_at
    if age <= timedelta(days=policy.days):
        return is_kept(f"not older than {policy.days:g} days")
    return Decision(point=point, keep=False, reason=f"older than {policy.days:g} days")


def wal_to_remove(
    names: Iterable[str], *, kept_start_lsns: Iterable[str], segment_bytes: int
) -> tuple[str, ...]:
    """The WAL segments that no kept base backup needs; of unknown files and histories, none.

    `kept_start_lsns` are where the WAL of each kept base begins. Without a kept base nothing is
    removed. A position never goes back when a timeline branches off, so the lowest start bounds
    what any base needs, on every timeline.
    """
    starts = [parse_lsn(lsn) // segment_bytes for lsn in kept_start_lsns]
    if not starts:
        return ()
    oldest = min(starts)
    found = []
    for name in names:
        segment = Segment.parse(name.removesuffix(PARTIAL), segment_bytes)
        if segment is not None and segment.number < oldest:
            found.append(name)
    return tuple(found)


def local_wal_to_remove(
    names: Collection[str],
    *,
    in_s3: Collection[str],
    kept_here: Iterable[str],
    kept_in_s3: Iterable[str],
    segment_bytes: int,
) -> tuple[str, ...]:
    """Like `wal_to_remove`, for this host: what S3 has not got yet stays if a base there needs it.

    `kept_here` and `kept_in_s3` are where the WAL of each kept base begins.
    """
    unneeded = wal_to_remove(names, kept_start_lsns=kept_here, segment_bytes=segment_bytes)
    nowhere = set(wal_to_remove(names, kept_start_lsns=kept_in_s3, segment_bytes=segment_bytes))
    return tuple(name for name in unneeded if name in in_s3 or name in nowhere)
