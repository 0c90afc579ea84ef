"""Whether backups, restore tests and drills happen as often as they should, and are good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import get_args

from pydantic import BaseModel, ConfigDict

from lifeboat.core.alarms import Finding, Limits, failed, passed, unknown, worst
from lifeboat.core.checks import Status
from lifeboat.core.exposure import (
    WAL,
    Fresh,
    Word,
    freshness,
    log_freshness,
    sighting_of,
    word_of,
)
from lifeboat.core.forms import Scenario
from lifeboat.core.marks import TestResult
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.reviews import review_findings
from lifeboat.core.survey import Survey, Unseen

_DAY_SECONDS = 86400.0
_ON_CHANGE = (Asset.MODELS, Asset.CONFIG)  # looked at often, and backed up when they have changed


class Age(BaseModel):
    """How old what counts of an asset is. `tier` None: however it was verified."""

    model_config = ConfigDict(frozen=True)

    asset: Asset
    tier: Tier | None
    seconds: float


def _ago(now: datetime, moment: datetime) -> str:
    return age_in_words(now - moment)


def _in_words(seconds: float) -> str:
    return age_in_words(timedelta(seconds=seconds))


# --- backups --------------------------------------------------------------------------------


def backup_ages(survey: Survey, now: datetime) -> tuple[Age, ...]:
    found = []
    for asset in Asset:
        for tier in survey.tiers:
            seconds = freshness(survey, asset, tier, now).seconds(now)
            if seconds is not None:
                found.append(Age(asset=asset, tier=tier, seconds=seconds))
    return tuple(found)


def backup_age_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`<asset>-backup-age`: in every tier the newest copy that counts is as young as it should be.

    What is backed up only when it has changed goes by when it was last looked at.
    """
    for asset in Asset:
        every = limits.every_seconds[asset]
        if asset in _ON_CHANGE and sighting_of(survey, str(asset)) is not None:
            every = limits.on_change_seconds
        limit = limits.late_seconds(every)
        told, statuses = [], []
        for tier in survey.tiers:
            fresh = freshness(survey, asset, tier, now)
            statuses.append(_status_of(fresh, limit, now))
            seconds = fresh.seconds(now)
            if seconds is None:
                told.append(fresh.rests_on)
            else:
                told.append(f"{tier}: {_in_words(seconds)} ({fresh.rests_on})")
        yield _finding(
            f"{asset}-backup-age",
            worst(statuses),
            f"{'; '.join(told)}; late after {_in_words(limit)}",
            f"Look at the keeper and its log (`lifeboat keep`); run `lifeboat backup {asset}`.",
        )


def _status_of(fresh: Fresh, limit: float, now: datetime) -> Status:
    seconds = fresh.seconds(now)
    if seconds is None:
        return Status.UNKNOWN if fresh.unseen else Status.FAIL
    return Status.FAIL if seconds > limit else Status.PASS


def _finding(name: str, status: Status, evidence: str, advice: str) -> Finding:
    return Finding(
        name=name,
        status=status,
        evidence=evidence,
        advice="" if status is Status.PASS else advice,
    )


