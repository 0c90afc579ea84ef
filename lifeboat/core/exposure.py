"""What would be lost now, in each scenario of the plan, and how long it would take to come back.

A claim of a backup is believed only as far as the store bears it out. A copy that is suspicious, or
that says it is from the future, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from lifeboat.core.alarms import Finding, Limits, failed, passed, unknown, worst
from lifeboat.core.checks import Status
from lifeboat.core.continuity import Continuity, Reach
from lifeboat.core.errors import PreconditionError
from lifeboat.core.forms import Scenario
from lifeboat.core.marks import Sighting
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.survey import Log, Survey, Unseen
from lifeboat.core.wal import PARTIAL, Position

WAL = "wal"  # subject of the sighting of the log


# --- how fresh a store is -------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """Until when a store holds everything. `as_of` None: it holds nothing, or `unseen` why that
    is not known.
    """

    as_of: datetime | None
    rests_on: str
    unseen: bool = False

    def seconds(self, now: datetime) -> float | None:
        return None if self.as_of is None else max(0.0, (now - self.as_of).total_seconds())


def trusted(points: Iterable[RecoveryPoint], now: datetime) -> tuple[RecoveryPoint, ...]:
    """The points that count as fresh as they say, newest first."""
    good = (p for p in points if not p.suspicion and not p.is_ahead_of(now))
    return tuple(sorted(good, key=lambda point: point.taken_at, reverse=True))


def freshness(survey: Survey, asset: Asset, tier: Tier, now: datetime) -> Fresh:
    """Until when one tier holds everything of an asset, by its newest point or a sighting."""
    store = survey.store(asset, tier)
    if store is None:
        return Fresh(None, f"{tier} was not looked at", unseen=True)
    if isinstance(store.points, Unseen):
        # Why is said once, of the repository itself.
        return Fresh(None, f"its repository in {tier} can't be read", unseen=True)
    points = trusted(store.points, now)
    if not points:
        what = "only suspicious points" if store.points else "no recovery point"
        return Fresh(None, f"{what} in {tier}")
    newest = points[0]
    sighting = sighting_of(survey, str(asset))
    if sighting and any(point.id == sighting.holds for point in points):
        as_of = min(sighting.as_of, now)
        if as_of > newest.taken_at:
            return Fresh(as_of, f"{sighting.holds} in {tier}, unchanged since")
    return Fresh(newest.taken_at, f"{newest.id} in {tier}")


def sighting_of(survey: Survey, subject: str) -> Sighting | None:
    return None if isinstance(survey.sightings, Unseen) else survey.sightings.get(subject)


def usable_reach(survey: Survey, continuity: Continuity) -> Reach | None:
    """The reach of the base copy that a recovery would take: the newest that is not suspicious."""
    suspicious = {
        point.id
        for store in survey.stores
        if store.asset is Asset.DATABASE and not isinstance(store.points, Unseen)
        for point in store.points
        if point.suspicion
    }
    return next((r for r in continuity.reaches if r.base.point not in suspicious), None)


def log_freshness(survey: Survey, tier: Tier, now: datetime) -> Fresh:
    """Until when a recovery from one tier's base copies and WAL brings the database back."""
    log = survey.logs.get(tier)
    if log is None:
        return Fresh(None, f"{tier} was not looked at", unseen=True)
    if isinstance(log.continuity, Unseen):
        return Fresh(None, f"its log in {tier} can't be read", unseen=True)
    reach = usable_reach(survey, log.continuity)
    if reach is None:
        return Fresh(None, f"no base copy that can be trusted in {tier}")
    base = reach.base
    if not reach.whole:
        why = f"segment {reach.missing} is missing" if reach.missing else "the log goes elsewhere"
        return Fresh(min(base.taken_at, now), f"{base.point} in {tier} alone, because {why}")
    if tier is not Tier.S3 and survey.host and not isinstance(survey.host.receiver, Unseen):
        receiver = survey.host.receiver
        if receiver.streaming:
            how = "synchronous" if receiver.synchronous else f"{receiver.lag_bytes} bytes behind"
            return Fresh(now, f"{base.point} and the WAL receiver, which streams ({how})")
    sighting = sighting_of(survey, WAL)
    if tier is Tier.S3 and sighting and word_of(sighting, log.continuity) is Word.GOOD:
        return Fresh(min(sighting.as_of, now), f"{base.point} and WAL up to {sighting.holds}")
    newest = _newest_at(log, log.continuity)
    if newest is None:
        return Fresh(min(base.taken_at, now), f"{base.point} in {tier}, without WAL after it")
    as_of = min(max(base.taken_at, newest), now)
    return Fresh(as_of, f"{base.point} and WAL up to {log.continuity.newest_name} in {tier}")


class Word(StrEnum):
    """What a sighting of the log is worth."""

    GOOD = "good"  # the store has what it says
    OUTDATED = "outdated"  # of before a recovery, or of another cluster
    BROKEN = "broken"  # the store lacks what it says, or it can't be read


