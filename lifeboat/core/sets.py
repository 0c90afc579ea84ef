"""Sets: recovery points of all assets that belong to one moment, and what a lost server gets back.

A set is no thing of its own in the store: its members carry its name. It is complete in a tier when
all four assets have a copy there, and verified when all its members are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timezone

from pydantic import BaseModel, ConfigDict

from lifeboat.core.points import Asset, RecoveryPoint, Tier

_PREFIX = "set-"


class BackupSet(BaseModel):
    """The points that carry one set's name."""

    model_config = ConfigDict(frozen=True)

    id: str
    members: Mapping[Asset, RecoveryPoint]

    def complete_in(self, tier: Tier) -> bool:
        return all(a in self.members and tier in self.members[a].copies for a in Asset)

    def verified_in(self, tier: Tier) -> bool:
        return all(a in self.members and self.members[a].verified_in(tier) for a in Asset)

    @property
    def trusted(self) -> bool:
        return not any(member.suspicion for member in self.members.values())


def set_id(moment: datetime) -> str:
    """Name a set so that names sort by time, e.g. `set-20261123T184501Z`."""
    return f"{_PREFIX}{moment.astimezone(timezone.utc):%Y%m%dT%H%M%S}Z"


def is_set_id(name: str) -> bool:
    return name.startswith(_PREFIX)


def sets_of(points: Iterable[RecoveryPoint]) -> tuple[BackupSet, ...]:
    """All sets that the points tell of, newest first."""
    found: dict[str, dict[Asset, RecoveryPoint]] = {}
    for point in sorted(points, key=lambda point: point.taken_at):
        if point.set_id:
            found.setdefault(point.set_id, {})[point.asset] = point
    return tuple(BackupSet(id=name, members=found[name]) for name in sorted(found, reverse=True))


def newest_complete(points: Iterable[RecoveryPoint], tier: Tier) -> BackupSet | None:
    """The newest set that a tier holds all of and in which nothing is suspicious."""
    sets = sets_of(points)
    return next((found for found in sets if found.complete_in(tier) and found.trusted), None)


# --- what a lost server gets back -----------------------------------------------------------


class Candidate(BaseModel):
    """A point that could be restored, and why it stands where it stands."""

    model_config = ConfigDict(frozen=True)

    point: RecoveryPoint
    reason: str


def candidates(
    points: Collection[RecoveryPoint],
    asset: Asset,
    tier: Tier,
    *,
    left_behind: Collection[str] = (),
) -> tuple[Candidate, ...]:
    """The trusted points of an asset in a tier in the order in which to try them.

    Bases that are `left_behind`, from which the WAL does not lead to the newest row, come last.

    Of the database first what is proven: the base of the newest complete verified set, else the
    newest verified base; WAL brings each to the same newest row. Files, models and configuration
    have no WAL that rolls them forward, and rows that came by WAL refer to the newest files, so
    there the newest point comes first, and the set's stands behind it. The older ones come last,
    for they are more than nothing.
    """
    usable = sorted(
        (p for p in points if p.asset is asset and tier in p.copies and not p.suspicion),
        key=lambda point: point.taken_at,
        reverse=True,
    )
    leading = [point for point in usable if point.id not in left_behind]
    proven = next(
        (
            s
            for s in sets_of(points)
            if s.verified_in(tier)
            and s.trusted
            and s.complete_in(tier)
            and s.members[Asset.DATABASE].id not in left_behind
        ),
        None,
    )
    of_set = (
        [(proven.members[asset], f"of {proven.id}, the newest complete verified set")]
        if proven
        else []
    )
    newest = [(point, "the newest") for point in leading[:1]]
    verified = _first(leading, lambda point: bool(point.verified_in(tier)), "the newest verified")
    older = [(point, "an older one") for point in leading]
    behind = [
        (point, "its WAL does not lead to the newest row")
        for point in usable
        if point not in leading
    ]
    in_order = (
        [*of_set, *verified, *newest, *older, *behind]
        if asset is Asset.DATABASE
        else [*newest, *of_set, *verified, *older]
    )
    chosen: dict[str, Candidate] = {}
    for point, reason in in_order:
        known = chosen.get(point.id)
        if known is None:
            chosen[point.id] = Candidate(point=point, reason=reason)
        elif reason != "an older one":
            told = f"{known.reason}, {reason}"
            chosen[point.id] = known.model_copy(update={"reason": told})
    return tuple(chosen.values())


def _first(
    points: Iterable[RecoveryPoint], fits: Callable[[RecoveryPoint], bool], reason: str
) -> list[tuple[RecoveryPoint, str]]:
    return [(point, reason) for point in points if fits(point)][:1]