def wal_lag_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`wal-lag-s3`: the bucket holds the log up to a moment ago.

    Without a sighting an idle database can't be told from a shipper that has stopped.
    """
    name = "wal-lag-s3"
    advice = "Look at the keeper and its log (`lifeboat keep`); run `lifeboat wal ship`."
    limit = limits.late_seconds(limits.wal_seconds)
    fresh = log_freshness(survey, Tier.S3, now)
    seconds = fresh.seconds(now)
    if seconds is None:
        status = Status.UNKNOWN if fresh.unseen else Status.FAIL
        yield _finding(name, status, fresh.rests_on, advice)
        return
    log = survey.logs[Tier.S3]
    if isinstance(log.continuity, Unseen):  # then nothing is known of its freshness either
        return
    told = f"{_in_words(seconds)} behind ({fresh.rests_on}); late after {_in_words(limit)}"
    base = log.continuity.newest_base
    whole = base is not None and base.whole
    sighting = sighting_of(survey, WAL)
    word = word_of(sighting, log.continuity) if sighting else Word.OUTDATED
    if isinstance(survey.sightings, Unseen):
        told += f"; when it was last complete is not known: {survey.sightings.why}"
    if sighting and whole and word is Word.BROKEN:
        lacks = f"the bucket does not hold {sighting.holds}, which was shipped"
        yield failed(name, f"{lacks}; {told}", advice)
    elif seconds > limit and whole and word is Word.OUTDATED:
        yield unknown(name, f"{told}; nobody says whether the database was idle", advice)
    else:
        yield _finding(name, Status.FAIL if seconds > limit else Status.PASS, told, advice)


def suspicious_findings(survey: Survey, now: datetime) -> Iterator[Finding]:
    """`suspicious-points`: no asset's newest point departs sharply from those before it.

    One from the future is told by `clock`, and must not hide what is wrong with the newest one.
    """
    found, seen = {}, 0
    for store in survey.stores:
        points = () if isinstance(store.points, Unseen) else store.points
        of_the_past = [point for point in points if not point.is_ahead_of(now)]
        if not of_the_past:
            continue
        seen += 1
        newest = max(of_the_past, key=lambda point: point.taken_at)
        if newest.suspicion:
            found[newest.id] = newest.suspicion
    name = "suspicious-points"
    if found:
        told = "; ".join(f"{point}: {why}" for point, why in found.items())
        yield failed(
            name,
            told,
            "Look at what changed. If it is right as it is: `lifeboat accept POINT --why ...`; if "
            "not, recover from the point before it, and hold that one (`lifeboat hold`).",
        )
    elif seen:
        yield passed(name, "the newest point of every asset is like those before it")
    else:
        yield unknown(name, "there is no point to look at")


def clock_findings(survey: Survey, now: datetime) -> Iterator[Finding]:
    """`clock`: no point says that it is from the future, which would look fresh for ever."""
    points = [
        point
        for store in survey.stores
        if not isinstance(store.points, Unseen)
        for point in store.points
    ]
    ahead = {point.id for point in points if point.is_ahead_of(now)}
    if ahead:
        yield failed(
            "clock",
            f"from the future: {', '.join(sorted(ahead))}; they do not count, and nothing is "
            "restored from them unless they are named or accepted",
            "Set the clock of the host that made them, or of this one (NTP).",
        )
    elif points:
        yield passed("clock", "no point is from the future")
    else:
        yield unknown("clock", "there is no point to look at")


# --- restore tests --------------------------------------------------------------------------


def _verified_at(
    survey: Survey, asset: Asset, *, tier: Tier = Tier.LOCAL
) -> tuple[datetime, str] | None:
    """When a point that is there was last proven, as far as that speaks for a tier, and which."""
    points: dict[str, RecoveryPoint] = {}
    for store in survey.stores:
        if store.asset is asset and not isinstance(store.points, Unseen):
            points |= {point.id: point for point in store.points}
    proven = [(at, p.id) for p in points.values() if (at := p.verified_in(tier))]
    result = _result_of(survey, asset)
    if result and result.passed and result.point in points:
        proven.append((result.ended_at, result.point))
    return max(proven, default=None)


def _result_of(survey: Survey, asset: Asset) -> TestResult | None:
    return None if isinstance(survey.tests, Unseen) else survey.tests.get(asset)


def verified_ages(survey: Survey, now: datetime) -> tuple[Age, ...]:
    found = []
    for asset in Asset:
        verified = _verified_at(survey, asset)
        if verified:
            seconds = max(0.0, (now - verified[0]).total_seconds())
            found.append(Age(asset=asset, tier=None, seconds=seconds))
    return tuple(found)


def verified_age_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`<asset>-verified-age`: a point that is still there was proven not long ago."""
    advice = "Run `lifeboat test-restore`, and see that it runs every day."
    for asset in Asset:
        name = f"{asset}-verified-age"
        verified = _verified_at(survey, asset)
        stores = [store for store in survey.stores if store.asset is asset]
        if verified is None:
            if all(isinstance(store.points, Unseen) for store in stores):
                yield unknown(name, "its points can't be listed")
            else:
                yield failed(name, "no point of it was ever restored and questioned", advice)
            continue
        at, point = verified
        told = f"{point}, {_ago(now, at)} ago; at most {limits.verified_days:g} days"
        if (now - at).total_seconds() > limits.verified_days * _DAY_SECONDS:
            yield failed(name, told, advice)
        else:
            yield passed(name, told)


def restore_test_findings(survey: Survey, now: datetime) -> Iterator[Finding]:
    """`restore-test`: the newest restore test of every asset has passed.

    It restores from S3: what a recovery from a host's own copy proves makes up for no failure.
    """
    name = "restore-test"
    advice = (
        "Recover from an older point until this is cured; look at the record of the test. "
        "`lifeboat test-restore` tries again."
    )
    bad, untested = [], []
    for asset in Asset:
        result = _result_of(survey, asset)
        verified = _verified_at(survey, asset, tier=Tier.S3)
        if result and not result.passed and not (verified and verified[0] > result.ended_at):
            ago = _ago(now, result.ended_at)
            bad.append(f"{result.point or asset} failed {ago} ago: {result.error}")
        elif result is None and verified is None:
            untested.append(str(asset))
    if bad:
        yield failed(name, "; ".join(bad), advice)
    elif isinstance(survey.tests, Unseen):
        yield unknown(name, survey.tests.why)
    elif untested:
        yield unknown(name, f"never tested: {', '.join(untested)}", "Run `lifeboat test-restore`.")
    else:
        yield passed(name, "the newest test of every asset passed")


# --- tests and reviews ---------------------------------------------------------------------


def held_review_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`review-<kind>`: every test and review that is wanted was held in time, and was good."""
    if isinstance(survey.reviews, Unseen):
        if limits.reviews:
            yield unknown("reviews", survey.reviews.why)
        return
    yield from review_findings(limits.reviews, survey.reviews, now)


# --- drills ---------------------------------------------------------------------------------


def drill_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`drill-age`: every scenario of the plan was drilled not long ago, and last with success."""
    name = "drill-age"
    advice = "Run `lifeboat drill --record-in LIFEBOAT.YAML` on the staging platform."
    if not limits.drill_days:
        yield passed(name, "none is asked (watch.drill_days: 0)")
        return
    if isinstance(survey.drills, Unseen):
        yield unknown(name, survey.drills.why)
        return
    told, good = [], True
    for scenario in get_args(Scenario):
        newest = max(
            (
                (drill.ended_at, drilled.passed, drill.id)
                for drill in survey.drills
                for drilled in drill.scenarios
                if drilled.name == scenario
            ),
            default=None,
        )
        if newest is None:
            told.append(f"{scenario}: never drilled")
            good = False
            continue
        at, success, drill = newest
        old = (now - at).total_seconds() > limits.drill_days * _DAY_SECONDS
        good = good and success and not old
        how = "passed" if success else f"FAILED in {drill}"
        told.append(f"{scenario}: {how} {_ago(now, at)} ago")
    evidence = f"{', '.join(told)}; at most {limits.drill_days:g} days"
    yield passed(name, evidence) if good else failed(name, evidence, advice)