def word_of(sighting: Sighting, continuity: Continuity) -> Word:
    """Whether the segments are there that a sighting of the log says are there."""
    try:
        position = Position.parse(sighting.holds)
    except PreconditionError:
        return Word.BROKEN
    if continuity.holds(
        system_identifier=position.system_identifier,
        timeline=position.timeline,
        lsn=position.lsn,
    ):
        return Word.GOOD
    ours = position.system_identifier == continuity.system_identifier
    return Word.BROKEN if ours and position.timeline >= continuity.timeline else Word.OUTDATED


def _newest_at(log: Log, continuity: Continuity) -> datetime | None:
    """When the newest segment on the way to the newest timeline was last written."""
    if isinstance(log.files, Unseen) or not continuity.newest_name:
        return None
    names = {continuity.newest_name, continuity.newest_name + PARTIAL}
    return max((file.modified_at for file in log.files if file.name in names), default=None)


# --- exposure -------------------------------------------------------------------------------


class Part(BaseModel):
    """What would be lost of one thing. `seconds` None: not known, or all of it."""

    model_config = ConfigDict(frozen=True)

    what: str
    seconds: float | None
    rests_on: str
    status: Status


class Exposure(BaseModel):
    """What would be lost if this scenario came about now: everything newer than `seconds`."""

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    seconds: float | None
    objective_seconds: float
    parts: tuple[Part, ...]

    @property
    def status(self) -> Status:
        return worst([part.status for part in self.parts])


def exposures(survey: Survey, limits: Limits, now: datetime) -> tuple[Exposure, ...]:
    """One exposure for each scenario of the plan, seen from where the survey was made."""

    def part(what: str, *candidates: Fresh) -> Part:
        # Whichever copy goes furthest is the one that is used.
        known = [fresh for fresh in candidates if fresh.as_of is not None]
        if known:
            best = max(known, key=lambda fresh: fresh.as_of or now)
            seconds = best.seconds(now)
            late = seconds is None or seconds > limits.rpo_seconds
            status = Status.FAIL if late else Status.PASS
            return Part(what=what, seconds=seconds, rests_on=best.rests_on, status=status)
        unseen = any(fresh.unseen for fresh in candidates)
        told = "; ".join(dict.fromkeys(fresh.rests_on for fresh in candidates))
        status = Status.UNKNOWN if unseen else Status.FAIL
        return Part(what=what, seconds=None, rests_on=told, status=status)

    def exposure(scenario: Scenario, *parts: Part) -> Exposure:
        known = [p.seconds for p in parts]
        seconds = None if None in known else max(s for s in known if s is not None)
        return Exposure(
            scenario=scenario,
            seconds=seconds,
            objective_seconds=limits.rpo_seconds,
            parts=parts,
        )

    logs = {tier: log_freshness(survey, tier, now) for tier in survey.tiers}
    of = {
        (asset, tier): freshness(survey, asset, tier, now)
        for asset in Asset
        for tier in survey.tiers
    }
    return (
        exposure("database", part("database", *logs.values())),
        exposure(
            "server",
            part("database", logs[Tier.S3]),
            *(
                part(str(asset), of[asset, Tier.S3])
                for asset in (Asset.FILES, Asset.MODELS, Asset.CONFIG)
            ),
        ),
        exposure("files", part("files", *(of[Asset.FILES, tier] for tier in survey.tiers))),
        exposure("models", part("models", *(of[Asset.MODELS, tier] for tier in survey.tiers))),
    )


_HOW_TO_SHRINK = (
    "Look at the keeper and its log (`lifeboat keep`), then run `lifeboat backup` for what is old; "
    "for the database also `lifeboat wal ship`."
)


def exposure_findings(found: Sequence[Exposure]) -> Iterator[Finding]:
    for exposure in found:
        name = f"{exposure.scenario}-loss-exposure"
        told = "; ".join(_in_words(part) for part in _worst_first(exposure.parts))
        if exposure.status is Status.PASS:
            yield passed(name, told)
        elif exposure.status is Status.FAIL:
            limit = age_in_words(timedelta(seconds=exposure.objective_seconds))
            yield failed(name, f"{told} (RPO {limit})", _HOW_TO_SHRINK)
        else:
            yield unknown(name, told)


def _worst_first(parts: Iterable[Part]) -> list[Part]:
    order = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.PASS: 2}
    return sorted(parts, key=lambda part: (order[part.status], -(part.seconds or 0)))


def _in_words(part: Part) -> str:
    if part.seconds is None:
        lost = "all would be lost" if part.status is Status.FAIL else "not known"
        return f"{part.what}: {lost} ({part.rests_on})"
    return f"{part.what}: {age_in_words(timedelta(seconds=part.seconds))} ({part.rests_on})"
