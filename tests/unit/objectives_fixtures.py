"""A survey of a platform on which everything is good, to be broken in one place at a time."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from pathlib import PurePath

from lifeboat.core import continuity
from lifeboat.core.alarms import Limits
from lifeboat.core.continuity import BaseCopy, Continuity
from lifeboat.core.coverage import Place, Protected
from lifeboat.core.drill import DrillOnRecord, ScenarioOnRecord
from lifeboat.core.marks import Sighting, TestResult, Verified
from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.survey import (
    Host,
    HotCopy,
    Listing,
    Log,
    Parts,
    Receiver,
    Rehearsal,
    Space,
    Store,
    Survey,
    WalFile,
)
from lifeboat.core.wal import Segment

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=timezone.utc)
SIZE = 16 << 20
SYSTEM = "7412345678901234567"
TIERS = (Tier.LOCAL, Tier.S3)
MINUTES_OLD = {Asset.DATABASE: 65.0, Asset.FILES: 20.0, Asset.MODELS: 600.0, Asset.CONFIG: 900.0}

LIMITS = Limits(
    rto_seconds=14400,
    rpo_seconds=3600,
    every_seconds={
        Asset.DATABASE: 21600,
        Asset.FILES: 1800,
        Asset.MODELS: 86400,
        Asset.CONFIG: 300,
    },
    on_change_seconds=300,
    wal_seconds=60,
    watch_seconds=300,
    late_factor=1.5,
    verified_days=2,
    drill_days=45,
    certificate_days=21,
    free_space_days=7,
    synchronous=True,
    protected=Protected(
        paths=(PurePath("/srv/cad/data/postgres"), PurePath("/srv/cad/data/files")),
        excused={"data/redis": "a cache"},
    ),
)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def a_point(asset: Asset, tier: Tier, minutes_old: float, **more: object) -> RecoveryPoint:
    taken_at = ago(minutes=minutes_old)
    told = {"bytes": 1_000_000_000, "verified_at": ago(hours=20), "added_bytes": 1_000_000, **more}
    return RecoveryPoint(
        asset=asset, id=point_id(asset, taken_at), taken_at=taken_at, copies={tier: "x"}, **told
    )


def name_of(asset: Asset) -> str:
    return point_id(asset, ago(minutes=MINUTES_OLD[asset]))


def a_store(asset: Asset, tier: Tier, *minutes_old: float, **more: object) -> Store:
    ages = minutes_old or (MINUTES_OLD[asset], MINUTES_OLD[asset] + 1440)
    points = tuple(a_point(asset, tier, minutes, **more) for minutes in ages)
    return Store(asset, tier, points, Parts(config=True, keys=1, indexes=2, snapshots=3))


def a_base(minutes_old: float, segment: int, *, timeline: int = 1) -> BaseCopy:
    taken_at = ago(minutes=minutes_old)
    return BaseCopy(
        point=point_id(Asset.DATABASE, taken_at),
        system_identifier=SYSTEM,
        timeline=timeline,
        start_lsn=segment * SIZE + 40,
        stop_lsn=segment * SIZE + 400,
        segment_bytes=SIZE,
        taken_at=taken_at,
    )


def a_continuity(*, gone: tuple[int, ...] = (), **more: object) -> Continuity:
    """Two base copies, at segments 2 and 5; WAL up to 7 and a partial one after it."""
    told = {
        "whole": [Segment(1, n) for n in range(2, 8) if n not in gone],
        "partial": [Segment(1, 8)],
        "histories": {},
        **more,
    }
    return continuity.judge([a_base(65, 5), a_base(1500, 2)], **told)


def a_log(tier: Tier, *, minutes_old: float = 0.5, **more: object) -> Log:
    names = [Segment(1, n).name(SIZE) for n in range(2, 8)] + [
        f"{Segment(1, 8).name(SIZE)}.partial"
    ]
    files = tuple(WalFile(name, SIZE, ago(minutes=minutes_old)) for name in names)
    told = {"continuity": a_continuity(), "files": files, "sealed": tier is Tier.S3, **more}
    return Log(**told)


def a_host(**more: object) -> Host:
    beside = "beside data/postgres"
    told = {
        "hot_copy": HotCopy(name_of(Asset.DATABASE), ago(minutes=65)),
        "receiver": Receiver(streaming=True, synchronous=True, lag_bytes=10, kept_percent=1),
        "listing": Listing(listed=True, same_content=True, seconds=0.1),
        "space": Space(free_bytes=100_000_000_000, reserve_bytes=64 << 20),
        "places": (
            Place("data/postgres", PurePath("/srv/cad/data/postgres"), beside),
            Place("data/files", PurePath("/srv/cad/data/files"), beside),
            Place("data/redis", PurePath("/srv/cad/data/redis"), beside),
        ),
        "interrupted": (),
        **more,
    }
    return Host(**told)


def a_drill(days_old: float, **passed: bool) -> DrillOnRecord:
    outcome = {"database": True, "files": True, "models": True, "server": True, **passed}
    return DrillOnRecord(
        id=f"drill-{days_old:g}",
        drilled="cad-staging",
        stack="process",
        ended_at=ago(days=days_old),
        passed=all(outcome.values()),
        scenarios=tuple(
            ScenarioOnRecord(
                name=name,
                passed=good,
                rto_seconds=10,
                rpo_seconds=0,
                start_seconds=5,
                verify_seconds=6,
            )
            for name, good in outcome.items()
        ),
    )


def good_survey(**more: object) -> Survey:
    """Seen from the host; everything in it is good."""
    told = {
        "platform": "cad",
        "seen_from": "host",
        "stores": tuple(a_store(asset, tier) for asset in Asset for tier in TIERS),
        "logs": {tier: a_log(tier) for tier in TIERS},
        "measured": {
            asset: Verified(
                point=name_of(asset),
                verified_at=ago(hours=20),
                by="test-restore-1",
                restored_bytes=100_000_000,
                restore_seconds=2.0,
                wal_replayed_bytes=SIZE,
                wal_replay_seconds=0.5,
            )
            for asset in Asset
        },
        "tests": {
            asset: TestResult(
                asset=asset,
                point=name_of(asset),
                ended_at=ago(hours=20),
                passed=True,
                by="test-restore-1",
            )
            for asset in Asset
        },
        "sightings": {
            "wal": Sighting(subject="wal", as_of=ago(seconds=20), holds=f"{SYSTEM}/1/0/8000100"),
            "files": Sighting(subject="files", as_of=ago(minutes=20), holds=name_of(Asset.FILES)),
            "models": Sighting(subject="models", as_of=ago(minutes=2), holds=name_of(Asset.MODELS)),
            "config": Sighting(subject="config", as_of=ago(minutes=3), holds=name_of(Asset.CONFIG)),
        },
        "drills": (a_drill(10),),
        "rehearsals": (
            Rehearsal("database", "recover-database-1", ago(days=3), 4.0, 5.0),
            Rehearsal("server", "drill-1", ago(days=10), 20.0, 10.0),
            Rehearsal("files", "drill-1", ago(days=10), 4.0, 5.0),
            Rehearsal("models", "drill-1", ago(days=10), 4.0, 5.0),
        ),
        "certificates": {"config/certs/cad.pem": NOW + timedelta(days=200)},
        "emptied": (),
        "host": a_host(),
        **more,
    }
    return Survey(**told)


def seen_from_s3(survey: Survey | None = None, **more: object) -> Survey:
    """The same vault, by somebody who has nothing but the bucket."""
    survey = survey or good_survey()
    return dataclasses.replace(
        survey,
        seen_from="s3",
        stores=tuple(store for store in survey.stores if store.tier is Tier.S3),
        logs={Tier.S3: survey.logs[Tier.S3]},
        host=None,
        **more,
    )


def with_store(survey: Survey, changed: Store) -> Survey:
    stores = tuple(
        changed if (s.asset, s.tier) == (changed.asset, changed.tier) else s for s in survey.stores
    )
    return dataclasses.replace(survey, stores=stores)


def with_host(survey: Survey, **changed: object) -> Survey:
    return dataclasses.replace(survey, host=a_host(**changed))
