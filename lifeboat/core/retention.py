"""Which recovery points are kept and which may go, each with its reason. A pure decision.

The policy of the plan: 30 days on this host, 90 days in S3. A point is never removed for its age
alone if it is among the newest few, the newest verified one, or held: age-based pruning after
failing backups has left others with nothing. A suspicious point takes no other's place, and stays
while it is undecided: what came after is judged by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.points import RecoveryPoint, Tier
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

    Whatever the clock says, the newest `minimum` of those that are not suspicious, the newest
    verified, the newest verified from S3 and every held point stay, and the suspicious ones that no
    trusted one follows.
    """
    ordered = sorted(points, key=lambda point: point.taken_at, reverse=True)
    trusted = [point.id for point in ordered if not point.suspicion]
    proven = [point for point in ordered if point.verified_at]
    verified = {point.id for point in proven[:1]}
    verified |= {point.id for point in [p for p in proven if not p.suspicion][:1]}
    # What a host's copy proved may be damaged in S3, so that another one is the last resort there.
    proven_in_s3 = [point for point in proven if point.verified_in(Tier.S3)]
    in_s3 = {point.id for point in proven_in_s3[:1]}
    in_s3 |= {point.id for point in [p for p in proven_in_s3 if not p.suspicion][:1]}
    undecided = itertools.takewhile(lambda point: point.suspicion, ordered)
    stays: dict[str, str] = {
        **{point.id: "suspicious, and nobody has said yet that it is right" for point in undecided},
        **dict.fromkeys(trusted[: policy.minimum], f"one of the newest {policy.minimum}"),
        **dict.fromkeys(in_s3, "the newest one that was verified from S3"),
        **dict.fromkeys(verified, "the newest verified one"),
        **dict.fromkeys(held, "on hold"),
    }
    return tuple(_decide(point, policy, now, stays.get(point.id)) for point in ordered)


def _decide(point: RecoveryPoint, policy: Policy, now: datetime, stays: str | None) -> Decision:
    if stays:
        return Decision(point=point, keep=True, reason=stays)
    young = now - point.taken_at <= timedelta(days=policy.days)
    reason = f"{'not ' if young else ''}older than {policy.days:g} days"
    return Decision(point=point, keep=young, reason=reason)


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
